"""What is measured of one volume with a lesion mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.measure import label

from anomalyclip_monai.metrics.pixels import PixelScores
from anomalyclip_monai.metrics.pointing import pointing, slice_pointing
from anomalyclip_monai.metrics.ranking import BestF1, auroc, dice
from anomalyclip_monai.metrics.undefined import Undefined, Value

CUBIC_MM_PER_ML = 1000.0
"""A millilitre in mm3."""


@dataclass(frozen=True, slots=True)
class VolumeMeasures:
    """The measures of one volume; each is undefined, with the reason, where the volume does not define it.

    Attributes:
        slice_auroc: of the slice scores, a slice being abnormal with at least one lesion voxel.
        voxel_auroc: over the whole volume.
        voxel_ap: average precision over the whole volume.
        voxel_auroc_inside: over the voxels inside the body.
        best_dice: the largest Dice of all thresholds, and its threshold.
        dice: of the mask at the fixed threshold.
        pointing: whether the highest voxel lies in a lesion.
        slice_pointing: share of the slices with a lesion whose highest voxel lies in it.
        false_alarm_ml: volume of that mask outside lesions, in ml.
        false_alarms: its 26-connected components that hold no lesion voxel.
    """

    slice_auroc: Value
    voxel_auroc: Value
    voxel_ap: Value
    voxel_auroc_inside: Value
    best_dice: BestF1 | Undefined
    dice: Value
    pointing: Value
    slice_pointing: Value
    false_alarm_ml: Value
    false_alarms: int


def measure_volume(
    heatmap: ArrayLike,
    mask: ArrayLike,
    slice_scores: ArrayLike,
    *,
    slice_axis: int,
    predicted: ArrayLike,
    voxel_volume: float | None,
    inside: ArrayLike | None = None,
    counted: ArrayLike | None = None,
) -> VolumeMeasures:
    """(X, Y, Z) heatmap and mask -> all measures of the volume.

    Args:
        heatmap: higher means more abnormal.
        mask: above 0 in lesions; empty for a normal volume.
        slice_scores: (S,) one for each index along ``slice_axis``.
        slice_axis: array axis along which slices were taken.
        predicted: (X, Y, Z) above 0 where the heatmap was taken for lesion, at the fixed threshold.
        voxel_volume: mm3; None where the volume has no physical size.
        inside: above 0 in the body (:func:`~anomalyclip_monai.metrics.baselines.inside_body`); None leaves the
            measures inside it undefined.
        counted: above 0 where voxels count at all; None: everywhere. A slice without a lesion is left out of the
            slice AUROC unless all of it counts.

    Raises:
        ValueError: shapes do not agree.
    """
    scores, lesion = np.asarray(heatmap), np.asarray(mask) > 0
    if scores.shape != lesion.shape:
        raise ValueError(f"heatmap {scores.shape} and mask {lesion.shape} must have one shape")
    there = np.ones_like(lesion) if counted is None else np.asarray(counted) > 0
    lesion = lesion & there
    whole = _voxels(scores, lesion, there)
    within = None if inside is None else _voxels(scores, lesion, there & (np.asarray(inside) > 0))
    marked = (np.asarray(predicted) > 0) & there
    return VolumeMeasures(
        slice_auroc=slice_auroc(slice_scores, lesion, slice_axis, counted),
        voxel_auroc=whole.auroc(),
        voxel_ap=whole.average_precision(),
        voxel_auroc_inside=Undefined("the body is not known") if within is None else within.auroc(),
        best_dice=whole.best_dice(),
        dice=dice(lesion, marked, 1, of="voxel"),
        pointing=pointing(scores, lesion, there),
        slice_pointing=slice_pointing(scores, lesion, slice_axis, there),
        false_alarm_ml=millilitres(marked & ~lesion, voxel_volume),
        false_alarms=_without_lesion(marked, lesion),
    )


def slice_labels(mask: ArrayLike, axis: int) -> NDArray[np.bool_]:
    """(X, Y, Z) mask -> (S,) bool, whether a slice along ``axis`` holds a lesion voxel."""
    slices = np.moveaxis(np.asarray(mask) > 0, axis, 0)
    return np.array([lesion.any() for lesion in slices], bool)


def slice_auroc(slice_scores: ArrayLike, mask: ArrayLike, axis: int, counted: ArrayLike | None = None) -> Value:
    """(S,) scores and (X, Y, Z) mask -> AUROC of slices with against slices without a lesion.

    Where ``counted`` is given, slices without a lesion that it does not fill are left out: nobody knows of them.
    """
    labels, scores = slice_labels(mask, axis), np.asarray(slice_scores)
    if counted is not None and labels.size == scores.size:
        known = labels | ~slice_labels(~(np.asarray(counted) > 0), axis)
        labels, scores = labels[known], scores[known]
    return auroc(labels, scores, of="slice")


def millilitres(voxels: ArrayLike, voxel_volume: float | None) -> Value:
    """(X, Y, Z) bool -> volume of the true voxels in ml.

    Args:
        voxels: which ones count.
        voxel_volume: mm3 of one; None where there is no physical size.
    """
    if voxel_volume is None:
        return Undefined("no physical size")
    return float(np.count_nonzero(voxels) * voxel_volume / CUBIC_MM_PER_ML)


def _voxels(scores: NDArray[Any], lesion: NDArray[np.bool_], inside: ArrayLike | None = None) -> PixelScores:
    pixels = PixelScores(regions=False, of="voxel")
    pixels.update(scores, lesion, inside)
    return pixels


def _without_lesion(predicted: NDArray[np.bool_], lesion: NDArray[np.bool_]) -> int:
    """How many components of a mask hold no voxel of a lesion."""
    components: NDArray[Any] = label(predicted, connectivity=predicted.ndim)
    return int(components.max(initial=0)) - np.unique(components[lesion & predicted]).size
