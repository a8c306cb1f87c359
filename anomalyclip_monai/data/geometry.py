"""Slice axes and upright views, from affines. Nothing here resamples a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import torch

from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import Affine

SliceAxis = Literal["auto", "axial", "coronal", "sagittal"] | int

COARSE_RATIO = 1.5
"""An axis counts as clearly the coarsest from this ratio of its spacing to the next one."""

MIN_EDGE, MAX_EDGE = 0.01, 50.0
"""Smallest and largest distance of neighbouring voxels that is believed, in mm."""

MAX_EXTENT = 3000.0
"""Longest volume that is believed, in mm."""

UNITS = {"millimetres": 1.0, "metres": 1000.0, "micrometres": 0.001, "centimetres": 10.0}
"""Length of each unit in mm, the more likely first."""

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""The world axis (R, A, S) that a plane's slices follow one another along."""


def spacing(affine: Affine) -> np.ndarray:
    """(4, 4) -> (3,) distance in mm between neighbours along each array axis."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def plane_distance(affine: Affine, axis: int) -> float:
    """Distance in mm between neighbouring planes across ``axis``, measured along their normal."""
    first, second = (affine[:3, other] for other in range(3) if other != axis)
    normal = np.cross(first, second)
    return float(abs(affine[:3, axis] @ normal) / np.linalg.norm(normal))


def voxel_volume(affine: Affine) -> float:
    """Volume of a voxel in mm3."""
    return float(abs(np.linalg.det(affine[:3, :3])))


def corner_distance(first: Affine, second: Affine, shape: Sequence[int]) -> float:
    """The largest distance in mm between the same corner voxel's centre on two grids of one shape (X, Y, Z)."""
    corners = np.stack(np.meshgrid(*((0, count - 1) for count in shape), (1,), indexing="ij"), -1).reshape(-1, 4)
    return float(np.linalg.norm(((first - second) @ corners.T)[:3], axis=0).max())


def is_sheared(affine: Affine, tolerance: float = 1e-4) -> bool:
    """Whether two array axes are not orthogonal, as after gantry tilt."""
    directions = affine[:3, :3] / spacing(affine)
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() > tolerance)


def check_plausible(
    affine: Affine, shape: Sequence[int], path: Path | None = None, unit: str = "millimetres"
) -> Affine:
    """The affine itself, if voxels and volume have a size that a scan can have.

    Args:
        affine: (4, 4) voxel index to RAS mm.
        shape: (X, Y, Z).
        path: named by the error.
        unit: one of ``UNITS``, in which the file counted.

    Raises:
        CaseError: they have not (``E_GEOMETRY``); if another unit would explain it, that is said.
    """
    edges = spacing(affine)
    if _is_plausible(edges, shape):
        return affine
    said = " x ".join(f"{edge:.3g}" for edge in edges)
    extent = " x ".join(f"{length:.3g}" for length in edges * np.array(shape[:3]))
    what = (
        f"voxels of {said} mm in a volume of {extent} mm are not those of a scan "
        f"(voxel edges of {MIN_EDGE:g} to {MAX_EDGE:g} mm, at most {MAX_EXTENT:g} mm)"
    )
    others = [name for name, length in UNITS.items() if _is_plausible(edges * length / UNITS[unit], shape)]
    todo = f"if its numbers are {others[0]}, not {unit}, correct its unit" if others else "check the header"
    raise CaseError("E_GEOMETRY", what, path, todo)


