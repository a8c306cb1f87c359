"""The loss of prompt learning (AnomalyCLIP, section 3.4): global on the class token, local on the maps."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from monai.losses import DiceLoss
from torch import Tensor, nn
from torch.nn import functional as F

LossTerms = Literal["both", "global", "local"]
"""Which of the two losses are used; the paper ablates each alone."""

FOCAL_SMOOTH = 1e-5
"""Keeps the focal loss finite where a wrong state has all of the probability, as the published code does."""


class PromptPrediction(NamedTuple):
    """What the prompts make of a batch.

    Attributes:
        logits: (B, 2) cosines of the class token over the temperature, normal first.
        maps: per feature layer the (B, 2, H, W) probabilities of the two states, not smoothed.
    """

    logits: Tensor
    maps: tuple[Tensor, ...]


class PromptTarget(NamedTuple):
    """What is known of a batch.

    Attributes:
        label: (B,) 1 for abnormal, 0 for normal.
        mask: (B, 1, H, W) 1 inside the lesion, else 0.
    """

    label: Tensor
    mask: Tensor


class LossParts(NamedTuple):
    """The global and the local loss of one batch, before they are weighted."""

    image: Tensor
    maps: Tensor


class PromptLoss(nn.Module):
    """Cross-entropy of images + ``map_weight`` x sum over layers of (focal + Dice of abnormal + Dice of normal).

    The mean over the samples of a batch, so that losses of parts of a batch average to that of the whole.

    Args:
        terms: ``both``, or one of the losses alone.
        map_weight: weight of the local loss; 4 in the published code.

    Attributes:
        parts: both losses of the latest call, without a graph.
    """

    def __init__(self, terms: LossTerms = "both", map_weight: float = 4.0) -> None:
        super().__init__()
        if terms not in get_args(LossTerms):
            raise ValueError(f"terms ({terms!r}) must be one of {', '.join(get_args(LossTerms))}")
        self.terms = terms
        self.map_weight = map_weight
        self.dice = DiceLoss(smooth_nr=1.0, smooth_dr=1.0)
        self.parts: LossParts | None = None

    def forward(self, prediction: PromptPrediction, target: PromptTarget) -> Tensor:
        """-> () the loss."""
        zero = prediction.logits.new_zeros(())
        image = F.cross_entropy(prediction.logits, target.label) if self.terms != "local" else zero
        maps = zero
        if self.terms != "global":
            maps = torch.stack(
                [torch.stack(self.map_losses(layer, target.mask)).sum() for layer in prediction.maps]
            ).sum()
        self.parts = LossParts(image.detach(), maps.detach())
        return image + self.map_weight * maps

    def map_losses(self, probabilities: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 2, H, W), (B, 1, H, W) -> focal loss, Dice loss of the abnormal and of the normal channel."""
        normal, abnormal = probabilities[:, :1], probabilities[:, 1:]
        return focal_loss(probabilities, mask), self.dice(abnormal, mask), self.dice(normal, 1 - mask)


def focal_loss(probabilities: Tensor, mask: Tensor, gamma: float = 2.0, smooth: float = FOCAL_SMOOTH) -> Tensor:
    """(B, 2, H, W), (B, 1, H, W) -> () mean over pixels of ``-(1 - pt)^gamma log(pt)``.

    ``pt`` is the probability of the right state with ``smooth`` mixed in: 2 ``smooth`` where it is 0. MONAI's
    ``FocalLoss`` has no such floor, is infinite there, and averages over channels as well as over pixels.
    """
    one_hot = torch.cat([1 - mask, mask], dim=1).clamp(smooth, 1 - smooth)
    right = (one_hot * probabilities).sum(dim=1) + smooth
    return -((1 - right) ** gamma * right.log()).mean()
