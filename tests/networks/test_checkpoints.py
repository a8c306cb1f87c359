from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
from open_clip import CLIPTextCfg, CLIPVisionCfg
from torch import nn

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.networks import AnomalyCLIP, clip_from_state_dict, named_config, prompts_from_authors
from anomalyclip_monai.networks.checkpoints import config_from_shapes
from anomalyclip_monai.weights import load_backbone, read_state_dict

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG: dict[str, Any] = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"layers": 3, "width": 64, "head_width": 64, "patch_size": 14, "image_size": 42},
    "text_cfg": {"width": 128, "heads": 2, "layers": 2},
}
"""Sizes whose heads follow OpenAI's rule, so that they can also be read off the tensors."""


def _build(kind: type[nn.Module] = open_clip.model.CLIP, *, quick_gelu: bool = True) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        vision, text = CLIPVisionCfg(**CONFIG["vision_cfg"]), CLIPTextCfg(**CONFIG["text_cfg"])
        return kind(CONFIG["embed_dim"], vision, text, quick_gelu=quick_gelu).eval()


@pytest.fixture
def clip() -> nn.Module:
    return _build()


@pytest.fixture
def weights(clip: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in clip.state_dict().items()}


@torch.no_grad()
def _assert_same(found: nn.Module, expected: nn.Module, tolerance: float = 1e-5) -> None:
    images = torch.randn(2, 3, 42, 42, generator=torch.Generator().manual_seed(5))
    tokens = open_clip.tokenizer.tokenize(["a liver", "a damaged liver"])
    for method, given in (("encode_image", images), ("encode_text", tokens)):
        difference = getattr(found, method)(given) - getattr(expected, method)(given)
        assert difference.abs().max() <= tolerance


def test_open_clip_state_dict_with_its_config(clip: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    found = clip_from_state_dict(weights, CONFIG)
    assert set(found.state_dict()) == set(weights)
    assert all(torch.equal(value, weights[key]) for key, value in found.state_dict().items())
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())
    _assert_same(found, clip)


