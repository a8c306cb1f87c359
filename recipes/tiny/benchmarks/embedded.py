"""The table by which the embedded model is judged: every set below a folder, measured by ``anomalyclip evaluate``.

    python -m recipes.tiny.benchmarks.embedded DEV -o OUT [--dicom FOLDER]
    python -m recipes.tiny.benchmarks.embedded DEV -o OUT --model SEED0_RUN SEED1_RUN --beside OTHER0_RUN OTHER1_RUN
    python -m recipes.tiny.benchmarks.embedded DEV -o OUT --left-out brain_mr=RUN colonoscopy=RUN

DEV holds the sets under their names (docs/datasets.md); one that is not there leaves its rows out. A RUN is a folder of
``python -m recipes.tiny train``. The number of a seed is the mean over its last checkpoints, measured one by one. The
interval belongs to what is shipped: ``backbone.safetensors`` of the first run, without ``--model`` the bundle's own.
Of an ensemble ``--beside`` names the trainings of the second network, one for each seed, whose checkpoints run beside
those of the first; without it the bundle's own does, and with ``--fast`` none. Where an organ was left out the first
network runs alone. OUT gets ``table.md``, ``table.json`` with every single value, and the reports. What has a report of
the same weights, settings and files there is not measured again. ``--evidence FILE`` puts the numbers of the shipped
weights, with ``--fast`` those of the first network, into a bundle's ``docs/evidence.json``, from which
``python tools/generate.py`` makes the texts that show them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias

import nibabel as nib
import numpy as np
from skimage.draw import polygon2mask

from anomalyclip_monai import resources
from anomalyclip_monai.api import resolve_device
from anomalyclip_monai.data.benchmarks import LAYOUTS, find_all, find_samples
from anomalyclip_monai.data.cases import the_case
from anomalyclip_monai.engines.evaluation import bundle_evaluator
from anomalyclip_monai.engines.evaluation.methods import MODEL, TRIVIAL
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, NoInputError, UsageError
from anomalyclip_monai.outputs.report.content import Measure
from anomalyclip_monai.outputs.report.content import Report as TypedReport
from anomalyclip_monai.weights.bundle import BACKBONES, backbone_file, other_encoders
from anomalyclip_monai.weights.choice import ModelChoice, choose_model
from benchmarks.rtstruct_overlap import contours_by_slice
from recipes.evidence import MeasuredOn, Measurement, update
from recipes.evidence import Part as EvidencePart
from recipes.evidence import parts as evidence_parts
from recipes.evidence.parts import Provenance, head_of

Report: TypeAlias = Mapping[str, Any]
"""Content of a ``report.json``."""

Reports: TypeAlias = Mapping[str, Report]
"""Set -> its report."""

MEASURES: Mapping[str, tuple[str, ...]] = {
    "lgg": ("slice_pointing", "peak_in_lesion", "voxel_auroc_inside", "dice"),
    "brainmri": ("image_auroc",),
    "headct": ("image_auroc",),
    "colondb": ("pixel_auroc", "pointing", "dice"),
    "clinicdb": ("pixel_auroc", "pointing", "dice"),
    "open_ms": ("dice", "voxel_auroc_inside"),
    "sarcoma_ct": ("dice", "slice_pointing"),
    "sarcoma_mr": ("dice", "slice_pointing"),
    "busi": ("pointing", "image_auroc"),
    "normal_volumes": ("normal_false_ml",),
    "isic": ("pixel_auroc", "pointing"),
}
"""Set -> what is in the table of it, in the table's order; names as in ``report.json``."""

SARCOMA = {"sarcoma_ct": ("CT", "Sarcoma, CT"), "sarcoma_mr": ("MR_T1", "Sarcoma, T1 MR")}
"""Set -> folder below that of ``--dicom``, and title."""

