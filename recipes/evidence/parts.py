"""Parts of the evidence from the reports of evaluations."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import anomalyclip_monai
from anomalyclip_monai.engines.evaluation.organs import UNTRAINED, TrainedOrgans
from anomalyclip_monai.engines.evaluation.summary import class_interval
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.outputs.report.content import Fingerprint, Measure, Report
from anomalyclip_monai.weights.bundle import fingerprint
from recipes.evidence.schema import Head, MeasuredOn, Measurement, Part

ALL = "all"
"""The mean over all sets of a report of organs, beside the one over those of :data:`UNTRAINED`."""

SHIPPED = "shipped"
"""The model as it is shipped."""

SEEDS = "seeds"
"""The mean of several trainings."""

BODY = "body"
"""The baseline beside which organs are shown: the centre of the body."""

TRIVIAL = "trivial"
"""The better one of image brightness and a centre prior."""

ABOVE = "above body"
"""The model minus the baseline, kept only where the model is not above it for sure."""

ORGAN_MEASURES = ("pixel_auroc", "pixel_auroc_lit", "pixel_ap", "pixel_pro_exact", "pointing")
"""Columns of the tables of organs."""

ROOT = Path(__file__).parents[2]


WHAT_IS_MEASURED = ("anomalyclip_monai", "transforms", "bundles", ":!bundles/*/docs/*")
"""Paths on whose content numbers depend."""


def _git(*arguments: str) -> str:
    """What git says of this checkout, nothing where there is none."""
    try:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


@dataclass(frozen=True, slots=True)
class Provenance:
    """When and by what a part was measured, see :class:`Head`."""

    date: str
    commit: str
    version: str

    @classmethod
    def now(cls, measured: datetime.date | None = None) -> Provenance:
        """This checkout, today or the day of an earlier measurement."""
        commit = _git("rev-parse", "--short=12", "HEAD")
        if commit and _git("status", "--porcelain", "--", *WHAT_IS_MEASURED):
            commit += "-dirty"
        date = measured or datetime.datetime.now(datetime.UTC).date()
        return cls(date.isoformat(), commit, anomalyclip_monai.__version__)


def head_of(reports: Sequence[Report], provenance: Provenance, weights: Fingerprint) -> Head:
    """The head of a part that these reports are in."""
    thresholds = {one.threshold for report in reports for one in report.samples.samples if one.threshold is not None}
    first = reports[0]
    settings = {
        name: value
        for name, value in first.options.items()
        if all(report.options.get(name) == value for report in reports)
    }
    return Head(
        "measured",
        provenance.date,
        provenance.commit,
        provenance.version,
        tuple(sorted(thresholds)),
        settings,
        weights,
        max(report.bootstrap.repeats for report in reports),
        first.bootstrap.seed,
        _protocols(reports),
    )


def _protocols(reports: Sequence[Report]) -> dict[str, str]:
    """Sentences by their id, and by the set as well where sets differ in what the sentence says."""
    texts: dict[str, dict[str, str]] = {}
    for report in reports:
        texts.setdefault(report.protocol.id, {})[report.dataset] = report.protocol.text
    found: dict[str, str] = {}
    for name, by_set in texts.items():
        alike = len(set(by_set.values())) == 1
        found |= {name if alike else f"{name}, {dataset}": text for dataset, text in by_set.items()}
    return found


def check_weights(report: Report, bundle_root: Path, *, fast: bool) -> None:
    """Refuse a report of something else than a bundle's shipped weights.

    Raises:
        UsageError: it is of others (``E_REPORT``).
    """
    expected = fingerprint(bundle_root, fast=fast)
    if dict(report.model) != expected:
        which = "the first network" if fast else "the weights"
        what = f"the report is not of {which} that {bundle_root.name} has"
        raise UsageError("E_REPORT", what, None, "measure them, or choose another part or bundle")


def organs_part(report: Report, provenance: Provenance) -> Part:
    """The part ``organs`` from a report of ``anomalyclip evaluate organs``: every set, and the means.

    Raises:
        UsageError: the report is of another data set, or has no such baseline or subset (``E_REPORT``).
    """
    _check_organs(report)
    if UNTRAINED not in {one.name for one in report.subsets}:
        raise _refused("the report has no mean over organs that were not trained", "choose a bundle that says which")
    sets = _organ_sets(report)
    measurements = []
    for variant, method in ((SHIPPED, report.main), (BODY, report.methods[BODY])):
        tables = {ALL: method.measures, UNTRAINED: method.by_subset[UNTRAINED], **method.by_category}
        measurements += [
            Measurement(name, measure, variant, table[measure])
            for name, table in tables.items()
            for measure in ORGAN_MEASURES
            if table[measure].value is not None
        ]
    measurements += [
        Measurement(
            found.subset or ALL,
            found.measure,
            ABOVE,
            Measure(
                found.difference.value,
                found.difference.low,
                found.difference.high,
                classes_low=found.difference.classes_low,
                classes_high=found.difference.classes_high,
            ),
        )
        for found in report.shortfalls
        if found.baseline == BODY and found.measure in ORGAN_MEASURES
    ]
    return Part(head_of([report], provenance, report.model), sets, _titles(report), tuple(measurements))


def held_out_part(
    trainings: Mapping[str, Sequence[Report]],
    provenance: Provenance,
    *,
    untrained: Collection[str] = (),
    note: str = "",
) -> Part:
    """The part ``held_out_organs``: every set measured by networks that were trained without its organ.

    Args:
        trainings: the organs that a training went without, as ``kidney,liver``, -> its report of
            ``anomalyclip evaluate organs`` for every seed. An organ stands for the sets that are called so or begin
            with it and ``_``; only these are taken from the reports.
        provenance: of the measurement.
        untrained: sets that get a mean of their own, for networks of which only some were trained anew.
        note: added to the sentences on how was measured.

    Raises:
        UsageError: a report is none of organs, seeds are missing, or two trainings show a set (``E_REPORT``).
    """
    counts = {len(reports) for reports in trainings.values()}
    if len(counts) != 1:
        raise _refused("the trainings have different numbers of seeds", "give a report of every seed of each")
    seeds = [f"seed {index}" for index in range(counts.pop())]
    sets: dict[str, MeasuredOn] = {}
    measurements: list[Measurement] = []
    for organs, reports in trainings.items():
        for report in reports:
            _check_organs(report)
        without = TrainedOrgans(dict.fromkeys(organs.split(","), ""))
        shown = [name for name in reports[0].main.by_category if without.relatives(name)]
        if not shown or (twice := sorted(sets.keys() & shown)):
            what = f"{', '.join(twice)} is shown by two trainings" if shown else f"no set shows {organs}"
            raise _refused(what, "give each organ once, as its sets are called")
        sets |= {name: one for name, one in _organ_sets(reports[0]).items() if name in shown}
        for name in shown:
            measurements += _of_seeds(name, dict(zip(seeds, reports, strict=True)))
    every = [report for reports in trainings.values() for report in reports]
    repeats = every[0].bootstrap.repeats
    tables = {ALL: (f"{len(sets)} sets", list(sets))}
    if left := [name for name in sets if name in untrained]:
        tables[UNTRAINED] = f"{len(left)} of {len(sets)} sets whose organ was not trained", left
    means = [
        one
        for where, (_, names) in tables.items()
        for one in _means(where, names, [*seeds, SEEDS, BODY], measurements, repeats)
    ]
    together = {where: _together(title, [sets[name] for name in names]) for where, (title, names) in tables.items()}
    key = _trained_anew(every)
    weights = {
        f"without {organs}, seed {index}": report.model.get(key, "")
        for organs, reports in trainings.items()
        for index, report in enumerate(reports)
    }
    head = head_of(every, provenance, weights)
    head = replace(head, protocols={name: f"{text} {note}".strip() for name, text in head.protocols.items()})
    return Part(head, {**together, **sets}, _titles(every[0]), (*means, *measurements))


def _trained_anew(reports: Sequence[Report]) -> str:
    """Which hash of the weights tells the trainings apart."""
    keys = [name for name in reports[0].model if name.startswith("weights")]
    differing = [name for name in keys if len({report.model.get(name) for report in reports}) > 1]
    return (differing or ["weights_sha256"])[0]


def _together(title: str, sets: Sequence[MeasuredOn]) -> MeasuredOn:
    return MeasuredOn(title, sum(one.images for one in sets), sum(one.groups for one in sets), sets[0].protocol)


def _of_seeds(name: str, reports: Mapping[str, Report]) -> Iterator[Measurement]:
    """One set: every seed, their mean, and the baseline."""
    for measure in ORGAN_MEASURES:
        found = {seed: report.main.by_category[name][measure] for seed, report in reports.items()}
        known = [one.value for one in found.values() if one.value is not None]
        if len(known) < len(found):
            continue
        for seed, one in found.items():
            yield Measurement(name, measure, seed, one)
        yield Measurement(name, measure, SEEDS, Measure(fmean(known)))
        baseline = next(iter(reports.values())).methods[BODY].by_category[name][measure]
        if baseline.value is not None:
            yield Measurement(name, measure, BODY, baseline)


def _means(
    where: str, names: Sequence[str], variants: Sequence[str], measurements: Sequence[Measurement], repeats: int
) -> Iterator[Measurement]:
    """The mean over sets with an interval over sets; of the difference to the baseline as well, where it holds 0."""
    values = {(one.set, one.measure, one.variant): one.found.value for one in measurements}

    def mean(table: Sequence[float]) -> Measure:
        low, high = class_interval(table, repeats)
        return Measure(fmean(table), classes_low=low, classes_high=high)

    for measure in ORGAN_MEASURES:
        tables = {
            variant: [value for name in names if (value := values.get((name, measure, variant))) is not None]
            for variant in variants
        }
        for variant, table in tables.items():
            if table:
                yield Measurement(where, measure, variant, mean(table))
        if len(tables[SEEDS]) == len(tables[BODY]) > 0:
            above = mean([own - other for own, other in zip(tables[SEEDS], tables[BODY], strict=True)])
            if min(above.value or 0.0, above.classes_low or 0.0) <= 0:
                yield Measurement(where, measure, ABOVE, above)


def _organ_sets(report: Report) -> dict[str, MeasuredOn]:
    """The sets of a report, the means first."""
    samples = report.samples.samples

    def together(title: str, names: Sequence[str]) -> MeasuredOn:
        chosen = [one for one in samples if one.category in names]
        groups = {(one.category, one.group) for one in chosen}
        return MeasuredOn(title, len(chosen), len(groups), report.protocol.id)

    every = list(report.main.by_category)
    subsets = {one.name: together(one.title, one.categories) for one in report.subsets}
    return {
        ALL: together(f"{len(every)} sets", every),
        **subsets,
        **{name: together(_in_words(name), [name]) for name in every},
    }


_CAPITALS = ("ct", "mr", "dce", "rt", "brisc", "etis", "aisd", "cpaisd", "ham10000")
"""Words of a category that are written in capitals."""


def _in_words(category: str) -> str:
    """``kidney_stone_ct`` -> ``kidney stone CT``."""
    words = {"us": "ultrasound", "busbra": "BUS-BRA", **{name: name.upper() for name in _CAPITALS}}
    return " ".join(words.get(word, word) for word in category.split("_"))


def _titles(report: Report) -> dict[str, str]:
    return {measure: report.measure_titles[measure] for measure in ORGAN_MEASURES}


def _check_organs(report: Report) -> None:
    if report.dataset != "organs" or BODY not in report.methods:
        raise _refused(
            "the report is none of the organs with its baselines", "give that of anomalyclip evaluate organs"
        )
    if report.failed:
        raise _refused(f"{len(report.failed)} images failed", "measure again without them failing")


def _refused(what: str, todo: str) -> UsageError:
    return UsageError("E_REPORT", what, None, todo)
