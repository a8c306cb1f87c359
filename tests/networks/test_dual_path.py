"""The image side against a plain loop over heads, written from the paper, and against open_clip's own forward."""

from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip import CLIPTextCfg, CLIPVisionCfg
from torch import nn

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.networks import AnomalyCLIP
from anomalyclip_monai.networks.dual_path import encode_image
from anomalyclip_monai.networks.towers import resize_positions, vision_tower

pytestmark = pytest.mark.usefixtures("one_thread")

BLOCKS = 4


@pytest.fixture
def visual(tiny_clip: nn.Module) -> nn.Module:
    return tiny_clip.eval().requires_grad_(False).visual


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(2))


def _tokens(visual: nn.Module, images: torch.Tensor) -> torch.Tensor:
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    first = visual.class_embedding.expand(len(images), 1, -1)
    return visual.ln_pre(torch.cat([first, patches], dim=1) + visual.positional_embedding)


def _attend(block: nn.Module, x: torch.Tensor, kind: str) -> torch.Tensor:
    """Attention head by head; ``kind`` names what is compared with what."""
    projected = dict(zip("qkv", block.attn.in_proj_weight.chunk(3), strict=True))
    biases = dict(zip("qkv", block.attn.in_proj_bias.chunk(3), strict=True))
    of = {name: x @ weight.T + biases[name] for name, weight in projected.items()}
    left, right = kind.split("-")
    size = x.shape[-1] // block.attn.num_heads
    heads = []
    for start in range(0, x.shape[-1], size):
        part = slice(start, start + size)
        similarity = of[left][..., part] @ of[right][..., part].transpose(1, 2) / size**0.5
        heads.append(similarity.softmax(dim=-1) @ of["v"][..., part])
    return block.attn.out_proj(torch.cat(heads, dim=-1))


def _naive(
    visual: nn.Module, images: torch.Tensor, start: int, kind: str
) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
    """Image features and patch features of every block; the local path leaves after block ``start``."""
    global_path = local_path = _tokens(visual, images)
    patches = {}
    for layer, block in enumerate(visual.transformer.resblocks, start=1):
        x = block.ln_1(global_path)
        if layer > start:
            local_path = local_path + _attend(block, x, kind)
        global_path = global_path + _attend(block, x, "q-k")
        global_path = global_path + block.mlp(block.ln_2(global_path))
        if layer <= start:
            local_path = global_path
        patches[layer] = visual.ln_post(local_path) @ visual.proj
    return global_path[:, 0] @ visual.proj, patches


@pytest.mark.parametrize("local_blocks", [0, 1, 3, 4])
@pytest.mark.parametrize("kind", ["v-v", "q-q", "k-k"])
def test_both_paths_equal_a_loop_over_heads(
    visual: nn.Module, images: torch.Tensor, kind: str, local_blocks: int
) -> None:
    found = encode_image(
        vision_tower(visual), images, local_blocks=local_blocks, feature_layers=range(1, 5), local_attention=kind
    )
    image, patches = _naive(visual, images, BLOCKS - local_blocks, kind)
    torch.testing.assert_close(found.image, image, atol=1e-5, rtol=0)
    assert list(found.patches) == [1, 2, 3, 4]
    for layer, expected in patches.items():
        torch.testing.assert_close(found.patches[layer], expected, atol=1e-5, rtol=0)


def test_kinds_of_attention_differ(visual: nn.Module, images: torch.Tensor) -> None:
    of = {
        kind: encode_image(
            vision_tower(visual), images, local_blocks=2, feature_layers=[4], local_attention=kind
        ).patches[4]
        for kind in ("v-v", "q-q", "k-k", "none")
    }
    for kind in ("q-q", "k-k", "none"):
        assert (of["v-v"] - of[kind]).abs().max() > 1e-3


def test_layers_before_the_local_path_and_kind_none_give_global_tokens(visual: nn.Module, images: torch.Tensor) -> None:
    plain = encode_image(vision_tower(visual), images, local_blocks=3, feature_layers=[1, 4], local_attention="none")
    local = encode_image(vision_tower(visual), images, local_blocks=3, feature_layers=[1, 4])
    torch.testing.assert_close(local.patches[1], plain.patches[1])
    # read off the global path: its class token is the image feature but for ln_post
    global_path = visual.transformer(_tokens(visual, images))
    torch.testing.assert_close(plain.patches[4], visual.ln_post(global_path) @ visual.proj, atol=1e-5, rtol=0)


def test_global_path_is_open_clips_own(visual: nn.Module, images: torch.Tensor) -> None:
    found = encode_image(vision_tower(visual), images, local_blocks=3, feature_layers=[4])
    own = visual.transformer(_tokens(visual, images))[:, 0]
    torch.testing.assert_close(found.image, own @ visual.proj, atol=1e-5, rtol=0)
    # what open_clip calls the image feature goes through ln_post; AnomalyCLIP's does not
    torch.testing.assert_close(visual(images), visual.ln_post(own) @ visual.proj, atol=1e-5, rtol=0)


def test_grid_of_rows_and_columns(visual: nn.Module) -> None:
    found = encode_image(vision_tower(visual), torch.zeros(1, 3, 42, 70), local_blocks=1, feature_layers=[4])
    assert found.grid == (3, 5)
    assert found.patches[4].shape == (1, 1 + 15, 16)


def test_positions_are_resized_bilinearly_and_the_class_position_is_kept() -> None:
    # class position 9, then a grid of 1 x 2: values 0 and 1, width 1
    positions = torch.tensor([[9.0], [0.0], [1.0]])
    resized = resize_positions(positions, (1, 2), (2, 4))
    expected = [9, 0, 0.25, 0.75, 1, 0, 0.25, 0.75, 1]
    torch.testing.assert_close(resized[:, 0], torch.tensor(expected, dtype=torch.float32))
    assert resize_positions(positions, (1, 2), (1, 2)) is positions


def _clip(vision: CLIPVisionCfg, **text: int) -> nn.Module:
    return open_clip.model.CLIP(16, vision, CLIPTextCfg(width=32, heads=2, layers=1, **text))


VIT = {"layers": 1, "width": 32, "head_width": 16, "patch_size": 14, "image_size": 28}


def test_refused_vision_towers_with_their_reason() -> None:
    resnet = _clip(CLIPVisionCfg(layers=(1, 1, 1, 1), width=8, image_size=64))
    with pytest.raises(WeightsError, match=r"^E_BACKBONE: .*ModifiedResNet, not open_clip's VisionTransformer"):
        AnomalyCLIP(resnet, feature_layers=[1], dpam_layer=1, depth=1)
    pooled = _clip(CLIPVisionCfg(**VIT, attentional_pool=True))
    with pytest.raises(WeightsError, match="pools by attention"):
        AnomalyCLIP(pooled, feature_layers=[1], dpam_layer=1, depth=1)
    unprojected = _clip(CLIPVisionCfg(**VIT))
    unprojected.visual.proj = None
    with pytest.raises(WeightsError, match="no projection"):
        vision_tower(unprojected.visual)
    other_blocks = _clip(CLIPVisionCfg(**VIT))
    other_blocks.visual.transformer.resblocks[0] = nn.Identity()
    with pytest.raises(WeightsError, match="ResidualAttentionBlock"):
        vision_tower(other_blocks.visual)
