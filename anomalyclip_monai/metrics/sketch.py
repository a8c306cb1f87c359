"""What the bootstrap keeps of a map: a few hundred bins, so that pooled pixel measures can be resampled.

The measure itself is exact (:class:`~anomalyclip_monai.metrics.pixels.PixelScores`); sketches only say how it varies
when images are drawn with replacement. A bin holds pixels of neighbouring ranks of one image. Bins of normal pixels
get finer towards the highest scores, where precision and PRO are decided: up to rank r they are about 4 % of r wide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomalyclip_monai.metrics.pro import PAPER_STEPS
from anomalyclip_monai.metrics.regions import region_weights
from anomalyclip_monai.metrics.weighted import (
    Rows,
    auroc_rows,
    average_precision_rows,
    best_f1_rows,
    exact_pro_rows,
    paper_pro_rows,
)

TAIL_BINS, EVEN_BINS = 300, 120
"""Bins of one class of pixels in an image: geometric from the highest score down, and of equal size."""
NORMAL, ABNORMAL, COVERED, NORMAL_INSIDE, ABNORMAL_INSIDE = range(5)
"""Columns of a sketch: pixels, covered fraction of regions, pixels inside the lit field."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """The bins of one map.

    Attributes:
        scores: (E,) a score out of the middle of each bin.
        counts: (E, 5) what the bin holds, see ``NORMAL`` and the following.
        regions: lesions in the mask.
    """

    scores: NDArray[np.float32]
    counts: NDArray[np.float32]
    regions: int


def sketch(heatmap: ArrayLike, mask: ArrayLike, inside: ArrayLike, counted: ArrayLike | None = None) -> Sketch:
    """(H, W) map, lesion mask and lit field -> its bins, of the pixels above 0 in ``counted`` where it is given."""
    scores, abnormal, within = (np.asarray(given) for given in (heatmap, np.asarray(mask) > 0, np.asarray(inside) > 0))
    there = np.ones_like(abnormal) if counted is None else np.asarray(counted) > 0
    abnormal = abnormal & there
    weights, regions = region_weights(abnormal)
    parts = []
    for is_abnormal, chosen in ((0, ~abnormal & there), (1, abnormal)):
        values, order = scores[chosen], np.argsort(scores[chosen])[::-1]
        starts = _starts(values.size)
        ends = np.append(starts[1:], values.size)
        counts = np.zeros((starts.size, 5), np.float32)
        if starts.size:
            counts[:, NORMAL + is_abnormal] = ends - starts
            counts[:, NORMAL_INSIDE + is_abnormal] = np.add.reduceat(within[chosen][order], starts, dtype=np.int64)
            if is_abnormal:
                counts[:, COVERED] = np.add.reduceat(weights[order], starts)
        parts.append((values[order][(starts + ends) // 2 if starts.size else starts].astype(np.float32), counts))
    return Sketch(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), regions)


def _starts(count: int) -> NDArray[np.intp]:
    """First ranks of the bins of ``count`` sorted pixels."""
    if count <= TAIL_BINS:
        return np.arange(count)
    tail = np.geomspace(1, count - 1, TAIL_BINS).astype(np.intp)
    return np.unique(np.concatenate([[0], tail, np.linspace(0, count - 1, EVEN_BINS).astype(np.intp)]))


class PooledSketches:
    """Pixel measures over the sketched images of one class, for any number of resampled sets.

    Args:
        sketches: one for each image.
        lowest: the lowest score of all maps, where the paper's thresholds begin.
        highest: the highest one.
    """

    def __init__(self, sketches: Sequence[Sketch], lowest: float, highest: float) -> None:
        self._regions = np.array([part.regions for part in sketches], float)
        thresholds = _thresholds(sketches)
        self._counts = _histograms(sketches, thresholds, "right")
        steps = np.linspace(highest, lowest, PAPER_STEPS + 1)[1:]
        self._paper = _histograms(sketches, steps, "left")[:, :, :PAPER_STEPS]

    def measures(self, draws: NDArray[Any]) -> dict[str, Rows]:
        """(R, N) how often each image was drawn -> measure -> (R,)."""
        regions = np.maximum(draws @ self._regions, 1)[:, None]
        whole = self._at(NORMAL, draws), self._at(ABNORMAL, draws)
        lit = self._at(NORMAL_INSIDE, draws), self._at(ABNORMAL_INSIDE, draws)
        normal = np.maximum(whole[0][:, -1:], 1)
        has_both = (whole[0][:, -1] > 0) & (whole[1][:, -1] > 0)
        paper = [np.cumsum(draws @ self._paper[column], axis=1) for column in (NORMAL, COVERED)]
        found = {
            "pixel_auroc": auroc_rows(*whole),
            "pixel_auroc_lit": auroc_rows(*lit),
            "pixel_ap": average_precision_rows(*whole),
            "pixel_dice_max": best_f1_rows(*whole),
            "pixel_pro_exact": exact_pro_rows(whole[0] / normal, self._at(COVERED, draws) / regions),
            "pixel_pro_paper": paper_pro_rows(paper[0] / normal, paper[1] / regions),
        }
        return {name: np.where(has_both, rows, np.nan) for name, rows in found.items()}

    def _at(self, column: int, draws: NDArray[Any]) -> Rows:
        return np.cumsum(draws @ self._counts[column], axis=1, dtype=np.float64)


def _thresholds(sketches: Sequence[Sketch]) -> NDArray[np.float32]:
    """Descending scores, dense where few normal or few abnormal pixels of all images lie between them."""
    scores = np.concatenate([part.scores for part in sketches])
    order = np.argsort(scores)[::-1]
    counts = np.concatenate([part.counts[:, : ABNORMAL + 1] for part in sketches])[order].astype(np.float64)
    normal, abnormal = np.cumsum(counts, axis=0).T
    at = [np.searchsorted(normal, np.geomspace(1, max(normal[-1], 1), TAIL_BINS))]
    for ranks in (normal, abnormal):
        at.append(np.searchsorted(ranks, np.linspace(0, ranks[-1], 2 * EVEN_BINS)))
    chosen = scores[order][np.minimum(np.unique(np.concatenate(at)), scores.size - 1)]
    return np.unique(np.append(chosen, scores.min()))[::-1]


def _histograms(sketches: Sequence[Sketch], thresholds: NDArray[Any], closed: str) -> NDArray[np.float32]:
    """-> (5, N, T + 1): what lies between a threshold and the one above it; the last column is below all.

    Args:
        sketches: N of them.
        thresholds: (T,) descending.
        closed: ``right`` if a score at a threshold counts for it, ``left`` if only one above does.
    """
    table = np.zeros((5, len(sketches), len(thresholds) + 1), np.float32)
    ascending = -np.asarray(thresholds, np.float64)
    for index, part in enumerate(sketches):
        place = np.searchsorted(
            ascending, -part.scores.astype(np.float64), side="left" if closed == "right" else "right"
        )
        for column in range(5):
            table[column, index] = np.bincount(place, part.counts[:, column], len(thresholds) + 1)
    return table
