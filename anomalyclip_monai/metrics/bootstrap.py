"""How sure a measure is: bootstrap over groups, a paired test between two models, spread over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomalyclip_monai.metrics.undefined import Undefined, Value, is_defined

Statistic: TypeAlias = Callable[[NDArray[np.intp]], Value]
"""Measure of the cases with these indices; an index may come several times."""

REPLICATES = 2000
"""Default number of resampled sets."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A measure with its percentile confidence interval.

    Attributes:
        value: on the cases as they are.
        low: lower end.
        high: upper end.
        level: share of resampled values between them, for example 0.95.
        replicates: resampled sets that defined the measure.
        undefined: resampled sets that did not, for example for want of a normal case, and were left out.
    """

    value: float
    low: float
    high: float
    level: float
    replicates: int
    undefined: int


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """First model minus second on the same cases.

    Attributes:
        difference: with its confidence interval.
        p_value: two-sided, of no difference; never below 2 / (replicates + 1).
    """

    difference: Interval
    p_value: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation over seeds.

    Attributes:
        mean: over the seeds that define the measure.
        sd: with n - 1; undefined for a single seed.
        count: number of these seeds.
    """

    mean: float
    sd: Value
    count: int


def bootstrap_interval(
    statistic: Statistic, groups: ArrayLike, *, level: float = 0.95, replicates: int = REPLICATES, seed: int = 0
) -> Interval | Undefined:
    """Confidence interval by drawing whole groups with replacement (percentile method, Efron 1979).

    Args:
        statistic: measure of the cases with the given indices.
        groups: (N,) patient, sequence or other unit of each case; cases of one group are drawn together.
        level: of the interval, in (0, 1).
        replicates: number of resampled sets.
        seed: the same seed draws the same sets.
    """
    return _interval(statistic, groups, level, replicates, seed)[0]


def paired_bootstrap(
    first: Statistic,
    second: Statistic,
    groups: ArrayLike,
    *,
    level: float = 0.95,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> PairedDifference | Undefined:
    """Test between two models on the same cases: both are measured on every resampled set.

    Args:
        first: measure of the first model on the cases with the given indices.
        second: measure of the second model.
        groups: (N,) patient, sequence or other unit of each case.
        level: of the interval of the difference.
        replicates: number of resampled sets.
        seed: the same seed draws the same sets.
    """

    def difference(indices: NDArray[np.intp]) -> Value:
        left, right = first(indices), second(indices)
        if isinstance(left, Undefined) or isinstance(right, Undefined):
            return left if isinstance(left, Undefined) else right
        return left - right

    interval, values = _interval(difference, groups, level, replicates, seed)
    if isinstance(interval, Undefined):
        return interval
    tail = min(np.count_nonzero(values <= 0), np.count_nonzero(values >= 0))
    return PairedDifference(interval, min(1.0, float(2 * (tail + 1) / (len(values) + 1))))


def draw_groups(groups: ArrayLike, *, replicates: int = REPLICATES, seed: int = 0) -> NDArray[np.float32]:
    """(N,) group of each case -> (R, N) how often it comes in each resampled set; the same seed draws the same sets."""
    members = _members(groups)
    random = np.random.default_rng(seed)
    draws = np.zeros((replicates, sum(map(len, members))), np.float32)
    for row in draws:
        times = np.bincount(random.integers(len(members), size=len(members)), minlength=len(members))
        for group, count in zip(members, times, strict=True):
            row[group] = count
    return draws


def mean_and_sd(values: Sequence[Value]) -> Spread | Undefined:
    """Values of one measure over seeds -> mean and standard deviation of the defined ones."""
    defined = [value for value in values if is_defined(value)]
    if not defined:
        return next((value for value in values if isinstance(value, Undefined)), Undefined("no seed"))
    sd: Value = float(np.std(defined, ddof=1)) if len(defined) > 1 else Undefined("one seed only")
    return Spread(float(np.mean(defined)), sd, len(defined))


def _interval(
    statistic: Statistic, groups: ArrayLike, level: float, replicates: int, seed: int
) -> tuple[Interval | Undefined, NDArray[np.float64]]:
    if not 0 < level < 1:
        raise ValueError(f"level ({level}) must be between 0 and 1")
    if replicates < 1:
        raise ValueError(f"replicates ({replicates}) must be at least 1")
    nothing = np.array([])
    members = _members(groups)
    if not members:
        return Undefined("no case"), nothing
    value = statistic(np.arange(sum(map(len, members))))
    if isinstance(value, Undefined):
        return value, nothing
    if len(members) == 1:
        return Undefined("one group only"), nothing
    random = np.random.default_rng(seed)
    values = []
    for _ in range(replicates):
        drawn = random.integers(len(members), size=len(members))
        resampled = statistic(np.concatenate([members[group] for group in drawn]))
        if is_defined(resampled):
            values.append(resampled)
    if not values:
        return Undefined("no resampled set defines the measure"), nothing
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    interval = Interval(value, float(low), float(high), level, len(values), replicates - len(values))
    return interval, np.array(values)


def _members(groups: ArrayLike) -> list[NDArray[np.intp]]:
    names: NDArray[Any] = np.asarray(groups)
    if names.ndim != 1:
        raise ValueError(f"groups {names.shape} must be one name for each case")
    _, number = np.unique(names, return_inverse=True)
    order = np.argsort(number, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if names.size else []
