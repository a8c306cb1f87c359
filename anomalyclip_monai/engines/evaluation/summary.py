"""From the measures of classes and seeds to the entries of a report, with intervals and a paired test."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from anomalyclip_monai.engines.evaluation.measured import ClassMeasures, mean_over_classes
from anomalyclip_monai.metrics.bootstrap import draw_groups, mean_and_sd
from anomalyclip_monai.metrics.undefined import Undefined, Value
from anomalyclip_monai.metrics.weighted import Rows
from anomalyclip_monai.outputs.report.content import Difference, Measure, MeasuredSample, Measures, Shortfall

LEVEL = 0.95
"""Of the confidence intervals."""

Draws = Mapping[str, NDArray[np.float32]]
"""Class -> (R, N) how often each of its samples was drawn."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One method over all classes and seeds.

    Attributes:
        measures: of all classes together.
        by_category: class -> its measures.
        rows: measure -> (R,) values on the resampled sets.
        parts: name of a subset of the classes -> the same of that subset.
    """

    measures: dict[str, Measure]
    by_category: dict[str, dict[str, Measure]]
    rows: dict[str, Rows]
    parts: dict[str, Summary] = field(default_factory=dict)


def draws_of(samples: Mapping[str, Sequence[MeasuredSample]], *, repeats: int, seed: int) -> Draws:
    """Resampled sets: in each class, groups (patients, sequences) are drawn with replacement."""
    return {
        category: draw_groups([sample.group for sample in found], replicates=repeats, seed=seed + index)
        for index, (category, found) in enumerate(samples.items())
    }


def summarise(
    seeds: Sequence[Mapping[str, ClassMeasures]],
    draws: Draws,
    *,
    overall: Sequence[ClassMeasures | None] = (),
    subsets: Mapping[str, Sequence[str]] | None = None,
    over_classes: bool = False,
) -> Summary:
    """Mean over seeds of the mean over classes, with a percentile interval from the resampled sets.

    The resampled values are moved by the difference between the exact value and what the resampling gives for the
    samples as they are, which is 0 but for pooled pixel measures. In a mean over several classes a class stays in with
    its value where it has no resampled one: with one group only, and in a resampled set that does not define the
    measure. Else the interval of a mean would be that of other classes than its value.

    Args:
        seeds: class -> measures, for each seed.
        draws: the resampled sets.
        overall: for each seed what is measured of all samples together, instead of means over classes.
        subsets: name -> classes, for means of their own.
        over_classes: whether classes are resampled too, for a second interval.
    """
    rows = [{category: _moved(found, draws[category]) for category, found in classes.items()} for classes in seeds]
    names = list(dict.fromkeys(name for classes in seeds for found in classes.values() for name in found.values))
    categories = list(seeds[0])
    by_category: dict[str, dict[str, Measure]] = {
        category: {
            name: _summarised(
                [classes[category].value(name) for classes in seeds],
                _mean([row[category].get(name) for row in rows]),
            )
            for name in names
        }
        for category in categories
    }

    def mean_of(chosen: Sequence[str]) -> Summary:
        measures, kept = {}, {}
        for name in names:
            values = [[classes[category].value(name) for category in chosen] for classes in seeds]
            found = [
                _mean_of_classes([row[category].get(name) for category in chosen], value)
                for row, value in zip(rows, values, strict=True)
            ]
            pooled = _mean(found)
            measure = _summarised([mean_over_classes(value) for value in values], pooled)
            if over_classes:
                table = [by_category[category][name].value for category in chosen]
                low, high = class_interval(table, len(next(iter(draws.values()))))
                measure = replace(measure, classes_low=low, classes_high=high)
            measures[name] = measure
            if pooled is not None:
                kept[name] = pooled
        return Summary(measures, {category: by_category[category] for category in chosen}, kept)

    summary = mean_of(categories)
    together = [found for found in overall if found is not None]
    if together:
        drawn = np.concatenate([draws[category] for category in categories], axis=1)
        resampled = [_moved(found, drawn) for found in together]
        for name in together[0].values:
            pooled = _mean([row.get(name) for row in resampled])
            summary.measures[name] = _summarised([found.value(name) for found in together], pooled)
            summary.rows.pop(name, None)
            if pooled is not None:
                summary.rows[name] = pooled
    summary.parts.update({name: mean_of(chosen) for name, chosen in (subsets or {}).items()})
    return summary


def without_spread(samples: Mapping[str, Sequence[MeasuredSample]]) -> list[str]:
    """The classes of one group, which resampling leaves as they are."""
    return [category for category, found in samples.items() if len({sample.group for sample in found}) == 1]


def class_interval(
    values: Sequence[float | None], repeats: int, seed: int = 0
) -> tuple[float, float] | tuple[None, None]:
    """One value for each class, None where it is undefined -> both ends of the interval over resampled classes.

    None with fewer than two values, or without resampling.
    """
    known = np.array([value for value in values if value is not None])
    if known.size < 2 or not repeats:
        return None, None
    drawn = np.random.default_rng(seed).integers(known.size, size=(repeats, known.size))
    low, high = np.quantile(known[drawn].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def shortfalls(
    measures: Sequence[str], this: Summary, baselines: Mapping[str, Summary], *, subset: str = "", repeats: int = 0
) -> list[Shortfall]:
    """Where a method does not beat a baseline, or not for sure: the interval of the difference holds 0.

    Args:
        measures: the ones that count; more of each is better.
        this: of the method.
        baselines: name -> the same of each baseline.
        subset: what the summaries are of, empty for everything.
        repeats: resampled sets of classes, 0 for no interval over them.
    """
    found = []
    for baseline, other in baselines.items():
        turned = _turned(other)
        pairs = differences(this.measures, turned.measures)
        pairs |= compare(this.measures, turned.measures, this.rows, turned.rows)
        for name in (name for name in measures if name in pairs):
            table = [
                None
                if (own := this.by_category[category][name].value) is None or reference is None
                else own - reference
                for category in this.by_category
                for reference in [turned.by_category[category][name].value]
            ]
            classes_low, classes_high = class_interval(table, repeats)
            difference = replace(pairs[name], classes_low=classes_low, classes_high=classes_high)
            lows = [low for low in (difference.low, difference.classes_low) if low is not None]
            if min([difference.value, *lows]) <= 0:
                found.append(Shortfall(baseline, name, difference, subset))
    return found


_TURNED = "image_auroc"
"""A score that is right the other way round knows as much."""


def _turned(baseline: Summary) -> Summary:
    """A baseline whose image AUROC is at least a half: nobody says which way its score goes."""
    value = baseline.measures[_TURNED].value if _TURNED in baseline.measures else None
    if value is None or value >= 0.5:
        return baseline

    def turn(measures: Mapping[str, Measure]) -> dict[str, Measure]:
        old = measures[_TURNED]
        return {**measures, _TURNED: old if old.value is None else Measure(1 - old.value)}

    rows = {**baseline.rows, _TURNED: 1 - baseline.rows[_TURNED]} if _TURNED in baseline.rows else baseline.rows
    return Summary(turn(baseline.measures), {name: turn(part) for name, part in baseline.by_category.items()}, rows)


def compare(
    this: Measures, other: Measures, rows: Mapping[str, Rows], others: Mapping[str, Rows]
) -> dict[str, Difference]:
    """Measure -> difference, interval and two-sided p of a paired bootstrap on the same resampled sets.

    Args:
        this: measures of the one method.
        other: measures of the other.
        rows: resampled values of the one.
        others: resampled values of the other.
    """
    found = {}
    for name, value, reference in _defined_in_both(this, other):
        if name not in rows or name not in others:
            continue
        difference = (rows[name] - others[name])[np.isfinite(rows[name]) & np.isfinite(others[name])]
        if not difference.size:
            continue
        low, high = np.quantile(difference, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        tail = min(np.count_nonzero(difference <= 0), np.count_nonzero(difference >= 0))
        p = min(1.0, float(2 * (tail + 1) / (difference.size + 1)))
        found[name] = Difference(value - reference, float(low), float(high), p)
    return found


def differences(this: Measures, other: Measures) -> dict[str, Difference]:
    """Measure -> difference of the values, where both methods define it."""
    return {name: Difference(value - reference) for name, value, reference in _defined_in_both(this, other)}


def _defined_in_both(this: Measures, other: Measures) -> Iterator[tuple[str, float, float]]:
    """Name and both values of every measure that has two."""
    for name, measure in this.items():
        reference = other[name].value if name in other else None
        if measure.value is not None and reference is not None:
            yield name, measure.value, reference


def _moved(found: ClassMeasures, draws: NDArray[np.float32]) -> dict[str, Rows | None]:
    """Resampled values of the defined measures, centred on the exact ones; None where there is nothing to resample."""
    if not len(draws) or (draws == draws[:1]).all():  # no resampling, or one group only
        return {}
    resampled = found.resampled(draws)
    once = found.resampled(np.ones((1, draws.shape[1]), np.float32))
    return {
        name: resampled[name] + (value - once[name][0])
        for name, value in found.values.items()
        if isinstance(value, float) and name in resampled
    }


def _summarised(values: Sequence[Value], rows: Rows | None) -> Measure:
    spread = mean_and_sd(values)
    if isinstance(spread, Undefined):
        return Measure(undefined=spread.reason)
    sd = None if isinstance(spread.sd, Undefined) else spread.sd
    known = np.zeros(0) if rows is None else rows[np.isfinite(rows)]
    if not known.size:
        return Measure(spread.mean, sd=sd)
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Measure(spread.mean, float(low), float(high), sd)


def _mean_of_classes(rows: Sequence[Rows | None], values: Sequence[Value]) -> Rows | None:
    """The mean over the classes that define a measure, on every resampled set; None where no class has a spread."""
    defined = [(row, value) for row, value in zip(rows, values, strict=True) if isinstance(value, float)]
    there = [row for row, _ in defined if row is not None]
    if not there or len(defined) == 1:
        return there[0] if there else None
    filled = [
        np.full_like(there[0], value) if row is None else np.where(np.isfinite(row), row, value)
        for row, value in defined
    ]
    return np.asarray(np.mean(filled, axis=0), float)


def _mean(rows: Sequence[Rows | None]) -> Rows | None:
    """The mean of what is there, row by row."""
    there = [row for row in rows if row is not None]
    if not there:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        return np.asarray(np.nanmean(there, axis=0), float)
