"""Learn the prompts of every row, measure each, and compare them with the base."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from anomalyclip_monai.data.benchmarks import LAYOUTS, Sample, find_samples
from anomalyclip_monai.engines.ablation.content import AblationReport, MeasuredRow, NotBuilt, RowReport
from anomalyclip_monai.engines.ablation.remembering import RememberingCLIP
from anomalyclip_monai.engines.ablation.rows import GROUPS, Nouns, Row, base_row, changed_rows
from anomalyclip_monai.engines.ablation.table import check_ablation_folder, write_ablation
from anomalyclip_monai.engines.evaluation import bundle_evaluator
from anomalyclip_monai.engines.evaluation.methods import MODEL
from anomalyclip_monai.engines.evaluation.summary import differences
from anomalyclip_monai.engines.prompts import learn_prompts
from anomalyclip_monai.exceptions import CaseError, UsageError, WeightsError, unwrapped
from anomalyclip_monai.files import given_path
from anomalyclip_monai.folders.work_folder import owned_folder, remove_owned
from anomalyclip_monai.networks import AnomalyCLIP, AnomalyCLIPEnsemble
from anomalyclip_monai.networks.prompts import text_tower
from anomalyclip_monai.networks.sentences import NOUNS
from anomalyclip_monai.networks.towers import vision_tower
from anomalyclip_monai.outputs.report.content import Report
from anomalyclip_monai.types import PathLike
from anomalyclip_monai.weights.choice import INFERENCE, ModelChoice

logger = logging.getLogger(__name__)


class Ablation:
    """The ablation table of one network on one data set.

    Prompts of a row lie in ``output_dir/rows/<row>/prompts`` and serve every data set that is measured; its report in
    ``output_dir/rows/<row>/<dataset>``. What is there already is not done again.

    Args:
        choice: the bundle, or a backbone in its place.
        auxiliary: (name of a data set, its folder), one or more, from which prompts are learned.
        dataset: the set that is measured.
        dataset_dir: its folder.
        output_dir: see above; the table goes to ``output_dir/<dataset>``.
        device: of the network.
        epochs: of learning; None for the bundle's.
        seeds: of prompts and order; measures are means over them.
        nouns: what auxiliary and measured images show; None to take it from the sets.
        groups: keys of :data:`GROUPS`; all by default.
        evaluation: further values for the bundle's ``evaluate.json``, such as ``limit``.

    Raises:
        UsageError: an option is wrong, the bundle's network is no AnomalyCLIP, or auxiliary images would be measured.
        NoInputError: a data set is not there.
        WeightsError: weights are missing or damaged.
    """

    def __init__(
        self,
        choice: ModelChoice,
        auxiliary: Sequence[tuple[str, PathLike]],
        dataset: str,
        dataset_dir: PathLike,
        output_dir: PathLike,
        *,
        device: torch.device | str = "cpu",
        epochs: int | None = None,
        seeds: Sequence[int] = (111,),
        nouns: tuple[str, str] | None = None,
        groups: Sequence[str] | None = None,
        evaluation: Mapping[str, Any] | None = None,
    ) -> None:
        if unknown := [group for group in groups or () if group not in GROUPS]:
            raise UsageError("E_OPTION", f"no rows {', '.join(unknown)}", None, f"choose from: {', '.join(GROUPS)}")
        self.choice = choice = choice.for_learning()
        self.auxiliary = list(auxiliary)
        self.dataset, self.dataset_dir = dataset, dataset_dir
        self.output_dir = given_path(output_dir)
        self.device = device
        self.epochs = epochs
        self.seeds = list(seeds)
        self.evaluation = dict(evaluation or {})
        learned = {name: find_samples(name, root) for name, root in self.auxiliary}
        measured = {dataset: find_samples(dataset, dataset_dir)}
        if shared := _images(learned) & _images(measured):
            what = f"{len(shared)} of the images to be measured are auxiliary ones"
            raise UsageError("E_AUXILIARY", what, dataset_dir, "learn from another data set")
        self.network = _base_network(choice)
        rows = _rows(self.network, Nouns(*(nouns or (noun_of(learned), noun_of(measured)))))
        self.rows = [row for row in rows if not row.group or not groups or row.group in groups]

    @property
    def folder(self) -> Path:
        """Of the table."""
        return self.output_dir / self.dataset

    def run(self, done: Callable[[RowReport], None] | None = None) -> AblationReport:
        """Do what is not done yet and write the table.

        A row that cannot be built is in the table with the reason; what is wrong with the base ends the run.

        Args:
            done: called with what is known of each row.

        Raises:
            AnomalyCLIPError: the base cannot be learned or measured, or nothing can be written.
        """
        check_ablation_folder(self.folder)
        found: dict[str, RowReport] = {}

        def keep(entry: RowReport) -> None:
            found[entry.row.key] = entry
            if done is not None:
                done(entry)

        base, *others = self._in_order()
        if base.problem:
            raise UsageError("E_ROW", base.problem)
        measured, base_entry = self._row(base)
        keep(base_entry)
        side = _image_side(base)
        for row in others:
            if _image_side(row) != side:  # no other row needs those features
                side = _image_side(row)
                remove_owned(self._measured)
            try:
                if row.problem:
                    raise UsageError("E_ROW", row.problem)
                entry: RowReport = self._row(row, measured)[1]
            except (UsageError, WeightsError) as error:
                entry = NotBuilt(row, str(error))
            keep(entry)
        changed = tuple(found[row.key] for row in self.rows if row.group)
        content = self._content(measured, base_entry, changed)
        write_ablation(content, self.folder)
        remove_owned(self._work)
        return content

    def _in_order(self) -> Iterator[Row]:
        """The base, and with it all that share its image features; then those of one image side after the other."""
        yield from sorted(self.rows, key=lambda row: bool(_image_side(row)))

    def _row(self, row: Row, base: Report | None = None) -> tuple[Report, MeasuredRow]:
        """Learn and measure one row -> its report, and its entry in the table.

        Args:
            row: which one.
            base: report of the base; None for the base itself.
        """
        trainings = self._learn(row) if row.prompts == "learned" else []
        report = self._measure(row)
        measures = report.methods[row.method].measures
        found = {} if base is None else differences(measures, base.methods[MODEL].measures)
        tests = {} if report.comparison is None else report.comparison.measures
        entry = MeasuredRow(
            row,
            epochs=len(trainings[0]["curve"]) if trainings else None,
            final_losses=tuple(training["curve"][-1]["loss"] for training in trainings),
            measures=measures,
            differences={name: tests.get(name, difference) for name, difference in found.items()},
            failed=report.failed,
            learning=round(sum(training["seconds"] for training in trainings), 1),
            measuring=report.seconds,
            report=f"../rows/{row.key}/{self.dataset}/report.html",
        )
        return report, entry

    def _learn(self, row: Row) -> list[dict[str, Any]]:
        changes = row.network if row.taught is None else row.taught
        return learn_prompts(
            self._with(AnomalyCLIP(self.network.clip, self.network.settings, **changes)),
            self.auxiliary,
            self._place(row) / "prompts",
            seeds=self.seeds,
            device=self.device,
            options={
                "terms": row.terms,
                "epochs": self.epochs,
                "log": False,
                # of one image side at a time, for all rows that share it
                "train#data#folder": str(self._work / "slices"),
                "train#dataset#folder": str(self._work / "features"),
            },
        )

    def _measure(self, row: Row) -> Report:
        """The report of a row, as an earlier run left it if nothing has changed."""
        prompts = [self.choice.prompts_file()] if row.prompts == "shipped" else self._prompts(row)
        settings = self.network.settings.changed(**row.network)
        network = RememberingCLIP(self.network.clip, settings, folder=self._measured)
        chosen = replace(self._with(network), prompts=prompts[0])
        methods = [row.method] if row.group else None  # the base: with all trivial baselines of this kind of image
        compared = row.group and self.evaluation.get("bootstrap") != 0
        evaluator = bundle_evaluator(
            chosen,
            {
                **self.evaluation,
                "device": self.device,
                "dataset_name": self.dataset,
                "dataset_dir": str(self.dataset_dir),
                "output_dir": str(self._place(row)),
                "methods": methods,
                "seeds": [str(path) for path in prompts] if row.method == MODEL else [],
                "against": str(self._report_file(self.rows[0])) if compared else None,
            },
        )
        if (finished := evaluator.evaluation.finished()) is not None:
            return finished
        try:
            evaluator.run()
        except CaseError as error:
            if error.code != "E_CASES":
                raise
            logger.warning("%s: %s", row.title, error)
        return evaluator.report

    def _with(self, network: AnomalyCLIP) -> ModelChoice:
        """What was chosen, with a network in the place of its own; all of them share one backbone."""
        return replace(self.choice, values={**self.choice.values, "network_def": network})

    def _prompts(self, row: Row) -> list[Path]:
        """Files of a row's prompts; sentences need none, and name those of the network that they stand beside."""
        place = self._place(row if row.prompts == "learned" else self.rows[0]) / "prompts"
        folders = [place] if len(self.seeds) == 1 else [place / f"seed_{seed}" for seed in self.seeds]
        return [folder / "model.pt" for folder in folders]

    def _place(self, row: Row) -> Path:
        return self.output_dir / "rows" / row.key

    @functools.cached_property
    def _work(self) -> Path:
        return owned_folder(self.output_dir / "work")

    @property
    def _measured(self) -> Path:
        return owned_folder(self._work / "measured")

    def _report_file(self, row: Row) -> Path:
        return self._place(row) / self.dataset / "report.json"

    def _content(self, measured: Report, base: MeasuredRow, changed: tuple[RowReport, ...]) -> AblationReport:
        training = json.loads((self._prompts(self.rows[0])[0].parent / "training.json").read_text(encoding="utf-8"))
        return AblationReport(
            measured=measured,
            base=base,
            changed=changed,
            auxiliary=training["data"],
            training=training["options"],
            epochs=len(training["curve"]),
            seeds=tuple(self.seeds),
            image_score=self.network.settings.image_score,
        )