MEASURED_BY: Mapping[str, tuple[str, ...]] = {
    "colonoscopy": ("colondb", "clinicdb"),
    "brain_mr": ("lgg", "brainmri", "open_ms"),
    "head_ct": ("headct",),
    "ultrasound": ("busi",),
}
"""Organ that a training can leave out -> the sets that show it."""

IN_ML = "normal_false_ml"
"""The one measure that is no share."""


@dataclass(frozen=True)
class Part:
    """A set to be measured.

    Attributes:
        name: a key of :data:`MEASURES`.
        title: in the table.
        dataset: the layout it is read by.
        path: its folder or list.
    """

    name: str
    title: str
    dataset: str
    path: Path


@dataclass(frozen=True)
class Run:
    """A folder of ``python -m recipes.tiny train`` and its last checkpoints."""

    name: str
    folder: Path
    checkpoints: tuple[Path, ...]

    @property
    def final(self) -> Path:
        """The mean of the checkpoints, which is what is shipped."""
        return self.folder / "backbone.safetensors"

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return (self.folder / "report.json").is_file()


@dataclass(frozen=True)
class Weights:
    """What is measured in a bundle's place: weights of its first network, and of the second if it has one.

    Attributes:
        name: in the log and as the key of a checkpoint.
        first: file of a whole CLIP.
        second: file with the image side of the second network; None where the first runs alone.
    """

    name: str
    first: Path
    second: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """One or both."""
        return (self.first,) if self.second is None else (self.first, self.second)

    @property
    def digest(self) -> str:
        """Hash of the content of all files; of a single one its own."""
        hashes = [resources.sha256(file) for file in self.files]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


@dataclass(frozen=True)
class Seed:
    """What one seed means: a training of the first network, and beside it one of the second or what stands for it.

    Attributes:
        name: of the trainings.
        final: the means of the checkpoints.
        checkpoints: the last ones, those of two trainings in step.
        runs: one or both trainings.
    """

    name: str
    final: Weights
    checkpoints: tuple[Weights, ...]
    runs: tuple[Run, ...]


@dataclass
class Measured:
    """All reports that the table is made of.

    Attributes:
        whole: the weights that intervals belong to, and others that are shown with theirs -> reports.
        seeds: run -> checkpoint -> reports.
        left_out: organ -> checkpoint -> reports.
    """

    whole: dict[str, Reports] = field(default_factory=dict)
    seeds: dict[str, dict[str, Reports]] = field(default_factory=dict)
    left_out: dict[str, dict[str, Reports]] = field(default_factory=dict)


# What is there


def find_run(folder: Path, count: int, organ: str | None = None) -> Run:
    """A training and its last ``count`` checkpoints; ``organ``: what it must have been left without."""
    found = sorted(folder.glob("checkpoint_*.safetensors"), key=lambda path: int(path.stem.rpartition("_")[2]))
    if not found:
        raise NoInputError("E_RUN", "no checkpoint_<step>.safetensors", folder, "give a folder of recipes.tiny train")
    report = folder / "report.json"
    without = json.loads(report.read_text(encoding="utf-8"))["plan"]["leave_out"] if report.is_file() else organ
    if without != organ:
        what = f"it was trained without {without or 'nothing'}, not without {organ or 'nothing'}"
        raise NoInputError("E_RUN", what, report, "give the other run")
    return Run(folder.resolve().name, folder, tuple(found[-count:]))


def find_runs(folders: Sequence[Path], count: int) -> list[Run]:
    """The same for several, under different names."""
    runs = [find_run(folder, count) for folder in folders]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        return [Run(f"{index}: {run.name}", run.folder, run.checkpoints) for index, run in enumerate(runs)]
    return runs


