"""The engine of an evaluation: one epoch for each network, every sample measured as it passes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from ignite import distributed as idist
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from torch import nn

from anomalyclip_monai.data.benchmarks import Sample
from anomalyclip_monai.engines.evaluation.evaluation import ROWS_FILE, Evaluation
from anomalyclip_monai.engines.evaluation.measured import SetMetric
from anomalyclip_monai.engines.evaluation.methods import Pass
from anomalyclip_monai.engines.evaluation.report import build_report, case_view
from anomalyclip_monai.engines.evaluator import CaseEvaluator
from anomalyclip_monai.exceptions import AnomalyCLIPError
from anomalyclip_monai.files import whole_file
from anomalyclip_monai.metrics.weighted import Rows
from anomalyclip_monai.outputs.report import CaseView, write_report
from anomalyclip_monai.outputs.report.write import check_report_folder
from anomalyclip_monai.transforms.post import Threshold

logger = logging.getLogger(__name__)


class SetEvaluator(CaseEvaluator):
    """A :class:`CaseEvaluator` whose run measures a data set and writes its report.

    Each network (the bundle's own, one for each prompt file, hand-written sentences) is an epoch, with the measures
    attached as ignite metrics; the trivial baselines are measured in the first. Heatmaps are kept in ``work/`` until
    the report is there, so that a killed run goes on. Of several processes each fills its share of ``work/`` and the
    first then measures everything.

    Takes the arguments of ``SupervisedEvaluator``, and

    Args:
        evaluation: what is evaluated.

    Attributes:
        report: content of ``report.json`` after a run.
        failed: sample -> error, of all epochs.
    """

    def __init__(self, *, evaluation: Evaluation, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.evaluation = evaluation
        self.report: dict[str, Any] = {}
        self.failed: dict[str, AnomalyCLIPError] = {}
        evaluation.options["precision"] = _precision(kwargs["network"])
        self._work = evaluation.work()
        self._shipped: nn.Module = kwargs["network"]
        self._pass = evaluation.passes[0]
        self._share: tuple[int, int] = (0, 1)
        self._seconds: dict[str, float] = {}
        self._axes: dict[str, int] = {}
        self._planes: dict[str, int] = {}
        self._thresholds: dict[str, Threshold] = {}
        self._notes: dict[str, list[str]] = {}
        self.inferer = self._remembering(kwargs["inferer"])
        # After the handlers of the bundle, which load its own prompts at every start.
        self.add_event_handler(Events.STARTED, self._take_network)

    def run(self, global_epoch: int = 1) -> None:
        """Measure all samples and write the report.

        Raises:
            CaseError: at least one sample failed; the report on the others is written (``E_CASES``).
            WeightsError: a prompt file is missing or of another model.
        """
        started = time.monotonic()
        self.failed.clear()
        if idist.get_rank() == 0:
            check_report_folder(self.evaluation.folder)
            self._work.start()
        idist.barrier()
        if idist.get_world_size() > 1:
            self._fill()
        if idist.get_rank() == 0:
            metrics = self._measure()
            self.report, rows = build_report(
                self.evaluation,
                metrics,
                failed=list(self.failed.items()),
                seconds_of=self._seconds,
                planes_of=self._planes,
                thresholds_of=self._thresholds,
                image_score=str(getattr(self._shipped, "image_score", "")),
                device=str(self.state.device),
                seconds=time.monotonic() - started,
            )
            self.report["warnings"] += notes_said(self._notes)
            self._write(rows)
            self._work.remove()
        idist.barrier()
        self.failures = list(self.failed.items())
        self.raise_failures(len(self.evaluation.samples))

    def _measure(self) -> dict[Pass | str, SetMetric]:
        """All epochs; again without a sample that failed in a later one only, so that every method has the same."""
        while True:
            before = dict(self.failed)
            metrics: dict[Pass | str, SetMetric] = {}
            for run in self.evaluation.passes:
                first = run == self.evaluation.passes[0]
                names = [run.method, *(self.evaluation.trivial() if first else ())]
                attached = {name: self.evaluation.metric(name) for name in names}
                for name, metric in attached.items():
                    metric.attach(self, name)
                self._epoch(run)
                for metric in attached.values():
                    metric.detach(self)
                metrics |= {run if name == run.method else name: metric for name, metric in attached.items()}
                before = dict(self.failed) if first else before
            if before == self.failed:
                return metrics

    def _fill(self) -> None:
        """Keep the heatmaps of this process's share, without measuring."""
        self._share = idist.get_rank(), idist.get_world_size()
        for run in self.evaluation.passes:
            self._epoch(run)
        self._share = (0, 1)
        self.failed.clear()  # the first process meets them again
        idist.barrier()

    def _epoch(self, run: Pass) -> None:
        self._pass = run
        SupervisedEvaluator.run(self)

    def _take_network(self) -> None:
        self.network = self._pass.network(self._shipped)

    def _iteration(self, engine: SupervisedEvaluator, batchdata: Any) -> Any:
        rank, processes = self._share
        if (self.state.iteration - 1) % processes != rank or batchdata["case"][0] in self.failed:
            return {}
        output = super()._iteration(engine, batchdata)
        if not output:
            return {}
        # MONAI keeps apart what came from the loader and what from the network; a measure needs both.
        records = [{**loaded, **found} for loaded, found in zip(self.state.batch, output, strict=True)]
        for record in records:
            self._axes[record["case"]] = record["slice_axis"]
            self._planes[record["case"]] = len(record["axes"])
            if self._pass == self.evaluation.passes[0]:  # a quantile differs from pass to pass
                self._thresholds[record["case"]] = record["threshold"]
            self._notes[record["case"]] = record.get("notes", [])
        return records

    def _record(self, case: str, error: AnomalyCLIPError) -> None:
        super()._record(case, error)
        self.failed[case] = error

    def _remembering(self, inferer: Callable[..., Any]) -> Callable[..., Any]:
        """The inferer, which takes what ``work/`` has and keeps there what it computes."""

        def infer(inputs: MetaTensor, network: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            sample: Sample = self.state.batch["sample"][0]
            run = f"{self._pass.method} {self._pass.seed}"
            heatmap, seconds = self._work.recall(sample, run, inputs, lambda: inferer(inputs, network, *args, **kwargs))
            self._seconds.setdefault(sample.name, seconds)
            return heatmap

        return infer

    def _write(self, rows: dict[str, Rows]) -> None:
        folder = self.evaluation.folder
        with whole_file(folder / ROWS_FILE) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **cast(dict[str, Any], rows))
        write_report(self.report, folder, self._view)

    def _view(self, name: str) -> CaseView:
        """A sample as the first pass saw it."""
        index = next(index for index, sample in enumerate(self.evaluation.samples) if sample.name == name)
        record = self.data_loader.dataset[index]
        if "error" in record:
            raise record["error"]
        run = self.evaluation.passes[0]
        heatmap = self._work.heatmap(record["sample"], f"{run.method} {run.seed}")
        return case_view(record, heatmap, slice_axis=self._axes[name], threshold=self._thresholds[name].value)


def notes_said(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """What the readers noticed, each once: ``the rotation in the EXIF data was carried out (3 images, such as a)``.

    Args:
        notes: of each sample.
    """
    cases: dict[str, list[str]] = {}
    for case, said in notes.items():
        for note in said:
            cases.setdefault(note.rstrip("."), []).append(case)
    return [
        f"{note} ({len(found)} image{'s' if len(found) > 1 else ''}, such as {found[0]})"
        for note, found in cases.items()
    ]


def _precision(network: nn.Module) -> str:
    """The lowest precision of its weights, such as ``float32``."""
    kinds = (parameter.dtype for parameter in network.parameters())
    return str(min(kinds, key=lambda dtype: dtype.itemsize, default=torch.float32)).removeprefix("torch.")
