"""From a heatmap to the voxels of its lesions: found at one threshold, outlined down to a lower one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label


def lesion_components(
    heatmap: NDArray[Any], value: float, low: float | None = None, *, smallest: int = 1
) -> NDArray[np.integer[Any]]:
    """(X, Y[, Z]) heatmap -> the number of the lesion of each voxel, from 1, and 0 outside; same shape.

    Lesions are the connected components of ``heatmap >= low`` (26-connected, 8-connected in a single slice) that hold
    enough of ``heatmap >= value``. So against ``value`` alone none is added, outlines grow, and neighbours may merge.

    Args:
        heatmap: higher means more abnormal; 0 was not scored and is never lesion.
        value: threshold that makes a component a lesion.
        low: threshold of the outline, at most ``value``; None: ``value``.
        smallest: so many voxels at or above ``value`` a lesion has at least.
    """
    components = label((heatmap >= (value if low is None else low)) & (heatmap > 0), connectivity=heatmap.ndim)
    found = np.bincount(components[heatmap >= value], minlength=int(components.max(initial=0)) + 1)
    kept = found >= max(smallest, 1)
    kept[0] = False
    numbers = (np.cumsum(kept) * kept).astype(components.dtype)
    return numbers[components]


def lesion_mask(
    heatmap: NDArray[Any], value: float, low: float | None = None, *, smallest: int = 1
) -> NDArray[np.bool_]:
    """(X, Y[, Z]) heatmap -> bool mask of its lesions, see :func:`lesion_components`."""
    if low in (None, value) and smallest <= 1:  # nothing hangs on what is connected
        return (heatmap >= value) & (heatmap > 0)
    return lesion_components(heatmap, value, low, smallest=smallest) > 0
