"""The image side: CLIP's own path and, beside it, the local path of DPAM (AnomalyCLIP, section 3.3)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple, get_args

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from anomalyclip_monai.exceptions import WeightsError

LocalAttention = Literal["v-v", "q-q", "k-k", "none"]
"""Which projection attends to itself on the local path; ``none`` reads the patches off the global path."""


class ImageFeatures(NamedTuple):
    """What the image side knows of a batch.

    Attributes:
        image: (B, D) projected class token, not normalised, without ``ln_post``.
        patches: feature layer -> (B, 1 + N, D) projected local tokens, not normalised, class token first.
        grid: rows and columns of patches, N = rows * columns.
    """

    image: Tensor
    patches: dict[int, Tensor]
    grid: tuple[int, int]


def check_visual_tower(visual: nn.Module) -> None:
    """Raise :class:`WeightsError` with the reason if a vision tower does not fit the dual path."""
    reason = None
    if not isinstance(visual, VisionTransformer):
        reason = f"its vision tower is a {type(visual).__name__}, not open_clip's VisionTransformer"
    elif visual.attn_pool is not None:
        reason = "it pools by attention and has no class token in the joint space"
    elif visual.proj is None:
        reason = "its vision tower has no projection into the joint space"
    elif not all(isinstance(block, ResidualAttentionBlock) for block in visual.transformer.resblocks):
        reason = "its blocks are not open_clip's standard ResidualAttentionBlock"
    if reason:
        raise WeightsError("E_BACKBONE", f"this CLIP cannot carry the dual path: {reason}", None, "choose a ViT")


def encode_image(
    visual: VisionTransformer,
    images: Tensor,
    *,
    local_blocks: int,
    feature_layers: Collection[int],
    local_attention: LocalAttention = "v-v",
) -> ImageFeatures:
    """(B, 3, H, W) normalised images -> features of both paths.

    Args:
        visual: an open_clip vision transformer; ``conv1`` may be any stem that gives (B, width, rows, columns).
        images: H and W multiples of the patch size; the position grid is resized to them.
        local_blocks: the local path runs beside this many last blocks.
        feature_layers: blocks, counted from 1, whose local tokens are returned. A layer before the local path
            starts gives the tokens of the global path.
        local_attention: the kind of attention on the local path.
    """
    tokens, grid = _embed(visual, images)
    blocks = visual.transformer.resblocks
    start = len(blocks) if local_attention == "none" else len(blocks) - local_blocks

    global_path, local_path = tokens, tokens
    patches = {}
    for layer, block in enumerate(blocks, start=1):
        if layer <= start:
            global_path = local_path = block(global_path)
        else:
            global_path, local_path = _dual_step(block, global_path, local_path, local_attention)
        if layer in feature_layers:
            patches[layer] = visual.ln_post(local_path) @ visual.proj
    return ImageFeatures(global_path[:, 0] @ visual.proj, patches, grid)


def _dual_step(
    block: ResidualAttentionBlock, global_path: Tensor, local_path: Tensor, kind: LocalAttention
) -> tuple[Tensor, Tensor]:
    """One block: CLIP's attention and MLP on the global path, self-similar attention added to the local path.

    Both read the same projections of the global path and share ``out_proj``; the local path skips the MLP.
    """
    attention = block.attn
    batch, count, width = global_path.shape
    qkv = F.linear(block.ln_1(global_path), attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = qkv.view(batch, count, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
    alike = {"v-v": value, "q-q": query, "k-k": key}[kind]

    def merge(heads: Tensor) -> Tensor:
        return block.ls_1(attention.out_proj(heads.transpose(1, 2).reshape(batch, count, width)))

    local_path = local_path + merge(F.scaled_dot_product_attention(alike, alike, value))
    global_path = global_path + merge(F.scaled_dot_product_attention(query, key, value))
    return global_path + block.ls_2(block.mlp(block.ln_2(global_path))), local_path


def _embed(visual: VisionTransformer, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """(B, 3, H, W) -> (B, 1 + N, width) tokens before the first block, and the patch grid."""
    patches = visual.conv1(images.to(visual.class_embedding.dtype))
    rows, columns = int(patches.shape[-2]), int(patches.shape[-1])
    patches = patches.flatten(2).transpose(1, 2)
    class_token = visual.class_embedding.expand(patches.shape[0], 1, -1)
    tokens = torch.cat([class_token.to(patches.dtype), patches], dim=1)
    positions = resize_positions(visual.positional_embedding, visual.grid_size, (rows, columns))
    return visual.ln_pre(tokens + positions.to(tokens.dtype)), (rows, columns)


def resize_positions(positions: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """(1 + N, width) -> (1 + N', width): bilinear as the published model does it, not open_clip's bicubic."""
    if new_grid == grid:
        return positions
    table = positions[1:].float().T.reshape(1, -1, *grid)
    table = F.interpolate(table, size=new_grid, mode="bilinear", align_corners=False)
    return torch.cat([positions[:1], table.flatten(2)[0].T.to(positions.dtype)])


def check_local_attention(kind: str) -> None:
    """Raise ``ValueError`` if ``kind`` is not one of the kinds of local attention."""
    if kind not in get_args(LocalAttention):
        raise ValueError(f"local_attention ({kind!r}) must be one of {', '.join(get_args(LocalAttention))}")