def _is_plausible(edges: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether the limits hold, but for what float32 makes of .01."""
    low, high = edges.min() * (1 + 1e-6), edges.max() * (1 - 1e-6)
    extent = float((edges * np.array(shape[:3])).max()) * (1 - 1e-6)
    return bool(low >= MIN_EDGE and high <= MAX_EDGE and extent <= MAX_EXTENT)


def closest_axes(affine: Affine) -> np.ndarray:
    """(4, 4) -> (3, 2): for each array axis the closest world axis (0 R, 1 A, 2 S) and the sign along it."""
    orientation = nib.io_orientation(affine)
    if np.isnan(orientation).any():
        raise ValueError(f"affine has no three independent axes: {affine.tolist()}")
    return orientation.astype(int)


def resolve_slice_axis(
    slice_axis: SliceAxis | str, affine: Affine, shape: Sequence[int], acquisition_axis: int | None = None
) -> int:
    """The array axis along which slices are taken.

    ``auto`` is the axis with clearly the coarsest spacing; else the plane in which the scanner acquired, if known;
    else the axis with fewer than half the samples of both others; else axial. A plain maximum of the spacing would
    pick an arbitrary axis in the many volumes of 1 x 1 x 1 mm.

    Args:
        slice_axis: ``auto``, the name of a plane, or the number of an array axis.
        affine: (4, 4) voxel index to RAS mm.
        shape: (X, Y, Z).
        acquisition_axis: what the file says of its acquisition.

    Raises:
        ValueError: the name or number is unknown.
    """
    text = str(slice_axis)
    if text in ("0", "1", "2"):
        return int(text)
    if text in PLANES:
        return int(np.flatnonzero(closest_axes(affine)[:, 0] == PLANES[text])[0])
    if text != "auto":
        raise ValueError(f"slice_axis ({text}) must be auto, axial, coronal, sagittal, 0, 1 or 2")
    size = spacing(affine)
    order = np.argsort(size)
    if size[order[2]] >= COARSE_RATIO * size[order[1]]:
        return int(order[2])
    if acquisition_axis is not None:
        return acquisition_axis
    fewest, next_fewest = np.argsort(shape, kind="stable")[:2]
    if 2 * shape[fewest] < shape[next_fewest]:
        return int(fewest)
    return resolve_slice_axis("axial", affine, shape)


@dataclass(frozen=True, slots=True)
class SliceView:
    """How slices along one array axis are turned upright, as a radiologist sees them.

    Axial and coronal: the patient's left on the image's right; coronal and sagittal: superior on top; axial: anterior
    on top; sagittal: anterior on the image's left.

    Attributes:
        axis: array axis of the slices.
        row_axis: array axis that runs down the picture.
        column_axis: array axis that runs to the right of the picture.
        flip_rows: the stored axis runs up the picture.
        flip_columns: the stored axis runs to the left of the picture.
    """

    axis: int
    row_axis: int
    column_axis: int
    flip_rows: bool
    flip_columns: bool

    @classmethod
    def upright(cls, affine: Affine, axis: int) -> SliceView:
        """The upright view of slices along array axis ``axis``."""
        orientation = closest_axes(affine)
        by_world = {int(world): (array, int(sign)) for array, (world, sign) in enumerate(orientation)}
        plane = int(orientation[axis, 0])
        # Rows run down to I (to P in axial slices), columns run right to L (to P in sagittal slices).
        row_world = 1 if plane == 2 else 2
        column_world = 1 if plane == 0 else 0
        (row_axis, row_sign), (column_axis, column_sign) = by_world[row_world], by_world[column_world]
        return cls(axis, row_axis, column_axis, flip_rows=row_sign > 0, flip_columns=column_sign > 0)

    def slices(self, volume: torch.Tensor) -> torch.Tensor:
        """(C, X, Y, Z) -> (S, C, H, W) view of all slices, rows and columns in place but not yet flipped."""
        return volume.permute(1 + self.axis, 0, 1 + self.row_axis, 1 + self.column_axis)

    def flip(self, slices: torch.Tensor) -> torch.Tensor:
        """(..., H, W) -> the same turned upright, or back: the flip is its own inverse."""
        dims = [dim for dim, flipped in ((-2, self.flip_rows), (-1, self.flip_columns)) if flipped]
        return slices.flip(dims) if dims else slices
