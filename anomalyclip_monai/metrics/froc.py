"""Free-response ROC: lesions found against false alarms per volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.measure import label

from anomalyclip_monai.metrics.undefined import Undefined

THRESHOLDS = tuple(np.round(np.arange(0.99, 0.0, -0.02), 2).tolist())
"""Default thresholds, for heatmaps in [0, 1] that use that range."""
MIN_INSIDE = 0.1
"""Share of a component that must lie in lesions for it to count as found rather than as a false alarm."""


@dataclass(frozen=True, slots=True)
class FROCCurve:
    """Points of the curve, from the highest threshold down.

    Attributes:
        thresholds: (T,) descending.
        false_positives: (T,) mean number of false alarms per volume.
        sensitivity: (T,) share of the lesions of all volumes that are found, in [0, 1].
    """

    thresholds: NDArray[np.float64]
    false_positives: NDArray[np.float64]
    sensitivity: NDArray[np.float64]

    def sensitivity_at(self, rate: float) -> float:
        """The best sensitivity before false positives per volume first exceed ``rate`` on the way down.

        Thresholds below that point do not count, although there components grow together and false alarms get fewer.
        """
        allowed = np.maximum.accumulate(self.false_positives) <= rate
        return float(self.sensitivity[allowed].max(initial=0.0))


class FROC:
    """Collects volumes; holds two numbers per threshold.

    At each threshold the 26-connected components of ``heatmap >= threshold`` (8-connected in 2D) are the detections.
    A detection of which at least ``min_inside`` lies in lesions finds every lesion that it touches; any other is a
    false positive. Without this share, one component that covers the whole head would find everything.

    Args:
        thresholds: any order.
        min_inside: share in [0, 1]; 0 asks for one common voxel.
    """

    def __init__(self, thresholds: ArrayLike = THRESHOLDS, *, min_inside: float = MIN_INSIDE) -> None:
        self.thresholds = np.unique(np.asarray(thresholds, float))[::-1]
        self.min_inside = min_inside
        self.volumes = 0
        self.lesions = 0
        self._found = np.zeros(self.thresholds.size, np.int64)
        self._false = np.zeros(self.thresholds.size, np.int64)

    def update(self, heatmap: ArrayLike, mask: ArrayLike | None = None, counted: ArrayLike | None = None) -> None:
        """(X, Y, Z) or (H, W): add one volume.

        Args:
            heatmap: higher means more abnormal.
            mask: above 0 in lesions; without it the volume is a normal one.
            counted: above 0 where voxels count at all; detections end at its border. None: everywhere.
        """
        scores = np.asarray(heatmap)
        abnormal = np.zeros(scores.shape, bool) if mask is None else np.asarray(mask) > 0
        if abnormal.shape != scores.shape:
            raise ValueError(f"heatmap {scores.shape} and mask {abnormal.shape} must have one shape")
        there = np.ones_like(abnormal) if counted is None else np.asarray(counted) > 0
        abnormal = abnormal & there
        lesions: NDArray[Any] = label(abnormal, connectivity=abnormal.ndim)
        self.volumes += 1
        self.lesions += int(lesions.max(initial=0))
        for index, threshold in enumerate(self.thresholds.tolist()):
            found, false = _detections((scores >= threshold) & there, lesions, self.min_inside)
            self._found[index] += found
            self._false[index] += false

    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """-> (T,) lesions found and (T,) false alarms at each of ``thresholds``, over all volumes so far."""
        return self._found.copy(), self._false.copy()

    def curve(self) -> FROCCurve | Undefined:
        """The curve over all volumes so far."""
        if not self.lesions:
            return Undefined("no lesion" if self.volumes else "no volume")
        return FROCCurve(self.thresholds, self._false / self.volumes, self._found / self.lesions)


def _detections(predicted: NDArray[np.bool_], lesions: NDArray[Any], min_inside: float) -> tuple[int, int]:
    """Lesions found and false positives among the components of ``predicted``."""
    spans = [
        np.flatnonzero(predicted.any(axis=tuple(other for other in range(predicted.ndim) if other != axis)))
        for axis in range(predicted.ndim)
    ]
    if not spans[0].size:
        return 0, 0
    box = tuple(slice(int(span[0]), int(span[-1]) + 1) for span in spans)
    predicted, lesions = predicted[box], lesions[box]
    components: NDArray[Any] = label(predicted, connectivity=predicted.ndim)
    common = (components > 0) & (lesions > 0)
    sizes = np.bincount(components.ravel())
    inside = np.bincount(components[common], minlength=sizes.size)
    is_detection = np.arange(sizes.size) > 0  # 0 is the background
    finds = is_detection & (inside > 0) & (inside >= min_inside * sizes)
    found = np.unique(lesions[common][finds[components[common]]]).size
    return found, int(np.count_nonzero(is_detection & ~finds))
