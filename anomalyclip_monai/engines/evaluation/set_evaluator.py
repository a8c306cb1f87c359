"""The engine of an evaluation: one epoch for each network, every sample measured as it passes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from ignite.metrics import Metric
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from torch import nn

from anomalyclip_monai.data.benchmarks import Sample
from anomalyclip_monai.engines.case_evaluator import CaseEvaluator
from anomalyclip_monai.engines.evaluation.evaluation import ROWS_FILE, Evaluation
from anomalyclip_monai.engines.evaluation.measured import SetMetric
from anomalyclip_monai.engines.evaluation.methods import Pass
from anomalyclip_monai.engines.evaluation.report import build_report, case_view, grouped_notes
from anomalyclip_monai.exceptions import AnomalyCLIPError
from anomalyclip_monai.files import whole_file
from anomalyclip_monai.metrics.weighted import Rows
from anomalyclip_monai.outputs.report import CaseView, Report, write_report
from anomalyclip_monai.outputs.report.write import check_report_folder
from anomalyclip_monai.transforms.findings import Findings, Threshold

logger = logging.getLogger(__name__)


class _Metrics:
    """The ignite metrics of the present epoch, which differ from epoch to epoch.

    As the first of all handlers, so that those of a bundle, such as MONAI's loggers, find what was measured.

    Attributes:
        present: name -> metric.
    """

    def __init__(self) -> None:
        self.present: dict[str, Metric] = {}

    def attach(self, engine: Engine) -> None:
        """Run the metrics where ignite would."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._complete)

    def _start(self, engine: Engine) -> None:
        for metric in self.present.values():
            metric.started(engine)

    def _update(self, engine: Engine) -> None:
        for metric in self.present.values():
            metric.iteration_completed(engine)

    def _complete(self, engine: Engine) -> None:
        for name, metric in self.present.items():
            metric.completed(engine, name)


class SetEvaluator(CaseEvaluator):
    """A :class:`CaseEvaluator` whose run measures a data set and writes its report.

    Each network (the bundle's own, one for each prompt file, hand-written sentences) is an epoch, with the measures
    attached as ignite metrics; the trivial baselines are measured in the first. Heatmaps are kept in ``work/`` until
    the report is there, so that a killed run goes on. Of several processes each fills its share of ``work/`` and the
    first then measures everything.

    Takes the arguments of ``SupervisedEvaluator``, and

    Args:
        evaluation: what is evaluated.
        additional_metrics: name -> MONAI's handler of a metric (:mod:`anomalyclip_monai.engines.evaluation.handlers`)
            on the samples of the first network; for ``state.metrics`` and what reads it, not for the report. Left out
            where several processes run, of which the first measures alone while such a metric waits for all.

    Attributes:
        failed: sample -> error, of all epochs.
        without_truth: sample -> error of its mask, of those that count for image scores alone.
    """

    def __init__(
        self, *, evaluation: Evaluation, additional_metrics: Mapping[str, Metric] | None = None, **kwargs: Any
    ) -> None:
        self._metrics = _Metrics()
        super().__init__(**{**kwargs, "val_handlers": [self._metrics, *(kwargs.get("val_handlers") or ())]})
        self.evaluation = evaluation
        self._additional = dict(additional_metrics or {}) if idist.get_world_size() == 1 else {}
        for name, metric in self._additional.items():  # MONAI's are told here where their details go
            metric.attach(self, name)
            metric.detach(self)
        self._report: Report | None = None
        self.failed: dict[str, AnomalyCLIPError] = {}
        self.without_truth: dict[str, AnomalyCLIPError] = {}
        evaluation.options["precision"] = _precision(kwargs["network"])
        self._work = evaluation.work()
        self._shipped: nn.Module = kwargs["network"]
        self._pass = evaluation.passes[0]
        self._share: tuple[int, int] = (0, 1)
        self._seconds: dict[str, float] = {}
        self._axes: dict[str, int] = {}
        self._thresholds: dict[str, Threshold] = {}
        self._notes: dict[str, list[str]] = {}
        self.inferer = self._remembering(kwargs["inferer"])
        # After the handlers of the bundle, which load its own prompts at every start.
        self.add_event_handler(Events.STARTED, self._take_network)

    @property
    def report(self) -> Report:
        """The report of the last run.

        Raises:
            RuntimeError: there was none in this process, which is then not the first of several.
        """
        if self._report is None:
            raise RuntimeError("nothing was measured in this process")
        return self._report

    def run(self, global_epoch: int = 1) -> None:
        """Measure all samples and write the report.

        Raises:
            CaseError: at least one sample failed; the report on the others is written (``E_CASES``).
            WeightsError: a prompt file is missing or of another model.
        """
        started = time.monotonic()
        self.failed.clear()
        self.without_truth.clear()
        if idist.get_rank() == 0:
            check_report_folder(self.evaluation.folder)
            self.evaluation.check_rows()
            self._work.start()
        idist.barrier()
        if idist.get_world_size() > 1:
            self._fill()
        if idist.get_rank() == 0:
            metrics = self._measure()
            self._report, rows = build_report(
                self.evaluation,
                metrics,
                failed=[*self.failed.items(), *self.without_truth.items()],
                notes=grouped_notes(self._notes),
                seconds_of=self._seconds,
                thresholds_of=self._thresholds,
                image_score=str(getattr(getattr(self._shipped, "settings", None), "image_score", "")),
                device=str(self.state.device),
                seconds=time.monotonic() - started,
            )
            self._write(self._report, rows)
            self._work.remove()
        idist.barrier()
        self.failures = [*self.failed.items(), *self.without_truth.items()]
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
                # Of measures that both know by one name, those of the report, which come last, stay in the state.
                self._metrics.present = {**(self._additional if first else {}), **attached}
                self._epoch(run)
                self._metrics.present = {}
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
            found: Findings = record["findings"]
            self._axes[record["case"]] = found.slice_axis
            self._notes[record["case"]] = record["notes"]
            error = record["mask_error"]
            if error is not None and record["case"] not in self.without_truth:
                logger.error("%s: %s", record["case"], error)
                self.without_truth[record["case"]] = error
            if self._pass == self.evaluation.passes[0]:  # a quantile differs from pass to pass
                self._thresholds[record["case"]] = found.threshold
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

    def _write(self, report: Report, rows: dict[str, Rows]) -> None:
        folder = self.evaluation.folder
        with whole_file(folder / ROWS_FILE) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **cast(dict[str, Any], rows))
        write_report(report, folder, self._view)

    def _view(self, name: str) -> CaseView:
        """A sample as the first pass saw it."""
        index = next(index for index, sample in enumerate(self.evaluation.samples) if sample.name == name)
        record = self.data_loader.dataset[index]
        if "error" in record:
            raise record["error"]
        run = self.evaluation.passes[0]
        heatmap = self._work.heatmap(record["sample"], f"{run.method} {run.seed}")
        return case_view(record, heatmap, slice_axis=self._axes[name], threshold=self._thresholds[name])


def _precision(network: nn.Module) -> str:
    """The lowest precision of its weights, such as ``float32``."""
    kinds = (parameter.dtype for parameter in network.parameters())
    return str(min(kinds, key=lambda dtype: dtype.itemsize, default=torch.float32)).removeprefix("torch.")
