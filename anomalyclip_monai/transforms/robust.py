"""Limits of values without a unit that neither a stray voxel, nor padding, nor an offset moves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]

SAMPLE = 2**18
"""Voxels that are looked at where a whole volume is not needed."""

STRAY_SHARE = 0.001
"""Share of a volume that may be stray voxels, one at the least."""

FAR = 10.0
"""What lies this many times the range of the other values away from them is no tissue."""

FEW, TYPE_END = 0.01, 32767.0
"""More than this share of the voxels with one high number are tissue, but from the largest number of 16 bits on."""

BACKGROUND_SHARE, BACKGROUND_WIDTH = 0.1, 0.02
"""The darkest values are a background if this share of the voxels lies within this fraction of the range."""

BACKGROUND_OFFSET = 0.1
"""A background that lies no further from 0 than this fraction of the range counts as 0."""


def sample(values: Values) -> Values:
    """Up to ``SAMPLE`` of the values, always the same ones, (N,). Even steps would fall into step with the slices."""
    flat = values.reshape(-1)
    if flat.size <= SAMPLE:
        return flat
    return flat[np.random.default_rng(0).integers(flat.size, size=SAMPLE)]


def percentile_limits(values: Values, upper_percentile: float, foreground_fraction: float) -> tuple[float, float]:
    """What becomes 0 and 1: the background, and a percentile of the voxels that are clearly brighter than it.

    In most volumes the background is 0, and the upper limit the percentile of the voxels brighter than a fraction of
    the mean. Stray voxels and padding, which would move the mean, are left out of both.

    Args:
        values: a whole volume.
        upper_percentile: of the foreground, becomes 1.
        foreground_fraction: the foreground is this fraction of the mean above the background.
    """
    kept = without_strays(values.reshape(-1))
    low = background(kept)
    above = kept - low if low else kept
    foreground = above[above > foreground_fraction * above.mean(dtype=np.float64)]
    upper = float(np.percentile(foreground, upper_percentile)) if foreground.size else 0.0
    return low, low + (upper if upper > 0 else 1.0)


def without_strays(values: Values) -> Values:
    """(N,) -> the values without padding and strays; the array itself, if there are none."""
    low, high = _believed(np.sort(sample(values)))
    if values.min() >= low and values.max() <= high:
        return values
    return values[(values >= low) & (values <= high)]


def background(values: Values) -> float:
    """The value of what is empty: 0, unless the values lie elsewhere.

    They do if their darkest tenth is one narrow band away from 0, or if all of them are far from it.
    """
    seen = sample(values)
    low, high = np.percentile(seen, (1, 99.9))
    reach = high - low
    if not reach > 0:
        return 0.0
    band = seen[seen <= low + BACKGROUND_WIDTH * reach]
    if band.size >= BACKGROUND_SHARE * seen.size:
        level = float(np.median(band))
        return level if abs(level) > BACKGROUND_OFFSET * reach else 0.0
    return float(low) if low > FAR * reach or high < 0 else 0.0


def _believed(seen: Values) -> tuple[float, float]:
    """The range of values in ascending order that are no padding and no strays."""
    lowest = -math.inf
    low, high = _usual_range(seen)
    # One number below zero, and further below the others than they reach: padding. Not below zero, 0 may be the air
    # of an image that has no other values near it, so it has to be further.
    others = seen[np.searchsorted(seen, seen[0], "right") :]
    if others.size and 0 < high - others[0] < (others[0] - seen[0]) / (1 if seen[0] < 0 else FAR):
        lowest, seen = float(others[0]), others
        low, high = _usual_range(seen)
    # The same above, where there may be several. Many voxels of one number are padding if a type ends there.
    for _ in range(8):
        others = seen[: np.searchsorted(seen, seen[-1], "left")]
        many = others.size < (1 - FEW) * seen.size and seen[-1] < TYPE_END
        if many or not others.size or not 0 < FAR * (others[-1] - low) < seen[-1] - others[-1]:
            break
        seen = others
        low, high = _usual_range(seen)
    usual = np.minimum(seen, high) - low
    foreground = seen[usual > 0.3 * usual.mean(dtype=np.float64)]
    if not foreground.size:
        return lowest, math.inf
    reach = FAR * (float(np.percentile(foreground, 95)) - low)
    return max(lowest, low - reach), low + reach


def _usual_range(ordered: Values) -> tuple[float, float]:
    """The lowest and the highest of values in ascending order, but for the share that may be stray."""
    skipped = min(math.ceil(STRAY_SHARE * ordered.size), ordered.size - 1)
    return float(ordered[skipped]), float(ordered[-1 - skipped])
