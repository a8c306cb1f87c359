"""What is evaluated: the samples, the protocol, the methods, and where the results go."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from anomalyclip_monai import resources
from anomalyclip_monai.data.benchmarks import LAYOUTS, Sample, find_samples
from anomalyclip_monai.engines.evaluation.measured import SetMetric
from anomalyclip_monai.engines.evaluation.methods import MODEL, TRIVIAL, choose_methods, passes_of
from anomalyclip_monai.engines.evaluation.organs import TrainedOrgans
from anomalyclip_monai.engines.evaluation.photos import PhotoMetric
from anomalyclip_monai.engines.evaluation.protocols import choose_protocol
from anomalyclip_monai.engines.evaluation.samples import records_of
from anomalyclip_monai.engines.evaluation.volumes import VolumeMetric
from anomalyclip_monai.engines.evaluation.work import WorkFolder, stamp_of
from anomalyclip_monai.exceptions import UsageError, WeightsError
from anomalyclip_monai.files import given_path
from anomalyclip_monai.folders.marker import has_schema, keep_others
from anomalyclip_monai.folders.work_folder import is_owned
from anomalyclip_monai.networks.hand_written import BASELINES
from anomalyclip_monai.outputs.report.content import Report, Subset, read_report
from anomalyclip_monai.text import name_bytes
from anomalyclip_monai.types import PathLike, Record
from anomalyclip_monai.weights.bundle import prompts_fingerprint

logger = logging.getLogger(__name__)

ROWS_FILE = "bootstrap.npz"
"""Resampled values of every measure, beside ``report.json``, for a paired test later on."""


def preset_of(dataset: str) -> str:
    """The intensity preset of a data set, ``auto`` for an unknown one."""
    return LAYOUTS[dataset].preset if dataset in LAYOUTS else "auto"


class Evaluation:
    """One data set, and everything that is asked of it.

    Args:
        dataset: a key of :data:`LAYOUTS`.
        dataset_dir: its folder, or a CSV file.
        output_dir: results go to ``output_dir/dataset/``.
        fingerprint: names and hashes of what runs, see :func:`~anomalyclip_monai.weights.bundle.fingerprint`.
        options: settings of the bundle that change its heatmaps.
        threshold: settings of the bundle that change its masks only.
        protocol: ``paper``, ``native`` or ``organs``; None for the default of the set.
        methods: see :data:`~anomalyclip_monai.engines.evaluation.methods.METHODS`; None for the default ones.
        seeds: prompt files in the place of the bundle's own; measures are then means over them.
        limit: evaluate so many samples only, spread evenly over the set.
        bootstrap: number of resampled sets; 0 for no intervals.
        against: ``report.json`` of another model on the same samples, for a paired test.
        trained_on: preset -> what of this kind the model was trained on; such sets are no zero-shot test of it.
        trained_organs: organs whose lesions the model was trained on, for a mean over the others; None: not known.

    Raises:
        UsageError: an option is wrong, or the other report does not compare.
        NoInputError: the set is not there, see :func:`find_samples`.
    """

    SEED = 0
    """Of the bootstrap."""

    def __init__(
        self,
        dataset: str,
        dataset_dir: PathLike,
        output_dir: PathLike,
        *,
        fingerprint: Mapping[str, str],
        options: Mapping[str, Any] | None = None,
        threshold: Sequence[Any] = (),
        protocol: str | None = None,
        methods: Sequence[str] | str | None = None,
        seeds: Sequence[str] | str = (),
        limit: int | None = None,
        bootstrap: int = 1000,
        against: PathLike | None = None,
        trained_on: Mapping[str, str] | None = None,
        trained_organs: TrainedOrgans | None = None,
    ) -> None:
        self.dataset = dataset
        self._fingerprint = dict(fingerprint)
        self.options = dict(options or {})
        self._trained_on = dict(trained_on or {})
        self._threshold = list(threshold)
        self._trained_organs = trained_organs
        self.bootstrap = _count("bootstrap", bootstrap, 0)
        found = find_samples(dataset, dataset_dir)
        self.found = len(found)
        self.samples = _spread(sorted(found, key=lambda sample: sample.category), limit)
        self.protocol = choose_protocol(dataset, self.samples, protocol)
        self.methods = choose_methods([methods] if isinstance(methods, str) else methods, volumes=self.protocol.volumes)
        self.passes = passes_of(self.methods, [seeds] if isinstance(seeds, str) else seeds)
        self.folder = given_path(output_dir) / dataset
        self.sha256 = samples_sha256(self.samples)
        self.against = None if against is None else Against(given_path(against), self.sha256, self.bootstrap)

    @property
    def trained_on(self) -> str:
        """What of this kind of images the model was trained on, empty if nothing."""
        return self._trained_on.get(str(self.options.get("preset")), "")

    @property
    def many_sets(self) -> bool:
        """Whether the classes are sets of their own."""
        return LAYOUTS[self.dataset].many_sets

    def subsets(self, categories: Sequence[str]) -> tuple[list[Subset], list[str]]:
        """Parts of the classes that get means of their own, and what a reader must know of them.

        Args:
            categories: those that were measured.
        """
        if not self.many_sets:
            return [], []
        if self._trained_organs is None:
            return [], ["the model's metadata does not say which organs it was trained on: no mean over the others"]
        subset = self._trained_organs.subset(categories)
        return [subset] if subset else [], self._trained_organs.notes(categories)

    @property
    def title(self) -> str:
        """The set's name in tables."""
        return LAYOUTS[self.dataset].title

    def records(self) -> list[Record]:
        """One for each sample."""
        return records_of(self.samples)

    def metric(self, method: str) -> SetMetric:
        """The ignite metric of a method; the names of all but the first method's results begin with the method's."""
        prefix = "" if method == self.methods[0] else f"{method}_"
        if self.protocol.volumes:
            return VolumeMetric(method, prefix)
        return PhotoMetric(method, self.protocol, has_masks=any(sample.masks for sample in self.samples), prefix=prefix)

    def trivial(self) -> list[str]:
        """The methods without a network."""
        return [method for method in self.methods if method in TRIVIAL]

    def fingerprint(self, prompts: Path | None = None) -> dict[str, str]:
        """Names and hashes of what runs, with other prompts where they are given.

        Raises:
            WeightsError: the prompts are not there.
        """
        if prompts is None:
            return dict(self._fingerprint)
        if not prompts.is_file():
            raise WeightsError("E_WEIGHTS", "there are no such prompts", prompts, "check the path")
        model = {key: value for key, value in self._fingerprint.items() if not key.startswith("prompts_")}
        return {**model, **prompts_fingerprint(prompts)}

    def work(self) -> WorkFolder:
        """Where heatmaps are kept while the run goes on."""
        return WorkFolder(self.folder / "work", self._key())

    def check_rows(self) -> None:
        """Refuse a folder in which a file of others has the name of the resampled values.

        Raises:
            OutputError: it is there, with neither a report nor the work of a run that was stopped (``E_WRITE``).
        """
        ours = has_schema(self.folder / "report.json", "anomalyclip-report") or is_owned(self.work().folder)
        keep_others(self.folder, [ROWS_FILE], ours=ours)

    def asked(self) -> str:
        """Hash of what the report depends on: what is asked, of which model, and the files as they are now."""
        files = [[stamp_of(path) for path in (sample.image, *sample.masks)] for sample in self.samples]
        against = self.against and self.against.report.to_json()
        subsets = self.subsets([sample.category for sample in self.samples])
        everything = [self._key(), self._threshold, self.methods, self.bootstrap, against, self.sha256, files, subsets]
        return hashlib.sha256(json.dumps(everything, sort_keys=True, default=str).encode()).hexdigest()

    def finished(self) -> Report | None:
        """The report of an earlier run that was asked the same and in which nothing failed, None if there is none."""
        try:
            report = read_report(self.folder / "report.json")
        except UsageError:
            return None
        return report if report.asked == self.asked() and not report.failed else None

    def _key(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "protocol": self.protocol.id,
            "models": {f"{run.method} {run.seed}": self.fingerprint(run.prompts) for run in self.passes},
            "options": self.options,
            "versions": {name: resources.installed_version(name) for name in ("anomalyclip-monai", "torch")},
        }

    def completeness(self) -> tuple[bool, str]:
        """Whether the whole published set was measured, and a note where it was not or cannot be told."""
        sizes, patients = LAYOUTS[self.dataset].sizes, LAYOUTS[self.dataset].patients
        what = "volumes" if self.protocol.volumes else "images"
        count = len(self.samples)
        if sizes is not None and count != sum(sizes):
            if count < sum(sizes):
                return False, f"{count} of the {sum(sizes)} {what} of the published set"
            return False, f"{count} {what}, more than the {sum(sizes)} of the published set"
        groups = len({sample.group for sample in self.samples})
        if patients is not None and groups < patients:
            return False, f"{groups} of the {patients} patients of the published set"
        if count < self.found:
            return False, f"{count} of the {self.found} {what} that are there"
        return True, ""

    def model_title(self, method: str) -> str:
        """``AnomalyCLIP tiny``."""
        if method in TRIVIAL:
            return TRIVIAL[method][0]
        name = self._fingerprint.get("backbone") or self._fingerprint["bundle"].removeprefix(resources.BUNDLE_PREFIX)
        return f"{'AnomalyCLIP' if method == MODEL else BASELINES[method].title} {name}"  # type: ignore[index]


