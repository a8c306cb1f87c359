"""Reflections of the lamp in colour pictures, filled from around them before the network sees them.

A wet mucosa throws the endoscope's lamp back as small spots without colour, far brighter than what is beside them. To a
network that never saw an endoscopy they are the oddest thing in the picture. Filling them in is usual in endoscopy, as
in Arnold et al. 2010 (EURASIP Journal on Image and Video Processing, 814319); the fill is normalised convolution
(Knutsson and Westin, CVPR 1993).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from anomalyclip_monai.networks.similarity import gaussian_smooth

SIDE = 320
"""Longer side in pixels of the copy of a picture in which spots are sought; lengths below are pixels of it."""

DARK = 0.1
"""Pixels whose brightest channel is not above this are a frame or a hollow, and no neighbours of anything."""

COLOURED = 0.08
"""A picture has colours where its channels differ by more than this on average, dark pixels left out: colonoscopy .19
and more, skin .11 and more, grey pictures that were saved with colours .05 and less (of training and public sets)."""

WHITE = 0.4
"""The darkest channel of a reflection is above this ..."""

CONTRAST = 0.15
"""... and by this above its surroundings, a Gaussian mean ..."""

SURROUNDINGS = 12.0
"""... with this standard deviation."""

GROWN = 3
"""Steps by which a spot is grown, for its glow."""

LARGEST = 0.01
"""A spot of more than this share of the picture is a bright thing and stays."""

FILLS = (2.0, 4.0, 8.0, 16.0)
"""Standard deviations of the Gaussians that spots are filled from: the narrowest that reaches enough beside a spot."""

ENOUGH = 0.1
"""The share of a Gaussian that has to lie beside the spots."""


def fill_glare(pictures: Tensor) -> Tensor:
    """Colour pictures with their reflections filled; what has no colours is returned as it is.

    Args:
        pictures: (B, C, H, W) display values in [0, 1].

    Returns:
        (B, C, H, W); pixels away from a reflection are the given ones.
    """
    if pictures.shape[1] != 3:
        return pictures
    return torch.stack([_filled(picture) for picture in pictures])


def _filled(picture: Tensor) -> Tensor:
    height, width = picture.shape[1:]
    scale = SIDE / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = F.interpolate(picture[None].float(), size, mode="bilinear", antialias=True, align_corners=False)[0]
    image = small.cpu()
    highest, lowest = image.amax(dim=0), image.amin(dim=0)
    lit = highest > DARK
    if not lit.any() or (highest - lowest)[lit].mean() <= COLOURED:
        return picture
    spots = _spots(lowest, lit)
    if not spots.any():
        return picture
    share, fill = (
        F.interpolate(part[None], (height, width), mode="bilinear", align_corners=False)[0].to(picture)
        for part in (spots[None].float(), _beside(image, spots, lit & ~spots))
    )
    return picture + share * (fill - picture)


def _spots(white: Tensor, lit: Tensor) -> Tensor:
    """-> (H, W) bool, where there are reflections, from the darkest channel and where it is not dark."""
    surroundings, _ = _mean(white[None], lit, SURROUNDINGS)
    bright = (white > WHITE) & (white - surroundings[0] > CONTRAST)
    pieces, _ = ndimage.label(ndimage.binary_dilation(bright.numpy(), iterations=GROWN))
    sizes = np.bincount(pieces.ravel())
    return torch.from_numpy((pieces > 0) & (sizes[pieces] <= LARGEST * pieces.size))


def _beside(image: Tensor, spots: Tensor, sound: Tensor) -> Tensor:
    """``image`` (3, H, W) with its spots filled from sound pixels around them."""
    filled, missing = image.clone(), spots.clone()
    for sigma in FILLS:
        means, share = _mean(image, sound, sigma)
        reached = missing & (share > ENOUGH)
        filled[:, reached] = means[:, reached]
        missing &= ~reached
    return filled


def _mean(channels: Tensor, counted: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Gaussian mean of the counted pixels about each pixel, 0 where there are none, and their share of the Gaussian.

    Wide Gaussians are computed on a grid that is as much coarser as they are wider than 2 pixels.

    Args:
        channels: (C, H, W).
        counted: (H, W) bool.
        sigma: standard deviation in pixels.

    Returns:
        (C, H, W) and (H, W).
    """
    weighted = torch.cat([channels * counted, counted[None].to(channels)])[None]
    size = [max(1, round(length * 2 / sigma)) for length in counted.shape]
    smooth = gaussian_smooth(F.interpolate(weighted, size, mode="area"), 2.0)
    *sums, share = F.interpolate(smooth, counted.shape, mode="bilinear", align_corners=False)[0]
    return torch.stack(sums) / share.clamp_min(1e-6), share
