"""Connected regions of a mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label


def region_weights(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], int]:
    """(H, W) or (X, Y, Z) mask -> weights (P,) of its P abnormal pixels in array order, and the number of regions.

    A pixel weighs 1 / (area of its region), so that the weights of the pixels that a threshold finds add up to the
    covered fractions of all regions. Regions are 8-connected, in volumes 26-connected.
    """
    rows = [
        np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        for axis in range(mask.ndim)
    ]
    if not rows[0].size:
        return np.array([], np.float64), 0
    box = mask[tuple(slice(int(found[0]), int(found[-1]) + 1) for found in rows)]
    # Row-major order is the same inside the box and in the whole mask.
    regions: NDArray[Any] = label(box, connectivity=mask.ndim)[box]
    areas = np.bincount(regions)
    return 1.0 / areas[regions], len(areas) - 1