def seed_of(run: Run, beside: Run | Path | None = None) -> Seed:
    """A training; ``beside``: of the second network, or its file; None runs the first alone."""
    name: str
    runs: tuple[Run, ...]
    final: Path | None
    seconds: tuple[Path | None, ...]
    if isinstance(beside, Run):
        name, runs, final, seconds = f"{run.name} + {beside.name}", (run, beside), beside.final, beside.checkpoints
        if len(seconds) != len(run.checkpoints):
            what = f"{len(seconds)} checkpoints stand beside {len(run.checkpoints)}"
            raise NoInputError("E_RUN", what, beside.folder, "give runs with as many, or fewer --checkpoints")
    else:
        name, runs, final, seconds = run.name, (run,), beside, (beside,) * len(run.checkpoints)
    pairs = zip(run.checkpoints, seconds, strict=True)
    checkpoints = tuple(Weights(first.stem, first, second) for first, second in pairs)
    return Seed(name, Weights(f"{name}, weights averaged", run.final, final), checkpoints, runs)


def find_parts(data: Path, dicom: Path | None, out: Path) -> list[Part]:
    """The sets of the table that are there, in its order."""
    parts = {name: Part(name, LAYOUTS[name].title, name, path) for name, path in find_all(data).items()}
    if healthy := parts.get("normal_volumes"):
        parts["normal_volumes"] = one_class_each(healthy, out / "lists")
    for name, (folder, title) in SARCOMA.items():
        if dicom is not None:
            parts[name] = tumour(name, title, dicom / folder, out / "lists")
    return [parts[name] for name in MEASURES if name in parts]


def one_class_each(part: Part, out: Path) -> Part:
    """Healthy volumes as a list in which each is a class of its own, because a report has measures of every class."""
    samples = find_samples(part.dataset, part.path)
    rows = [{"image": sample.image.resolve(), "label": "normal", "category": sample.name} for sample in samples]
    return Part(part.name, "Healthy heads", "csv", write_list(out / f"{part.name}.csv", rows))


def tumour(name: str, title: str, folder: Path, out: Path) -> Part:
    """A DICOM series in ``image/`` with a tumour in ``mask/RS.dcm``, drawn on its grid."""
    mask = out / f"{name}_mask.nii"
    write_if_new(mask, drawn_mask(folder / "image", folder / "mask" / "RS.dcm").to_bytes())
    rows = [{"image": (folder / "image").resolve(), "mask": mask.resolve()}]
    return Part(name, title, "csv", write_list(out / f"{name}.csv", rows))


def drawn_mask(series: Path, structure: Path) -> nib.Nifti1Image:
    """All regions of an RTSTRUCT on the grid of its axial series."""
    volume = the_case(series).read()
    truth = np.zeros(volume.data.shape[1:], dtype=bool)
    for index, polygons in contours_by_slice(structure, volume.affine).items():
        for points in polygons:
            truth[:, :, index] ^= polygon2mask(truth.shape[:2], points)
    return nib.Nifti1Image(truth.astype(np.uint8), volume.affine)


