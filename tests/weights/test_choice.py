"""Which networks run, and under which hashes."""

from __future__ import annotations

import json
from dataclasses import replace

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
    both, fast = (load_network(choose_model("tiny", fast=fast), CPU) for fast in (False, True))
    assert isinstance(both, AnomalyCLIPEnsemble)
    assert [network.settings.size for network in both.members] == [(256, 256), (320, 320)]
    assert [network.settings.size for network in fast.members] == [(256, 256)]
    images = torch.rand(1, 1, 30, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone, other, mean = fast(images), both.members[1](images), both(images)
    torch.testing.assert_close(mean, (alone + other) / 2)


def test_hashes_name_all_networks_that_run():
    root = resources.bundle_root("tiny")
    both, fast = (choose_model("tiny", fast=fast).fingerprint() for fast in (False, True))
    second = resources.sha256(root / "models" / "320" / "image_encoder.safetensors")
    assert both == {**fast, "weights_320_sha256": second}
    assert fast["weights_sha256"] == resources.sha256(root / "models" / "backbone.safetensors")
    for choice in (choose_model("tiny"), choose_model("tiny", fast=True)):  # monai.bundle run says the same
        assert choice.configured(INFERENCE, values={}).get_parsed_content("fingerprint") == choice.fingerprint()


def test_networks_of_the_bundle_are_alike_but_for_the_square():
    first, second = load_network(choose_model("tiny"), CPU).members
    assert second.settings == replace(first.settings, image_size=320)


def test_every_further_network_has_a_folder_of_its_own():
    root = resources.bundle_root("tiny")
    definitions = read_definition(resources.inference_config(root))["network_def"]["networks"]
    first, *others = (definition["clip"]["weights"] for definition in definitions)
    assert first == "$@bundle_root + '/models/backbone.safetensors'"
    expected = {f"$@bundle_root + '/{file.relative_to(root).as_posix()}'" for file in other_encoders(root)}
    assert set(others) == expected


def test_precision_is_that_of_all_networks():
    network = load_network(choose_model("tiny", precision="bf16"), CPU)
    assert all(member.clip.visual.proj.dtype == torch.bfloat16 for member in network.members)


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
