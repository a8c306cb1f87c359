"""The third network written as files of a bundle, and read again as the product does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.timm_model import TimmModel
from torch import nn

from anomalyclip_monai import resources
from anomalyclip_monai.networks.neck import NeckMember
from anomalyclip_monai.weights import load_backbone
from recipes.tiny.organs import weights
from recipes.tiny.organs.learning import Reduction

SMALL = "test_vit"
"""timm's smallest plain vision transformer: 64 channels, 6 blocks, patches of 16 pixels, an image of 160."""


@pytest.fixture
def trunk(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    monkeypatch.setattr(weights, "TRUNK", SMALL)
    torch.manual_seed(0)
    return TimmModel(SMALL, embed_dim=0, pool="token", proj="none", pretrained=False).trunk.state_dict()


def test_a_network_that_was_written_loads_beside_the_text_side_of_the_first(
    trunk: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    members: list[nn.Module] = [NeckMember(5, 8, 128).eval() for _ in range(2)]
    reduction = Reduction(torch.randn(5, 2 * 64) / 10, torch.randn(5))
    folder = tmp_path / weights.FOLDER
    weights.write_network(folder, trunk, reduction, members, hidden=8, layers=(3, 6), size=160)
    assert {file.name for file in folder.iterdir()} == {
        "image_encoder.safetensors",
        "trunk.safetensors",
        "open_clip_config.json",
    }

    text = resources.bundle_root("tiny") / "models" / "backbone.safetensors"
    clip: Any = load_backbone(folder / "image_encoder.safetensors", text=text, trunk=folder / "trunk.safetensors")
    blocks = [torch.randn(1, 1 + 6, 64) for _ in range(2)]
    expected = [member(reduction(torch.cat(blocks, dim=-1)), (2, 3)) for member in members]
    found = clip.visual.neck(blocks, (2, 3))
    assert len(found) == 2
    for own, other in zip(expected, found, strict=True):
        assert torch.allclose(own, other, atol=0.02)  # half precision
        assert own.std() > 0.1
    for name, value in clip.visual.trunk.state_dict().items():
        assert torch.equal(value, trunk[name].half().float()), name


def test_the_description_says_how_a_square_is_shown(trunk: dict[str, torch.Tensor], tmp_path: Path) -> None:
    reduction = Reduction(torch.zeros(5, 128), torch.zeros(5))
    weights.write_network(tmp_path, trunk, reduction, [NeckMember(5, 8, 128)], hidden=8, layers=(3, 6), size=160)
    content = json.loads((tmp_path / "open_clip_config.json").read_text())
    assert content["neck"] == {"layers": 2, "components": 5, "hidden": 8, "members": 1}
    assert content["preprocess_cfg"]["size"] == [160, 160]
    assert content["preprocess_cfg"]["mean"] == [0.485, 0.456, 0.406]
