"""Whether the values of a volume without a header are CT numbers."""

from __future__ import annotations

import numpy as np

from anomalyclip_monai.transforms.robust import Values, sample

OFFSET = 1024
"""What is often added to CT numbers so that none is negative."""

LOWEST = -1100.0
"""Air with its noise is no darker."""

HIGHEST = 31000.0
"""Nothing is brighter, be it metal on the extended scale: what is, stands for the outside."""

BRIGHTEST = 3000.0
"""At least nine tenths of what is no air are below, metal and all."""


def are_ct_numbers(values: Values) -> tuple[bool, str]:
    """-> whether they are, and what speaks for it.

    CT numbers are absolute: air is -1000, fat -100, water 0, other soft tissue 10 to 80. So there is either air, or,
    where the volume was cropped or its values clipped, much that is darker than water and no peak at 0. In an MR that
    was resampled by splines a few voxels at edges are negative, and the most frequent value is that of its air, 0.
    """
    low, high = float(values.min()), float(values.max())
    said = f"values from {low:.4g} to {high:.4g}"
    seen = sample(values)
    if low > -100:
        return False, f"{said} are no CT numbers" + _shifted(seen)
    seen = seen[(seen >= LOWEST) & (seen < HIGHEST)]  # beyond are only paddings
    tissue = seen[seen > -300]
    if not seen.size or (tissue.size and np.percentile(tissue, 90) > BRIGHTEST) or _is_padded(seen):
        return False, f"{said} are no CT numbers"
    air = _share(seen, LOWEST, -500)
    if air >= 0.01:
        return True, f"{said}, {100 * air:.0f} % of them like air or lung, look like CT"
    dark = _share(seen, LOWEST, -50)
    if dark < 0.02 or _peaks_at_zero(seen):
        return False, f"{said}, {100 * dark:.2g} % of them dark, look like a resampled image, not like CT"
    return True, f"{said}, {100 * dark:.0f} % of them dark, look like CT"


def _share(values: Values, low: float, high: float) -> float:
    """How many of the values lie between two others, 0 to 1."""
    return float(((values >= low) & (values <= high)).mean())


def _shifted(values: Values) -> str:
    """A word on values that may be CT numbers with 1024 added, which nothing tells from MR for certain."""
    shifted = values - OFFSET
    if values.max() < OFFSET or _share(shifted, -1100, -850) < 0.05 or _share(shifted, -200, 150) < 0.1:
        return ""
    return f" (if they are, with {OFFSET} added to each, subtract that first)"


def _is_padded(values: Values) -> bool:
    """One number for what lies outside, nothing between it and air at 0, and tissue brighter than in CT."""
    inside = values[values > values.min()] if values.min() < -20 else values
    bright = inside[inside > 1]
    return bool(bright.size and inside.min() > -20 and _share(inside, -1, 1) >= 0.1 and np.median(bright) > 150)


def _peaks_at_zero(values: Values) -> bool:
    """Whether the most frequent value is 0, with what air in MR has around it; clipped values aside."""
    inside = values[values > values.min()]
    if not inside.size:
        return False
    width = max(5.0, 0.01 * float(np.percentile(inside, 99)))
    bins, counts = np.unique(np.round(inside / (2 * width)), return_counts=True)
    return bool(bins[counts.argmax()] == 0)
