"""From the measures of classes and seeds to the entries of a report, with intervals and a paired test."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalyclip_monai.engines.evaluation.measured import ClassMeasures, mean_over_classes
from anomalyclip_monai.metrics.bootstrap import draw_groups, mean_and_sd
from anomalyclip_monai.metrics.undefined import Undefined, Value
from anomalyclip_monai.metrics.weighted import Rows
from anomalyclip_monai.outputs.report.content import Difference, Measure, MeasuredSample, Measures

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
    """

    measures: dict[str, Measure]
    by_category: dict[str, dict[str, Measure]]
    rows: dict[str, Rows]


def draws_of(samples: Mapping[str, Sequence[MeasuredSample]], *, repeats: int, seed: int) -> Draws:
    """Resampled sets: in each class, groups (patients, sequences) are drawn with replacement."""
    return {
        category: draw_groups([sample.group for sample in found], replicates=repeats, seed=seed + index)
        for index, (category, found) in enumerate(samples.items())
    }


def summarise(seeds: Sequence[Mapping[str, ClassMeasures]], draws: Draws) -> Summary:
    """Mean over seeds of the mean over classes, with a percentile interval from the resampled sets.

    The resampled values are moved by the difference between the exact value and what the resampling gives for the
    samples as they are, which is 0 but for pooled pixel measures.

    Args:
        seeds: class -> measures, for each seed.
        draws: the resampled sets.
    """
    rows = [{category: _moved(found, draws[category]) for category, found in classes.items()} for classes in seeds]
    names = list(dict.fromkeys(name for classes in seeds for found in classes.values() for name in found.values))
    categories = list(seeds[0])
    by_category = {
        category: {
            name: _summarised(
                [classes[category].value(name) for classes in seeds],
                _mean([row[category].get(name) for row in rows]),
            )
            for name in names
        }
        for category in categories
    }
    pooled = {
        name: _mean([_mean([row[category].get(name) for category in categories]) for row in rows]) for name in names
    }
    values = {
        name: [mean_over_classes([found.value(name) for found in classes.values()]) for classes in seeds]
        for name in names
    }
    kept = {name: found for name, found in pooled.items() if found is not None}
    return Summary({name: _summarised(values[name], pooled[name]) for name in names}, by_category, kept)


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


def _mean(rows: Sequence[Rows | None]) -> Rows | None:
    """The mean of what is there, row by row."""
    there = [row for row in rows if row is not None]
    if not there:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        return np.asarray(np.nanmean(there, axis=0), float)
