"""From the measures of classes and seeds to the entries of a report, with intervals and a paired test."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyclip_monai.engines.evaluation.measured import ClassMeasures, mean_over_classes
from anomalyclip_monai.metrics.bootstrap import draw_groups, mean_and_sd
from anomalyclip_monai.metrics.undefined import Undefined, Value
from anomalyclip_monai.metrics.weighted import Rows

LEVEL = 0.95
"""Of the confidence intervals."""

Draws = Mapping[str, NDArray[np.float32]]
"""Class -> (R, N) how often each of its samples was drawn."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One method over all classes and seeds.

    Attributes:
        measures: measure -> entry of the report.
        by_category: class -> measure -> entry.
        rows: measure -> (R,) values on the resampled sets.
    """

    measures: dict[str, dict[str, Any]]
    by_category: dict[str, dict[str, dict[str, Any]]]
    rows: dict[str, Rows]


def draws_of(samples: Mapping[str, Sequence[Mapping[str, Any]]], *, repeats: int, seed: int) -> Draws:
    """Resampled sets: in each class, groups (patients, sequences) are drawn with replacement."""
    return {
        category: draw_groups([sample["group"] for sample in found], replicates=repeats, seed=seed + index)
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
            name: _entry(
                [classes[category].values[name] for classes in seeds],
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
        name: [mean_over_classes([found.values[name] for found in classes.values()]) for classes in seeds]
        for name in names
    }
    kept = {name: found for name, found in pooled.items() if found is not None}
    return Summary({name: _entry(values[name], pooled[name]) for name in names}, by_category, kept)


def compare(
    this: Mapping[str, Any], other: Mapping[str, Any], rows: Mapping[str, Rows], others: Mapping[str, Rows]
) -> dict[str, Any]:
    """Measure -> difference, interval and two-sided p of a paired bootstrap on the same resampled sets.

    Args:
        this: entries of the one method.
        other: entries of the other.
        rows: resampled values of the one.
        others: resampled values of the other.
    """
    found = {}
    for name in this:
        if "value" not in this[name] or "value" not in other.get(name, {}) or name not in rows or name not in others:
            continue
        difference = (rows[name] - others[name])[np.isfinite(rows[name]) & np.isfinite(others[name])]
        if not difference.size:
            continue
        low, high = np.quantile(difference, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        tail = min(np.count_nonzero(difference <= 0), np.count_nonzero(difference >= 0))
        found[name] = {
            "difference": this[name]["value"] - other[name]["value"],
            "low": float(low),
            "high": float(high),
            "p": min(1.0, float(2 * (tail + 1) / (difference.size + 1))),
        }
    return found


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


def _entry(values: Sequence[Value], rows: Rows | None) -> dict[str, Any]:
    spread = mean_and_sd(values)
    if isinstance(spread, Undefined):
        return {"undefined": spread.reason}
    entry = {
        "value": spread.mean,
        "low": None,
        "high": None,
        "sd": None if isinstance(spread.sd, Undefined) else spread.sd,
    }
    known = np.zeros(0) if rows is None else rows[np.isfinite(rows)]
    if known.size:
        entry["low"], entry["high"] = (float(end) for end in np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return entry


def _mean(rows: Sequence[Rows | None]) -> Rows | None:
    """The mean of what is there, row by row."""
    there = [row for row in rows if row is not None]
    if not there:
        return None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        return np.asarray(np.nanmean(there, axis=0), float)
