"""Pixel measures over any number of maps, exact and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomalyclip_monai.metrics.ranking import BestF1
from anomalyclip_monai.metrics.regions import region_weights
from anomalyclip_monai.metrics.sorted_scores import (
    BLOCK_ENTRIES,
    MEMORY_BYTES,
    RUN_ENTRIES,
    Entries,
    SortedScores,
    cuts,
)
from anomalyclip_monai.metrics.undefined import Undefined, Value, class_missing


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive distinct scores as thresholds, from the highest down; counts run on from block to block.

    Attributes:
        thresholds: (T,) descending.
        false_positives: (T,) normal pixels at or above the threshold, int64.
        true_positives: (T,) abnormal pixels at or above it, int64.
        covered: (T,) sum over regions of the covered fraction, float64; None where regions are not measured.
    """

    thresholds: NDArray[Any]
    false_positives: NDArray[np.int64]
    true_positives: NDArray[np.int64]
    covered: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class Curves:
    """The ROC, precision-recall and PRO curves at chosen thresholds, for plots.

    Attributes:
        thresholds: (T,) descending.
        false_positive_rate: (T,) in [0, 1].
        recall: (T,) share of abnormal pixels found, in [0, 1].
        precision: (T,) in [0, 1].
        region_overlap: (T,) mean covered fraction of the regions; None where regions are not measured.
    """

    thresholds: NDArray[Any]
    false_positive_rate: NDArray[np.float64]
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    region_overlap: NDArray[np.float64] | None


