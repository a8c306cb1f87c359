"""Lesions as prompts for interactive segmenters: a point inside, a box around, and the mask.

A box is half-open in voxels and closed in the pixels of a slice, as those who take it have it: nnInteractive documents
``[[x1, x2], [y1, y2], [z1, z2]]`` with one slice in one direction, MedSAM2 (and SAM) ``[x_min, y_min, x_max, y_max]``
of a slice. Every index belongs to the stored grid, that of ``heatmap.nii.gz`` and of the mask.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from anomalyclip_monai.transforms.findings import Lesion
from anomalyclip_monai.types import Affine

PROMPTS = "prompts.json"
"""Name of the file in the folder of a case."""

RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])
"""Signs between the world of NIfTI and that of DICOM and ITK."""

FRAMES = 2
"""Array axis along which MedSAM2 and SimpleITK's arrays count slices."""


def lesion_prompts(
    lesions: Sequence[Lesion], mask: NDArray[np.uint8], affine: Affine | None, *, slice_axis: int
) -> list[dict[str, Any]]:
    """The entries of ``lesions`` in ``prompts.json``, in the order of ``scores.json``.

    Args:
        lesions: of the mask.
        mask: (X, Y, Z), 0 or not; lesions are its connected components.
        affine: (4, 4) voxel index to RAS mm; None where there is no such world.
        slice_axis: array axis across which nnInteractive's box is one slice thin.
    """
    is_picture = mask.shape[FRAMES] == 1 and affine is None
    return [
        {
            "lesion": number,
            "peak": lesion.peak,
            "voxel": {"point": list(lesion.peak_voxel), "box": [list(corner) for corner in lesion.bbox_voxel]},
            **(_world(lesion, affine) if affine is not None else {}),
            **(_of_picture(lesion) if is_picture else _of_volume(lesion, mask, slice_axis)),
        }
        for number, lesion in enumerate(lesions, 1)
    ]


def _world(lesion: Lesion, affine: Affine) -> dict[str, Any]:
    """Point and box in mm; the box is the smallest along the world's axes that holds all of the box's voxels."""
    faces = np.array(lesion.bbox_voxel) - 0.5  # a voxel reaches half an index to each side
    corners = np.array(list(itertools.product(*faces.T)))
    worlds = {"ras_mm": np.ones(3), "lps_mm": RAS_TO_LPS}
    found = {}
    for name, signs in worlds.items():
        point, *others = (np.vstack([lesion.peak_voxel, corners]) @ affine[:3, :3].T + affine[:3, 3]) * signs
        found[name] = {
            "point": point.tolist(),
            "box": [np.min(others, axis=0).tolist(), np.max(others, axis=0).tolist()],
        }
    return found


def _of_picture(lesion: Lesion) -> dict[str, Any]:
    """A photo's point [x, y] and closed box [x_min, y_min, x_max, y_max] in pixels, x to the right and y down."""
    (x, y, _), (behind_x, behind_y, _) = lesion.bbox_voxel
    return {"pixel": {"point": list(lesion.peak_voxel[:2]), "box": [x, y, behind_x - 1, behind_y - 1]}}


def _of_volume(lesion: Lesion, mask: NDArray[np.uint8], slice_axis: int) -> dict[str, Any]:
    """The lesion as nnInteractive and MedSAM2 take it: point and box of the slice that holds the point."""
    inside = _lesion_alone(lesion, mask)
    (x, behind_x), (y, behind_y), (frame, _) = _box_in_slice(lesion, inside, FRAMES)
    return {
        "nninteractive": {"point": list(lesion.peak_voxel), "box": _box_in_slice(lesion, inside, slice_axis)},
        "medsam2": {
            "frame": frame,
            "point": list(lesion.peak_voxel[:2]),
            "box": [x, y, behind_x - 1, behind_y - 1],
        },
    }


def _lesion_alone(lesion: Lesion, mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """-> the voxels of its box that are this lesion's: others may reach into the box."""
    box = tuple(slice(*ends) for ends in zip(*lesion.bbox_voxel, strict=True))
    components = label(mask[box] != 0, connectivity=mask.ndim)
    found: NDArray[np.bool_] = components == components[_peak_in_box(lesion)]
    return found


def _peak_in_box(lesion: Lesion) -> tuple[int, ...]:
    return tuple(int(at) for at in np.subtract(lesion.peak_voxel, lesion.bbox_voxel[0]))


def _box_in_slice(lesion: Lesion, inside: NDArray[np.bool_], axis: int) -> list[list[int]]:
    """Half-open box [[i, i], [j, j], [k, k]] of the lesion's part in the slice across ``axis`` that holds its peak."""
    at = _peak_in_box(lesion)[axis]
    part = np.zeros_like(inside)
    chosen = tuple(slice(at, at + 1) if direction == axis else slice(None) for direction in range(3))
    part[chosen] = inside[chosen]
    found = []
    for direction, start in enumerate(lesion.bbox_voxel[0]):
        hit = np.flatnonzero(part.any(axis=tuple(other for other in range(3) if other != direction)))
        found.append([int(start + hit[0]), int(start + hit[-1]) + 1])
    return found
