"""From a heatmap to scores, a lesion mask and a lesion table."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms.transform import MapTransform
from skimage.measure import regionprops

from anomalyclip_monai.data.geometry import voxel_volume
from anomalyclip_monai.data.volume import Source
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.transforms.calibration import Calibration
from anomalyclip_monai.transforms.findings import Findings, Lesion, Threshold
from anomalyclip_monai.transforms.outline import lesion_components
from anomalyclip_monai.types import UNCALIBRATED, Affine, Record

GIVEN = "given"
"""Origin of a threshold that somebody chose."""

TOP_SLICES = 3
"""The case score is the mean of this many highest slice scores, or of all if there are fewer."""

TOP_FRACTION = 0.02
"""Share of the pixels inside a region of interest whose mean is the score of a slice."""

LARGE = 2**25
"""Voxels of a lesion's box from which on its values are summed plane by plane."""

DEFAULT_MIN_VOLUME_MM3 = 20.0
"""Smaller lesions are left out of mask and table; photos, which have no size in mm, keep all."""


def case_score(slice_scores: torch.Tensor) -> float:
    """(S,) -> mean of the highest :data:`TOP_SLICES` scores."""
    return float(slice_scores.float().topk(min(TOP_SLICES, len(slice_scores))).values.mean())


def roi_slice_scores(heatmap: torch.Tensor, roi: torch.Tensor, axis: int) -> torch.Tensor:
    """(1, X, Y, Z) and a mask of the same shape -> (S,) scores inside the mask, 0 for slices without it."""
    scores = torch.zeros(heatmap.shape[1 + axis])
    pairs = zip(heatmap[0].unbind(axis), roi[0].unbind(axis), strict=True)
    for index, (values, inside) in enumerate(pairs):
        if inside.any():
            inner = values[inside]
            scores[index] = inner.topk(max(1, round(TOP_FRACTION * len(inner)))).values.mean()
    return scores


def resolve_threshold(
    threshold: str | float,
    shipped: Mapping[str, Any] | None,
    heatmap: torch.Tensor,
    inside: torch.Tensor | None = None,
    *,
    low: str | float = "auto",
    axes: int = 1,
) -> Threshold:
    """The threshold that was asked for.

    Args:
        threshold: ``auto`` for the one shipped with the weights, a value in (0, 1], or ``quantile:Q`` of this case's
            heatmap, of the part inside the mask if there is one.
        shipped: ``{"value", "low", "origin", "by_axes"}`` of the bundle, where ``by_axes`` may give others for numbers
            of axes, as ``{"3": {"value": .45, "low": .3}}``; None stands for .5, uncalibrated. Without ``low`` it is
            the value.
        heatmap: (1, X, Y, Z).
        inside: mask of the region of interest.
        low: of the outline: ``auto`` for the shipped one with the shipped value and else the value itself, or a number
            from 0 up to the value.
        axes: along how many axes slices were taken for the heatmap.

    Raises:
        UsageError: the texts are none of these, or the outline's threshold is the higher one (``E_THRESHOLD``).
    """
    text = str(threshold).strip()
    if text == "auto":
        shipped = shipped or {"value": 0.5, "origin": UNCALIBRATED}
        chosen = _by_axes(shipped).get(str(axes), shipped)
        value = float(chosen["value"])
        return _outlined(Threshold(value, float(chosen.get("low", value)), str(shipped["origin"])), low)
    kind, _, number = text.rpartition(":")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if kind == "quantile" and 0 < value < 1:
        if str(low).strip() != "auto":
            what = f"threshold_low {low} with a quantile, which is another value in each case"
            raise UsageError("E_THRESHOLD", what, None, "give a value as the threshold, or leave threshold_low out")
        values = heatmap[inside] if inside is not None else heatmap
        value = float(np.quantile(np.asarray(values), value))
        return Threshold(value, value, f"{text} of this case")
    if kind == "" and 0 < value <= 1:
        return _outlined(Threshold(value, value, GIVEN), low)
    raise UsageError(
        "E_THRESHOLD",
        f"threshold {text!r} is none",
        None,
        "use auto, a value above 0 up to 1 or quantile:Q, or the .json file of a calibration",
    )


