"""Trivial maps that any method must beat, and the masks in which a comparison is fair."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy import ndimage

BODY_FRACTION = 0.05
"""Voxels above this share of the volume's maximum are inside the head or body."""
LIT_LEVEL = 20
"""Pixels of a photo above this mean of channels, of 255, are in the lit field."""
PRIOR_WIDTH = 0.25
"""Standard deviation of the centre prior, as a share of the image's width and height."""
FIELD_SIZE = 256
"""Side of the square on which the body's field is looked for."""
FIELD_BLUR = 7
"""Side in pixels of the square over which brightness is averaged there."""
LEAST_FIELD = 50
"""A field of fewer pixels is none."""
LEAST_SPREAD = 8.0
"""Standard deviation in pixels that a field has at least."""
OUTSIDE = 0.02
"""Share of the prior that is left outside the field."""


def brightness_map(image: ArrayLike) -> NDArray[np.float32]:
    """(C, H, W) or (C, X, Y, Z) in [0, 1] after the preset's scaling -> (H, W) or (X, Y, Z), the mean of channels."""
    return np.asarray(image).mean(axis=0, dtype=np.float64).astype(np.float32)


def centre_prior(height: int, width: int) -> NDArray[np.float32]:
    """(H, W) map exp(-(dx^2 + dy^2) / 2), with dx and dy from the centre in quarters of width and height.

    In (0, 1]; the centre lies between the two middle pixels where a side is even. A score would be the same for all
    images and has AUROC 0.5.
    """
    dx, dy = ((np.arange(size) - (size - 1) / 2) / (PRIOR_WIDTH * size) for size in (width, height))
    return np.exp(-(dx[None, :] ** 2 + dy[:, None] ** 2) / 2).astype(np.float32)


def centre_prior_volume(shape: tuple[int, int, int], slice_axis: int) -> NDArray[np.float32]:
    """(X, Y, Z) read-only view with the centre prior in every slice along ``slice_axis``."""
    first, second = (size for axis, size in enumerate(shape) if axis != slice_axis)
    return np.broadcast_to(np.expand_dims(centre_prior(first, second), slice_axis), shape)


def body_field(photo: ArrayLike) -> NDArray[np.bool_]:
    """(C, H, W) in [0, 1] -> (256, 256) where the body lies, or whatever else is not the dark surround.

    The mean of channels, squashed to 256 x 256 and averaged over 7 x 7 pixels, is above 5 % of its maximum; without
    specks, holes filled.
    """
    grey = resized(np.asarray(photo).mean(axis=0, dtype=np.float64), FIELD_SIZE)
    smooth = ndimage.uniform_filter(grey, FIELD_BLUR)
    opened = ndimage.binary_opening(smooth > BODY_FRACTION * smooth.max())
    return np.asarray(ndimage.binary_fill_holes(opened), bool)


def body_centre(field: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(256, 256) field -> map that knows where the middle of the body lies, and nothing else.

    exp(-(dx^2 + dy^2) / 4), with dx and dy from the field's centre of mass in its own standard deviations, times 1.02
    inside the field and .02 outside. Without a field to speak of it is the centre prior.
    """
    if np.count_nonzero(field) < LEAST_FIELD:
        return centre_prior(*field.shape)
    places = np.nonzero(field)
    dy, dx = (
        (np.arange(size) - at.mean()) / max(at.std(), LEAST_SPREAD)
        for size, at in zip(field.shape, places, strict=True)
    )
    prior = np.exp(-(dy[:, None] ** 2 + dx[None, :] ** 2) / 4)
    return (prior.astype(np.float32) * (OUTSIDE + field)).astype(np.float32)


def box_share(field: NDArray[np.bool_]) -> float:
    """(H, W) field -> share of the picture that its bounding box takes: how much a crop to the body would leave."""
    sides = [np.flatnonzero(field.any(axis=axis)) for axis in (0, 1)]
    if not sides[0].size:
        return 1.0
    return float(np.prod([(at[-1] - at[0] + 1) / size for at, size in zip(sides, field.shape[::-1], strict=True)]))


def resized(plane: ArrayLike, width: int, height: int | None = None) -> NDArray[np.float32]:
    """(H, W) -> (height, width), bilinear with antialias; a square where only the width is given."""
    image: Any = Image.fromarray(np.asarray(plane, np.float32))
    return np.asarray(image.resize((width, width if height is None else height), Image.Resampling.BILINEAR))


def inside_body(volume: ArrayLike) -> NDArray[np.bool_]:
    """(X, Y, Z) intensities from 0 up -> voxels above 5 % of the volume's maximum.

    Hounsfield units must be scaled to [0, 1] first.
    """
    intensities = np.asarray(volume)
    return intensities > BODY_FRACTION * intensities.max(initial=0)


def lit_field(photo: ArrayLike) -> NDArray[np.bool_]:
    """(C, H, W) in [0, 255] -> (H, W) pixels whose mean of channels is above 20."""
    return np.asarray(photo).mean(axis=0, dtype=np.float64) > LIT_LEVEL
