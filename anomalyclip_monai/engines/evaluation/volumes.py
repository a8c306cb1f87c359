"""The measures of volumes: each on its own, then over the volumes that define them."""

from __future__ import annotations

from collections.abc import Mapping
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
from anomalyclip_monai.metrics.weighted import Rows, auroc_rows, counts_at_scores, mean_rows, median_rows
from anomalyclip_monai.outputs.report.content import MeasuredSample
from anomalyclip_monai.types import Record

FROC_RATES = (1, 2, 4, 8)
"""False positives per volume at which sensitivity is given."""

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
    **{f"froc_{rate}": f"lesions found at {rate} false alarm{'s' * (rate > 1)} per volume" for rate in FROC_RATES},
    "volume_auroc": "volume AUROC",
    "normal_false_ml": "false mask in volumes without a lesion",
}
"""Measure -> its name in tables, in their order."""

_OF_ONE = (
    *("slice_auroc", "voxel_auroc", "voxel_auroc_inside", "voxel_ap", "dice_best", "dice"),
    *("slice_pointing", "peak_in_lesion", "normal_false_ml"),
)
_NO_MASKS = Undefined("no lesion masks")
_MEANS = ("slice_auroc", "voxel_auroc", "voxel_auroc_inside", "voxel_ap", "dice_best", "dice", "peak_in_lesion")
_THRESHOLD_IS_THE_MODELS = ("dice", "dice_median", "normal_false_ml")


class VolumeMetric(SetMetric):
    """Measures of one method on volumes."""

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
        lesions, found, false = table["lesions"], np.array(self._found), np.array(self._false)
        known = table["known"].astype(float)  # volumes whose false alarms can be told
        thresholds, reasons, method = self._thresholds, self._reasons, self.method

        def resampled(draws: NDArray[Any]) -> Mapping[str, Rows]:
            rows = {name: mean_rows(table[name], draws) for name in (*_MEANS, "normal_false_ml")}
            rows["dice_median"] = median_rows(table["dice"], draws)
            rows["dice_best_median"] = median_rows(table["dice_best"], draws)
            rows["slice_pointing"] = mean_rows(table["slice_pointing"], draws, table["lesion_slices"])
            rows["volume_auroc"] = auroc_rows(*counts_at_scores(labels, scores, draws))
            rows |= _froc_rows(draws * known, thresholds, false, found, lesions)
            return rows

        once = {name: float(rows[0]) for name, rows in resampled(np.ones((1, len(samples)))).items()}
        volume_auroc = auroc(labels, scores, "volume")
        values: dict[str, Value] = {}
        for name in TITLES:
            reason = reasons.get(name.removesuffix("_median"), Undefined("no lesion"))
            values[name] = once[name] if np.isfinite(once[name]) else reason
        values["volume_auroc"] = volume_auroc
        if method in TRIVIAL:
            values |= {name: Undefined("the fixed threshold is the model's") for name in _THRESHOLD_IS_THE_MODELS}
        curves: dict[str, list[tuple[float, float]]] = {}
        if lesions.sum():
            curve = FROCCurve(thresholds, false.sum(0) / known.sum(), found.sum(0) / lesions.sum())
            curves["froc"] = list(zip(curve.false_positives.tolist(), curve.sensitivity.tolist(), strict=True))
        return ClassMeasures(values, resampled, curves)


def _measure_one(found: Scored, record: Record) -> dict[str, Value]:
    """The measures of one volume whose lesion is known."""
    physical = record["source"].has_physical_size
    measures = measure_volume(
        found.heatmap,
        record["truth"],
        found.slice_scores,
        slice_axis=record["findings"].slice_axis,
        threshold=record["findings"].threshold.value,
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
    }


def _froc_rows(
    draws: NDArray[Any],
    thresholds: NDArray[Any],
    false: NDArray[Any],
    found: NDArray[Any],
    lesions: NDArray[Any],
) -> dict[str, Rows]:
    """Sensitivity of resampled volumes at each rate."""
    volumes, present = draws.sum(axis=1), draws @ lesions
    rows = {f"froc_{rate}": np.full(len(draws), np.nan) for rate in FROC_RATES}
    for index in np.flatnonzero(present):
        curve = FROCCurve(thresholds, draws[index] @ false / volumes[index], draws[index] @ found / present[index])
        for rate in FROC_RATES:
            rows[f"froc_{rate}"][index] = curve.sensitivity_at(rate)
    return rows