def _outlined(threshold: Threshold, low: str | float) -> Threshold:
    """The threshold with another one of its outline, unless that is ``auto``; the origin says so.

    Raises:
        UsageError: it is no number from 0 up to the value (``E_THRESHOLD``).
    """
    text = str(low).strip()
    if text == "auto":
        return threshold
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not 0 <= number <= threshold.value:
        problem = f"above the threshold {threshold.value:g}" if threshold.value < number <= 1 else "none"
        todo = f"use auto or a value from 0 up to {threshold.value:g}"
        raise UsageError("E_THRESHOLD", f"threshold_low {text!r} is {problem}", None, todo)
    origin = threshold.origin if threshold.origin == GIVEN else f"{threshold.origin}, low {GIVEN}"
    return Threshold(threshold.value, number, origin)


def find_lesions(
    heatmap: np.ndarray,
    value: float,
    affine: Affine,
    *,
    low: float | None = None,
    min_volume: float = 0.0,
    has_physical_size: bool = True,
) -> tuple[np.ndarray, list[Lesion]]:
    """(X, Y, Z) heatmap -> uint8 mask of the same shape and its lesions, the highest peak first.

    Args:
        heatmap: values in [0, 1]; 0 was not scored: empty slices and the outside of a region of interest.
        value: threshold that makes a lesion, see :func:`~anomalyclip_monai.transforms.outline.lesion_components`.
        affine: (4, 4) voxel index to RAS mm.
        low: threshold of the outline; None: ``value``.
        min_volume: components with less at or above ``value`` are dropped, in mm3, or in pixels without a physical
            size.
        has_physical_size: whether voxels have a size in mm.
    """
    voxel = voxel_volume(affine) if has_physical_size else 1.0
    components = lesion_components(heatmap, value, low, smallest=smallest_lesion(min_volume, voxel))
    lesions = []
    for region in regionprops(components):
        peak, mean, at = _peak_and_mean(heatmap[region.slice], region.image)
        centroid = _centroid(region.image, region.bbox)
        highest = np.add(region.bbox[:3], at)
        lesions.append(
            Lesion(
                volume_mm3=float(region.area * voxel) if has_physical_size else None,
                voxels=int(region.area),
                centroid_voxel=_triple(centroid),
                centroid_world_mm=_world(affine, centroid) if has_physical_size else None,
                bbox_voxel=(_corner(region.bbox[:3]), _corner(region.bbox[3:])),
                peak_voxel=_corner(highest),
                peak_world_mm=_world(affine, highest) if has_physical_size else None,
                peak=peak,
                mean=mean,
            )
        )
    return (components > 0).astype(np.uint8), sorted(lesions, key=lambda lesion: -lesion.peak)


def _centroid(shape: np.ndarray, corner: Sequence[int]) -> np.ndarray:
    """Mean index of the voxels of a component, from how many lie at each index: no list of them is made.

    Args:
        shape: the component in its box, bool.
        corner: the first index of the box along each axis.
    """
    found = []
    for axis, start in enumerate(corner[: shape.ndim]):
        counts = np.count_nonzero(shape, axis=tuple(other for other in range(shape.ndim) if other != axis))
        found.append(float(counts @ np.arange(start, start + len(counts))) / int(counts.sum()))
    return np.asarray(found)


