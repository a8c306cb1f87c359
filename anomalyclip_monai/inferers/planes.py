"""Along which axes a volume is cut into slices, when one is not enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np

from anomalyclip_monai.data.geometry import (
    COARSE_RATIO,
    PLANES,
    SliceAxis,
    closest_axes,
    plane_distance,
    resolve_slice_axis,
    spacing,
)
from anomalyclip_monai.types import Affine

Axes: TypeAlias = int | str | Sequence[str | int]
ParsedAxes: TypeAlias = int | Literal["auto"] | tuple[str, ...]

MIN_PIXELS = 64
"""Slices with fewer pixels on their shorter side show too little: so are those across a few planes, whatever distance
of the planes the file says, and some files say 1 mm of thick slices."""

_NUMBERS = ("0", "1", "2")
_PREFERRED = (PLANES["axial"], PLANES["sagittal"], PLANES["coronal"])
"""World axes in the order in which planes of equal distance are taken."""


def parse_axes(axes: Axes) -> ParsedAxes:
    """How many planes (1, 2, 3 or ``auto``), or which: names of planes or numbers of array axes, the main one first.

    Args:
        axes: ``auto``, a number, a list, or either of these as text (``3``, ``axial,sagittal``).

    Raises:
        ValueError: it is neither, names a plane twice, or mixes names and numbers, which may mean the same plane.
    """
    if isinstance(axes, str) and axes.strip() == "auto":
        return "auto"
    if isinstance(axes, int) or (isinstance(axes, str) and axes.strip().isdecimal()):
        if int(axes) in (1, 2, 3):
            return int(axes)
        raise _no_choice(axes)
    listed = [str(axis).strip() for axis in (axes.split(",") if isinstance(axes, str) else axes)]
    one_kind = any(set(listed) <= set(kind) for kind in (PLANES, _NUMBERS))
    if not listed or not one_kind or len(set(listed)) < len(listed):
        raise _no_choice(axes)
    return tuple(listed)


def resolve_axes(
    axes: ParsedAxes,
    slice_axis: SliceAxis | str,
    affine: Affine,
    shape: Sequence[int],
    acquisition_axis: int | None = None,
) -> tuple[int, ...]:
    """The array axes of the slices, the one that slice scores are counted along first.

    Of a number the first is :func:`~anomalyclip_monai.data.geometry.resolve_slice_axis`, the others follow by the
    distance of their planes, the largest first, and at equal distance axial before sagittal before coronal. Planes
    whose pixels are :data:`~anomalyclip_monai.data.geometry.COARSE_RATIO` times as long as wide or more, or that have
    fewer than :data:`MIN_PIXELS` pixels on their shorter side, are left out: across thick slices the network finds
    less, and what it finds there spoils the mean. ``auto`` is 3 where none is left out, the main axis included, and
    else 1.

    Args:
        axes: from :func:`parse_axes`. A list takes the place of ``slice_axis``, and leaves nothing out.
        slice_axis: ``auto``, the name of a plane, or the number of an array axis.
        affine: (4, 4) voxel index to RAS mm.
        shape: (X, Y, Z).
        acquisition_axis: what the file says of its acquisition.
    """
    if isinstance(axes, tuple):
        return tuple(resolve_slice_axis(axis, affine, shape) for axis in axes)
    main = resolve_slice_axis(slice_axis, affine, shape, acquisition_axis)
    worlds = closest_axes(affine)[:, 0]

    def order(axis: int) -> tuple[float, int]:
        return -round(plane_distance(affine, axis), 3), _PREFERRED.index(int(worlds[axis]))

    useful = [axis for axis in range(3) if not _oblong(affine, axis) and not _small(shape, axis)]
    others = sorted((axis for axis in useful if axis != main), key=order)
    if axes == "auto":
        axes = 3 if len(useful) == 3 else 1
    return (main, *others)[:axes]


def _oblong(affine: Affine, axis: int) -> bool:
    """Whether pixels of the slices along an axis are clearly longer than wide."""
    short, long = sorted(np.delete(spacing(affine), axis))
    return bool(long >= COARSE_RATIO * short)


def _small(shape: Sequence[int], axis: int) -> bool:
    """Whether the slices of (X, Y, Z) along an axis have too few pixels."""
    return bool(np.delete(shape, axis).min() < MIN_PIXELS)


def _no_choice(axes: Axes) -> ValueError:
    return ValueError(f"axes ({axes}) must be auto, 1, 2, 3 or a list of different planes (axial, coronal, sagittal)")
