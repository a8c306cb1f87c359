"""A vision tower that sees some of the tokens only: half of them train at less than half the cost (He et al., MAE)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from anomalyclip_monai.networks.towers import Embedded, Tower


def choose_tokens(batch: int, count: int, share: float, generator: torch.Generator) -> Tensor:
    """-> (batch, round(share * count)) positions, in order, other ones for every image."""
    if share >= 1:
        return torch.arange(count).expand(batch, -1)
    noise = torch.rand(batch, count, generator=generator)
    return noise.topk(max(1, round(share * count)), dim=1).indices.sort(dim=1).values


class SparseTower:
    """The steps of ``tower``, with the class token and the patches of ``kept`` (B, K) behind the embedding."""

    def __init__(self, tower: Tower, kept: Tensor) -> None:
        self._tower, self._kept = tower, kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tower, name)

    def embed(self, images: Tensor) -> Embedded:
        """(B, 3, H, W) normalised images -> class token and kept patches."""
        embedded = self._tower.embed(images)
        index = 1 + self._kept[..., None].expand(-1, -1, embedded.tokens.shape[-1])
        tokens = torch.cat([embedded.tokens[:, :1], embedded.tokens.gather(1, index)], dim=1)
        return embedded._replace(tokens=tokens)
