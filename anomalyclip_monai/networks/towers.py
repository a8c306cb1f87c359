"""What the dual path asks of a vision tower, answered for open_clip's own towers and for plain ones from timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from timm.layers import PatchEmbed, apply_rot_embed_cat
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.vision_transformer import Attention, Block
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from anomalyclip_monai.exceptions import WeightsError


class Embedded(NamedTuple):
    """Tokens before the first block.

    Attributes:
        tokens: (B, 1 + N, width), class token first.
        grid: rows and columns of patches, N = rows * columns.
        rotation: of queries and keys by position, (N, 2 * head width), where a tower has one.
    """

    tokens: Tensor
    grid: tuple[int, int]
    rotation: Tensor | None = None


class Tower(Protocol):
    """A vision transformer of pre-norm blocks with a class token, in steps."""

    blocks: Sequence[nn.Module]
    width: int

    def embed(self, images: Tensor) -> Embedded:
        """(B, 3, H, W) normalised images -> tokens."""

    def heads(self, block: Any, embedded: Embedded, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 1 + N, width) -> queries, keys and values of a block, (B, heads, 1 + N, head width) each."""

    def merge(self, block: Any, heads: Tensor) -> Tensor:
        """(B, heads, 1 + N, head width) -> (B, 1 + N, width), what the block's attention adds to its tokens."""

    def mlp(self, block: Any, tokens: Tensor) -> Tensor:
        """(B, 1 + N, width) -> what the block's MLP adds to them."""

    def normalize(self, tokens: Tensor) -> Tensor:
        """The norm behind the last block."""

    def project(self, tokens: Tensor) -> Tensor:
        """(..., width) -> (..., D) in the joint space."""


def vision_tower(visual: nn.Module) -> Tower:
    """The steps of a vision tower.

    Raises:
        WeightsError: it does not fit the dual path, with the reason (``E_BACKBONE``).
    """
    timm_tower = isinstance(visual, TimmModel)
    if reason := _why_not_timm(visual) if timm_tower else _why_not_open_clip(visual):
        raise WeightsError("E_BACKBONE", f"this CLIP cannot carry the dual path: {reason}", None, "choose a ViT")
    return TimmTower(visual) if timm_tower else OpenClipTower(visual)


def _why_not_open_clip(visual: Any) -> str | None:
    if not isinstance(visual, VisionTransformer):
        return f"its vision tower is a {type(visual).__name__}, not open_clip's VisionTransformer"
    if visual.attn_pool is not None:
        return "it pools by attention and has no class token in the joint space"
    if visual.pool_type != "tok":
        return f"its image feature is pooled ({visual.pool_type}), not read from a class token"
    if visual.proj is None:
        return "its vision tower has no projection into the joint space"
    if not all(type(block) is ResidualAttentionBlock for block in visual.transformer.resblocks):
        return "its blocks are not open_clip's standard ResidualAttentionBlock"
    return None


def _why_not_timm(visual: Any) -> str | None:
    trunk = visual.trunk
    if type(trunk) not in (TimmVisionTransformer, Eva):
        return f"its vision tower is timm's {type(trunk).__name__}, not a plain vision transformer"
    if trunk.attn_pool is not None:
        return "it pools by attention and has no class token in the joint space"
    if trunk.global_pool != "token":
        return f"its image feature is pooled ({trunk.global_pool}), not read from a class token"
    if trunk.num_prefix_tokens != 1 or trunk.no_embed_class or trunk.pos_embed is None:
        return "its tokens are not one class token and patches with a table of positions"
    if type(trunk.patch_embed) is not PatchEmbed:
        return f"its patches are embedded by timm's {type(trunk.patch_embed).__name__}"
    if not all(type(block) in (Block, EvaBlock) for block in trunk.blocks):
        return f"its blocks are timm's {type(trunk.blocks[0]).__name__}, not pre-norm ones"
    attentions = [block.attn for block in trunk.blocks]
    if not all(type(attention) in (Attention, EvaAttention) for attention in attentions):
        return f"its attention is timm's {type(attentions[0]).__name__}"
    if any(getattr(attention, "gate", None) is not None for attention in attentions):
        return "its attention is gated"
    return None