class PixelScores:
    """Collects anomaly maps with their masks; every measure is exact, each distinct score being a threshold.

    Holds less than 1 GB whatever the number of maps, by default; beyond 256 MB of sorted scores these move to a
    temporary file, of about 4 bytes for each normal and 13 for each abnormal float32 pixel at most.

    Args:
        regions: also measure per-region overlap (:mod:`anomalyclip_monai.metrics.pro`); maps are then (H, W).
        dtype: float32 or float64, in which scores are kept and compared; None takes that of the first map.
        run_entries: scores sorted at once.
        memory_bytes: what sorted scores of each class may hold in memory.
        block_entries: thresholds looked at in one go.
        of: what is ranked, ``pixel`` or ``voxel``, for the reason of an undefined value.
    """

    def __init__(
        self,
        *,
        regions: bool = True,
        dtype: np.dtype[Any] | type[np.floating[Any]] | None = None,
        run_entries: int = RUN_ENTRIES,
        memory_bytes: int = MEMORY_BYTES,
        block_entries: int = BLOCK_ENTRIES,
        of: str = "pixel",
    ) -> None:
        self.measures_regions = regions
        self.regions = 0
        self.maps = 0
        self.of = of
        self._takes_first_dtype = dtype is None
        self._run_entries = run_entries
        self._memory_bytes = memory_bytes
        self._block_entries = block_entries
        self._start(np.dtype(np.float32 if dtype is None else dtype))

    def _start(self, dtype: np.dtype[Any]) -> None:
        if dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ValueError(f"dtype ({dtype}) must be float32 or float64")
        self.dtype = dtype
        size = self._run_entries
        self._normal = SortedScores(dtype=dtype, run_entries=size, memory_bytes=self._memory_bytes)
        self._abnormal = SortedScores(
            weighted=self.measures_regions,
            dtype=dtype,
            run_entries=max(size // 4, 1),
            memory_bytes=self._memory_bytes,
        )

    @property
    def normal_pixels(self) -> int:
        """Pixels outside every mask so far."""
        return self._normal.count

    @property
    def abnormal_pixels(self) -> int:
        """Pixels in a mask so far."""
        return self._abnormal.count

    @property
    def lowest(self) -> float:
        """The lowest score so far; infinite before the first map."""
        return min(self._normal.lowest, self._abnormal.lowest)

    @property
    def highest(self) -> float:
        """The highest score so far; minus infinite before the first map."""
        return max(self._normal.highest, self._abnormal.highest)

    def update(self, heatmap: ArrayLike, mask: ArrayLike | None = None, inside: ArrayLike | None = None) -> None:
        """(H, W) or any other shape: add one map.

        Args:
            heatmap: any finite range; higher means more abnormal.
            mask: above 0 where abnormal; None for a normal image.
            inside: above 0 where pixels count at all, for example in the body; a region is what of it lies inside.

        Raises:
            ValueError: shapes differ, a score is not finite, or ``dtype`` cannot hold the scores.
        """
        given = np.asarray(heatmap)
        if self._takes_first_dtype and not self.maps:
            self._start(np.result_type(given.dtype, np.float32))
        scores = given.astype(self.dtype, copy=False)
        abnormal = np.zeros(scores.shape, bool) if mask is None else _as_mask(mask)
        counted = None if inside is None else _as_mask(inside)
        for name, other in (("mask", abnormal), ("inside", counted)):
            if other is not None and other.shape != scores.shape:
                raise ValueError(f"heatmap {scores.shape} and {name} {other.shape} must have one shape")
        # A NaN carries through to the lowest score.
        if scores.size and not np.isfinite([scores.min(), scores.max()]).all():
            raise ValueError(f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are not finite")
        if not np.can_cast(given.dtype, self.dtype) and (scores != given).any():
            raise ValueError(f"{given.dtype} scores do not fit {self.dtype} - use dtype=numpy.float64 from the start")
        if self.measures_regions and scores.ndim != 2:
            raise ValueError(f"heatmap {scores.shape} must be (H, W) where regions are measured")

        normal = ~abnormal
        if counted is not None:
            abnormal, normal = abnormal & counted, normal & counted
        weights = None
        if self.measures_regions:
            weights, regions = region_weights(abnormal)
            self.regions += regions
        self._normal.add(scores[normal])
        self._abnormal.add(scores[abnormal], weights)
        self.maps += 1

    def blocks(self) -> Iterator[Block]:
        """Every distinct score as a threshold, descending, in blocks of bounded size."""
        stores = [self._normal, self._abnormal]
        if not self._normal.count + self._abnormal.count:
            return
        false_positives = true_positives = 0
        covered = 0.0
        at = cuts(stores, self._block_entries)
        for normal, abnormal in zip(self._normal.descending(at), self._abnormal.descending(at), strict=True):
            if not normal.values.size + abnormal.values.size:
                continue
            thresholds, normal_counts, abnormal_counts, weights = _union(normal, abnormal)
            block = Block(
                thresholds[::-1],
                false_positives + np.cumsum(normal_counts[::-1]),
                true_positives + np.cumsum(abnormal_counts[::-1]),
                None if weights is None else covered + np.cumsum(weights[::-1]),
            )
            false_positives, true_positives = int(block.false_positives[-1]), int(block.true_positives[-1])
            if block.covered is not None:
                covered = float(block.covered[-1])
            yield block

    def missing(self) -> Undefined | None:
        """Why pixel measures have no value, if they have none."""
        return class_missing(self.abnormal_pixels, self.normal_pixels, self.of)

    def auroc(self) -> Value:
        """Area under the ROC curve over all pixels, in [0, 1]; a tie counts half."""
        if missing := self.missing():
            return missing
        area, last_true = 0.0, 0.0
        last_false = 0.0
        for block in self.blocks():
            false_positives = np.append(last_false, block.false_positives)
            true_positives = np.append(last_true, block.true_positives)
            area += float(np.trapezoid(true_positives, false_positives))
            last_false, last_true = false_positives[-1], true_positives[-1]
        return area / self.normal_pixels / self.abnormal_pixels

    def average_precision(self) -> Value:
        """Average precision over all pixels, in [0, 1]."""
        if missing := self.missing():
            return missing
        total, last = 0.0, 0
        for block in self.blocks():
            steps = np.diff(block.true_positives, prepend=last)
            # Only a threshold that finds an abnormal pixel adds to the sum, and these are few.
            at = np.flatnonzero(steps)
            found = block.true_positives[at]
            total += float((steps[at] * (found / (found + block.false_positives[at]))).sum())
            last = int(block.true_positives[-1])
        return total / self.abnormal_pixels

    def best_dice(self) -> BestF1 | Undefined:
        """The largest Dice (F1-max) of all pixels pooled, and the highest threshold that reaches it."""
        if missing := self.missing():
            return missing
        best = BestF1(-1.0, np.inf)
        for block in self.blocks():
            f1 = 2 * block.true_positives / (block.true_positives + block.false_positives + self.abnormal_pixels)
            at = int(f1.argmax())
            if f1[at] > best.value:
                best = BestF1(float(f1[at]), float(block.thresholds[at]))
        return best

    def counts(
        self, thresholds: NDArray[Any], *, strict: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """(T,) thresholds -> normal and abnormal pixels at or above each, and covered fractions summed over regions.

        Args:
            thresholds: any order.
            strict: count pixels above, not at, the threshold.
        """
        thresholds = thresholds.astype(self.dtype)
        false_positives = np.zeros(len(thresholds), np.int64)
        true_positives = np.zeros(len(thresholds), np.int64)
        covered = np.zeros(len(thresholds))
        for block in self.blocks():
            ascending = block.thresholds[::-1]
            above = len(ascending) - np.searchsorted(ascending, thresholds, side="right" if strict else "left")
            reached = above > 0
            last = above[reached] - 1
            false_positives[reached] = block.false_positives[last]
            true_positives[reached] = block.true_positives[last]
            if block.covered is not None:
                covered[reached] = block.covered[last]
            if thresholds.size and ascending[0] < thresholds.min():
                break  # all that follows lies below every threshold
        return false_positives, true_positives, covered

    def curves(self, points: int = 500) -> Curves | Undefined:
        """The curves at thresholds spread evenly over the false positive rate and over recall."""
        if missing := self.missing():
            return missing
        kept: list[NDArray[Any]] = []
        last = np.array([-1, -1])
        size = np.array([self.normal_pixels, self.abnormal_pixels])
        for block in self.blocks():
            bins = np.stack([block.false_positives, block.true_positives]) * (points // 2) // size[:, None]
            changed = (np.diff(bins, prepend=last[:, None]) != 0).any(0)
            last = bins[:, -1]
            rows = [block.thresholds, block.false_positives, block.true_positives]
            rows.append(np.zeros(len(changed)) if block.covered is None else block.covered)
            kept.append(np.stack([row[changed].astype(float) for row in rows]))
        thresholds, false_positives, true_positives, covered = np.concatenate(kept, axis=1)
        return Curves(
            thresholds,
            false_positives / self.normal_pixels,
            true_positives / self.abnormal_pixels,
            true_positives / (true_positives + false_positives),
            covered / self.regions if self.measures_regions else None,
        )


def _as_mask(given: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(given)
    return array if array.dtype == bool else array > 0


def _union(
    normal: Entries, abnormal: Entries
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64] | None]:
    """Distinct scores of both classes, ascending, with the counts of each and the weights of the second."""
    at = np.searchsorted(normal.values, abnormal.values)
    known = np.zeros(at.size, bool)
    if normal.values.size:
        known = normal.values[np.minimum(at, normal.values.size - 1)] == abnormal.values
    values = np.insert(normal.values, at[~known], abnormal.values[~known])
    normal_counts = np.insert(normal.counts.astype(np.int64), at[~known], 0)
    place = at + np.cumsum(~known) - (~known)
    abnormal_counts = np.zeros(values.size, np.int64)
    abnormal_counts[place] = abnormal.counts
    if abnormal.weights is None:
        return values, normal_counts, abnormal_counts, None
    weights = np.zeros(values.size)
    weights[place] = abnormal.weights
    return values, normal_counts, abnormal_counts, weights