def _image_side(row: Row) -> dict[str, Any]:
    """What a row changes of the image side; nothing for rows that share the base's features."""
    return {name: row.network[name] for name in ("local_attention", "feature_layers") if name in row.network}


def noun_of(sets: Mapping[str, Sequence[Sample]]) -> str | None:
    """What the images of data sets show: the noun of their preset, else their only class; None if that is not one."""
    nouns = set()
    for dataset, samples in sets.items():
        named = NOUNS.get(LAYOUTS[dataset].preset, "object")
        nouns |= {named} if named != "object" else {sample.category.replace("_", " ") for sample in samples}
    noun = nouns.pop() if len(nouns) == 1 else None
    return None if noun in LAYOUTS else noun


def _images(sets: Mapping[str, Sequence[Sample]]) -> set[Path]:
    return {sample.image.resolve() for samples in sets.values() for sample in samples}


def _base_network(choice: ModelChoice) -> AnomalyCLIP:
    """The network whose settings the rows change; its prompts are of no interest.

    Raises:
        UsageError: it is another kind of network (``E_MODEL``).
        WeightsError: its weights are missing or damaged.
    """
    with unwrapped():
        network: Any = choice.configured(INFERENCE, values={}).get_parsed_content("network_def")
    if isinstance(network, AnomalyCLIPEnsemble):
        return network.first
    if not isinstance(network, AnomalyCLIP):
        what = f"the network is a {type(network).__name__}, the rows are changes of an AnomalyCLIP"
        raise UsageError("E_MODEL", what, choice.root, "choose another model")
    return network


def _rows(network: AnomalyCLIP, nouns: Nouns) -> list[Row]:
    """Rows of a network, those that cannot be built with the reason."""
    settings = asdict(network.settings)
    blocks = len(vision_tower(network.clip.visual).blocks), len(text_tower(network.clip).blocks)
    rows = [base_row(settings), *changed_rows(settings, *blocks, nouns)]
    return [replace(row, problem=row.problem or _problem(network, row)) for row in rows]


def _problem(network: AnomalyCLIP, row: Row) -> str | None:
    """Why the network of a row cannot be built on this backbone."""
    try:
        for changes in (row.network, row.taught or {}):
            AnomalyCLIP(network.clip, network.settings, **changes)
    except (ValueError, WeightsError) as error:
        return str(error)
    return None
