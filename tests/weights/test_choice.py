"""Which networks run, and under which hashes."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest
import torch

from anomalyclip_monai import resources
from anomalyclip_monai.definition import read_definition
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.networks import AnomalyCLIPEnsemble
from anomalyclip_monai.weights.bundle import other_encoders
from anomalyclip_monai.weights.choice import INFERENCE, choose_model, load_network

CPU = torch.device("cpu")


def test_fast_is_the_first_network_alone():
    all_three, fast = (load_network(choose_model("tiny", fast=fast, precision="fp32"), CPU) for fast in (False, True))
    assert isinstance(all_three, AnomalyCLIPEnsemble)
    assert [network.settings.size for network in all_three.members] == [(256, 256), (320, 320), (322, 322)]
    assert [network.settings.size for network in fast.members] == [(256, 256)]
    assert (all_three.fusion is None, fast.fusion is None) == (False, True)
    images = torch.rand(1, 1, 30, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, alone, together = all_three.first(images), fast(images), all_three(images)
    torch.testing.assert_close(alone, first)
    assert not torch.allclose(together, first, atol=1e-3)


def test_hashes_name_all_networks_that_run():
    root = resources.bundle_root("tiny")
    every, fast = (choose_model("tiny", fast=fast).fingerprint() for fast in (False, True))
    others = {name: root / "models" / name / "image_encoder.safetensors" for name in ("320", "dino")}
    assert every == {**fast, **{f"weights_{name}_sha256": resources.sha256(file) for name, file in others.items()}}
    assert fast["weights_sha256"] == resources.sha256(root / "models" / "backbone.safetensors")
    for choice in (choose_model("tiny"), choose_model("tiny", fast=True)):  # monai.bundle run says the same
        assert choice.configured(INFERENCE, values={}).get_parsed_content("fingerprint") == choice.fingerprint()


def test_networks_of_the_bundle_are_alike_but_for_the_square_and_the_backbone():
    first, second, third = (member.settings for member in load_network(choose_model("tiny"), CPU).members)
    assert second == replace(first, image_size=320)
    differing = {one.name for one in fields(first) if getattr(third, one.name) != getattr(first, one.name)}
    assert differing == {"image_size", "feature_layers", "local_attention", "mirrors", "mean", "std"}


def test_networks_of_the_bundle_have_the_text_of_the_first():
    network = load_network(choose_model("tiny", precision="fp32"), CPU)
    assert all(torch.equal(member.text_features(), network.text_features()) for member in network.members)


def test_every_further_network_has_a_folder_of_its_own():
    root = resources.bundle_root("tiny")
    definitions = read_definition(resources.inference_config(root))["network_def"]["networks"]
    first, *others = (definition["clip"]["weights"] for definition in definitions)
    assert first == "$@bundle_root + '/models/backbone.safetensors'"
    expected = {f"$@bundle_root + '/{file.relative_to(root).as_posix()}'" for file in other_encoders(root)}
    assert set(others) == expected


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_precision_is_that_of_all_networks(precision, dtype):
    network = load_network(choose_model("tiny", precision=precision), CPU)
    assert [next(member.clip.visual.parameters()).dtype for member in network.members] == 3 * [dtype]


def test_a_bundle_without_an_entry_for_it_has_one_precision(tmp_path):
    shipped, root = resources.bundle_root("tiny"), tmp_path / "anomalyclip_old"
    (root / "configs").mkdir(parents=True)
    definition = read_definition(resources.inference_config(shipped))
    del definition["precision"]
    (root / "configs" / INFERENCE).write_text(json.dumps(definition))
    with pytest.raises(UsageError, match="E_OPTION: this model has one precision"):
        choose_model(str(root), precision="bf16")


def test_the_first_network_of_a_choice():
    choice = choose_model("tiny", precision="bf16", prompts="mine.pt").first_network()
    assert choice.fast
    assert choice.prompts == "mine.pt"
    assert choice.values == {"precision": "bf16", "fast": True}
    published = choose_model("vitl14_336")
    assert published.first_network() is published


@pytest.mark.parametrize("options", [{"model": "vitl14_336"}, {"backbone": "ViT-B-16-quickgelu", "weights": "w.pt"}])
def test_fast_needs_an_ensemble(tmp_path, options):
    if "weights" in options:
        (tmp_path / "w.pt").touch()
        options = {**options, "weights": tmp_path / "w.pt"}
    with pytest.raises(UsageError, match="no ensemble"):
        choose_model(fast=True, **options)
