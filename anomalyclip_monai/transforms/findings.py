"""What was found in a case: made once, behind the network, and read by all that write, measure or show it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from anomalyclip_monai.types import UNCALIBRATED, FloatArray


@dataclass(frozen=True, slots=True)
class Threshold:
    """Heatmap values that make the mask, and where they come from.

    Attributes:
        value: a lesion holds voxels at or above it.
        low: its outline encloses what is connected with them down to here; ``value`` where there is one threshold.
        origin: in words.
    """

    value: float
    low: float
    origin: str

    @property
    def is_calibrated(self) -> bool:
        """Whether the value was fitted to something, or given."""
        return not self.origin.startswith(UNCALIBRATED)

    @property
    def said(self) -> str:
        """``0.55``, or ``0.55 with outlines from 0.35``."""
        return f"{self.value:g}" + ("" if self.low == self.value else f" with outlines from {self.low:g}")


@dataclass(frozen=True, slots=True)
class Lesion:
    """One connected component of the mask (26-connected, 8-connected in a single slice).

    Attributes:
        volume_mm3: None where voxels have no physical size.
        voxels: number of voxels.
        centroid_voxel: mean voxel index.
        centroid_world_mm: its position in RAS mm; None where voxels have no physical size.
        bbox_voxel: first corner, and the corner behind the last voxel (half-open).
        peak_voxel: the voxel with the highest heatmap value, the first one of several.
        peak_world_mm: its position in RAS mm; None where voxels have no physical size.
        peak: highest heatmap value.
        mean: mean heatmap value.
    """

    volume_mm3: float | None
    voxels: int
    centroid_voxel: tuple[float, float, float]
    centroid_world_mm: tuple[float, float, float] | None
    bbox_voxel: tuple[tuple[int, int, int], tuple[int, int, int]]
    peak_voxel: tuple[int, int, int]
    peak_world_mm: tuple[float, float, float] | None
    peak: float
    mean: float


@dataclass(frozen=True, slots=True, eq=False)
class Findings:
    """Scores, threshold and lesions of a case; without arguments those of a case that was not scored.

    Attributes:
        score: of the case, in [0, 1].
        slice_scores: (S,), in [0, 1], along ``slice_axis``.
        axes: array axes along which slices were taken for the heatmap, that of ``slice_scores`` first.
        threshold: of the mask.
        lesions: the highest peak first.
        min_volume: of what a lesion has at or above the threshold, in mm3, or in pixels without a physical size.
    """

    score: float = math.nan
    slice_scores: FloatArray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))
    axes: tuple[int, ...] = (2,)
    threshold: Threshold = Threshold(math.nan, math.nan, "none")
    lesions: list[Lesion] = field(default_factory=list)
    min_volume: float = 0.0

    @property
    def slice_axis(self) -> int:
        """Array axis of the slices."""
        return self.axes[0]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Findings):
            return NotImplemented
        same_scores = np.array_equal([self.score, *self.slice_scores], [other.score, *other.slice_scores], True)
        return same_scores and all(
            getattr(self, name) == getattr(other, name) for name in ("axes", "threshold", "lesions", "min_volume")
        )

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> dict[str, Any]:
        """As ``scores.json`` has them."""
        return {
            "score": self.score,
            "slice_axis": self.slice_axis,
            "axes": list(self.axes),
            "slice_scores": [round(float(score), 6) for score in self.slice_scores],
            "threshold": asdict(self.threshold),
            "min_volume": self.min_volume,
            "lesions": [asdict(lesion) for lesion in self.lesions],
        }

    def for_viewers(self) -> dict[str, Any]:
        """As MONAI Label hands them on beside the mask: numbers and lists of numbers."""
        return {
            "score": self.score,
            "slice_scores": self.slice_scores.tolist(),
            "lesions": len(self.lesions),
            "threshold": self.threshold.value,
            "threshold_low": self.threshold.low,
        }
