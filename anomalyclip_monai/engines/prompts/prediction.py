"""From the frozen image side to what the prompts make of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from monai.inferers import Inferer
from torch import Tensor

from anomalyclip_monai.losses import PromptPrediction
from anomalyclip_monai.networks import AnomalyCLIP
from anomalyclip_monai.networks.similarity import patches_to_map, state_logits, state_probabilities


class FrozenFeatures(NamedTuple):
    """What the frozen image side says of a batch; the prompts see nothing else of an image.

    Attributes:
        image: (B, D) projected class token, not normalised.
        patches: (B, L, N, D) projected local tokens of the feature layers, not normalised, without class tokens.
    """

    image: Tensor
    patches: Tensor


class PromptInferer(Inferer):
    """``inferer(inputs, network)``: preprocessed images (B, 3, H, W) or :class:`FrozenFeatures` -> prediction.

    Gradients reach the prompts only.
    """

    def __call__(self, inputs: Tensor | FrozenFeatures, network: AnomalyCLIP) -> PromptPrediction:
        """Encode images unless that was done before, and compare them with the present prompts."""
        features = encode_frozen(network, inputs) if isinstance(inputs, Tensor) else inputs
        return predict(network, features)


@torch.no_grad()
def encode_frozen(network: AnomalyCLIP, images: Tensor) -> FrozenFeatures:
    """(B, 3, H, W) preprocessed -> features, without a graph."""
    features = network.encode_image(images)
    return FrozenFeatures(features.image, torch.stack([tokens[:, 1:] for tokens in features.patches.values()], dim=1))


def predict(network: AnomalyCLIP, features: FrozenFeatures) -> PromptPrediction:
    """Logits and maps of a batch, with a graph to the prompts where gradients are enabled."""
    text, temperature = network.text_features(), network.settings.temperature
    grid = patch_grid(network, features.patches.shape[2])
    layers = (state_probabilities(layer, text, temperature) for layer in features.patches.unbind(dim=1))
    maps = tuple(patches_to_map(layer, grid, network.settings.size) for layer in layers)
    return PromptPrediction(state_logits(features.image, text, temperature), maps)


def patch_grid(network: AnomalyCLIP, count: int) -> tuple[int, int]:
    """Rows and columns of ``count`` patches on an image of the network's size."""
    height, width = network.settings.size
    rows = round((count * height / width) ** 0.5)
    return rows, count // rows


def fresh_prompts(network: AnomalyCLIP, seed: int) -> AnomalyCLIP:
    """Give ``network`` new random prompts, N(0, 0.02) as in the published code, the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for prompt in learned(network):
            prompt.copy_(0.02 * torch.randn(prompt.shape, generator=random))
    return network


def learned(network: AnomalyCLIP) -> list[torch.nn.Parameter]:
    """The parameters that are learned: context and deep prompts."""
    return [network.ctx, *network.deep]
