"""Trivial maps that any method must beat, and the masks in which a comparison is fair."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

BODY_FRACTION = 0.05
"""Voxels above this share of the volume's maximum are inside the head or body."""
LIT_LEVEL = 20
"""Pixels of a photo above this mean of channels, of 255, are in the lit field."""
PRIOR_WIDTH = 0.25
"""Standard deviation of the centre prior, as a share of the image's width and height."""


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


def inside_body(volume: ArrayLike) -> NDArray[np.bool_]:
    """(X, Y, Z) intensities from 0 up -> voxels above 5 % of the volume's maximum.

    Hounsfield units must be scaled to [0, 1] first.
    """
    intensities = np.asarray(volume)
    return intensities > BODY_FRACTION * intensities.max(initial=0)


def lit_field(photo: ArrayLike) -> NDArray[np.bool_]:
    """(C, H, W) in [0, 255] -> (H, W) pixels whose mean of channels is above 20."""
    return np.asarray(photo).mean(axis=0, dtype=np.float64) > LIT_LEVEL
