"""What of a case a page holds: 8 bit, and no finer than a screen shows and a mail takes."""

from __future__ import annotations

import base64
import gzip
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyclip_monai.data.geometry import SliceView, spacing, voxel_volume
from anomalyclip_monai.outputs.preview import scaled_to
from anomalyclip_monai.outputs.report.pages import data_uri, jpeg
from anomalyclip_monai.types import Affine

IMAGE_VOXELS = 2**24
"""Most voxels of the image that a page shows: 256 x 256 x 256."""

HEATMAP_VOXELS = 2**21
"""Most voxels of the heatmap, which is smooth: 128 x 128 x 128."""

PAGE_BYTES = 6_000_000
"""Of image, heatmap and mask, packed; as base64 and with the viewer a page then stays below 10 MB."""

FRAME_SIZES = (1280, 1024, 768, 512, 384, 256, 192, 128)
"""Longer sides of a frame in pixels; the first is taken that stays below :data:`PAGE_BYTES`."""

HEATMAP_SIZE = 256
"""Longer side of a frame's heatmap in pixels."""

_QUALITY = 85
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Of red, green and blue, ITU-R BT.601."""
_ESTIMATED = 8
"""Frames from which the size of all is estimated."""
_SAFE = 0.8
"""Share of :data:`PAGE_BYTES` that an estimate may fill."""

Volume = NDArray[Any]
Factors = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ShownVolume:
    """A volume for three planes and 3D, its axes ordered and turned to lie closest to R, A and S.

    Attributes:
        image: NIfTI, gzipped, uint8, 255 for 1.
        heatmap: the same with ``scl_slope`` 1/255, on blocks of ``ratio`` voxels of the image.
        mask: gzipped uint8, 255 for lesion, on the image's grid, the first axis fastest.
        ratio: voxels of the image in one of the heatmap, along each axis.
        voxel: volume of a voxel of the heatmap in mm3.
        notes: what was reduced, one sentence each.
    """

    image: bytes
    heatmap: bytes
    mask: bytes
    ratio: Factors
    voxel: float
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """For the page's script, bytes as base64."""
        packed = {name: base64.b64encode(getattr(self, name)).decode() for name in ("image", "heatmap", "mask")}
        return {**packed, "ratio": self.ratio, "voxel": self.voxel}


