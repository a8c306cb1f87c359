"""Modality presets: which intensities become [0, 1], chosen per case."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms.transform import MapTransform, Transform

from anomalyclip_monai import resources
from anomalyclip_monai.data.volume import Source
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.transforms.head import look_for_head
from anomalyclip_monai.transforms.hounsfield import are_ct_numbers
from anomalyclip_monai.transforms.robust import percentile_limits, sample
from anomalyclip_monai.types import Affine, Record

Scaling = Literal["window", "percentile", "range"]

HEAD_PARTS = {"HEAD", "BRAIN", "SKULL", "HEADNECK", "ORBIT", "IAC", "SELLA", "FACE"}
"""Values of DICOM Body Part Examined (PS3.16 annex L) that are read as the head."""

CHEST_PARTS = {"CHEST", "THORAX", "LUNG"}

VISIBLE_SHARE = 0.001
"""Less than this of a volume between black and white is nothing that can be seen."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How modality values become [0, 1].

    Attributes:
        name: name of the preset.
        scaling: ``window`` (HU), ``percentile`` (background to a percentile of the foreground) or ``range``.
        window_center: centre of the window in HU.
        window_width: width of the window in HU.
        upper_percentile: percentile of the foreground that becomes 1.
        foreground_fraction: the foreground is brighter than this fraction of the volume's mean above its background.
        lower: value that becomes 0.
        upper: value that becomes 1.
        symmetric: left and right are alike without a lesion, as in a head: scores of slices weigh what differs.
        reason: where the values come from.
    """

    name: str
    scaling: Scaling
    window_center: float = 0.0
    window_width: float = 1.0
    upper_percentile: float = 99.8
    foreground_fraction: float = 0.3
    lower: float = 0.0
    upper: float = 255.0
    symmetric: bool = False
    reason: str = ""

    @classmethod
    def from_table(cls, name: str, table: Mapping[str, Any]) -> Preset:
        """A preset from the table of a YAML file.

        Raises:
            UsageError: an entry is unknown or out of range (``E_PRESET``).
        """
        known = {field.name for field in fields(cls)} - {"name"}
        unknown = sorted(str(key) for key in table if key not in known)
        if unknown:
            raise UsageError(
                "E_PRESET", f"preset {name} has unknown entries: {', '.join(unknown)}", None, "remove them"
            )
        scaling = table.get("scaling")
        if scaling not in get_args(Scaling):
            raise UsageError(
                "E_PRESET", f"preset {name} has scaling {scaling!r}", None, "use window, percentile or range"
            )
        values = {key: _entry(name, key, value) for key, value in table.items()}
        preset = cls(name=name, **values)  # type: ignore[arg-type]
        if preset.window_width <= 0 or preset.upper <= preset.lower or not 0 < preset.upper_percentile <= 100:
            raise UsageError("E_PRESET", f"preset {name} has an empty range", None, "make its upper limit the greater")
        return preset

    def limits(self, data: torch.Tensor) -> tuple[float, float]:
        """The modality values that become 0 and 1 for this volume."""
        if self.scaling == "window":
            return self.window_center - self.window_width / 2, self.window_center + self.window_width / 2
        if self.scaling == "range":
            return self.lower, self.upper
        return percentile_limits(np.asarray(data), self.upper_percentile, self.foreground_fraction)


def _entry(name: str, key: str, value: Any) -> str | float:
    if key in ("scaling", "reason"):
        return str(value)
    if key == "symmetric":
        if not isinstance(value, bool):
            raise UsageError("E_PRESET", f"preset {name} has {key} {value!r}", None, "give true or false")
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError("E_PRESET", f"preset {name} has {key} {value!r}", None, "give a number")
    return number


class ApplyPreset(Transform):
    """(C, X, Y, Z) in modality values -> the same in [0, 1].

    Args:
        preset: name of a preset, or ``auto`` to choose one per case.
        table: the preset's values in place of those that are installed under its name.
        inplace: scale the given float32 values themselves, which spares the memory of a second volume.
    """

    def __init__(self, preset: str = "auto", table: Mapping[str, Any] | None = None, *, inplace: bool = False) -> None:
        self.preset = str(preset)
        self.table = table
        self.inplace = inplace
        if self.preset != "auto":
            self.load(self.preset)

    def load(self, name: str) -> Preset:
        """The preset of that name."""
        table = self.table if self.table is not None else resources.preset_table(name)
        return Preset.from_table(name, table)

    def __call__(self, data: torch.Tensor, affine: Affine, source: Source) -> tuple[torch.Tensor, Preset, str]:
        """-> the scaled volume, the preset and why it was chosen."""
        if self.preset == "auto":
            name, reason = choose_preset(source, data, affine)
        else:
            name, reason = self.preset, "asked for"
        preset = self.load(name)
        if source.kind == "photo":
            # What a photo file holds is a displayed picture already; a window in HU means nothing there.
            low, high = 0.0, 255.0
        else:
            low, high = preset.limits(data)
        values = data.float()
        scaled = values.sub_(low) if self.inplace else values - low
        return scaled.div_(high - low).clamp_(0, 1), preset, reason


class ApplyPresetd(MapTransform):
    """Dictionary version of :class:`ApplyPreset`.

    The record gets ``preset``: name, reason, scaling and, from ``evidence``, how good the model is there; and one more
    of its ``notes`` where nothing is left to be seen.

    Args:
        keys: the image's key.
        preset: name of a preset, or ``auto``.
        table: values in place of the installed ones.
        evidence: preset -> what was measured of this bundle's model on such images.
        inplace: scale the record's own image, see :class:`ApplyPreset`; whoever else holds it sees it scaled.
    """

    def __init__(
        self,
        keys: str = "image",
        preset: str = "auto",
        table: Mapping[str, Any] | None = None,
        evidence: Mapping[str, str] | None = None,
        inplace: bool = False,
    ) -> None:
        super().__init__(keys)
        self.transform = ApplyPreset(preset, table, inplace=inplace)
        self.evidence = dict(evidence or {})

    def __call__(self, data: Mapping[Hashable, Any]) -> Record:
        """Scale the image of a record that :class:`LoadImageCased` loaded, or any tensor."""
        record: Record = {str(key): value for key, value in data.items()}
        for key in self.key_iterator(record):
            image = record[key]
            affine = np.asarray(getattr(image, "affine", np.eye(4)), dtype=np.float64)
            source = record.get("source") or Source("memory")
            ends = float(image.min()), float(image.max())
            record[key], preset, reason = self.transform(image, affine, source)
            described = {name: value for name, value in asdict(preset).items() if name in ("name", "scaling")}
            if isinstance(record[key], MetaTensor):
                record[key].meta["symmetric"] = int(preset.symmetric)
            evidence = self.evidence.get(preset.name, "not measured on such images")
            record["preset"] = {**described, "chosen": reason, "evidence": evidence}
            if source.kind != "photo" and (note := _nothing_to_see(ends, record[key], preset.name)):
                record["notes"] = [*record.get("notes", []), note]
        return record


def choose_preset(source: Source, data: torch.Tensor, affine: Affine) -> tuple[str, str]:
    """The preset for a case and the reason, from what its file says or, failing that, from its values."""
    if source.kind == "photo":
        return "photo", "a photo"
    if source.modality:
        return _by_modality(source, data, affine)
    is_ct, why = are_ct_numbers(np.asarray(data))
    if is_ct:
        name, seen = _ct_by_view(data, affine)
        return name, f"{why}; {seen}"
    return "mr_brain", f"{why}; MR of the head assumed"


def _by_modality(source: Source, data: torch.Tensor, affine: Affine) -> tuple[str, str]:
    part = source.body_part.replace(" ", "")
    said = f"modality {source.modality}" + (f", body part {source.body_part}" if part else "")
    match source.modality:
        case "CT" if part:
            name = "ct_head" if part in HEAD_PARTS else "ct_chest" if part in CHEST_PARTS else "ct_abdomen"
            return name, said
        case "CT":
            name, why = _ct_by_view(data, affine)
            return name, f"{said}; {why}"
        case "MR":
            if part and part not in HEAD_PARTS:
                return "mr_body", said
            return "mr_brain", said if part else f"{said}; no body part, the head assumed"
        case "US":
            return "ultrasound", said
        case "ES":
            return "colonoscopy", said
        case "CR" | "DX":
            return "xray_chest", said
        case _:
            return ("photo", said) if data.shape[0] == 3 else ("mr_body", f"{said}, scaled like MR")


def _ct_by_view(data: torch.Tensor, affine: Affine) -> tuple[str, str]:
    is_head, why = look_for_head(np.asarray(data[0]), affine)
    return ("ct_head", why) if is_head else ("ct_abdomen", why)


def _nothing_to_see(ends: tuple[float, float], scaled: torch.Tensor, preset: str) -> str:
    """A sentence, if almost all of a volume is black or white once it was scaled to [0, 1]; else nothing.

    Args:
        ends: the lowest and the highest value before that.
        scaled: the volume after it.
        preset: named by the sentence.
    """
    if ends[0] == ends[1]:
        return f"nothing is to be seen: all voxels have the value {ends[0]:.4g}"
    seen = sample(np.asarray(scaled))
    black, white = float((seen < 0.02).mean()), float((seen > 0.98).mean())
    if black + white < 1 - VISIBLE_SHARE:
        return ""
    what = f"{100 * black:.0f} % of the voxels are black and {100 * white:.0f} % white"
    return f"nothing is to be seen: by the preset {preset} {what}; choose another one with --preset"
