"""The part of the field of view that holds the body: seen alone, the same network resolves smaller things in it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

AIR = 0.1
"""Display values up to this are air, or its noise."""

LEAST = 0.001
"""A row or column belongs to the body where more than this share of its pixels, in all slices together, is not air."""

MARGIN = 0.05
"""Added on both sides, as a share of the length."""

MIN_SHARE = 0.5
"""No side becomes shorter than this share of the field of view: nothing is shown more than twice as large."""

MAX_RATIO = 1.5
"""The longer side, in mm, is at most this times the shorter one where the field of view allows it: the network sees a
square, and what is long and thin would be bent out of shape."""


def body_window(slices: Tensor, pixel: tuple[float, float] = (1.0, 1.0)) -> tuple[slice, slice]:
    """The rows and columns that hold the body in any of the slices, with a margin; all where there is nothing.

    Args:
        slices: (S, C, H, W) display values in [0, 1].
        pixel: height and width of a pixel in mm.
    """
    total = slices.shape[2:]
    bright = (slices > AIR).any(dim=1)
    body = [_extent(bright, axis) for axis in (1, 2)]
    lengths = [(stop - start) * size for (start, stop), size in zip(body, pixel, strict=True)]
    rows, columns = (
        _grown(*extent, math.ceil(max(MIN_SHARE * count, max(lengths) / MAX_RATIO / size)), count)
        for extent, count, size in zip(body, total, pixel, strict=True)
    )
    return rows, columns


def _extent(bright: Tensor, axis: int) -> tuple[int, int]:
    """First and one past the last of the body along an axis of (S, H, W), with margins."""
    count = bright.shape[axis]
    found = torch.nonzero(bright.sum(dim=(0, 3 - axis)) > LEAST * bright.numel() / count).flatten().tolist()
    if not found:
        return 0, count
    margin = math.ceil(MARGIN * (found[-1] + 1 - found[0]))
    return max(0, found[0] - margin), min(count, found[-1] + 1 + margin)


def _grown(start: int, stop: int, least: int, count: int) -> slice:
    """An interval made ``least`` long about its middle, within ``count``."""
    length = min(count, max(least, stop - start))
    start = min(max(0, (start + stop - length) // 2), count - length)
    return slice(start, start + length)
