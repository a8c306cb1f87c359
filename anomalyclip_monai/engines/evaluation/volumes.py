"""The measures of volumes: each on its own, then over the volumes that define them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyclip_monai.data.geometry import voxel_volume
from anomalyclip_monai.engines.evaluation.measured import ClassMeasures, SetMetric
from anomalyclip_monai.engines.evaluation.methods import TRIVIAL, Scored, scored
from anomalyclip_monai.metrics.baselines import inside_body
from anomalyclip_monai.metrics.froc import FROC, FROCCurve
from anomalyclip_monai.metrics.ranking import BestF1, auroc
from anomalyclip_monai.metrics.undefined import Undefined, Value, is_defined
from anomalyclip_monai.metrics.volumes import measure_volume, slice_labels
from anomalyclip_monai.metrics.weighted import (
    Rows,
    auroc_rows,
    counts_at_scores,
    mean_rows,
    median_rows,
    without_constant,
)
from anomalyclip_monai.outputs.report.content import MeasuredSample
from anomalyclip_monai.transforms.outline import lesion_mask
from anomalyclip_monai.types import Record

FROC_RATES = {
    **{
        "froc_0": (0.0, "0 false alarms"),
        "froc_1_8": (1 / 8, "1/8 false alarm"),
        "froc_1_4": (1 / 4, "1/4 false alarm"),
    },
    **{"froc_1_2": (1 / 2, "1/2 false alarm"), "froc_1": (1.0, "1 false alarm"), "froc_2": (2.0, "2 false alarms")},
    **{"froc_4": (4.0, "4 false alarms"), "froc_8": (8.0, "8 false alarms")},
}
"""Measure -> false alarms per volume at which sensitivity is given, and in words."""

TITLES = {
    "slice_auroc": "slice AUROC",
    "voxel_auroc": "voxel AUROC",
    "voxel_auroc_inside": "voxel AUROC inside the body",
    "voxel_ap": "voxel AP",
    "dice_best": "Dice at each volume's best threshold, mean",
    "dice_best_median": "Dice at each volume's best threshold, median",
    "dice": "Dice at the fixed threshold, mean",
    "dice_median": "Dice at the fixed threshold, median",
    "slice_pointing": "pointing, slices with a lesion",
    "peak_in_lesion": "peak voxel in a lesion",
    **{name: f"lesions found at {words} per volume" for name, (_, words) in FROC_RATES.items()},
    "normal_false_ml": "false mask per volume without a lesion",
    "normal_false_lesions": "false lesions per volume without a lesion, number",
    "volume_auroc": "volume AUROC",
}
"""Measure -> its name in tables, in their order."""

_OF_ONE = (
    *("slice_auroc", "voxel_auroc", "voxel_auroc_inside", "voxel_ap", "dice_best", "dice"),
    *("slice_pointing", "peak_in_lesion", "normal_false_ml", "normal_false_lesions"),
)
_NO_MASKS = Undefined("no lesion masks")
_MEANS = ("slice_auroc", "voxel_auroc", "voxel_auroc_inside", "voxel_ap", "dice_best", "dice", "peak_in_lesion")
_OF_HEALTHY = ("normal_false_ml", "normal_false_lesions")
_THRESHOLD_IS_THE_MODELS = ("dice", "dice_median", *_OF_HEALTHY)


class VolumeMetric(SetMetric):
    """Measures of one method on volumes.

    FROC is of all volumes of a set together, those with and those without a lesion: a class of healthy volumes has no
    sensitivity, but its false alarms count.
    """

    def reset(self) -> None:
        """Forget all samples."""
        super().reset()
        self._detections: list[_Detections] = []

    def _begin(self) -> None:
        self._rows: list[dict[str, float]] = []
        self._reasons: dict[str, Undefined] = {}
        self._false: list[NDArray[np.int64]] = []
        self._found: list[NDArray[np.int64]] = []
        self._thresholds: NDArray[np.float64] = np.zeros(0)

    def _add(self, record: Record) -> MeasuredSample:
        found = scored(self.method, record)
        truth = record["truth"]
        froc = FROC()
        self._thresholds = froc.thresholds
        values: dict[str, Value] = dict.fromkeys(_OF_ONE, _NO_MASKS)
        lesion_slices = 0
        if truth is not None:
            values = _measure_one(found, record)
            froc.update(found.heatmap, truth, record["counted"])
            lesion_slices = int(slice_labels(truth, record["findings"].slice_axis).sum())
        lesions_found, false_alarms = froc.counts()
        self._found.append(lesions_found)
        self._false.append(false_alarms)
        for name, value in values.items():
            if isinstance(value, Undefined):
                self._reasons.setdefault(name, value)
        row = {name: value if is_defined(value) else np.nan for name, value in values.items()}
        self._rows.append(row | {"lesions": froc.lesions, "lesion_slices": lesion_slices, "known": truth is not None})
        return self._sample(record, found, pointed=values["peak_in_lesion"], overlap=values["dice"])

    def _measure(self, samples: list[MeasuredSample]) -> ClassMeasures:
        labels = np.array([sample.label for sample in samples])
        scores = np.array([sample.score for sample in samples])
        table = {name: np.array([row[name] for row in self._rows]) for name in self._rows[0]}
        known = table["known"].astype(float)  # volumes whose false alarms can be told
        detections = _Detections(
            self._thresholds,
            np.array(self._false),
            np.array(self._found),
            table["lesions"],
            known,
            np.stack([table[name] for name in _OF_HEALTHY], axis=1),
        )
        self._detections.append(detections)
        reasons, method = self._reasons, self.method

        def resampled(draws: NDArray[Any]) -> Mapping[str, Rows]:
            rows = {name: mean_rows(table[name], draws) for name in _MEANS}
            rows["dice_median"] = median_rows(table["dice"], draws)
            rows["dice_best_median"] = median_rows(table["dice_best"], draws)
            rows["slice_pointing"] = mean_rows(table["slice_pointing"], draws, table["lesion_slices"])
            rows["volume_auroc"] = auroc_rows(*counts_at_scores(labels, scores, draws))
            rows = without_constant(
                rows, {name: table[name.removesuffix("_median")] for name in rows if name != "volume_auroc"}
            )
            return rows | detections.rows(draws)

        once = {name: float(rows[0]) for name, rows in resampled(np.ones((1, len(samples)))).items()}
        volume_auroc = auroc(labels, scores, "volume")
        values: dict[str, Value] = {}
        for name in TITLES:
            reason = reasons.get(name.removesuffix("_median"), Undefined("no lesion"))
            values[name] = once[name] if np.isfinite(once[name]) else reason
        values["volume_auroc"] = volume_auroc
        if method in TRIVIAL:
            values |= {name: Undefined("the fixed threshold is the model's") for name in _THRESHOLD_IS_THE_MODELS}
        return ClassMeasures(values, resampled, detections.curves())

    def _measure_all(self) -> ClassMeasures | None:
        together = _Detections.together(self._detections)
        once = together.rows(np.ones((1, together.known.size)))
        # Without a value in all there is none in any class, and its reason is theirs.
        values: dict[str, Value] = {name: float(rows[0]) for name, rows in once.items() if np.isfinite(rows[0])}
        if self.method in TRIVIAL:
            values = {name: value for name, value in values.items() if name not in _OF_HEALTHY}
        return ClassMeasures(values, together.rows, together.curves())


@dataclass(frozen=True, slots=True)
class _Detections:
    """What is found, and what is marked in error, in volumes with and without a lesion.

    Attributes:
        thresholds: (T,) descending.
        false: (N, T) false alarms.
        found: (N, T) lesions found.
        lesions: (N,) lesions.
        known: (N,) 1 where the lesion is known, so that false alarms can be told, else 0.
        healthy: (N, 2) ``_OF_HEALTHY`` at the fixed threshold, NaN of volumes with a lesion.
    """

    thresholds: NDArray[np.float64]
    false: NDArray[np.int64]
    found: NDArray[np.int64]
    lesions: NDArray[Any]
    known: NDArray[np.float64]
    healthy: NDArray[np.float64]

    @classmethod
    def together(cls, parts: Sequence[_Detections]) -> _Detections:
        """Those of several classes, one after the other."""
        names = ("false", "found", "lesions", "known", "healthy")
        return cls(parts[0].thresholds, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def rows(self, draws: NDArray[Any]) -> dict[str, Rows]:
        """(R, N) how often each volume was drawn -> sensitivity at each rate, means over healthy ones; NaN without."""
        drawn = draws * self.known
        volumes, present = drawn.sum(axis=1), drawn @ self.lesions
        rows = {name: np.full(len(draws), np.nan) for name in FROC_RATES}
        for index in np.flatnonzero(present):
            false, found = drawn[index] @ self.false / volumes[index], drawn[index] @ self.found / present[index]
            curve = FROCCurve(self.thresholds, false, found)
            for name, (rate, _) in FROC_RATES.items():
                rows[name][index] = curve.sensitivity_at(rate)
        healthy = dict(zip(_OF_HEALTHY, self.healthy.T, strict=True))
        return rows | without_constant({name: mean_rows(column, draws) for name, column in healthy.items()}, healthy)

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """The curve, where there is a lesion."""
        if not self.lesions.sum():
            return {}
        false, found = self.false.sum(0) / self.known.sum(), self.found.sum(0) / self.lesions.sum()
        return {"froc": list(zip(false.tolist(), found.tolist(), strict=True))}


def _measure_one(found: Scored, record: Record) -> dict[str, Value]:
    """The measures of one volume whose lesion is known."""
    physical, threshold = record["source"].has_physical_size, record["findings"].threshold
    measures = measure_volume(
        found.heatmap,
        record["truth"],
        found.slice_scores,
        slice_axis=record["findings"].slice_axis,
        predicted=lesion_mask(found.heatmap, threshold.value, threshold.low),
        voxel_volume=voxel_volume(np.asarray(record["heatmap"].affine, np.float64)) if physical else None,
        inside=inside_body(np.asarray(record["image"].cpu()).mean(axis=0)),
        counted=record["counted"],
    )
    best = measures.best_dice
    normal = Undefined("no volume without a lesion")
    return {
        "slice_auroc": measures.slice_auroc,
        "voxel_auroc": measures.voxel_auroc,
        "voxel_auroc_inside": measures.voxel_auroc_inside,
        "voxel_ap": measures.voxel_ap,
        "dice_best": best.value if isinstance(best, BestF1) else best,
        "dice": measures.dice,
        "slice_pointing": measures.slice_pointing,
        "peak_in_lesion": measures.pointing,
        "normal_false_ml": normal if record["truth"].any() else measures.false_alarm_ml,
        "normal_false_lesions": normal if record["truth"].any() else float(measures.false_alarms),
    }
