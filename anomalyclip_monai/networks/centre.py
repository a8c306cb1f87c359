"""Where the middle of the body lies in a picture: a prior that looks at what is lit, and knows of no lesion."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from anomalyclip_monai.metrics.baselines import (
    BODY_FRACTION,
    FIELD_BLUR,
    FIELD_SIZE,
    LEAST_FIELD,
    LEAST_SPREAD,
    OUTSIDE,
    PRIOR_WIDTH,
)
from anomalyclip_monai.networks.similarity import convolve_last_axis


def own_centre(images: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, 1, 256, 256) in (0, 1.02], highest in the middle of what is not dark.

    The baseline :func:`~anomalyclip_monai.metrics.baselines.body_centre` on tensors, over a field whose holes are not
    filled and whose specks stay: exp(-(dx^2 + dy^2) / 4), with dx and dy from the field's centre of mass in its own
    standard deviations, times 1.02 inside the field and .02 outside. Without a field to speak of it is the centre of
    the picture.
    """
    field = body_field(images)
    area = field.sum(dim=(2, 3), keepdim=True)
    found = area >= LEAST_FIELD
    middle, wide = (FIELD_SIZE - 1) / 2, PRIOR_WIDTH * FIELD_SIZE / 2**0.5  # here a quarter, there half of the square
    squared = torch.zeros_like(field)
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        at = torch.arange(FIELD_SIZE, device=field.device, dtype=field.dtype).view(shape)
        centre = (field * at).sum(dim=(2, 3), keepdim=True) / area.clamp(min=1)
        variance = (field * (at - centre) ** 2).sum(dim=(2, 3), keepdim=True) / area.clamp(min=1)
        spread = variance.sqrt().clamp(min=LEAST_SPREAD)
        squared = squared + ((at - torch.where(found, centre, middle)) / torch.where(found, spread, wide)) ** 2
    return (-squared / 4).exp() * torch.where(found, OUTSIDE + field, 1.0)


def body_field(images: Tensor) -> Tensor:
    """(B, C, H, W) in [0, 1] -> (B, 1, 256, 256), 1 where the body lies, or whatever else is not the dark surround.

    The mean of channels, squashed to 256 x 256 and averaged over 7 x 7 pixels, is above 5 % of its maximum.
    """
    grey = images.float().mean(dim=1, keepdim=True)
    size = (FIELD_SIZE, FIELD_SIZE)
    squashed = F.interpolate(grey, size, mode="bilinear", align_corners=False, antialias=True)
    box = torch.full((FIELD_BLUR,), 1 / FIELD_BLUR)
    smooth = convolve_last_axis(convolve_last_axis(squashed, box).mT, box).mT
    return (smooth > BODY_FRACTION * smooth.amax(dim=(2, 3), keepdim=True)).float()