class OpenClipTower:
    """Steps of open_clip's ``VisionTransformer``; ``conv1`` may be any stem that gives (B, width, rows, columns)."""

    def __init__(self, visual: Any) -> None:
        self._visual = visual
        self.blocks: Sequence[nn.Module] = visual.transformer.resblocks
        self.width = int(visual.class_embedding.shape[-1])

    def embed(self, images: Tensor) -> Embedded:
        """See :class:`Tower`."""
        visual = self._visual
        patches = visual.conv1(images.to(visual.class_embedding.dtype))
        grid = int(patches.shape[-2]), int(patches.shape[-1])
        tokens = _behind_class_token(visual.class_embedding, patches.flatten(2).transpose(1, 2))
        positions = resize_positions(visual.positional_embedding, visual.grid_size, grid)
        return Embedded(visual.ln_pre(tokens + positions.to(tokens.dtype)), grid)

    def heads(self, block: Any, embedded: Embedded, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Tower`."""
        attention = block.attn
        projected = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
        return _split(projected, attention.num_heads)

    def merge(self, block: Any, heads: Tensor) -> Tensor:
        """See :class:`Tower`."""
        return block.ls_1(block.attn.out_proj(_join(heads)))

    def mlp(self, block: Any, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        return block.ls_2(block.mlp(block.ln_2(tokens)))

    def normalize(self, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        return self._visual.ln_post(tokens)

    def project(self, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        return tokens @ self._visual.proj


class TimmTower:
    """Steps of timm's plain ``VisionTransformer`` and of ``Eva``, inside open_clip's ``TimmModel``."""

    def __init__(self, visual: Any) -> None:
        self._visual, self._trunk = visual, visual.trunk
        self.blocks: Sequence[nn.Module] = visual.trunk.blocks
        self.width = int(visual.trunk.embed_dim)

    def embed(self, images: Tensor) -> Embedded:
        """See :class:`Tower`."""
        trunk = self._trunk
        patches = trunk.patch_embed.proj(images.to(trunk.cls_token.dtype))
        grid = int(patches.shape[-2]), int(patches.shape[-1])
        tokens = _behind_class_token(trunk.cls_token, trunk.patch_embed.norm(patches.flatten(2).transpose(1, 2)))
        positions = resize_positions(trunk.pos_embed[0], trunk.patch_embed.grid_size, grid)
        rotary = getattr(trunk, "rope", None)
        if rotary is not None:
            rotary.update_feat_shape(list(grid))  # its table is kept for one grid
        return Embedded(trunk.norm_pre(tokens + positions), grid, None if rotary is None else rotary.get_embed())

    def heads(self, block: Any, embedded: Embedded, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See :class:`Tower`."""
        attention, tokens = block.attn, block.norm1(tokens)
        if attention.qkv is None:
            projected = torch.cat([project(tokens) for project in _projections(attention)], dim=-1)
        elif getattr(attention, "q_bias", None) is not None:
            bias = torch.cat([attention.q_bias, attention.k_bias.to(attention.q_bias), attention.v_bias])
            projected = F.linear(tokens, attention.qkv.weight, bias)
        else:
            projected = attention.qkv(tokens)
        query, key, value = _split(projected, attention.num_heads)
        query, key = attention.q_norm(query), attention.k_norm(key)
        if embedded.rotation is not None:
            half = getattr(attention, "rotate_half", False)
            query, key = (_rotate(heads, embedded.rotation, half) for heads in (query, key))
        return query, key, value

    def merge(self, block: Any, heads: Tensor) -> Tensor:
        """See :class:`Tower`."""
        joined = block.attn.proj(block.attn.norm(_join(heads)))
        return _scaled(joined, block.gamma_1) if isinstance(block, EvaBlock) else block.ls1(joined)

    def mlp(self, block: Any, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        added = block.mlp(block.norm2(tokens))
        return _scaled(added, block.gamma_2) if isinstance(block, EvaBlock) else block.ls2(added)

    def normalize(self, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        return self._trunk.fc_norm(self._trunk.norm(tokens))

    def project(self, tokens: Tensor) -> Tensor:
        """See :class:`Tower`."""
        return self._visual.head(self._trunk.head(tokens))


def resize_positions(positions: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """(1 + N, width) -> (1 + N', width): bilinear as the published model does it, not open_clip's bicubic."""
    if new_grid == grid:
        return positions
    table = positions[1:].float().T.reshape(1, -1, *grid)
    table = F.interpolate(table, size=new_grid, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], table.flatten(2)[0].T.to(positions.dtype)])


def _behind_class_token(class_token: Tensor, patches: Tensor) -> Tensor:
    return torch.cat([class_token.expand(patches.shape[0], 1, -1).to(patches.dtype), patches], dim=1)


def _split(projected: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(B, L, 3 * width) -> three of (B, heads, L, head width)."""
    batch, count, _ = projected.shape
    query, key, value = projected.view(batch, count, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind()
    return query, key, value


def _join(heads: Tensor) -> Tensor:
    """(B, heads, L, head width) -> (B, L, width)."""
    return heads.transpose(1, 2).flatten(2)


def _projections(attention: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
    return attention.q_proj, attention.k_proj, attention.v_proj


def _rotate(heads: Tensor, rotation: Tensor, half: bool) -> Tensor:
    """Rotate all but the class token."""
    turned = apply_rot_embed_cat(heads[:, :, 1:], rotation, half=half)
    return torch.cat([heads[:, :, :1], turned.to(heads.dtype)], dim=2)


def _scaled(tokens: Tensor, scale: Tensor | None) -> Tensor:
    return tokens if scale is None else tokens * scale
