"""Left against right: in a head, a slice whose halves differ is suspicious whatever its map says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from anomalyclip_monai.networks.similarity import top_fraction_mean

DARK = 0.1
"""Display values up to this are not the head."""

SIDE = 192
"""Rows and columns to which the head alone is squashed."""

WINDOW = 2
"""So many tokens up, down and to either side may what is compared have moved: no head lies quite straight."""

LEAST_HEAD = 0.5
"""Share of a token that must be head."""


@dataclass(frozen=True)
class Symmetry:
    """sigmoid(logit(score) + weight * (asymmetry - usual)).

    Attributes:
        weight: of the :func:`asymmetry` beside the score's logit; 0 leaves the score as it is.
        usual: asymmetry of a slice without a lesion: there the score stays.

    Raises:
        ValueError: a number is not finite.
    """

    weight: float
    usual: float

    def __post_init__(self) -> None:
        """Check."""
        if not (math.isfinite(self.weight) and math.isfinite(self.usual)):
            raise ValueError(f"{self} needs finite numbers")

    def weigh(self, scores: Tensor, asymmetry: Tensor) -> Tensor:
        """(S,) scores in [0, 1] and (S,) asymmetries -> (S,) scores; those of slices without one (NaN) stay."""
        weighed = (torch.logit(scores, 1e-4) + self.weight * (asymmetry - self.usual)).sigmoid()
        return torch.where(asymmetry.isnan(), scores, weighed)


def asymmetry(encode: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """(B, C, H, W) upright slices in [0, 1] -> (B,) in [0, 2], how much of their halves finds no match on the other.

    The head alone is squashed to a square, and every token compared with those about its place in the mirror image;
    1 less the best cosine is what it lacks. The mean of the highest 2 % of all tokens counts.

    Args:
        encode: (2, 3, SIDE, SIDE) in [0, 1] -> (2, D, rows, columns) features.
        images: the slices, left and right of the patient along their columns.
    """
    return torch.stack([_of_one(encode, image) for image in images.float()])


def _of_one(encode: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    head = image.mean(dim=0) > DARK
    if not head.any():
        return image.new_zeros(())
    rows, columns = (_extent(head.any(dim=other)) for other in (1, 0))
    view = F.interpolate(
        image[None, :, rows, columns], (SIDE, SIDE), mode="bicubic", align_corners=False, antialias=True
    )
    view = view.clamp(0, 1).expand(-1, 3, -1, -1)
    straight, mirrored = F.normalize(encode(torch.cat([view, view.flip(-1)])).float(), dim=1)
    size = (int(straight.shape[1]), int(straight.shape[2]))
    near = F.pad(mirrored, (WINDOW,) * 4)
    steps = range(2 * WINDOW + 1)
    cosines = [
        (straight * near[:, down : down + size[0], right : right + size[1]]).sum(dim=0)
        for down in steps
        for right in steps
    ]
    share = F.adaptive_avg_pool2d(F.interpolate(head[None, None, rows, columns].float(), (SIDE, SIDE)), size)[0, 0]
    lacking = (1 - torch.stack(cosines).amax(dim=0)) * (share > LEAST_HEAD)
    return top_fraction_mean(lacking[None])[0]


def _extent(found: Tensor) -> slice:
    at = torch.nonzero(found).flatten()
    return slice(int(at[0]), int(at[-1]) + 1)