def _peak_and_mean(heatmap: np.ndarray, inside: np.ndarray) -> tuple[float, float, tuple[int, ...]]:
    """Highest value inside, mean value, index of the highest (the first of several).

    Of a very large box the mean is summed plane by plane, so that its values are not copied whole.
    """
    peak, at = -math.inf, (0, 0, 0)
    for index, (values, chosen) in enumerate(zip(heatmap, inside, strict=True)):
        plane = np.where(chosen, values, -math.inf)
        if (highest := float(plane.max())) > peak:
            first = np.unravel_index(plane.argmax(), plane.shape)
            peak, at = highest, (index, int(first[0]), int(first[1]))
    if heatmap.size <= LARGE:
        return peak, float(heatmap[inside].mean(dtype=np.float64)), at
    total = sum(float(values[chosen].sum(dtype=np.float64)) for values, chosen in zip(heatmap, inside, strict=True))
    return peak, total / int(np.count_nonzero(inside)), at


def default_min_volume(has_physical_size: bool) -> float:
    """Volume in mm3, or number of pixels, below which a lesion is left out unless something else is asked for."""
    return DEFAULT_MIN_VOLUME_MM3 if has_physical_size else 0.0


def smallest_lesion(min_volume: float, voxel: float) -> int:
    """Number of voxels of ``voxel`` mm3 that have at least ``min_volume`` mm3; a determinant is rarely exact."""
    return math.ceil(min_volume * (1 - 1e-6) / voxel)


