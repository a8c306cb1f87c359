"""Per-region overlap (PRO): how much of each lesion is found, small lesions counting as much as large ones.

At each threshold, the covered fraction of every 8-connected region of every mask is averaged over all regions and
drawn against the false positive rate over all normal pixels; PRO is the area below up to a false positive rate of
0.3. Two protocols, whose numbers do not compare:

* :func:`paper_pro`: as the AnomalyCLIP authors publish it, about 200 equally spaced thresholds.
* :func:`exact_pro`: every distinct score is a threshold, and the curve is interpolated at the limit.
"""

from __future__ import annotations

import numpy as np

from anomalyclip_monai.metrics.pixels import PixelScores
from anomalyclip_monai.metrics.undefined import Undefined, Value

FPR_LIMIT = 0.3
"""False positive rate up to which the curve counts (Bergmann et al., MVTec AD, section 4)."""
PAPER_STEPS = 200
"""Steps between the lowest and the highest score in the paper's protocol."""


def paper_pro(pixels: PixelScores, *, steps: int = PAPER_STEPS, limit: float = FPR_LIMIT) -> Value:
    """PRO in [0, 1] as AnomalyCLIP's tables give it.

    Thresholds are ``arange(lowest, highest, (highest - lowest) / steps)`` in the precision of the maps; a pixel is
    abnormal strictly above one. Points with a false positive rate strictly below ``limit`` are kept, their rates
    stretched to [0, 1], and the area taken by trapezoids.

    Args:
        pixels: maps of one class, collected with ``regions=True``.
        steps: number of steps.
        limit: false positive rate that points must stay below.
    """
    if missing := _missing(pixels):
        return missing
    lowest, highest = pixels.dtype.type(pixels.lowest), pixels.dtype.type(pixels.highest)
    step = (highest - lowest) / steps
    if not step > 0:
        return Undefined("all scores are equal")
    thresholds = np.arange(lowest, highest, step)
    false_positives, _, covered = pixels.counts(thresholds, strict=True)
    rate, overlap = false_positives / pixels.normal_pixels, covered / pixels.regions
    kept = rate < limit
    rate, overlap = rate[kept], overlap[kept]
    if not rate.size or rate.max() == rate.min():
        return Undefined(f"fewer than two false positive rates below {limit:g} among {len(thresholds)} thresholds")
    rate = (rate - rate.min()) / (rate.max() - rate.min())
    return float(-np.trapezoid(overlap, rate))  # the rate falls as thresholds rise


def exact_pro(pixels: PixelScores, *, limit: float = FPR_LIMIT) -> Value:
    """PRO in [0, 1] with every distinct score as a threshold, from the point (0, 0) to ``limit``, divided by it.

    Args:
        pixels: maps of one class, collected with ``regions=True``.
        limit: false positive rate at which the curve is cut, by linear interpolation.
    """
    if missing := _missing(pixels):
        return missing
    area = last_rate = last_overlap = 0.0
    for block in pixels.blocks():
        assert block.covered is not None
        rate = np.append(last_rate, block.false_positives / pixels.normal_pixels)
        overlap = np.append(last_overlap, block.covered / pixels.regions)
        if rate[-1] >= limit:
            end = int(np.searchsorted(rate, limit))  # the first point at or beyond the limit
            at_limit = np.interp(limit, rate[end - 1 : end + 1], overlap[end - 1 : end + 1])
            rate, overlap = np.append(rate[:end], limit), np.append(overlap[:end], at_limit)
            return float((area + np.trapezoid(overlap, rate)) / limit)
        area += float(np.trapezoid(overlap, rate))
        last_rate, last_overlap = rate[-1], overlap[-1]
    raise AssertionError("the lowest score calls every normal pixel abnormal")


def _missing(pixels: PixelScores) -> Undefined | None:
    if not pixels.measures_regions:
        raise ValueError("PRO needs PixelScores(regions=True)")
    return pixels.missing()
