"""The measures of photos: image scores, and pixels pooled over a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyclip_monai.engines.evaluation.measured import ClassMeasures, SetMetric
from anomalyclip_monai.engines.evaluation.methods import TRIVIAL, scored
from anomalyclip_monai.engines.evaluation.protocols import Protocol
from anomalyclip_monai.engines.evaluation.samples import MeasuredPhoto, on_grid
from anomalyclip_monai.metrics.pixels import PixelScores
from anomalyclip_monai.metrics.pointing import pointing
from anomalyclip_monai.metrics.pro import exact_pro, paper_pro
from anomalyclip_monai.metrics.ranking import auroc, average_precision, best_f1, dice, operating_points
from anomalyclip_monai.metrics.sketch import PooledSketches, Sketch, sketch
from anomalyclip_monai.metrics.undefined import Undefined, Value
from anomalyclip_monai.metrics.weighted import (
    Rows,
    auroc_rows,
    average_precision_rows,
    best_f1_rows,
    counts_at_scores,
    mean_rows,
    without_constant,
)
from anomalyclip_monai.outputs.report.content import MeasuredSample
from anomalyclip_monai.transforms.outline import lesion_mask
from anomalyclip_monai.types import Record

TITLES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_pro_paper": "PRO (paper)",
    "pixel_pro_exact": "PRO (exact)",
    "pixel_ap": "pixel AP",
    "pixel_dice_max": "Dice at F1-max",
    "pixel_dice_max_threshold": "threshold at F1-max",
    "dice": "Dice at the fixed threshold",
    "pointing": "pointing",
    "pixel_auroc_lit": "pixel AUROC in the lit field",
}
"""Measure -> its name in tables, in their order."""

MEMORY_BYTES = 48 << 20
"""What each store of sorted scores may hold in memory before it moves to disk; several methods are measured at once."""

_NO_MASKS = Undefined("no lesion masks")
_NO_SKETCH = Sketch(np.zeros(0, np.float32), np.zeros((0, 5), np.float32), 0)
_POINTS = np.unique(np.concatenate([[0.0], np.geomspace(1e-4, 1, 100), np.linspace(0, 1, 98)]))


class PhotoMetric(SetMetric):
    """Measures of one method on photos.

    Args:
        method: whose maps are measured.
        protocol: which PRO.
        has_masks: whether the set has lesion masks; without them only image scores are measured.
        prefix: begins the names of the results.
    """

    def __init__(self, method: str, protocol: Protocol, *, has_masks: bool = True, prefix: str = "") -> None:
        self.protocol = protocol
        self.has_masks = has_masks
        super().__init__(method, prefix)

    def _begin(self) -> None:
        self._pixels = PixelScores(memory_bytes=MEMORY_BYTES)
        self._lit = PixelScores(regions=False, memory_bytes=MEMORY_BYTES, of="pixel of the lit field")
        self._sketches: list[Sketch] = []

    def _add(self, record: Record) -> MeasuredSample:
        found = scored(self.method, record)
        size = self.protocol.measured_size
        shape = record["heatmap"].shape[1:3] if size is None else (size, size)
        heatmap = on_grid(found.heatmap[..., 0], tuple(shape))
        pointed: Value = Undefined("no abnormal pixel")
        overlap: Value = _NO_MASKS
        if record["truth"] is None or not self.has_masks:
            self._sketches.append(_NO_SKETCH)
        else:
            photo = MeasuredPhoto.of(record, size)
            lesion, counted, lit = photo.lesion, photo.counted, photo.lit
            self._pixels.update(heatmap, lesion, counted)
            self._lit.update(heatmap, lesion, lit if counted is None else lit & counted)
            self._sketches.append(sketch(heatmap, lesion, lit, counted))
            pointed = pointing(heatmap, lesion, counted)
            if self.method not in TRIVIAL:
                where = ... if counted is None else counted
                threshold = record["findings"].threshold
                overlap = dice(lesion[where], lesion_mask(heatmap, threshold.value, threshold.low)[where], 1)
        return self._sample(record, found, pointed=pointed, overlap=overlap)

    def _measure(self, samples: list[MeasuredSample]) -> ClassMeasures:
        labels = np.array([sample.label for sample in samples])
        scores = np.array([sample.score for sample in samples])
        has_pixels = self._pixels.abnormal_pixels > 0
        best_image = best_f1(labels, scores)
        values: dict[str, Value] = {
            "image_auroc": auroc(labels, scores),
            "image_ap": average_precision(labels, scores),
            "image_f1_max": best_image if isinstance(best_image, Undefined) else best_image.value,
        }
        pooled = None
        per_image = {
            "dice": _column([sample.dice for sample in samples]),
            "pointing": _column([sample.pointing for sample in samples]),
        }
        if has_pixels:
            best = self._pixels.best_dice()
            is_paper = self.protocol.pro == "pixel_pro_paper"
            values |= {
                "pixel_auroc": self._pixels.auroc(),
                self.protocol.pro: paper_pro(self._pixels) if is_paper else exact_pro(self._pixels),
                "pixel_ap": self._pixels.average_precision(),
                "pixel_dice_max": best if isinstance(best, Undefined) else best.value,
                "pixel_dice_max_threshold": best if isinstance(best, Undefined) else best.threshold,
                "dice": _mean(per_image["dice"]),
                "pointing": _mean(per_image["pointing"]),
                "pixel_auroc_lit": self._lit.auroc(),
            }
            if self.method in TRIVIAL:
                values["dice"] = Undefined("the fixed threshold is the model's")
            pooled = PooledSketches(self._sketches, self._pixels.lowest, self._pixels.highest)
        else:
            masks = _NO_MASKS if labels.any() else Undefined("no abnormal pixel")
            values |= dict.fromkeys(("pixel_auroc", self.protocol.pro), masks)

        def resampled(draws: NDArray[Any]) -> Mapping[str, Rows]:
            images = counts_at_scores(labels, scores, draws)
            rows = {
                "image_auroc": auroc_rows(*images),
                "image_ap": average_precision_rows(*images),
                "image_f1_max": best_f1_rows(*images),
            }
            if pooled is not None:
                rows |= pooled.measures(draws)
                means = {key: mean_rows(column, draws) for key, column in per_image.items()}
                rows |= without_constant(means, per_image)
            return rows

        curves = pixel_curves(self._pixels) if has_pixels else image_curves(labels, scores)
        del self._pixels, self._lit, self._sketches
        return ClassMeasures(values, resampled, curves)


def pixel_curves(pixels: PixelScores) -> dict[str, list[tuple[float, float]]]:
    """ROC, precision-recall and PRO at up to 200 points."""
    curves = pixels.curves(1000)
    if isinstance(curves, Undefined):
        return {}
    found = _curves(curves.false_positive_rate, curves.recall, curves.precision)
    if curves.region_overlap is not None:
        found["pro"] = _sampled(curves.false_positive_rate, curves.region_overlap)
    return found


def image_curves(labels: NDArray[Any], scores: NDArray[Any]) -> dict[str, list[tuple[float, float]]]:
    """ROC and precision-recall of image scores at up to 200 points."""
    points = operating_points(labels, scores)
    false, found = points.false_positives, points.true_positives
    if not false.size or not false[-1] or not found[-1]:
        return {}
    return _curves(false / false[-1], found / found[-1], found / (found + false))


def _curves(rate: NDArray[Any], recall: NDArray[Any], precision: NDArray[Any]) -> dict[str, list[tuple[float, float]]]:
    roc = _sampled(rate, recall)
    # Precision is not interpolated: between two thresholds it is that of the lower one.
    at = np.searchsorted(recall, _POINTS[1:])
    pr = [(float(x), float(precision[min(index, recall.size - 1)])) for x, index in zip(_POINTS[1:], at, strict=True)]
    return {"roc": roc, "pr": pr}


def _sampled(rate: NDArray[Any], height: NDArray[Any]) -> list[tuple[float, float]]:
    """Points of a rising curve from (0, 0), at the same rates for every class, so that curves can be averaged."""
    heights = np.interp(_POINTS, np.append(0.0, rate), np.append(0.0, height))
    return list(zip(_POINTS.tolist(), heights.tolist(), strict=True))


def _column(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], float)


def _mean(values: NDArray[np.float64]) -> Value:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else Undefined("no image with a lesion")