class FindLesionsd(MapTransform):
    """Turn the network's heatmap under ``pred`` into everything that is reported of a case.

    ``pred`` becomes the lesion mask (1, X, Y, Z) uint8, a label map as viewers expect it; the heatmap moves to
    ``heatmap``. ``findings`` are the :class:`~anomalyclip_monai.transforms.findings.Findings`, ``result`` the same
    for MONAI Label with JSON types only; ``notes`` gets what is to be said of them.

    Args:
        keys: key of the heatmap.
        threshold: see :func:`resolve_threshold`; or the file of a
            :class:`~anomalyclip_monai.transforms.calibration.Calibration`, whose name ends in ``.json``.
        threshold_low: that of the outline, see :func:`resolve_threshold`; with a calibration in the place of its own.
        shipped_threshold: ``{"value", "low", "origin"}`` of the bundle's weights, fitted for slices along one axis;
            its ``by_axes``, as ``{"3": {"value": .45, "low": .3}}``, has those for other numbers of axes.
        min_volume: of what is at or above the threshold, in mm3; by default 20, and 0 pixels for photos.
        conditions: model and settings that make the heatmap, which a calibration must share.
    """

    def __init__(
        self,
        keys: str = "pred",
        threshold: str | float = "auto",
        threshold_low: str | float = "auto",
        shipped_threshold: Mapping[str, Any] | None = None,
        min_volume: float | None = None,
        conditions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(keys)
        self.threshold = threshold
        self.threshold_low = threshold_low
        self.shipped_threshold = shipped_threshold
        self.min_volume = None if min_volume is None else float(min_volume)
        self.conditions = {**(conditions or {}), "min_volume": self.min_volume}
        self.calibration: Calibration | None = None
        # a wrong threshold is refused before any work
        if str(threshold).strip().endswith(".json"):
            self.calibration = Calibration.read(self._file)
            self.calibration.require(self.conditions, self._file)
            _outlined(self.calibration.threshold, threshold_low)
        else:
            for axes in ("1", *_by_axes(shipped_threshold or {})):
                resolve_threshold(threshold, shipped_threshold, torch.zeros(1), low=threshold_low, axes=int(axes))

    def __call__(self, data: Mapping[Hashable, Any]) -> Record:
        """Post-process one record."""
        record: Record = {str(key): value for key, value in data.items()}
        source = record.get("source") or Source("memory")
        roi = record.get("roi")
        for key in self.key_iterator(record):
            heatmap = record[key].detach().cpu().float()
            meta = {name: value for name, value in heatmap.meta.items() if name != "affine"}
            plain = heatmap.as_tensor()
            axes = tuple(axis for axis in np.asarray(meta.pop("axes")).flatten().tolist() if axis >= 0)
            scores = meta.pop("slice_scores").flatten().cpu()
            halvings = _single(meta.pop("batch_halvings"))
            notes = list(record.get("notes", []))
            if halvings:
                notes.append(f"memory ran out, the batch of slices was halved {halvings} times")
            if self._planes_are_missing(len(axes), plain.shape[1:], source):
                notes.append(
                    f"slices along {len(axes)} of the {self.conditions['axes']} axes only: along the others pixels are "
                    "too oblong or too few (a list of axes takes them all the same)"
                )
            if roi is not None:
                scores = roi_slice_scores(plain, roi, axes[0])
            threshold = self._threshold(record, plain, roi, len(axes))
            if not threshold.is_calibrated:
                notes.append(f"the threshold {threshold.said} is uncalibrated: it was not fitted for this model")
            elif self._is_of_other_axes(len(axes)):
                notes.append(
                    f"the threshold {threshold.said} was not fitted for slices along {len(axes)} axes: "
                    "calibrate one on normal cases"
                )
            affine = np.asarray(heatmap.affine, dtype=np.float64).reshape(-1, 4, 4)[0]
            default = default_min_volume(source.has_physical_size)
            min_volume = default if self.min_volume is None else self.min_volume
            mask, lesions = find_lesions(
                np.asarray(plain[0]) if roi is None else np.where(roi[0], plain[0], 0),
                threshold.value,
                affine,
                low=threshold.low,
                min_volume=min_volume,
                has_physical_size=source.has_physical_size,
            )
            record["heatmap"] = MetaTensor(plain, affine=torch.from_numpy(affine), meta=dict(meta))
            record[key] = MetaTensor(torch.from_numpy(mask)[None], affine=torch.from_numpy(affine), meta=dict(meta))
            found = Findings(case_score(scores), np.asarray(scores, np.float32), axes, threshold, lesions, min_volume)
            record |= {"findings": found, "result": found.for_viewers(), "notes": notes}
        return record

    @property
    def _file(self) -> Path:
        return Path(str(self.threshold).strip())

    def _planes_are_missing(self, used: int, shape: Sequence[int], source: Source) -> bool:
        """Whether fewer axes were used than asked for, of a volume that has them."""
        asked = str(self.conditions.get("axes"))
        return (
            asked in ("2", "3") and used < int(asked) and min(shape) > 1 and source.has_physical_size and source.regular
        )

    def _is_of_other_axes(self, used: int) -> bool:
        """Whether the shipped threshold is used, and was not fitted for slices along so many axes."""
        if str(self.threshold).strip() != "auto" or used == 1:
            return False
        return str(used) not in _by_axes(self.shipped_threshold or {})

    def _threshold(self, record: Record, heatmap: torch.Tensor, roi: torch.Tensor | None, axes: int) -> Threshold:
        """The threshold for one case; a calibration's is refused to cases of another preset."""
        if self.calibration is None:
            return resolve_threshold(
                self.threshold, self.shipped_threshold, heatmap, roi, low=self.threshold_low, axes=axes
            )
        self.calibration.require_preset((record.get("preset") or {}).get("name", "none"), self._file)
        return _outlined(self.calibration.threshold, self.threshold_low)


def _by_axes(shipped: Mapping[str, Any]) -> Mapping[str, Mapping[str, float]]:
    """Number of axes -> value and low of a shipped threshold; a bare number, as in earlier bundles, is the value."""
    found = shipped.get("by_axes") or {}
    return {axes: entry if isinstance(entry, Mapping) else {"value": entry} for axes, entry in found.items()}


def _world(affine: Affine, index: np.ndarray) -> tuple[float, float, float]:
    """Position of a voxel index in RAS mm."""
    return _triple(affine[:3, :3] @ index + affine[:3, 3])


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])


def _corner(values: Sequence[int]) -> tuple[int, int, int]:
    return int(values[0]), int(values[1]), int(values[2])


def _single(value: torch.Tensor | int) -> int:
    """The number in a batch of one, which MONAI's decollation may have taken out of its tensor."""
    return int(np.asarray(value).flatten()[0])
