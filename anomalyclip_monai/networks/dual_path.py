"""The image side: CLIP's own path and, beside it, the local path of DPAM (AnomalyCLIP, section 3.3)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from anomalyclip_monai.networks.neck import TokenNeck
from anomalyclip_monai.networks.towers import Tower

LocalAttention = Literal["v-v", "q-q", "k-k", "none"]
"""Which projection attends to itself on the local path; ``none`` reads the patches off the global path."""


class ImageFeatures(NamedTuple):
    """What the image side knows of a batch.

    Attributes:
        image: (B, D) projected class token, not normalised, without ``ln_post``.
        patches: feature layer, or member of a neck -> (B, 1 + N, D) local tokens in the joint space, not normalised,
            class token first.
        grid: rows and columns of patches, N = rows * columns.
    """

    image: Tensor
    patches: dict[int, Tensor]
    grid: tuple[int, int]


def encode_image(
    tower: Tower,
    images: Tensor,
    *,
    local_blocks: int,
    feature_layers: Collection[int],
    local_attention: LocalAttention = "v-v",
    neck: TokenNeck | None = None,
) -> ImageFeatures:
    """(B, 3, H, W) normalised images -> features of both paths.

    Args:
        tower: from :func:`~anomalyclip_monai.networks.towers.vision_tower`.
        images: H and W multiples of the patch size; the position grid is resized to them.
        local_blocks: the local path runs beside this many last blocks.
        feature_layers: blocks, counted from 1, whose local tokens are returned. A layer before the local path
            starts gives the tokens of the global path.
        local_attention: the kind of attention on the local path.
        neck: moves the tokens of all feature layers together into the joint space, in float32, in the place of the
            tower's own projection. The image token is then the mean of its members' class tokens.
    """
    embedded = tower.embed(images)
    start = len(tower.blocks) if local_attention == "none" else len(tower.blocks) - local_blocks
    global_path = local_path = embedded.tokens
    layers = {}
    blocks = tower.blocks if neck is None else tower.blocks[: max(feature_layers)]  # a neck reads nothing beyond
    for layer, block in enumerate(blocks, start=1):
        query, key, value = tower.heads(block, embedded, global_path)
        # Both paths read the same projections of the global path; the local path skips the MLP.
        if layer > start:
            alike = {"v-v": value, "q-q": query, "k-k": key}[local_attention]
            local_path = local_path + tower.merge(block, F.scaled_dot_product_attention(alike, alike, value))
            if layer == len(tower.blocks):  # of the global path's end only the class token is read
                query, global_path = query[:, :, :1], global_path[:, :1]
        global_path = global_path + tower.merge(block, F.scaled_dot_product_attention(query, key, value))
        global_path = global_path + tower.mlp(block, global_path)
        if layer <= start:
            local_path = global_path
        if layer in feature_layers:
            layers[layer] = tower.normalize(local_path)
    if neck is None:
        patches = {layer: tower.project(tokens) for layer, tokens in layers.items()}
        return ImageFeatures(tower.project(global_path[:, 0]), patches, embedded.grid)
    joined = neck([tokens.float() for tokens in layers.values()], embedded.grid)
    image = torch.stack([F.normalize(tokens[:, 0], dim=-1) for tokens in joined]).mean(dim=0)
    return ImageFeatures(image, dict(enumerate(joined, start=1)), embedded.grid)
