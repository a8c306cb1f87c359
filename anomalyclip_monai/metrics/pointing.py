"""Pointing: whether the brightest place of a map lies in the lesion."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from anomalyclip_monai.metrics.undefined import Undefined, Value


def pointing(heatmap: ArrayLike, mask: ArrayLike, counted: ArrayLike | None = None) -> Value:
    """(H, W) or (X, Y, Z) -> 1 if the highest score lies in the lesion, else 0; undefined without a lesion.

    Where several pixels share the highest score, the share of them that lies in the lesion: the chance of hitting it
    with one of them, so that a constant map gains nothing.

    Args:
        heatmap: higher means more abnormal.
        mask: above 0 in the lesion.
        counted: above 0 where pixels count at all; None: everywhere.
    """
    scores, abnormal = np.asarray(heatmap), np.asarray(mask) > 0
    if scores.shape != abnormal.shape:
        raise ValueError(f"heatmap {scores.shape} and mask {abnormal.shape} must have one shape")
    if counted is not None:
        where = np.asarray(counted) > 0
        scores, abnormal = scores[where], abnormal[where]
    if not abnormal.any():
        return Undefined("no abnormal pixel")
    return float(abnormal[scores == scores.max()].mean())


def slice_pointing(heatmap: ArrayLike, mask: ArrayLike, axis: int, counted: ArrayLike | None = None) -> Value:
    """(X, Y, Z) -> share of the slices along ``axis`` with a lesion whose highest score lies in it, in [0, 1].

    See :func:`pointing` for ``counted``.
    """
    there = np.ones(np.shape(mask), bool) if counted is None else counted
    slices = zip(*(np.moveaxis(np.asarray(given), axis, 0) for given in (heatmap, mask, there)), strict=True)
    hits = [hit for hit in (pointing(*pair) for pair in slices) if not isinstance(hit, Undefined)]
    return float(np.mean(hits)) if hits else Undefined("no abnormal slice")
