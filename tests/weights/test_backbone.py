"""The backbone of a published model: safe to read, fitting, converted without loss, loaded."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from anomalyclip_monai.exceptions import UsageError, WeightsError
from anomalyclip_monai.networks import clip_from_state_dict
from anomalyclip_monai.weights import store
from anomalyclip_monai.weights.backbone import (
    check_backbone,
    convert_backbone,
    is_archive,
    is_half,
    load_backbone,
    read_backbone,
)
from anomalyclip_monai.weights.published import PublishedModel

from .conftest import CONFIG

pytestmark = pytest.mark.usefixtures("one_thread")


class Node(nn.Module):
    """Part of a module tree that only holds tensors, as TorchScript wants it."""

    def forward(self) -> int:
        return 0


def write_archive(path: Path, state: dict[str, torch.Tensor]) -> None:
    """A TorchScript archive of these tensors and OpenAI's scalars."""
    scalars = {"input_resolution": 42, "context_length": 20, "vocab_size": 60}
    root = Node()
    for key, value in [*state.items(), *((key, torch.tensor(value)) for key, value in scalars.items())]:
        *parents, leaf = key.split(".")
        node = root
        for name in parents:
            if name not in node._modules:
                node.add_module(name, Node())
            node = node._modules[name]
        node.register_buffer(leaf, value)
    with pytest.warns(FutureWarning, match="deprecated"):  # Python 3.14: not supported
        torch.jit.save(torch.jit.script(root), path)


@pytest.fixture
def archive(tmp_path: Path, state: dict[str, torch.Tensor], published: PublishedModel) -> tuple[Path, PublishedModel]:
    """An archive of float16 weights, and a model among whose published files it is."""
    path = tmp_path / "ViT-L-14-336px.pt"
    write_archive(path, {key: value.half() for key, value in state.items()})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = dataclasses.replace(published.backbone[1], sha256=digest)
    return path, dataclasses.replace(published, backbone=(published.backbone[0], known))


@pytest.fixture
def safe(tmp_path: Path, backbone: bytes) -> Path:
    path = tmp_path / "some.safetensors"
    path.write_bytes(backbone)
    return path


def test_archive_of_openai_is_read(archive, state):
    path, published = archive
    assert is_archive(path)
    found = read_backbone(path, published)
    assert {key: value for key, value in found.items() if key in state}.keys() == state.keys()
    assert torch.equal(found["visual.proj"], state["visual.proj"].half())


def test_any_other_archive_is_not_opened(archive, published, monkeypatch):
    def run(*_args, **_options):
        raise AssertionError("it was opened")

    monkeypatch.setattr(torch.jit, "load", run)
    with pytest.raises(WeightsError) as caught:
        read_backbone(archive[0], published)
    assert caught.value.code == "E_WEIGHTS"
    assert "holds code and is not OpenAI's own (sha256 " in str(caught.value)
    assert published.backbone[1].address in str(caught.value)


def test_archive_becomes_safetensors_in_its_own_precision(archive, state, tmp_path):
    path, published = archive
    convert_backbone(path, tmp_path / "out.safetensors", published)
    found = safetensors.torch.load_file(tmp_path / "out.safetensors")
    assert found.keys() == state.keys()
    assert all(torch.equal(value, state[key].half()) for key, value in found.items())
    assert is_half(tmp_path / "out.safetensors")


def test_state_dict_becomes_safetensors(state, published, tmp_path):
    torch.save({"state_dict": state}, tmp_path / "plain.pt")
    assert not is_archive(tmp_path / "plain.pt")
    convert_backbone(tmp_path / "plain.pt", tmp_path / "out.safetensors", published)
    found = safetensors.torch.load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(value, state[key]) for key, value in found.items())
    assert not is_half(tmp_path / "out.safetensors")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_halves_the_file(safe, state, published, tmp_path, dtype):
    convert_backbone(safe, tmp_path / "out.safetensors", published, dtype)
    found = safetensors.torch.load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(value, state[key].to(dtype)) for key, value in found.items())
    assert is_half(tmp_path / "out.safetensors")
    weights = 4 * sum(value.numel() for value in state.values())
    assert (safe.stat().st_size - (tmp_path / "out.safetensors").stat().st_size) == pytest.approx(weights / 2, rel=0.01)


def test_conversion_onto_itself(safe, state, published):
    convert_backbone(safe, safe, published, torch.float16)
    assert torch.equal(safetensors.torch.load_file(safe)["visual.proj"], state["visual.proj"].half())


def test_check_reads_sizes(safe, state, published, tmp_path):
    check_backbone(safe, published)
    del state["visual.proj"]
    state["ln_final.weight"] = torch.zeros(3)
    safetensors.torch.save_file(state, tmp_path / "other.safetensors")
    torch.save(state, tmp_path / "other.pt")
    for name in ("other.safetensors", "other.pt"):
        with pytest.raises(WeightsError, match=r"E_BACKBONE: .*visual\.proj is missing.*ln_final") as caught:
            convert_backbone(tmp_path / name, tmp_path / "out.safetensors", published)
        assert str(tmp_path / name) in str(caught.value)
        assert str(caught.value).endswith("give the weights of vitl14_336")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("content", [b"", b"<html>", b"\0" * 100])
def test_damaged_files(published, tmp_path, content):
    for name in ("file.safetensors", "file.pt"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(WeightsError, match="E_WEIGHTS") as caught:
            convert_backbone(tmp_path / name, tmp_path / "out.safetensors", published)
        assert "\n" not in str(caught.value)


def test_truncated_safetensors(safe, published):
    safe.write_bytes(safe.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="E_WEIGHTS: weights cannot be read"):
        check_backbone(safe, published)


@torch.no_grad()
def assert_same(found: nn.Module, expected: nn.Module, tolerance: float) -> None:
    images = torch.randn(2, 3, 42, 42, generator=torch.Generator().manual_seed(5))
    assert (found.encode_image(images) - expected.encode_image(images)).abs().max() <= tolerance


@pytest.mark.parametrize("name", ["backbone.safetensors", "open_clip_model.safetensors"])
def test_load_from_home(safe, state, published, name):
    store.folder().mkdir(parents=True)
    safe.rename(store.folder() / name)
    assert_same(load_backbone(model=published), clip_from_state_dict(state, CONFIG), 1e-6)
    assert {value.dtype for value in load_backbone(model=published, precision="bf16").parameters()} == {torch.bfloat16}


def test_load_archive_put_in_place_by_hand(archive, state):
    path, published = archive
    store.folder().mkdir(parents=True)
    path.rename(store.folder() / path.name)
    assert_same(
        load_backbone(model=published), clip_from_state_dict({k: v.half() for k, v in state.items()}, CONFIG), 1e-6
    )


def test_load_refuses_what_has_changed(safe, state, published):
    store.folder().mkdir(parents=True)
    path = safe.rename(store.folder() / store.CONVERTED)
    load_backbone(model=published)
    safetensors.torch.save_file({key: value + 1 for key, value in state.items()}, path)
    with pytest.raises(WeightsError, match="E_WEIGHTS_CHANGED"):
        load_backbone(model=published)


def test_load_without_weights_or_with_a_wrong_precision(published):
    with pytest.raises(WeightsError, match=r"run: anomalyclip download vitl14_336"):
        load_backbone(model="vitl14_336")
    with pytest.raises(UsageError, match="E_PRECISION"):
        load_backbone(model=published, precision="fp8")
