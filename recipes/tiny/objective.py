"""What the tokens are compared with: shares of lesion per token, and the label of the image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from anomalyclip_monai.networks.prompts import ABNORMAL, NORMAL
from anomalyclip_monai.networks.similarity import state_logits, top_fraction_mean
from recipes.tiny.crops import UNKNOWN

LAYER_DICE, MEAN_DICE, IMAGE, CLASS_TOKEN = 0.3, 0.5, 0.25, 0.05
"""Weights of the parts of the loss beside the cross-entropy of the tokens."""

POSITIVE_WEIGHT = 2.0
FEW_TOKENS = 20.0
"""Lesions of fewer tokens than this count more, up to three times, so that large ones do not drown small ones."""

SMALL = 7
"""Parts of a lesion into which a square of this many pixels does not fit are small ..."""

GROWN = 5
"""... and fill their token as if they were grown by a square of this many."""


class Targets(NamedTuple):
    """What labels say of tokens and images.

    Attributes:
        tokens: (B, N) share of lesion per token, small parts grown.
        known: (B, N) share of pixels with a label.
        image: (B,) 1 with a lesion, 0 without.
        image_known: (B,) False where there is no lesion but something unknown.
        area: (B,) share of the image that is lesion.
    """

    tokens: Tensor
    known: Tensor
    image: Tensor
    image_known: Tensor
    area: Tensor

    def of(self, kept: Tensor) -> Targets:
        """The targets of some tokens, (B, K) positions in the grid."""
        return self._replace(tokens=self.tokens.gather(1, kept), known=self.known.gather(1, kept))


def targets(labels: Tensor, patch: int) -> Targets:
    """(B, S, S) uint8 of 0, 1 and UNKNOWN -> what to learn, for tokens of ``patch`` pixels."""
    known = (labels != UNKNOWN).float().unsqueeze(1)
    lesion = (labels == 1).float().unsqueeze(1)
    opened = F.max_pool2d(-F.max_pool2d(-lesion, SMALL, 1, SMALL // 2), SMALL, 1, SMALL // 2)
    grown = torch.maximum(lesion, F.max_pool2d(lesion - opened, GROWN, 1, GROWN // 2)) * known
    share_known = F.avg_pool2d(known, patch)
    share = F.avg_pool2d(grown, patch) / share_known.clamp(min=1e-3)
    area = lesion.mean(dim=(1, 2, 3))
    mostly_known = known.mean(dim=(1, 2, 3)) > 0.97
    return Targets(share.flatten(1), share_known.flatten(1), (area > 0).float(), (area > 0) | mostly_known, area)


def logits(features: Tensor, text: Tensor, temperature: float) -> Tensor:
    """(..., D) and (2, D) -> (...) whose sigmoid is the probability of abnormal."""
    states = state_logits(features, text, temperature)
    return states[..., ABNORMAL] - states[..., NORMAL]


def objective(
    layers: Iterable[Tensor], image: Tensor, text: Tensor, wanted: Targets, *, temperature: float = 0.07
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and its parts by name.

    Args:
        layers: per feature layer (B, K, D) projected tokens.
        image: (B, D) projected class token.
        text: (2, D) normalised text features.
        wanted: targets of these K tokens.
        temperature: divides the cosines.
    """
    by_layer = torch.stack([logits(tokens, text, temperature) for tokens in layers])
    target = wanted.tokens.expand_as(by_layer)
    positive = (wanted.tokens * wanted.known).sum(dim=1, keepdim=True)
    weight = POSITIVE_WEIGHT * (FEW_TOKENS / positive.clamp(min=1)).sqrt().clamp(1, 3)
    weights = wanted.known * (1 + (weight - 1) * wanted.tokens)
    entropy = (F.binary_cross_entropy_with_logits(by_layer, target, reduction="none") * weights).mean()
    probabilities = by_layer.sigmoid()
    mean = probabilities.mean(dim=0)

    # The product's image score is the mean of the top 2 % of the map: a lesion smaller than that must not fill it.
    quiet = mean * wanted.known
    top, peak = top_fraction_mean(quiet, 0.02), top_fraction_mean(quiet, 0.002)
    score = torch.where(wanted.image == 0, (top + peak) / 2, torch.where(wanted.area >= 0.02, top, peak))
    image_error = F.binary_cross_entropy(score.clamp(1e-4, 1 - 1e-4), wanted.image, reduction="none")
    token_error = F.binary_cross_entropy_with_logits(logits(image, text, temperature), wanted.image, reduction="none")
    parts = {
        "tokens": entropy,
        "layer_dice": LAYER_DICE * dice_loss(probabilities, target, wanted.known).mean(),
        "mean_dice": MEAN_DICE * _mean(dice_loss(mean, wanted.tokens, wanted.known), wanted.image),
        "image": IMAGE * _mean(image_error, wanted.image_known),
        "class_token": CLASS_TOKEN * _mean(token_error, wanted.image_known),
    }
    loss = torch.stack(list(parts.values())).sum()
    return loss, {name: value.detach() for name, value in parts.items()}


def dice_loss(probabilities: Tensor, target: Tensor, known: Tensor) -> Tensor:
    """(..., N) -> (...), one minus the overlap of what is known; 0 for two empty maps."""
    overlap = (probabilities * target * known).sum(dim=-1)
    return 1 - (2 * overlap + 1) / ((probabilities * known).sum(dim=-1) + (target * known).sum(dim=-1) + 1)


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    return (values * chosen).sum() / chosen.sum().clamp(min=1)
