"""Other CLIPs by name: what fits runs as its own forward does, what does not is refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import timm
import torch
from open_clip.timm_model import TimmModel
from torch import nn

from anomalyclip_monai.exceptions import UsageError, WeightsError
from anomalyclip_monai.networks import AnomalyCLIP
from anomalyclip_monai.networks.checkpoints import PRECISIONS, clip_from_state_dict
from anomalyclip_monai.networks.dual_path import encode_image
from anomalyclip_monai.networks.towers import TimmTower, vision_tower
from anomalyclip_monai.weights import hub as backbones
from anomalyclip_monai.weights import load_backbone
from anomalyclip_monai.weights.hub import (
    check_backbone,
    default_tag,
    image_size,
    network_definition,
    pretrained_file,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"embed_dim": 32, "depth": 4, "num_heads": 2}
TEXT = {"width": 32, "heads": 2, "layers": 2}


def small_trunk(kind: str, **changes: Any) -> nn.Module:
    """A timm tower of four blocks for 4 x 4 patches, with parts that its big brothers have."""
    torch.manual_seed(3)
    if kind == "eva02":  # separate projections, rotation, inner norms, gated MLP
        options = {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True}
        options |= {"use_rot_pos_emb": True, "ref_feat_shape": (4, 4)}
    elif kind == "eva01":  # one projection whose bias has no part for keys
        options = {"init_values": 0.1}
    else:
        options = {"init_values": 0.1, "qk_norm": True}
    cls = timm.models.vision_transformer.VisionTransformer if kind == "vit" else timm.models.eva.Eva
    size = {"img_size": 56, "patch_size": 14, "num_classes": 16, "global_pool": "token"}
    trunk = cls(**{**SMALL, **size, **options, **changes})
    for parameter in trunk.parameters():  # biases and scales start at 0, where an error would not show
        nn.init.normal_(parameter, std=0.2)
    return trunk.eval().requires_grad_(False)


def tower_of(trunk: nn.Module) -> nn.Module:
    """What open_clip puts around a timm tower whose own head projects into the joint space."""
    visual = TimmModel.__new__(TimmModel)
    nn.Module.__init__(visual)
    visual.trunk, visual.head = trunk, nn.Sequential()
    return visual


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", ["vit", "eva01", "eva02"])
def test_global_path_is_timms_own(kind: str, images: torch.Tensor) -> None:
    trunk = small_trunk(kind)
    tower = vision_tower(tower_of(trunk))
    assert isinstance(tower, TimmTower)
    # the paths read tokens before the last norm for the image, behind it for the patches
    found = encode_image(tower, images, local_blocks=2, feature_layers=[4], local_attention="none")
    torch.testing.assert_close(found.patches[4], trunk.head(trunk.forward_features(images)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.patches[4][:, 0], trunk(images), atol=1e-5, rtol=1e-4)
    assert (found.image - found.patches[4][:, 0]).abs().max() > 1e-3  # the image feature has no last norm
    assert found.grid == (4, 4)


def test_local_path_of_a_timm_tower_by_hand(images: torch.Tensor) -> None:
    trunk = small_trunk("vit", qk_norm=False)
    found = encode_image(vision_tower(tower_of(trunk)), images, local_blocks=1, feature_layers=[4])
    tokens = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(images)))
    for block in trunk.blocks[:3]:
        tokens = block(tokens)
    last = trunk.blocks[3]
    value = last.attn.qkv(last.norm1(tokens))[..., 64:]
    heads = []
    for part in (slice(0, 16), slice(16, 32)):
        similarity = value[..., part] @ value[..., part].mT / 16**0.5
        heads.append(similarity.softmax(dim=-1) @ value[..., part])
    local = tokens + last.ls1(last.attn.proj(torch.cat(heads, dim=-1)))
    torch.testing.assert_close(found.patches[4], trunk.head(trunk.norm(local)), atol=1e-5, rtol=1e-4)


def test_rotation_follows_the_grid() -> None:
    visual = tower_of(small_trunk("eva02"))
    features = []
    for size in ((42, 70), (56, 56), (42, 70)):
        image = torch.ones(1, 3, *size)
        features.append(encode_image(vision_tower(visual), image, local_blocks=1, feature_layers=[4]))
    assert [found.grid for found in features] == [(3, 5), (4, 4), (3, 5)]
    assert torch.equal(features[0].patches[4], features[2].patches[4])


@pytest.mark.parametrize(
    ("trunk", "reason"),
    [
        (lambda: small_trunk("vit", global_pool="avg", class_token=True), r"pooled \(avg\)"),
        (lambda: small_trunk("vit", global_pool="map"), "pools by attention"),
        (lambda: small_trunk("vit", reg_tokens=1), "not one class token and patches"),
        (lambda: small_trunk("eva01", use_post_norm=True, init_values=None), "EvaBlockPostNorm, not pre-norm"),
        (lambda: timm.create_model("resnet10t", num_classes=16), "ResNet, not a plain vision transformer"),
    ],
)
def test_timm_towers_that_do_not_fit(trunk: Any, reason: str) -> None:
    with pytest.raises(WeightsError, match=f"^E_BACKBONE: this CLIP cannot carry the dual path: .*{reason}"):
        vision_tower(tower_of(trunk()))


# --- names of open_clip


@pytest.mark.parametrize(
    ("name", "size"),
    [("ViT-B-16", 512), ("ViT-L-14-336", 518), ("ViT-B-32", 512), ("EVA02-B-16", 512), ("EVA01-g-14", 518)],
)
def test_names_that_fit_have_a_size_near_the_published_one(name: str, size: int) -> None:
    visual, _ = check_backbone(name)
    assert image_size(visual) == size
    assert all(parameter.is_meta for parameter in visual.parameters())  # nothing was allocated


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("ViT-B-16-SigLIP2", "its vocabulary 'timm/ViT-B-16-SigLIP2' comes from a hub and is not CLIP's"),
        ("xlm-roberta-base-ViT-B-32", "its text tower 'xlm-roberta-base' and that tower's vocabulary come from a hub"),
        ("coca_ViT-B-32", "it is a CoCa"),
        ("MobileCLIP2-L-14", "its text tower is not causal"),
        ("RN50", "its vision tower is a ModifiedResNet"),
        ("convnext_base", "its vision tower is timm's ConvNeXt"),
        ("PE-Core-B-16", "it pools by attention"),
        ("hf-hub:microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", "models of a hub are not read"),
        ("ViT-Z-1", "open_clip knows no model"),
    ],
)
def test_names_that_do_not_fit_say_why(name: str, reason: str) -> None:
    with pytest.raises(WeightsError, match=r"^E_BACKBONE: .*") as caught:
        check_backbone(name)
    assert name in str(caught.value)
    assert reason in str(caught.value)


def test_definition_keeps_the_published_proportions(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    published = network_definition("ViT-L-14-336", weights=weights)
    settings = published["settings"]
    assert (settings["image_size"], settings["feature_layers"]) == (518, [24])
    assert (settings["dpam_layer"], settings["depth"]) == (20, 9)
    small = network_definition("ViT-B-16", pretrained="openai", weights=weights, precision="bf16")
    settings = small["settings"]
    assert (settings["feature_layers"], settings["dpam_layer"], settings["image_size"]) == ([12], 11, 512)
    assert small["clip"]["weights"] == str(weights)
    assert (small["clip"]["precision"], small["clip"]["pretrained"]) == ("bf16", "openai")
    assert settings["mean"] == [0.48145466, 0.4578275, 0.40821073]
    assert network_definition("EVA02-B-16", weights=weights)["settings"]["feature_layers"] == [12]


def test_weights_are_chosen_and_never_guessed(tmp_path: Path) -> None:
    assert default_tag("ViT-B-16") == "openai"
    assert default_tag("EVA01-g-14") == "laion400m_s11b_b41k"
    with pytest.raises(
        UsageError, match=r"^E_PRETRAINED: ViT-g-14 has several weights: laion2b_s12b_b42k, .*--pretrained"
    ):
        default_tag("ViT-g-14")
    with pytest.raises(WeightsError, match="E_WEIGHTS: open_clip knows no weights of ViT-M-16"):
        default_tag("ViT-M-16")
    # ViT-B-16 is published with both activations, and a file does not show which
    with pytest.raises(UsageError, match="E_PRETRAINED: weights called ViT-B-16 are published with QuickGELU and with"):
        network_definition("ViT-B-16", weights=tmp_path / "any.safetensors")
    network_definition("ViT-B-16-quickgelu", weights=tmp_path / "any.safetensors")
    with pytest.raises(UsageError, match="E_PRECISION: no precision 'int8'"):
        network_definition("ViT-B-16", precision="int8")


def test_without_a_connection_the_cache_or_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALYCLIP_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        pretrained_file("ViT-B-16", "openai")
    assert str(caught.value) == (
        "E_WEIGHTS: the weights openai of ViT-B-16 are not in the cache and cannot be downloaded: ANOMALYCLIP_OFFLINE "
        "is set - connect once, or give --weights FILE"
    )
    repository = tmp_path / "models--timm--vit_base_patch16_clip_224.openai"
    file = repository / "snapshots" / "abc" / "open_clip_model.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert pretrained_file("ViT-B-16", "openai") == file


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(*_: Any, **__: Any) -> str:
        raise ConnectionError("reset by peer\nand a traceback")

    monkeypatch.delenv("ANOMALYCLIP_OFFLINE", raising=False)
    monkeypatch.setattr(backbones, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(backbones, "hf_hub_download", cut)
    with pytest.raises(WeightsError, match="cannot be downloaded: reset by peer and a traceback - connect") as caught:
        pretrained_file("ViT-B-16", "openai")
    assert "\n" not in str(caught.value)


# --- weights in memory

EVA: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 224,
        "timm_model_name": "eva02_tiny_patch14_224",
        "timm_pool": "token",
        "timm_proj": None,
    },
    "text_cfg": TEXT,
    "custom_text": True,
}


def test_tables_that_a_timm_tower_computes_are_there() -> None:
    """A tower is made without memory; what no file holds must be computed all the same."""
    torch.manual_seed(5)
    made = open_clip.model.CustomTextCLIP(**{key: EVA[key] for key in ("embed_dim", "vision_cfg", "text_cfg")}).eval()
    found = clip_from_state_dict({key: value.clone() for key, value in made.state_dict().items()}, EVA)
    assert not any(tensor.is_meta for tensor in (*found.parameters(), *found.buffers()))
    images, tokens = torch.randn(1, 3, 224, 224), open_clip.tokenizer.tokenize(["a liver"])
    with torch.no_grad():
        torch.testing.assert_close(found.encode_image(images), made.encode_image(images))
        torch.testing.assert_close(found.encode_text(tokens), made.encode_text(tokens))
    network = AnomalyCLIP(found, image_size=56, feature_layers=[12], dpam_layer=11, depth=2)
    assert network(torch.rand(1, 1, 30, 20)).shape == (1, 2, 30, 20)


@pytest.fixture
def weights(tiny_clip: nn.Module, tmp_path: Path) -> Path:
    safetensors.torch.save_file(tiny_clip.state_dict(), tmp_path / "fp32.safetensors")
    half = {key: value.bfloat16() for key, value in tiny_clip.state_dict().items()}
    safetensors.torch.save_file(half, tmp_path / "bf16.safetensors")
    vision = {"layers": 4, "width": 32, "head_width": 16, "patch_size": 14, "image_size": 56}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": {"width": 32, "heads": 2, "layers": 3}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize("stored", ["fp32", "bf16"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precision_of_the_network(
    weights: Path, tiny_network: AnomalyCLIP, images: torch.Tensor, stored: str, precision: str
) -> None:
    clip = load_backbone(weights / f"{stored}.safetensors", precision=precision)
    assert {parameter.dtype for parameter in clip.parameters()} == {PRECISIONS[precision]}
    network = AnomalyCLIP(
        clip, image_size=84, feature_layers=(3, 4), dpam_layer=3, n_ctx=4, depth=3, t_n_ctx=2, sigma=2.0
    )
    network.load_state_dict(tiny_network.state_dict())
    assert network.text_features().dtype == torch.float32
    with torch.no_grad():
        (score, found), (expected_score, expected) = (
            each.eval().score_and_map(images.sigmoid()) for each in (network, tiny_network)
        )
    assert found.dtype == score.dtype == torch.float32
    exact = stored == precision == "fp32"
    assert (found - expected).abs().max() <= (1e-6 if exact else 0.03)
    assert (score - expected_score).abs().max() <= (1e-6 if exact else 0.03)
    assert exact or not torch.equal(found, expected)


def test_stored_in_the_wanted_precision_the_file_is_used_as_it_lies(weights: Path) -> None:
    file = weights / "bf16.safetensors"
    spans = {}
    for precision in ("bf16", "fp32"):
        clip = load_backbone(file, precision=precision)
        places = [parameter.data_ptr() for parameter in clip.parameters()]
        spans[precision] = max(places) - min(places)
    assert spans["bf16"] < file.stat().st_size  # all of them lie inside the mapped file
    assert spans["fp32"] > file.stat().st_size


@pytest.mark.parametrize(
    ("gpu", "gpu_bf16", "matrix_units", "precision"),
    [
        (False, False, True, "bf16"),
        (False, False, False, "fp32"),
        (True, True, False, "bf16"),
        (True, False, True, "fp32"),  # what the processor has is of no use to a GPU
    ],
)
def test_native_precision(
    monkeypatch: pytest.MonkeyPatch, weights: Path, gpu: bool, gpu_bf16: bool, matrix_units: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrix_units)
    clip = load_backbone(weights / "fp32.safetensors", precision="auto")
    assert {parameter.dtype for parameter in clip.parameters()} == {PRECISIONS[precision]}


def test_unknown_precision(weights: Path) -> None:
    with pytest.raises(UsageError, match="E_PRECISION: no precision 'fp8' - choose from: fp32, bf16, fp16"):
        load_backbone(weights / "fp32.safetensors", precision="fp8")
