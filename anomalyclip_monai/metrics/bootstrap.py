"""How sure a measure is: resampled sets of whole groups, and the spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomalyclip_monai.metrics.undefined import Undefined, Value, is_defined


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation over seeds.

    Attributes:
        mean: over the seeds that define the measure.
        sd: with n - 1; undefined for a single seed.
    """

    mean: float
    sd: Value


def draw_groups(groups: ArrayLike, *, replicates: int, seed: int = 0) -> NDArray[np.float32]:
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
    return Spread(float(np.mean(defined)), sd)


def _members(groups: ArrayLike) -> list[NDArray[np.intp]]:
    names: NDArray[Any] = np.asarray(groups)
    if names.ndim != 1:
        raise ValueError(f"groups {names.shape} must be one name for each case")
    _, number = np.unique(names, return_inverse=True)
    order = np.argsort(number, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if names.size else []