class Against:
    """Another report on the same samples.

    Args:
        path: its ``report.json``.
        sha256: of this run's samples.
        repeats: resampled sets of this run.

    Raises:
        UsageError: it is no report (``E_REPORT``), its resampled values are not there, or it is of other samples or
            draws (``E_AGAINST``).
    """

    def __init__(self, path: Path, sha256: str, repeats: int) -> None:
        self.report = read_report(path)
        resampled = self.report.bootstrap
        try:
            if not path.with_name(ROWS_FILE).is_file():  # to open a pipe is to wait for its writer
                raise FileNotFoundError
            with np.load(path.with_name(ROWS_FILE)) as kept:
                self._rows = {name: kept[name] for name in kept.files}
            shape = (resampled.repeats,)
            if wrong := [name for name, rows in self._rows.items() if rows.shape != shape or rows.dtype.kind != "f"]:
                raise ValueError(f"{wrong[0]} is not one number for each draw")
        except (OSError, ValueError, TypeError, EOFError, BadZipFile) as error:
            what = f"no readable {ROWS_FILE} lies beside the report ({type(error).__name__})"
            raise UsageError("E_AGAINST", what, path, "keep the files of an evaluation together") from error
        if self.report.samples.sha256 != sha256:
            what = "the report is of other samples: the hashes of the lists differ"
            raise UsageError("E_AGAINST", what, path, "evaluate both models on the same set")
        if (resampled.repeats, resampled.seed) != (repeats, Evaluation.SEED) or not repeats:
            what = f"the report has {resampled.repeats} resampled sets, this run {repeats}"
            raise UsageError("E_AGAINST", what, path, "use the same --bootstrap for both, above 0")

    def rows(self) -> dict[str, NDArray[np.float64]]:
        """Measure -> (R,) resampled values of its first method."""
        prefix = f"{next(iter(self.report.methods))}/"
        return {name.removeprefix(prefix): rows for name, rows in self._rows.items() if name.startswith(prefix)}


def samples_sha256(samples: Sequence[Sample]) -> str:
    """Hash of the list: name, label, class and group of every sample, a line each."""
    lines = (f"{sample.name}\t{sample.label}\t{sample.category}\t{sample.group}\n" for sample in samples)
    return hashlib.sha256(name_bytes("".join(lines))).hexdigest()


def _spread(samples: list[Sample], limit: int | None) -> list[Sample]:
    if limit is None or _count("limit", limit, 1) >= len(samples):
        return samples
    return [samples[index] for index in np.linspace(0, len(samples) - 1, limit).round().astype(int)]


def _count(name: str, value: int, lowest: int) -> int:
    if not isinstance(value, int) or value < lowest:
        raise UsageError("E_OPTION", f"{name} {value!r}", None, f"give a whole number from {lowest} on")
    return value
