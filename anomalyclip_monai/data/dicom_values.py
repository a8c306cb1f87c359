"""Turn stored DICOM values into what they mean: modality values, brightness, and padding that looks like nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from scipy import ndimage

from anomalyclip_monai.data.dicom_headers import CROSS_SECTIONAL, SliceHeader, modality_lut
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import FloatArray

AIR = -1000.0
"""HU of what lies outside the field of view of a CT."""

Line = tuple[float, float]
"""Rescale slope and intercept."""

Mask = NDArray[np.bool_]


def agreed_lines(headers: Sequence[SliceHeader]) -> tuple[list[Line], tuple[str, ...]]:
    """Rescale slope and intercept of each slice (PS3.3 C.11.1), and sentences on what was assumed.

    Where all slices lack the same of the two, it is 1 or 0: the stored values are the modality's. Where some have
    both and some do not, a transfer or an anonymiser took them away: the missing ones are those of the others where
    these are most of the slices and all the same.

    Raises:
        CaseError: ``E_PIXELS``: a slope is zero or not a number, or what is missing cannot be told from the others.
    """
    scaled = [header for header in headers if not header.has_lut]
    for header in scaled:
        if header.rescale[0] == 0 or math.inf in header.rescale:
            raise CaseError("E_PIXELS", "the rescale slope is zero or not a number", header.frame.path)
    complete = {header.rescale for header in scaled if None not in header.rescale}
    lacking = [header for header in scaled if None in header.rescale]
    lines = [_default_line(header) for header in headers]
    if not lacking or len({line for line, header in zip(lines, headers, strict=True) if not header.has_lut}) == 1:
        return lines, ()
    same_kind = len({tuple(value is None for value in header.rescale) for header in scaled}) == 1
    if same_kind and len(scaled) == len(headers):
        return lines, ()
    common = next(iter(complete)) if len(complete) == 1 else None
    fits = common is not None and all(
        value in (None, other) for header in lacking for value, other in zip(header.rescale, common, strict=True)
    )
    if common is None or not fits or 2 * len(lacking) >= len(headers):
        what = f"{len(lacking)} of {len(headers)} slices have no rescale, and the others do not tell what it was"
        raise CaseError("E_PIXELS", what, lacking[0].frame.path, "export the series again")
    taken = (float(common[0] or 0), float(common[1] or 0))
    note = f"{len(lacking)} of {len(headers)} slices have no rescale: that of the others was taken."
    return [line if header.has_lut else taken for line, header in zip(lines, headers, strict=True)], (note,)


def _default_line(header: SliceHeader) -> Line:
    slope, intercept = header.rescale
    return (1.0 if slope is None else slope, 0.0 if intercept is None else intercept)


def to_modality(
    stored: NDArray[np.generic], ds: Dataset, line: Line, modality: str, notes: dict[str, None]
) -> FloatArray:
    """Turn stored values (H, W[, 3]) into modality values, or colour into RGB from 0 to 255.

    MONOCHROME1 says that low values are to be shown bright (PS3.3 C.7.6.3.1.2). Where values have a scale of their
    own (CT, MR, PT, NM) they are kept, since HU stay HU whatever the display. Elsewhere (a radiograph, say) the value
    only means brightness, and it is mirrored within its stored range, so that bone is bright.
    """
    photometric = str(ds.get("PhotometricInterpretation", "")).strip()
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, ds)[..., :3]
        return _to_byte_range(stored, stored.dtype.itemsize * 8)
    if stored.ndim == 3:
        return _to_byte_range(stored, int(ds.get("BitsStored") or 8))
    bits, signed = int(ds.get("BitsStored") or 16), bool(ds.get("PixelRepresentation"))
    if bits > 24:
        notes["Values of more than 24 bits are rounded to float32."] = None
    if (lut := modality_lut(ds)) is not None:
        values = np.asarray(apply_modality_lut(stored, ds), np.float64)
        ends = 2.0 ** int(lut.LUTDescriptor[2]) - 1
    else:
        slope, intercept = line
        values = stored.astype(np.float64)
        values *= slope
        values += intercept
        # Lowest plus highest value that the stored bits can hold: 2**n - 1, or -1 if signed.
        ends = slope * (-1.0 if signed else 2.0**bits - 1) + 2 * intercept
    if photometric == "MONOCHROME1":
        if modality in CROSS_SECTIONAL:
            notes["MONOCHROME1: the values are kept, since they have a scale of their own."] = None
        else:
            np.subtract(ends, values, out=values)
            notes["MONOCHROME1: the values are mirrored so that high is bright."] = None
    return values.astype(np.float32)


def _to_byte_range(colour: NDArray[np.generic], bits: int) -> FloatArray:
    values = colour.astype(np.float32)
    return values if bits <= 8 else values * np.float32(255 / (2**bits - 1))


def padding_range(ds: Dataset, bits: int) -> tuple[int, int] | None:
    """Lowest and highest stored value that is padding (PS3.3 C.7.5.1.1.2), None where the header names none.

    Both are as numbers of ``bits`` bits in the sign of the pixels: headers are written with the other value
    representation too (63536 for -2000). None also where one does not fit into so many bits.
    """
    signed = bool(ds.get("PixelRepresentation"))
    value, limit = _number(ds, "PixelPaddingValue"), _number(ds, "PixelPaddingRangeLimit")
    if value is None:
        return None
    ends = [_in_bits(end, bits, signed) for end in (value, value if limit is None else limit)]
    if ends[0] is None or ends[1] is None:
        return None
    return min(ends[0], ends[1]), max(ends[0], ends[1])


def _in_bits(value: int, bits: int, signed: bool) -> int | None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    if low <= value <= high:
        return value
    # Of the other sign in a word of 16 bits, which is what the value representations US and SS hold.
    other = value - 2**16 if signed else value + 2**16
    return other if low <= other <= high and 0 <= value + 2**15 < 2**16 + 2**15 else None


def _number(ds: Dataset, keyword: str) -> int | None:
    try:
        value = ds.get(keyword)
        if isinstance(value, bytes):  # of unknown value representation
            return int.from_bytes(value, "little") if len(value) == 2 else None
        return None if value is None or value == "" else int(value)
    except Exception:  # values are converted when they are first looked at
        return None


@dataclass(slots=True)
class Padding:
    """The pixels that headers call padding, slice by slice, until the values of all others are known.

    Attributes:
        low: lowest value of all that is no padding.
        high: highest one.
    """

    low: float = math.inf
    high: float = -math.inf
    _packed: dict[int, NDArray[np.uint8]] = field(default_factory=dict)

    def add(self, k: int, image: FloatArray, padded: Mask | None) -> None:
        """Take note of slice ``k``: (H, W) modality values, and which pixels its header calls padding."""
        real = image if padded is None else image[~padded]
        if real.size:
            self.low, self.high = min(self.low, float(real.min())), max(self.high, float(real.max()))
        if padded is not None and padded.any():
            self._packed[k] = np.packbits(padded)

    def darken(self, data: FloatArray, modality: str) -> tuple[str, ...]:
        """Give padding in (1, X, Y, Z) the value of air, in place: no brighter than anything real.

        In CT what is darker than air stays: no window shows the difference. Elsewhere a mean would.

        Headers also name values that tissue has. So padding is what reaches the edge of a slice in one piece; where
        there is such a piece, all else that is darker or brighter than everything real; and what is further from the
        real values than these are spread.

        Returns:
            A sentence where padding was brighter than the darkest real value.
        """
        if not self._packed or not math.isfinite(self.low):
            return ()
        air = min(AIR if modality == "CT" else 0.0, self.low)
        spread = self.high - self.low
        shape = (data.shape[2], data.shape[1])
        masks = {k: _unpacked(bits, shape) for k, bits in self._packed.items()}
        edges = {k: _pieces_at_edge(mask) for k, mask in masks.items()}
        margin = 0.0 if any(edge.any() for edge in edges.values()) else spread
        bright = 0
        for k, mask in masks.items():
            values = data[0, :, :, k].T
            chosen = edges[k] | (mask & ((values < self.low - margin) | (values > self.high + margin)))
            if modality == "CT":
                chosen &= values > air
            bright += int((values[chosen] > self.low).sum())
            values[chosen] = air
        return ("Pixels that the header calls padding were set to air.",) if bright else ()


def _unpacked(bits: NDArray[np.uint8], shape: tuple[int, int]) -> Mask:
    return np.unpackbits(bits, count=math.prod(shape)).reshape(shape).astype(bool)


def _pieces_at_edge(mask: Mask) -> Mask:
    """The connected pieces of (H, W) that touch the edge and are no mere specks of tissue there."""
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    touching = np.zeros(count + 1, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        touching[edge] = True
    touching &= np.bincount(labels.ravel(), minlength=count + 1) >= sum(mask.shape) / 4
    touching[0] = False
    return np.asarray(touching[labels])
