"""A learned neck on a frozen vision transformer that never met a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from anomalyclip_monai.networks import AnomalyCLIP, NetworkSettings, clip_from_state_dict
from anomalyclip_monai.networks.neck import NeckMember, TokenNeck
from anomalyclip_monai.networks.towers import resize_positions, vision_tower
from anomalyclip_monai.weights import load_backbone

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 56,
        "timm_model_name": "test_vit",  # 6 blocks of width 64, patches of 16, a table of 10 x 10
        "timm_pool": "token",
        "timm_proj": "none",
        "timm_model_pretrained": False,
    },
    "text_cfg": {"width": 32, "heads": 2, "layers": 2},
    "neck": {"layers": 2, "components": 12, "hidden": 8, "members": 3},
}
SETTINGS = NetworkSettings(
    image_size=(48, 80),
    feature_layers=[3, 6],
    local_attention="none",
    dpam_layer=1,
    n_ctx=4,
    depth=2,
    t_n_ctx=2,
    sigma=1.0,
    image_score="map_top2",
)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """Random weights of the tower and of a neck on two of its blocks."""
    with torch.random.fork_rng():
        torch.manual_seed(11)
        sizes = open_clip.CLIPVisionCfg(**CONFIG["vision_cfg"]), open_clip.CLIPTextCfg(**CONFIG["text_cfg"])
        clip = open_clip.model.CLIP(16, *sizes)
        clip.visual.neck = TokenNeck(**CONFIG["neck"], width=64, embed_dim=16)
        return dict(clip.state_dict())


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 1, 37, 61, generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def test_tokens_of_the_blocks_go_through_the_neck_in_order(state: dict[str, torch.Tensor]) -> None:
    clip: Any = clip_from_state_dict(state, CONFIG)
    network = AnomalyCLIP(clip, SETTINGS)
    prepared = torch.randn(2, 3, 48, 80)
    features = network.encode_image(prepared)
    assert features.grid == (3, 5)
    assert list(features.patches) == [1, 2, 3]  # the members

    trunk = clip.visual.trunk
    patches = trunk.patch_embed.proj(prepared).flatten(2).transpose(1, 2)
    tokens = torch.cat([trunk.cls_token.expand(2, -1, -1), patches], dim=1)
    tokens = tokens + resize_positions(trunk.pos_embed[0], (10, 10), (3, 5))
    third = sixth = None
    for index, block in enumerate(trunk.blocks, start=1):
        tokens = block(tokens)
        third, sixth = (tokens if index == 3 else third), (tokens if index == 6 else sixth)
    expected = clip.visual.neck([trunk.norm(third), trunk.norm(sixth)], (3, 5))
    for member, own in zip(features.patches.values(), expected, strict=True):
        assert member.shape == (2, 1 + 15, 16)
        torch.testing.assert_close(member, own, atol=1e-5, rtol=1e-5)
    classes = torch.stack([torch.nn.functional.normalize(own[:, 0], dim=-1) for own in expected])
    torch.testing.assert_close(features.image, classes.mean(dim=0), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_blocks_behind_the_last_that_is_read_cost_nothing(state: dict[str, torch.Tensor]) -> None:
    clip: Any = clip_from_state_dict(state, CONFIG)
    network = AnomalyCLIP(clip, SETTINGS.changed(feature_layers=[2, 4]))
    prepared = torch.randn(2, 3, 48, 80)
    called = []
    for number, block in enumerate(clip.visual.trunk.blocks, start=1):
        block.attn.qkv.register_forward_hook(lambda *_, number=number: called.append(number))
    network.encode_image(prepared)
    assert called == [1, 2, 3, 4]  # of 6


@torch.no_grad()
def test_a_map_is_the_mean_over_the_members(state: dict[str, torch.Tensor], images: torch.Tensor) -> None:
    network = AnomalyCLIP(clip_from_state_dict(state, CONFIG), SETTINGS).eval()
    features = network.encode_image(network.preprocess(images))
    alone = [network.anomaly_map(features._replace(patches={1: tokens})) for tokens in features.patches.values()]
    torch.testing.assert_close(network.anomaly_map(features), torch.stack(alone).mean(dim=0))
    assert (alone[0] - alone[1]).abs().max() > 1e-3
    assert network(images).shape == (2, 2, 37, 61)


@torch.no_grad()
def test_the_frozen_image_side_alone_takes_another_precision(
    state: dict[str, torch.Tensor], images: torch.Tensor
) -> None:
    half, full = (clip_from_state_dict(state, CONFIG, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    kinds = {key: value.dtype for key, value in half.state_dict().items()}
    assert {kind for key, kind in kinds.items() if key.startswith(("visual.trunk.", "visual.head."))} == {
        torch.bfloat16
    }
    assert {kind for key, kind in kinds.items() if not key.startswith(("visual.trunk.", "visual.head."))} == {
        torch.float32
    }
    networks = [AnomalyCLIP(clip, SETTINGS).eval() for clip in (half, full)]
    networks[0].load_state_dict(networks[1].state_dict())
    assert torch.equal(networks[0].text_features(), networks[1].text_features())
    found, expected = (network(images) for network in networks)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).abs().max() < 0.05


def test_text_side_and_frozen_trunk_are_those_of_other_files(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    neck = {key: value for key, value in state.items() if key.startswith("visual.neck.")}
    trunk = {key: value for key, value in state.items() if key.startswith("visual.") and key not in neck}
    text = {key: value for key, value in state.items() if not key.startswith("visual.")}
    (tmp_path / "dino").mkdir()
    save_file(neck, tmp_path / "dino" / "image_encoder.safetensors")
    save_file(trunk, tmp_path / "dino" / "trunk.safetensors")
    save_file(text, tmp_path / "backbone.safetensors")
    (tmp_path / "dino" / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "neck": CONFIG["neck"]}))
    clip = load_backbone(
        tmp_path / "dino" / "image_encoder.safetensors",
        text=tmp_path / "backbone.safetensors",
        trunk=tmp_path / "dino" / "trunk.safetensors",
        precision="bf16",
    )
    found = clip.state_dict()
    assert found["visual.trunk.blocks.0.attn.qkv.weight"].dtype == torch.bfloat16
    for key in ("visual.neck.members.2.leave.weight", "token_embedding.weight"):
        assert torch.equal(found[key], state[key])


@pytest.mark.parametrize("changes", [{"local_attention": "v-v"}, {"feature_layers": [6]}])
def test_a_neck_reads_its_own_number_of_blocks_of_the_global_path(
    state: dict[str, torch.Tensor], changes: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="needs 2 feature_layers and local_attention none"):
        AnomalyCLIP(clip_from_state_dict(state, CONFIG), SETTINGS, **changes)


def test_dinov2_has_the_steps_of_a_tower() -> None:
    vision = {**CONFIG["vision_cfg"], "image_size": 322, "timm_model_name": "vit_small_patch14_dinov2"}
    with torch.device("meta"):
        clip = open_clip.model.CLIP(16, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**CONFIG["text_cfg"]))
        tower = vision_tower(clip.visual)
        assert (len(tower.blocks), tower.width) == (12, 384)
        embedded = tower.embed(torch.empty(1, 3, 322, 280))  # its table of 37 x 37 is resized
    assert embedded.grid == (23, 20)
    assert embedded.tokens.shape == (1, 1 + 460, 384)


@torch.no_grad()
def test_a_token_knows_its_neighbours_and_the_whole_image() -> None:
    member = NeckMember(components=3, hidden=4, embed_dim=5).eval()
    tokens = torch.randn(1, 1 + 6 * 7, 3, generator=torch.Generator().manual_seed(1))
    before = member(tokens, (6, 7))
    assert before.shape == (1, 43, 5)
    nn.init.zeros_(member.context.weight)  # no whole image: then only what is near
    before = member(tokens, (6, 7))
    tokens[:, 1] += 1  # the patch in row 0, column 0: near is 1, far is 2 patches away
    changed = (member(tokens, (6, 7)) - before).abs().amax(dim=-1)[0, 1:].view(6, 7) > 1e-6
    reached = torch.zeros(6, 7, dtype=torch.bool)
    reached[:4, :4] = True
    assert not changed[~reached].any()
    assert changed[0, 0]
    assert changed[3, 3]
