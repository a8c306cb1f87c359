"""Ranking measures of many resampled sets at once.

Each row is one resampled set, each column a threshold from the highest down; entries count what lies at or above it,
an image that was drawn twice counting twice. A row that does not define a measure gives NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomalyclip_monai.metrics.pro import FPR_LIMIT

Rows: TypeAlias = NDArray[np.float64]
"""(R,) a value for each resampled set, NaN where it is undefined; or (R, T) at T thresholds."""


def counts_at_scores(labels: ArrayLike, scores: ArrayLike, draws: NDArray[Any]) -> tuple[Rows, Rows]:
    """(N,) labels and scores, (R, N) draws -> false and true positives (R, T) at every distinct score."""
    truth, values = np.asarray(labels, bool), np.asarray(scores)
    order = np.argsort(values, kind="stable")[::-1]
    values, drawn = values[order], draws[:, order].astype(np.float64)
    last_of_tie = np.flatnonzero(np.append(values[1:] != values[:-1], True)) if values.size else np.array([], int)
    found = np.cumsum(drawn * truth[order], axis=1)[:, last_of_tie]
    return np.cumsum(drawn, axis=1)[:, last_of_tie] - found, found


def auroc_rows(false_positives: Rows, true_positives: Rows) -> Rows:
    """(R, T) -> (R,) area under the ROC curve; a tie counts half."""
    area: Rows = np.trapezoid(_from_zero(true_positives), _from_zero(false_positives), axis=1)  # type: ignore[assignment]
    return _where_both(area, false_positives, true_positives) / _last(false_positives) / _last(true_positives)


def average_precision_rows(false_positives: Rows, true_positives: Rows) -> Rows:
    """(R, T) -> (R,) average precision."""
    precision = true_positives / np.maximum(true_positives + false_positives, 1e-300)
    total = (np.diff(true_positives, prepend=0, axis=1) * precision).sum(axis=1)
    return _where_both(total, false_positives, true_positives) / _last(true_positives)


def best_f1_rows(false_positives: Rows, true_positives: Rows) -> Rows:
    """(R, T) -> (R,) F1-max."""
    if not true_positives.size:
        return np.full(len(true_positives), np.nan)
    f1 = 2 * true_positives / (true_positives + false_positives + _last(true_positives)[:, None])
    return _where_both(f1.max(axis=1), false_positives, true_positives)


def exact_pro_rows(rate: Rows, overlap: Rows, limit: float = FPR_LIMIT) -> Rows:
    """(R, T) rising false positive rates and region overlaps -> (R,) area up to ``limit``, divided by it."""
    return np.array([_area_to(limit, *row) for row in zip(_from_zero(rate), _from_zero(overlap), strict=True)])


def paper_pro_rows(rate: Rows, overlap: Rows, limit: float = FPR_LIMIT) -> Rows:
    """(R, T) -> (R,) PRO by the paper's rule: points below ``limit``, their rates stretched to [0, 1]."""
    values = np.full(len(rate), np.nan)
    for index, (rates, overlaps) in enumerate(zip(rate, overlap, strict=True)):
        kept = rates < limit
        if kept.any() and (span := np.ptp(rates[kept])) > 0:
            values[index] = np.trapezoid(overlaps[kept], rates[kept]) / span
    return values


def mean_rows(values: ArrayLike, draws: NDArray[Any], sizes: ArrayLike = 1.0) -> Rows:
    """(N,) values, NaN where undefined, and (R, N) draws -> (R,) means, each value counted ``sizes`` times."""
    given = np.asarray(values, float)
    known = np.isfinite(given)
    weights = draws[:, known] * np.broadcast_to(np.asarray(sizes, float), given.shape)[known]
    total = weights.sum(axis=1)
    return np.where(total > 0, weights @ given[known], np.nan) / np.where(total > 0, total, 1)


def median_rows(values: ArrayLike, draws: NDArray[Any]) -> Rows:
    """(N,) values, NaN where undefined, and (R, N) draws -> (R,) medians."""
    given = np.asarray(values, float)
    known = np.isfinite(given)
    times = draws[:, known].astype(int)
    return np.array([np.median(np.repeat(given[known], row)) if row.any() else np.nan for row in times])


def without_constant(rows: Mapping[str, Rows], values: Mapping[str, ArrayLike]) -> dict[str, Rows]:
    """Resampled means without those of a single known value: it is the same in every set, and not therefore certain.

    Args:
        rows: measure -> (R,); with R = 1 nothing is left out.
        values: measure -> (N,) what its mean or median is of, NaN where undefined; a measure without an entry stays.
    """
    single = {name for name, given in values.items() if np.count_nonzero(np.isfinite(np.asarray(given, float))) < 2}
    return {name: found for name, found in rows.items() if len(found) == 1 or name not in single}


def _area_to(limit: float, rate: NDArray[Any], overlap: NDArray[Any]) -> float:
    if not np.isfinite(rate).all() or not np.isfinite(overlap).all():
        return np.nan
    inside = rate < limit
    at_limit = np.interp(limit, rate, overlap)
    return float(np.trapezoid(np.append(overlap[inside], at_limit), np.append(rate[inside], limit)) / limit)


def _from_zero(counts: Rows) -> Rows:
    return np.pad(counts, ((0, 0), (1, 0)))


def _last(counts: Rows) -> Rows:
    """(R, T) -> (R,) how many there are in all, at least 1."""
    return np.maximum(counts[:, -1], 1) if counts.size else np.ones(len(counts))


def _where_both(values: Rows, false_positives: Rows, true_positives: Rows) -> Rows:
    """NaN where a set has no normal or no abnormal one."""
    if not true_positives.size:
        return np.full(len(true_positives), np.nan)
    return np.where((false_positives[:, -1] > 0) & (true_positives[:, -1] > 0), values, np.nan)
