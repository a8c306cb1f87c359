"""Whether a CT shows a head, by what is seen in it: a closed ring of bone around brain in most slices."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anomalyclip_monai.data.geometry import resolve_slice_axis, spacing
from anomalyclip_monai.types import Affine, FloatArray

Size: TypeAlias = NDArray[np.float64]
"""(2,) height and width of a pixel in mm."""

SLICES = 24
"""Slices that are looked at, evenly spread."""

PIXEL_MM = 1.2
"""Pixels are left out until they are about this large."""

BONE, AIR = 250.0, -300.0
"""Bone is brighter, the air outside of the body darker, in HU. A thin skull is less bright than a thick one."""

RAYS = 90
"""Directions in which bone is looked for."""

CLOSED = 0.75
"""A ring is closed if bone is met in this share of them: a skull has sutures, orbits, and gaps after an operation."""

BRAIN = (-20.0, 100.0)
"""HU of brain, its fluid and fresh blood, with noise: no fat, no marrow, no bone."""

BRAIN_MEDIAN = (-5.0, 75.0)
"""HU, from wide ventricles or water in a phantom to much blood."""

BRAIN_SHARE = 0.7
"""At least this much of what the ring encloses is brain."""

MIN_AREA_MM2, MIN_FRACTION = 500.0, 0.2
"""A ring encloses at least this area and this fraction of the body in its slice: the marrow of a limb is smaller."""

HEAD_SHARE, PART_SHARE = 0.4, 0.1
"""From this share of the slices with a ring a volume is a head; from the lower one there is a head in it."""

BARE_SHARE, BARE_MEDIAN = 0.9, (15.0, 45.0)
"""A brain without its skull: this share of the object is brain, of this median in HU (a liver is brighter)."""

SPAN_MM = (60.0, 240.0)
"""Length and width of a brain without its skull."""

HEAD_EXTENT_MM = 300.0
"""What spans less could be a head."""

MAX_OBLONG = 3.0
"""Slices along another axis than that of the coarsest spacing are looked at if their pixels are no more oblong."""


def look_for_head(volume: FloatArray, affine: Affine) -> tuple[bool, str]:
    """-> whether a CT shows a head, and what was seen.

    Looked at are slices along the axis of the coarsest spacing and along every other one across which pixels are not
    too oblong. Where a head is a part of the volume, or may be there unseen, the sentence names the option to say so.

    Args:
        volume: (X, Y, Z) in HU.
        affine: (4, 4) voxel index to RAS mm.
    """
    size = spacing(affine)
    first = resolve_slice_axis("auto", affine, volume.shape)
    # Values may have been clipped below those of bone, and above those of air.
    bone, air = min(BONE, 0.9 * float(volume.max())), max(AIR, float(volume.min()))
    found, looked_at = 0, 1
    for axis in (first, *(axis for axis in range(3) if axis != first)):
        inner = np.delete(size, axis)
        if axis != first and inner.max() > MAX_OBLONG * inner.min():
            continue
        planes, pixel = _planes(volume, axis, inner)
        if axis == first and _is_bare_brain(planes, pixel, float(volume[0, 0, 0])):
            return True, "brain without a skull"
        planes = [plane for plane in planes if (plane > air).sum() * pixel.prod() >= MIN_AREA_MM2]
        rings = sum(_ring_of_brain(plane, pixel, air, bone) for plane in planes)
        if rings * looked_at > found * len(planes):
            found, looked_at = rings, len(planes)
        if found >= HEAD_SHARE * looked_at:
            return True, f"a closed ring of bone around brain in {found} of {looked_at} slices looked at"
    if found >= PART_SHARE * looked_at:
        seen = f"a ring of bone around brain in no more than {found} of {looked_at} slices looked at"
        return False, f"{seen}, taken for a body (--preset ct_head if the head matters)"
    seen = "no closed ring of bone around brain, taken for a body"
    could_be = np.sort(size * volume.shape)[-1] < HEAD_EXTENT_MM
    return False, f"{seen} (--preset ct_head if it is a part of a head)" if could_be else seen


def _planes(volume: FloatArray, axis: int, inner: Size) -> tuple[list[FloatArray], Size]:
    """Slices along an axis, evenly spread and coarsened, and the size of their pixels."""
    steps = np.maximum(1, np.round(PIXEL_MM / inner)).astype(int)
    count = volume.shape[axis]
    chosen = np.unique(np.linspace(0, count - 1, min(SLICES, count)).round().astype(int))
    return [np.take(volume, index, axis=axis)[:: steps[0], :: steps[1]] for index in chosen], inner * steps


def _ring_of_brain(plane: FloatArray, pixel: Size, air: float, soft: float) -> bool:
    """Whether rays from the middle meet bone in almost all directions, and brain and little else before it.

    Args:
        plane: (H, W) in HU.
        pixel: its size.
        air: HU up to which there is air.
        soft: HU up to which there is no bone.
    """
    bone = plane > soft
    bodies, count = ndimage.label(plane > air)
    if not count or bone.sum() < RAYS:
        return False
    body = bodies == np.bincount(bodies.ravel())[1:].argmax() + 1
    # The middle is what lies deepest in the body, as seen from its bones.
    deep = ndimage.distance_transform_edt(~bone) * body
    middle = np.array(np.unravel_index(deep.argmax(), deep.shape))
    angles = np.arange(RAYS) * 2 * np.pi / RAYS
    radii = np.arange(1.0, np.hypot(*plane.shape))
    rows, columns = (
        np.rint(start + np.multiply.outer(turn(angles), radii)).astype(int)
        for start, turn in zip(middle, (np.sin, np.cos), strict=True)
    )
    inside = (rows >= 0) & (rows < plane.shape[0]) & (columns >= 0) & (columns < plane.shape[1])
    rows[~inside] = columns[~inside] = 0
    hit = bone[rows, columns] & inside
    met = hit.any(axis=1)
    if met.mean() < CLOSED:
        return False
    before = (np.cumsum(hit, axis=1) == 0) & met[:, np.newaxis]
    weights = np.broadcast_to(radii, before.shape)[before]  # each sample stands for a piece of its circle
    area = float(weights.sum()) * 2 * np.pi / RAYS * pixel.prod()
    enough = area >= MIN_AREA_MM2 and area >= MIN_FRACTION * body.sum() * pixel.prod()
    return bool(enough) and _is_brain(plane[rows, columns][before], weights)


def _is_brain(values: NDArray[Any], weights: NDArray[Any]) -> bool:
    """Whether weighted values in HU are those of brain and little else."""
    total = weights.sum()
    share = weights[(values > BRAIN[0]) & (values < BRAIN[1])].sum() / total
    dark, bright = (weights[values < limit].sum() / total for limit in BRAIN_MEDIAN)
    return bool(share >= BRAIN_SHARE and dark < 0.5 < bright)


def _is_bare_brain(planes: list[FloatArray], pixel: Size, ground: float) -> bool:
    """Whether there is nothing but brain, on a ground of one value, away from the edges."""
    regions = [plane != ground for plane in planes]
    regions = [region for region in regions if region.any()]
    if not regions or any((region[[0, -1]].any() or region[:, [0, -1]].any()) for region in regions):
        return False
    values = np.concatenate([plane[plane != ground] for plane in planes])
    spans = np.max([np.ptp(np.argwhere(region), axis=0) + 1 for region in regions], axis=0) * pixel
    brain, median = (values > BRAIN[0]) & (values < BRAIN[1]), float(np.median(values))
    return bool(
        brain.mean() >= BARE_SHARE
        and BARE_MEDIAN[0] <= median <= BARE_MEDIAN[1]
        and SPAN_MM[0] <= spans.min()
        and spans.max() <= SPAN_MM[1]
    )
