"""A learned neck on a frozen vision transformer: tokens of several blocks -> tokens in the joint space."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TokenNeck(nn.Module):
    """Tokens of some blocks, side by side -> per member tokens in the joint space.

    A backbone that never met a text, such as DINOv2, gets a place beside the prompts: its blocks' tokens are joined,
    reduced once for all, and every member moves them into the joint space, each trained from another seed. The maps of
    the members are averaged as those of feature layers are.

    Args:
        layers: blocks whose tokens are joined.
        width: of a block's token.
        components: of the reduced token.
        hidden: channels within a member.
        embed_dim: D of the joint space.
        members: their number.
    """

    def __init__(self, layers: int, width: int, components: int, hidden: int, embed_dim: int, members: int = 1) -> None:
        super().__init__()
        self.layers = layers
        self.reduce = nn.Linear(layers * width, components)
        self.members = nn.ModuleList(NeckMember(components, hidden, embed_dim) for _ in range(members))

    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> list[Tensor]:
        """(B, 1 + N, width) per block, class token first -> (B, 1 + N, D) per member, N = rows * columns of grid."""
        tokens = self.reduce(torch.cat(list(layers), dim=-1))
        return [member(tokens, grid) for member in self.members]


class NeckMember(nn.Module):
    """Reduced tokens -> tokens in the joint space, from what a token, its neighbours and the whole image show.

    Args:
        components: of a reduced token.
        hidden: channels within.
        embed_dim: D of the joint space.
        dropout: of components, while it is trained.
    """

    def __init__(self, components: int, hidden: int, embed_dim: int, dropout: float = 0.25) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.enter = nn.Linear(components, hidden)
        self.context = nn.Linear(3 * hidden, hidden)
        self.near = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.mix_near = nn.Linear(hidden, hidden)
        self.far = nn.Conv2d(hidden, hidden, 3, padding=2, dilation=2, groups=hidden)
        self.mix_far = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.leave = nn.Linear(hidden, embed_dim)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 1 + N, components), class token first -> (B, 1 + N, D)."""
        kept = self.dropout(torch.ones_like(tokens[:, :1]))  # the same components of all tokens of an image
        entered = F.gelu(self.enter(tokens * kept if self.training else tokens))
        whole, patches = entered[:, 0], entered[:, 1:]
        context = F.gelu(self.context(torch.cat([patches.mean(dim=1), patches.amax(dim=1), whole], dim=-1)))
        patches = patches + context[:, None]
        patches = patches + self.mix_near(F.gelu(_on_grid(self.near, patches, grid)))
        patches = patches + self.mix_far(F.gelu(_on_grid(self.far, patches, grid)))
        joined: Tensor = self.leave(self.norm(torch.cat([context[:, None], patches], dim=1)))
        return joined


def _on_grid(convolution: nn.Conv2d, patches: Tensor, grid: tuple[int, int]) -> Tensor:
    batch, _, channels = patches.shape
    table = patches.transpose(1, 2).reshape(batch, channels, *grid)
    convolved: Tensor = convolution(table)
    return convolved.flatten(2).transpose(1, 2)