@dataclass(frozen=True, slots=True)
class ShownFrames:
    """Upright pictures of slices along one axis: a photo, frames of a cine, slices on no grid.

    Attributes:
        frames: a JPEG as an address for each.
        heatmaps: a PNG of 8 bit as an address for each, 255 for 1.
        masks: a PNG as an address for each, white for lesion.
        indices: of the slices that are shown.
        axes: array axes along the picture's columns and rows, and that of the slices.
        flips: whether the first two run to the left, and up.
        size: (width, height) of a slice as stored.
        aspect: height of a stored pixel over its width.
        voxel: stored pixels in one of a heatmap, times the slices that stand for one that is shown.
        notes: what was reduced, one sentence each.
    """

    frames: list[str]
    heatmaps: list[str]
    masks: list[str]
    indices: list[int]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool]
    size: tuple[int, int]
    aspect: float
    voxel: float
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """For the page's script."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "notes"}


def has_planes(shape: Sequence[int], *, physical: bool, regular: bool) -> bool:
    """Whether there are three planes to be shown: voxels have a size in mm, lie on one grid, and make no single slice.

    Args:
        shape: (X, Y, Z).
        physical: whether voxels have a size in mm.
        regular: whether all slices lie on one grid.
    """
    return physical and regular and min(shape) > 1


def show_volume(image: Volume, heatmap: Volume, mask: Volume, affine: Affine) -> ShownVolume:
    """Reduce and pack a volume; blocks become their mean, and lesion where they hold any of it.

    Args:
        image: (1|3, X, Y, Z) in [0, 1]; colours become grey.
        heatmap: (1, X, Y, Z) in [0, 1].
        mask: (1, X, Y, Z) of 0 and 1.
        affine: (4, 4) voxel index to RAS mm.
    """
    shape, edges, limit = heatmap.shape[1:], spacing(affine), float(IMAGE_VOXELS)
    while True:
        factors = reduction(shape, edges, limit)
        ratio = reduction(_reduced_shape(shape, factors), edges * factors, min(limit, HEATMAP_VOXELS))
        coarse = (factors[0] * ratio[0], factors[1] * ratio[1], factors[2] * ratio[2])
        shown = _closest(reduce_blocks(image, factors, np.mean), reduced_affine(affine, factors))
        warm = _closest(reduce_blocks(heatmap, coarse, np.mean), reduced_affine(affine, coarse))
        marked, _ = _closest(reduce_blocks(mask, factors, np.max), reduced_affine(affine, factors))
        packed = _nifti(*shown, 1.0), _nifti(*warm, 1 / 255), _packed(marked.tobytes(order="F"))
        size = sum(map(len, packed))
        if size <= PAGE_BYTES:
            break
        limit = 0.9 * shown[0].size * PAGE_BYTES / size
    turned = nib.io_orientation(affine)[:, 0].astype(int).tolist()
    return ShownVolume(
        *packed,
        (ratio[turned.index(0)], ratio[turned.index(1)], ratio[turned.index(2)]),
        voxel_volume(reduced_affine(affine, coarse)),
        [
            *_said("image", factors, edges),
            *(_said("heatmap", coarse, edges) if coarse != factors else []),
            *(["Colours are shown as grey values."] if len(image) == 3 else []),
        ],
    )


def show_frames(image: Volume, heatmap: Volume, mask: Volume, view: SliceView, aspect: float) -> ShownFrames:
    """Turn slices upright, and reduce and pack them as pictures.

    Args:
        image: (1|3, X, Y, Z) in [0, 1].
        heatmap: (1, X, Y, Z) in [0, 1].
        mask: (1, X, Y, Z) of 0 and 1.
        view: axis of the slices, and how they are turned.
        aspect: height of a pixel over its width.
    """
    count = heatmap.shape[1 + view.axis]
    width, height = heatmap.shape[1 + view.column_axis], heatmap.shape[1 + view.row_axis]
    longest = max(width, height)
    sizes = sorted({min(size, longest) for size in FRAME_SIZES}, reverse=True)
    warm = _fitted((width, height), HEATMAP_SIZE)

    def pictures(index: int, longer: int) -> tuple[bytes, bytes, bytes]:
        return (
            _frame(_upright(image, view, index), longer),
            _grey_png(_upright(heatmap, view, index)[0], warm),
            _mask_png(_upright(mask, view, index)[0], longer),
        )

    sample = range(0, count, math.ceil(count / _ESTIMATED))
    for longer in sizes:
        estimated = count * sum(len(part) for index in sample for part in pictures(index, longer)) / len(sample)
        if estimated <= _SAFE * PAGE_BYTES:
            break
    stride = max(1, math.ceil(estimated / (_SAFE * PAGE_BYTES)))
    indices = list(range(0, count, stride))
    frames, heatmaps, masks = zip(*(pictures(index, longer) for index in indices), strict=True)
    notes = []
    if longer < longest:
        shown = " x ".join(map(str, _fitted((width, height), longer)))
        notes.append(f"Slices are shown with {shown} of their {width} x {height} pixels.")
    if stride > 1:
        notes.append(f"Only one of {stride} slices is shown.")
    return ShownFrames(
        frames=[data_uri(picture, "jpeg") for picture in frames],
        heatmaps=[data_uri(picture, "png") for picture in heatmaps],
        masks=[data_uri(picture, "png") for picture in masks],
        indices=indices,
        axes=(view.column_axis, view.row_axis, view.axis),
        flips=(view.flip_columns, view.flip_rows),
        size=(width, height),
        aspect=aspect,
        voxel=width * height * stride / (warm[0] * warm[1]),
        notes=notes,
    )


def reduction(shape: Sequence[int], edges: NDArray[np.floating[Any]], voxels: float) -> Factors:
    """How many voxels become one along each axis, so that at most ``voxels`` are left, as cubic as can be.

    Args:
        shape: (X, Y, Z).
        edges: (3,) lengths of a voxel in mm.
        voxels: at least 1.
    """
    factors = [1, 1, 1]
    while math.prod(_reduced_shape(shape, factors)) > voxels:
        long = [axis for axis in range(3) if factors[axis] < shape[axis]]
        factors[min(long, key=lambda axis: edges[axis] * factors[axis])] += 1
    return factors[0], factors[1], factors[2]


def reduce_blocks(values: Volume, factors: Factors, fold: Callable[..., Volume]) -> NDArray[np.uint8]:
    """(C, X, Y, Z) in [0, 1] -> (X/fx, Y/fy, Z/fz) rounded up, 255 for 1; colours as grey; slab by slab.

    Args:
        values: C is 1 or 3.
        factors: (fx, fy, fz); blocks at the far ends repeat the last voxel.
        fold: of a block, such as ``np.mean``.
    """
    found = np.empty(_reduced_shape(values.shape[1:], factors), np.uint8)
    for k in range(found.shape[2]):
        slab = np.asarray(values[..., k * factors[2] : (k + 1) * factors[2]], dtype=np.float32)
        grey = np.tensordot(_LUMA, slab, 1) if len(slab) == 3 else slab[0]
        grey = np.pad(grey, [(0, -grey.shape[axis] % factors[axis]) for axis in (0, 1)] + [(0, 0)], mode="edge")
        blocks = grey.reshape(found.shape[0], factors[0], found.shape[1], factors[1], -1)
        found[:, :, k] = np.round(255 * fold(blocks, axis=(1, 3, 4)))
    return found


def reduced_affine(affine: Affine, factors: Factors) -> Affine:
    """(4, 4) of the grid whose voxels are blocks: their centres stay where they are."""
    step = np.diag([*factors, 1.0])
    step[:3, 3] = (np.array(factors) - 1) / 2
    return affine @ step


def _reduced_shape(shape: Sequence[int], factors: Sequence[int]) -> tuple[int, ...]:
    return tuple(math.ceil(size / factor) for size, factor in zip(shape, factors, strict=True))


def _said(what: str, factors: Factors, edges: NDArray[np.floating[Any]]) -> Iterator[str]:
    if factors != (1, 1, 1):
        size = " x ".join(f"{edge:.3g}" for edge in edges * factors)
        blocks = " x ".join(map(str, factors))
        yield f"The {what} is shown in voxels of {size} mm, means of {blocks} stored ones."


def _closest(data: NDArray[np.uint8], affine: Affine) -> tuple[NDArray[np.uint8], Affine]:
    """(X, Y, Z) with its axes ordered and turned to lie closest to R, A and S, and the affine of that."""
    orientation = nib.io_orientation(affine)
    return nib.apply_orientation(data, orientation), affine @ nib.orientations.inv_ornt_aff(orientation, data.shape)


def _nifti(data: NDArray[np.uint8], affine: Affine, slope: float) -> bytes:
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(data.shape)
    header.set_data_offset(352)
    header.set_sform(affine, code=1)
    header["pixdim"][1:4] = spacing(affine)
    header.set_xyzt_units("mm")
    header.set_slope_inter(slope, 0)
    return _packed(header.binaryblock + b"\0" * 4 + data.tobytes(order="F"))


def _packed(content: bytes) -> bytes:
    return gzip.compress(content, 6, mtime=0)


def _upright(values: Volume, view: SliceView, index: int) -> Volume:
    """(C, X, Y, Z) -> (C, H, W) of one slice, upright."""
    moved = values.transpose(0, 1 + view.axis, 1 + view.row_axis, 1 + view.column_axis)[:, index]
    return np.asarray(moved[:, :: -1 if view.flip_rows else 1, :: -1 if view.flip_columns else 1])


def _fitted(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """(width, height) reduced so that the longer side has at most so many pixels."""
    scale = min(1.0, longer / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _frame(picture: Volume, longer: int) -> bytes:
    """(1|3, H, W) in [0, 1] -> JPEG."""
    channels = [scaled_to(channel, np.uint8) for channel in picture]
    drawn = Image.fromarray(channels[0] if len(channels) == 1 else np.stack(channels, axis=-1))
    return jpeg(drawn.resize(_fitted(drawn.size, longer), Image.Resampling.BOX), _QUALITY)


def _grey_png(values: Volume, size: tuple[int, int]) -> bytes:
    """(H, W) in [0, 1] -> PNG of 8 bit."""
    drawn = Image.fromarray(np.ascontiguousarray(values, np.float32)).resize(size, Image.Resampling.BOX)
    return _png(Image.fromarray(np.round(255 * np.clip(np.asarray(drawn), 0, 1)).astype(np.uint8)))


def _mask_png(values: Volume, longer: int) -> bytes:
    """(H, W) of 0 and 1 -> PNG of one bit; lesion where a pixel holds any of it."""
    drawn = Image.fromarray(np.where(values > 0, np.float32(1), np.float32(0)))
    return _png(Image.fromarray(np.asarray(drawn.resize(_fitted(drawn.size, longer), Image.Resampling.BOX)) > 0))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