def write_list(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A list for ``anomalyclip evaluate csv``."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_if_new(path, text.getvalue().encode())
    return path


def write_if_new(path: Path, content: bytes) -> None:
    """Leave a file alone that has this content: a report is good as long as its files do not change."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file() or path.read_bytes() != content:
        path.write_bytes(content)


# Measuring


@contextmanager
def bundle_with(weights: Weights, bundle: Path) -> Iterator[ModelChoice]:
    """A copy of a bundle whose first two networks have other weights; the first runs alone without a second."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / bundle.name
        shutil.copytree(bundle, root, ignore=shutil.ignore_patterns(*BACKBONES))
        shutil.copyfile(weights.first, root / "models" / BACKBONES[0])
        if weights.second:
            shutil.copyfile(weights.second, root / other_encoders(bundle)[0].relative_to(bundle))
        choice = choose_model(str(root))
        yield choice if weights.second else choice.first_network()


class Judge:
    """Measures weights on all sets, and each weights and set once.

    Args:
        parts: the sets.
        bundle: whose definition runs.
        out: reports go below it, in a folder for each hash of weights.
        options: ``limit`` and ``device``, as for ``anomalyclip evaluate``.
    """

    def __init__(self, parts: Sequence[Part], bundle: Path, out: Path, options: Mapping[str, Any]) -> None:
        self.parts = parts
        self.bundle = bundle
        self.out = out
        self.options = options
        self.seconds = 0.0
        self._done: dict[tuple[str, str], Report] = {}

    def whole(self, weights: Weights, bootstrap: int) -> Reports:
        """With baselines and intervals."""
        return self._measure(weights, self.parts, {"bootstrap": bootstrap})

    def values(self, weights: Weights, names: Sequence[str] = tuple(MEASURES)) -> Reports:
        """The model's values alone, on the sets with these names."""
        parts = [part for part in self.parts if part.name in names]
        return self._measure(weights, parts, {"bootstrap": 0, "methods": [MODEL]})

    def _measure(self, weights: Weights, parts: Sequence[Part], options: Mapping[str, Any]) -> dict[str, Report]:
        digest = weights.digest
        with bundle_with(weights, self.bundle) as choice:
            for part in parts:
                if (digest, part.name) not in self._done:
                    folder = self.out / "reports" / digest[:16] / part.name
                    report, seconds = evaluate(part, choice, folder, {**self.options, **options})
                    self.seconds += seconds
                    self._done[digest, part.name] = report
                    took = f"{seconds:.1f} s" if seconds else "there already"
                    print(
                        f"{weights.first.parent.name}/{weights.name}, {part.title}: {took}", file=sys.stderr, flush=True
                    )
        return {part.name: self._done[digest, part.name] for part in parts}


def evaluate(part: Part, choice: ModelChoice, out: Path, options: Mapping[str, Any]) -> tuple[Report, float]:
    """What ``anomalyclip evaluate`` says of a set, and the seconds that took; 0 if it was there."""
    started = time.monotonic()
    given = {"dataset_name": part.dataset, "dataset_dir": str(part.path), "output_dir": str(out), **options}
    evaluator = bundle_evaluator(choice, given)
    if (finished := evaluator.evaluation.finished()) is not None:
        return finished.to_json(), 0.0
    try:
        evaluator.run()
    except CaseError as error:
        if error.code != "E_CASES":  # the others are measured, and the table says what failed
            raise
    return evaluator.report.to_json(), time.monotonic() - started


def measure_all(
    judge: Judge,
    first: Weights,
    shipped: Weights | None,
    seeds: Sequence[Seed],
    left_out: Mapping[str, Seed],
    bootstrap: int,
) -> Measured:
    """Everything that the table needs; weights with intervals come first, so that none are measured twice."""
    found = Measured()
    found.whole["final"] = judge.whole(first, bootstrap)
    if shipped is not None:
        found.whole["shipped"] = judge.whole(shipped, bootstrap)
    for seed in seeds:
        found.seeds[seed.name] = {weights.name: judge.values(weights) for weights in seed.checkpoints}
    for organ, seed in left_out.items():
        names = MEASURED_BY[organ]
        found.left_out[organ] = {weights.name: judge.values(weights, names) for weights in seed.checkpoints}
    return found


# The table


def entry_of(report: Report, measure: str, case: str = "", method: str = MODEL) -> Mapping[str, Any]:
    """A measure of a report, or of one class of it."""
    found = report["methods"].get(method, {})
    measures = found.get("by_category", {}).get(case, {}) if case else found.get("measures", {})
    entry: Mapping[str, Any] = measures.get(measure, {})
    return entry


def value_of(report: Report | None, measure: str, case: str = "", method: str = MODEL) -> float | None:
    """Its value; None where it is not defined or not measured."""
    return None if report is None else entry_of(report, measure, case, method).get("value")


def mean(values: Sequence[float | None]) -> float | None:
    """The mean, None if there is a value missing."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None


def over_checkpoints(found: Mapping[str, Reports], part: str, measure: str, case: str) -> dict[str, Any]:
    """``{"checkpoints", "mean"}`` of a run."""
    values = {name: value_of(reports.get(part), measure, case) for name, reports in found.items()}
    return {"checkpoints": values, "mean": mean(list(values.values()))}


def row_of(part: Part, measure: str, case: str, measured: Measured) -> dict[str, Any]:
    """All values of one line of the table."""
    report = measured.whole["final"][part.name]
    baselines = {name: value_of(report, measure, case, name) for name in TRIVIAL}
    seeds = {name: over_checkpoints(found, part.name, measure, case) for name, found in measured.seeds.items()}
    organ = next((organ for organ in measured.left_out if part.name in MEASURED_BY[organ]), None)
    samples = report["samples"]
    return {
        "set": part.name,
        "title": part.title,
        "measure": measure,
        "measure_title": report["measure_titles"].get(measure, measure),
        "case": case,
        "samples": 1 if case else samples["count"],
        "groups": 1 if case else samples["groups"],
        "protocol": report["protocol"]["id"],
        "baselines": baselines,
        "best_baseline": max((value for value in baselines.values() if value is not None), default=None),
        "published": None if case else report["published"].get(measure),
        "seeds": seeds,
        "mean_over_seeds": mean([seed["mean"] for seed in seeds.values()]),
        **{name: dict(entry_of(found[part.name], measure, case)) for name, found in measured.whole.items()},
        "left_out": {"organ": organ, **over_checkpoints(measured.left_out[organ], part.name, measure, case)}
        if organ
        else None,
    }


def rows_of(parts: Sequence[Part], measured: Measured) -> list[dict[str, Any]]:
    """All lines; the mean over healthy heads is followed by each of them."""
    rows = []
    for part in parts:
        cases = list(measured.whole["final"][part.name]["methods"][MODEL]["by_category"])
        for measure in MEASURES[part.name]:
            rows += [row_of(part, measure, case, measured) for case in ("", *(cases if measure == IN_ML else ()))]
    return rows


def number(value: float | None, measure: str) -> str:
    """``.801``, ``1.000``, ``12.3`` ml, ``-`` for nothing."""
    if value is None:
        return "-"
    return f"{value:.1f}" if measure == IN_ML else f"{value:.3f}".removeprefix("0")


def with_interval(entry: Mapping[str, Any], measure: str) -> str:
    """``.801 [.752, .843]``."""
    value = number(entry.get("value"), measure)
    if entry.get("low") is None:
        return value
    return f"{value} [{number(entry['low'], measure)}, {number(entry['high'], measure)}]"


def cells_of(row: Mapping[str, Any], final: str) -> dict[str, str]:
    """Column -> text."""
    measure = row["measure"]
    count = str(row["samples"])
    if row["groups"] < row["samples"]:
        count += f" in {row['groups']} groups"
    title = row["measure_title"] + (", ml" if measure == IN_ML else "")
    cells = {
        "set": row["title"],
        "measure": f"{title}: {row['case']}" if row["case"] else title,
        "samples": count,
        "best baseline": number(row["best_baseline"], measure),
        "paper, ViT-L": number(row["published"], measure),
        **{name: number(seed["mean"], measure) for name, seed in row["seeds"].items()},
    }
    if row["seeds"]:
        cells["mean of seeds"] = number(row["mean_over_seeds"], measure)
    cells[f"{final} [95 %]"] = with_interval(row["final"], measure)
    if "shipped" in row:
        cells["as shipped [95 %]"] = with_interval(row["shipped"], measure)
    left_out = row["left_out"]
    cells["organ left out"] = number(left_out["mean"], measure) if left_out else "-"
    return cells


def markdown(table: Sequence[Mapping[str, str]]) -> list[str]:
    """Lines of a table with columns of even width; one that is empty throughout is left out."""
    columns = [name for name in table[0] if any(cells[name] != "-" for cells in table)]
    lines = [columns, *([cells[name] for name in columns] for cells in table)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    texts = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines]
    return [texts[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *texts[1:]]


def notes_of(parts: Sequence[Part], measured: Measured) -> Iterator[str]:
    """What one has to know to read the table."""
    there = {part.name for part in parts}
    if missing := [name for name in MEASURES if name not in there]:
        yield f"Not there: {', '.join(missing)}."
    for part in parts:
        report = measured.whole["final"][part.name]
        texts = [report["protocol"]["id"], report["note"], *report["warnings"]]
        yield f"{part.title}: {'; '.join(text for text in texts if text)}."
    every = {"final": measured.whole["final"], "shipped": measured.whole.get("shipped", {})}
    for name, found in {**measured.seeds, **measured.left_out}.items():
        every |= {f"{name}, {checkpoint}": reports for checkpoint, reports in found.items()}
    for name, reports in every.items():
        for part_name, report in reports.items():
            for failure in report["failed"]:
                yield f"FAILED in {part_name}, {name}: {failure['error']}"


def notes_on_runs(runs: Sequence[Run], count: int) -> Iterator[str]:
    """Trainings that are not what the table says."""
    for run in runs:
        if not run.finished:
            yield f"{run.name}: the training has no report.json, it is not finished."
        if len(run.checkpoints) < count:
            yield f"{run.name}: {len(run.checkpoints)} checkpoints only."


def models_of(
    seeds: Sequence[Seed], left_out: Mapping[str, Seed], first: Weights, shipped: Weights | None
) -> dict[str, Any]:
    """File and hash of all weights."""

    def described(weights: Sequence[Weights]) -> dict[str, str]:
        return {str(file): resources.sha256(file) for both in weights for file in both.files}

    return {
        "final": described([first]),
        "shipped": described([shipped] if shipped else []),
        "seeds": {seed.name: described(seed.checkpoints) for seed in seeds},
        "left_out": {organ: described(seed.checkpoints) for organ, seed in left_out.items()},
    }


def write_table(lines: Sequence[str], content: Mapping[str, Any], out: Path) -> None:
    """``table.md`` and ``table.json``."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (out / "table.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def evidence_of(rows: Sequence[Mapping[str, Any]], reports: Reports, whose: str) -> EvidencePart:
    """The part of a bundle's evidence that these rows are.

    Args:
        rows: see :func:`rows_of`.
        reports: of the shipped weights.
        whose: key of the shipped weights' entries in a row.
    """
    sets, measures = {}, {}
    measurements: list[Measurement] = []
    for row in rows:
        name, measure = f"{row['set']}/{row['case']}" if row["case"] else row["set"], row["measure"]
        title = f"{row['title']}: {row['case']}" if row["case"] else row["title"]
        sets[name] = MeasuredOn(title, row["samples"], row["groups"], row["protocol"])
        measures[measure] = row["measure_title"]
        found: dict[str, Mapping[str, Any]] = {
            evidence_parts.TRIVIAL: {"value": row["best_baseline"]},
            **{f"seed {index}": {"value": seed["mean"]} for index, seed in enumerate(row["seeds"].values())},
            evidence_parts.SEEDS: {"value": row["mean_over_seeds"]},
            evidence_parts.SHIPPED: row[whose],
        }
        measurements += [
            Measurement(name, measure, variant, Measure.from_json(entry))
            for variant, entry in found.items()
            if entry.get("value") is not None
        ]
    read = [TypedReport.from_json(report) for report in reports.values()]
    head = head_of(read, Provenance.now(), read[0].model)
    return EvidencePart(head, sets, measures, tuple(measurements))


# The command


def organ_and_run(text: str) -> tuple[str, Path]:
    """``brain_mr=RUN``."""
    organ, _, folder = text.partition("=")
    if organ not in MEASURED_BY or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not ORGAN=RUN with one of {', '.join(MEASURED_BY)}")
    return organ, Path(folder)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DEV")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("--model", type=Path, nargs="+", default=[], metavar="RUN", help="one training for each seed")
    parser.add_argument(
        "--beside", type=Path, nargs="+", default=[], metavar="RUN", help="of the second network, one for each --model"
    )
    parser.add_argument("--fast", action="store_true", help="the first network of an ensemble alone")
    parser.add_argument("--left-out", type=organ_and_run, nargs="+", default=[], metavar="ORGAN=RUN")
    parser.add_argument("--checkpoints", type=int, default=3, metavar="N", help="the last N (default: %(default)s)")
    parser.add_argument("--dicom", type=Path, metavar="FOLDER", help="CT/ and MR_T1/ with image/ and mask/RS.dcm")
    parser.add_argument("--shipped", action="store_true", help="the bundle's own weights beside those of --model")
    parser.add_argument(
        "--bundle", default=resources.DEFAULT_BUNDLE, help="name or folder of the bundle (default: %(default)s)"
    )
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="for intervals (default: %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="only N samples of each set, for a trial")
    parser.add_argument("--evidence", type=Path, metavar="FILE", help="a bundle's docs/evidence.json")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    chosen = parser.parse_args(arguments)
    if chosen.checkpoints < 1:
        parser.error("--checkpoints must be at least 1")
    if chosen.beside and len(chosen.beside) != len(chosen.model):
        parser.error("--beside needs as many runs as --model")
    if chosen.evidence and chosen.model and not chosen.shipped:
        parser.error("--evidence is of the shipped weights: add --shipped")
    return chosen


def judge_model(arguments: argparse.Namespace) -> list[str]:
    """Measure, write the table; -> its lines."""
    bundle, out = resources.bundle_root(arguments.bundle), arguments.output
    other = None if arguments.fast else next(iter(other_encoders(bundle)), None)
    if arguments.beside and other is None:
        raise UsageError("E_OPTION", "there is no second network", bundle, "leave out --beside")
    runs, beside = (find_runs(folders, arguments.checkpoints) for folders in (arguments.model, arguments.beside))
    seconds: Sequence[Run | Path | None] = beside or [other] * len(runs)
    seeds = [seed_of(run, second) for run, second in zip(runs, seconds, strict=True)]
    left_out = {organ: seed_of(find_run(folder, arguments.checkpoints, organ)) for organ, folder in arguments.left_out}
    for file in seeds[0].final.files if seeds else ():
        if not file.is_file():
            raise NoInputError("E_RUN", "no such file", file, "let the training come to its end")
    own = Weights("as shipped", backbone_file(bundle), other)
    first = seeds[0].final if seeds else own
    shipped = own if seeds and arguments.shipped else None
    parts = find_parts(arguments.data, arguments.dicom, out)
    if not parts:
        raise UsageError("E_DATASET", "none of the sets of the table is there", arguments.data, "see docs/datasets.md")
    options: dict[str, Any] = {"device": resolve_device(arguments.device)}
    if arguments.limit is not None:
        options["limit"] = arguments.limit
    judge = Judge(parts, bundle, out, options)
    measured = measure_all(judge, first, shipped, seeds, left_out, arguments.bootstrap)
    rows = rows_of(parts, measured)
    all_runs = [run for seed in (*seeds, *left_out.values()) for run in seed.runs]
    notes = [*notes_of(parts, measured), *notes_on_runs(all_runs, arguments.checkpoints)]
    lines = [*markdown([cells_of(row, first.name) for row in rows]), "", *(f"- {note}" for note in notes)]
    models = models_of(seeds, left_out, first, shipped)
    table = {"schema": "anomalyclip-embedded-table/1", "models": models, "rows": rows, "notes": notes}
    write_table(lines, table, out)
    if arguments.evidence:
        whose = "shipped" if shipped else "final"
        name = "embedded_fast" if other is None and other_encoders(bundle) else "embedded"
        update(arguments.evidence, name, evidence_of(rows, measured.whole[whose], whose))
    print(f"measured for {judge.seconds:.0f} s", file=sys.stderr)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    try:
        print("\n".join(judge_model(parse(arguments))))
    except AnomalyCLIPError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