def test_config_may_be_that_of_the_hub(clip: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    _assert_same(clip_from_state_dict(weights, {"model_cfg": CONFIG, "preprocess_cfg": {}}), clip)


def test_openai_archive_needs_no_config(clip: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    scalars = {"input_resolution": 42, "context_length": 77, "vocab_size": 49408}
    archive = {key: value.half() for key, value in weights.items()}
    archive |= {key: torch.tensor(value) for key, value in scalars.items()}
    found = clip_from_state_dict(archive)
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    _assert_same(found, clip, tolerance=5e-3)  # weights went through half precision


def test_openai_weights_get_their_activation_whatever_the_config_forgets(
    clip: nn.Module, weights: dict[str, torch.Tensor]
) -> None:
    silent = {key: value for key, value in CONFIG.items() if key != "quick_gelu"}
    _assert_same(clip_from_state_dict({**weights, "vocab_size": torch.tensor(49408)}, silent), clip)
    _assert_same(clip_from_state_dict(weights, silent), _build(quick_gelu=False))
    _assert_same(clip_from_state_dict(weights, silent, quick_gelu=True), clip)


def test_custom_text_clip_state_dict() -> None:
    clip = _build(open_clip.model.CustomTextCLIP)
    assert any(key.startswith("text.transformer.") for key in clip.state_dict())
    _assert_same(clip_from_state_dict(clip.state_dict(), CONFIG), clip)


@pytest.mark.parametrize("kind", [open_clip.model.CLIP, open_clip.model.CustomTextCLIP])
def test_prefix_of_parallel_training_is_dropped(kind: type[nn.Module]) -> None:
    clip = _build(kind)
    state = {f"module.{key}": value for key, value in clip.state_dict().items()}
    _assert_same(clip_from_state_dict(state, CONFIG), clip)


def test_sizes_are_read_off_the_tensors(weights: dict[str, torch.Tensor]) -> None:
    assert config_from_shapes(weights) == {
        **CONFIG,
        "text_cfg": {**CONFIG["text_cfg"], "context_length": 77, "vocab_size": 49408},
    }


def test_activation_must_be_given_where_nothing_tells_it(weights: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"^E_BACKBONE: the activation of this CLIP is unknown"):
        clip_from_state_dict(weights)
    _assert_same(clip_from_state_dict(weights, quick_gelu=False), _build(quick_gelu=False))


def test_half_precision_on_request(weights: dict[str, torch.Tensor]) -> None:
    found = clip_from_state_dict(weights, CONFIG, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in found.parameters()} == {torch.bfloat16}


def test_keys_that_do_not_match_are_named(weights: dict[str, torch.Tensor]) -> None:
    missing = {key: value for key, value in weights.items() if key != "visual.proj"}
    with pytest.raises(WeightsError, match=r"visual\.proj is missing"):
        clip_from_state_dict(missing, CONFIG)
    with pytest.raises(WeightsError, match=r"visual\.extra is unknown"):
        clip_from_state_dict({**weights, "visual.extra": torch.zeros(1)}, CONFIG)
    with pytest.raises(WeightsError, match=r"visual\.proj is \(64, 8\), not \(64, 16\)"):
        clip_from_state_dict({**weights, "visual.proj": torch.zeros(64, 8)}, CONFIG)
    with pytest.raises(WeightsError, match=r"is missing.* and \d+ more - use the description") as caught:
        clip_from_state_dict({"visual.proj": weights["visual.proj"]}, CONFIG)
    assert caught.value.code == "E_BACKBONE"


def test_no_clip_at_all() -> None:
    with pytest.raises(WeightsError, match="not the state dict of a CLIP with a vision transformer"):
        clip_from_state_dict({"fc.weight": torch.zeros(2, 2)}, quick_gelu=True)


def test_whole_chain_from_weights_to_network(weights: dict[str, torch.Tensor]) -> None:
    network = AnomalyCLIP(
        clip_from_state_dict(weights, CONFIG), image_size=42, feature_layers=[3], dpam_layer=3, depth=2
    )
    assert network(torch.rand(1, 1, 30, 20)).shape == (1, 2, 30, 20)


# --- names of open_clip


@pytest.mark.parametrize(
    ("name", "pretrained", "quick_gelu"),
    [
        ("ViT-L-14-336", None, True),  # all published weights of this name are OpenAI's
        ("ViT-L-14-336", "openai", True),
        ("ViT-L-14-336-quickgelu", None, True),
        ("ViT-B-16", "openai", True),
        ("ViT-B-16", "laion2b_s34b_b88k", False),
        ("ViT-B-16-quickgelu", "openai", True),
        ("ViT-B-16", None, False),  # tags disagree: as open_clip describes it
    ],
)
def test_activation_is_that_of_the_published_weights(name: str, pretrained: str | None, quick_gelu: bool) -> None:
    assert bool(named_config(name, pretrained).get("quick_gelu", False)) is quick_gelu


def test_correcting_a_config_leaves_open_clips_own_alone() -> None:
    named_config("ViT-L-14-336")
    assert "quick_gelu" not in open_clip.get_model_config("ViT-L-14-336")


def test_unknown_names() -> None:
    with pytest.raises(WeightsError, match="open_clip knows no model 'ViT-Z-1'"):
        named_config("ViT-Z-1")
    with pytest.raises(WeightsError, match=r"ViT-B-16 has no weights 'nowhere'.*known: .*openai"):
        named_config("ViT-B-16", "nowhere")


# --- the authors' prompts


def test_authors_prompts_by_hand() -> None:
    state = {
        "ctx_neg": torch.full((1, 1, 2, 3), 2.0),
        "ctx_pos": torch.full((1, 1, 2, 3), 1.0, dtype=torch.float16),
        "compound_prompts_text.1": torch.full((1, 3), 4.0),
        "compound_prompts_text.0": torch.full((1, 3), 3.0),
        "compound_prompt_projections.0.weight": torch.zeros(9, 9),
        "token_prefix_pos": torch.zeros(1),
    }
    for given in (state, {"prompt_learner": state}):
        found = prompts_from_authors(given)
        assert list(found) == ["ctx", "deep.0", "deep.1"]
        assert found["ctx"].shape == (2, 2, 3)
        assert found["ctx"][:, 0, 0].tolist() == [1, 2]  # normal first
        assert [found[f"deep.{i}"][0, 0].item() for i in (0, 1)] == [3, 4]
        assert {value.dtype for value in found.values()} == {torch.float32}


@pytest.mark.parametrize(
    "damage",
    [{"ctx_neg": None}, {"ctx_pos": torch.zeros(1, 1, 3, 3)}, {"compound_prompts_text.7": torch.zeros(1, 3)}],
    ids=["no ctx_neg", "sizes differ", "a layer is missing"],
)
def test_what_is_not_the_authors_is_refused(damage: dict[str, Any]) -> None:
    state = {"ctx_pos": torch.zeros(1, 1, 2, 3), "ctx_neg": torch.zeros(1, 1, 2, 3), **damage}
    with pytest.raises(WeightsError, match=r"^E_PROMPTS: not a prompt checkpoint"):
        prompts_from_authors({key: value for key, value in state.items() if value is not None})


# --- files


@pytest.fixture
def backbone(tmp_path: Path, weights: dict[str, torch.Tensor]) -> Path:
    safetensors.torch.save_file(weights, tmp_path / "backbone.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(CONFIG))
    return tmp_path / "backbone.safetensors"


def test_backbone_from_its_two_files(backbone: Path, clip: nn.Module) -> None:
    _assert_same(load_backbone(backbone), clip)
    moved = backbone.with_name("elsewhere.json")
    backbone.with_name("open_clip_config.json").rename(moved)
    _assert_same(load_backbone(str(backbone), str(moved)), clip)


def _code(call: Any) -> tuple[str, str]:
    with pytest.raises(WeightsError) as caught:
        call()
    return caught.value.code, str(caught.value)


def test_missing_and_damaged_backbone_files(backbone: Path) -> None:
    config = backbone.with_name("open_clip_config.json")
    config.write_text("{")
    assert _code(lambda: load_backbone(backbone)) == (
        "E_WEIGHTS",
        f"E_WEIGHTS: is not JSON ({config}) - reinstall the bundle",
    )
    config.unlink()
    assert "description of the backbone is missing" in _code(lambda: load_backbone(backbone))[1]
    backbone.write_bytes(backbone.read_bytes()[:-1000])
    assert "damaged or of another kind" in _code(lambda: load_backbone(backbone))[1]
    backbone.unlink()
    assert "weights are missing" in _code(lambda: load_backbone(backbone))[1]


def test_mismatch_names_the_weights_file(backbone: Path) -> None:
    other = {**CONFIG, "embed_dim": 8}
    backbone.with_name("open_clip_config.json").write_text(json.dumps(other))
    code, message = _code(lambda: load_backbone(backbone))
    assert code == "E_BACKBONE"
    assert str(backbone) in message


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_tables_of_tensors_in_their_usual_wrappings(tmp_path: Path, wrap: Any) -> None:
    state = {"ctx": torch.arange(3.0)}
    torch.save(wrap(state), tmp_path / "model.pt")
    found = read_state_dict(tmp_path / "model.pt")
    assert list(found) == ["ctx"]
    assert torch.equal(found["ctx"], state["ctx"])


@pytest.mark.parametrize("content", [[1, 2], {"ctx": 3}, torch.zeros(2)])
def test_files_that_hold_something_else(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "model.pt")
    code, message = _code(lambda: read_state_dict(tmp_path / "model.pt"))
    assert (code, "holds no table of named tensors" in message) == ("E_WEIGHTS", True)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_downloads_that_went_wrong(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert _code(lambda: read_state_dict(tmp_path / name))[0] == "E_WEIGHTS"


class Malicious:
    """Unpickling this makes a folder."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def test_code_in_a_weights_file_is_never_run(tmp_path: Path) -> None:
    trace = tmp_path / "was here"
    torch.save({"ctx": torch.zeros(1), "x": Malicious(trace)}, tmp_path / "model.pt")
    code, message = _code(lambda: read_state_dict(tmp_path / "model.pt"))
    assert code == "E_WEIGHTS"
    assert "\n" not in message
    assert not trace.exists()
