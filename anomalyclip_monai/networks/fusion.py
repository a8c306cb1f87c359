"""One map from those of several networks: a sum of their logits, as a logistic regression would weigh them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from anomalyclip_monai.networks.centre import own_centre
from anomalyclip_monai.networks.similarity import resize_map

CLIPPED = 1e-4
"""Probabilities count as at least this much, and as this much less than 1: no network alone decides."""

LEAST_CENTRE = 0.01
"""The own centre counts as at least this much: a lesion at the border is not ruled out."""


@dataclass(frozen=True)
class Fusion:
    """sigmoid(bias + sum of weight * logit(map) + prior * log(own centre)).

    Attributes:
        weights: one for each network.
        bias: added to the sum.
        prior: weight of :func:`~anomalyclip_monai.networks.centre.own_centre`; 0 leaves it out.

    Raises:
        ValueError: a number is not finite, or there are no weights.
    """

    weights: Sequence[float]
    bias: float
    prior: float = 0.0

    def __post_init__(self) -> None:
        """Make a tuple of a list, as JSON has it, and check."""
        object.__setattr__(self, "weights", tuple(self.weights))
        if not self.weights or not all(map(math.isfinite, (*self.weights, self.bias, self.prior))):
            raise ValueError(f"{self} needs a weight for each network, and finite numbers")

    def fuse(self, maps: Sequence[Tensor], images: Tensor) -> Tensor:
        """Maps of the networks, each (B, 1, rows, columns) in [0, 1] -> one like them.

        Args:
            maps: as many as there are weights, all of one size.
            images: (B, C, H, W) in [0, 1], of which the maps are.
        """
        weighted = [weight * torch.logit(own, CLIPPED) for weight, own in zip(self.weights, maps, strict=True)]
        logits = self.bias + torch.stack(weighted).sum(dim=0)
        if self.prior:
            centre = resize_map(own_centre(images), logits.shape[-2:])
            logits = logits + self.prior * centre.clamp(min=LEAST_CENTRE).log()
        return logits.sigmoid()
