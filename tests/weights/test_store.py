"""Where weights lie, and that a change is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.weights import store


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "home/weights/vitl14_336/backbone.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"first")
    return path


def test_paths(tmp_path):
    folder = tmp_path / "home/weights/vitl14_336"
    assert store.folder() == folder
    assert store.prompts_path() == folder / "prompts_visa.pt"
    assert store.origin_path(store.prompts_path("mvtec")) == folder / "prompts_mvtec.json"


def test_what_is_missing_says_how_to_get_it():
    with pytest.raises(
        WeightsError, match=r"E_WEIGHTS: the backbone is missing .* - run: anomalyclip download vitl14_336$"
    ):
        store.backbone()
    with pytest.raises(WeightsError, match=r"the prompts are missing .*download vitl14_336 --prompts mvtec$"):
        store.prompts("mvtec")
    with pytest.raises(WeightsError, match="E_WEIGHTS: weights are missing"):
        store.verify(store.folder() / "backbone.safetensors")


def test_converted_backbone_comes_first(weights):
    weights.with_name("open_clip_model.safetensors").write_bytes(b"other")
    assert store.backbone() == weights
    weights.unlink()
    assert store.backbone().name == "open_clip_model.safetensors"


def test_hash_of_the_first_load_is_noted_and_a_change_refused(weights):
    digest = store.verify(weights)
    noted = json.loads(weights.with_name("weights.json").read_text())
    assert noted == {"backbone.safetensors": {"sha256": digest, "source": "put in place by hand"}}
    assert store.verify(weights) == digest
    weights.write_bytes(b"other")
    with pytest.raises(WeightsError) as caught:
        store.verify(weights)
    assert caught.value.code == "E_WEIGHTS_CHANGED"
    assert f"instead of {digest[:12]}" in str(caught.value)
    weights.with_name("weights.json").unlink()
    assert store.verify(weights) != digest


def test_files_are_noted_one_by_one(weights):
    other = weights.with_name("open_clip_model.safetensors")
    other.write_bytes(b"other")
    store.record(weights, "one")
    store.record(other, "two")
    noted = json.loads(weights.with_name("weights.json").read_text())
    assert {name: entry["source"] for name, entry in noted.items()} == {weights.name: "one", other.name: "two"}


def test_folder_that_may_only_be_read(weights, monkeypatch, caplog):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert store.verify(weights)
    assert "could not be noted" in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", '{"backbone.safetensors": 3}'])
def test_damaged_record(weights, content):
    weights.with_name("weights.json").write_text(content)
    with pytest.raises(WeightsError, match=r"E_WEIGHTS: .* - delete it$"):
        store.verify(weights)
