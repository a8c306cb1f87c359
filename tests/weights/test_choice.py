"""Which networks run, and under which hashes."""

from __future__ import annotations

import json

import pytest
import torch

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.networks import AnomalyCLIPEnsemble
from anomalyclip_monai.weights.choice import INFERENCE, choose_model, load_network

CPU = torch.device("cpu")


def test_fast_is_the_first_network_alone():
    both, fast = (load_network(choose_model("tiny", fast=fast), CPU) for fast in (False, True))
    assert isinstance(both, AnomalyCLIPEnsemble)
    assert [network.image_size for network in both.others] == [(320, 320)]
    assert len(fast.others) == 0
    images = torch.rand(1, 1, 30, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone, other, mean = fast(images), both.others[0](images), both(images)
    torch.testing.assert_close(mean, (alone + other) / 2)


def test_hashes_name_all_networks_that_run():
    root = resources.bundle_root("tiny")
    both, fast = (choose_model("tiny", fast=fast).fingerprint() for fast in (False, True))
    second = resources.sha256(root / "models" / "320" / "image_encoder.safetensors")
    assert both == {**fast, "weights_320_sha256": second}
    assert fast["weights_sha256"] == resources.sha256(root / "models" / "backbone.safetensors")
    for choice in (choose_model("tiny"), choose_model("tiny", fast=True)):  # monai.bundle run says the same
        assert choice.configured(INFERENCE, values={}).get_parsed_content("fingerprint") == choice.fingerprint()


def test_both_networks_of_the_bundle_are_alike_but_for_the_square():
    definition = json.loads(resources.inference_config(resources.bundle_root("tiny")).read_text())["network_def"]
    (other,) = definition.pop("others")
    assert {key for key in {*definition, *other} if definition.get(key) != other.get(key)} == {
        *("_target_", "_disabled_", "clip", "image_size")
    }


def test_precision_is_that_of_all_networks():
    network = load_network(choose_model("tiny", precision="bf16"), CPU)
    assert all(member.clip.visual.proj.dtype == torch.bfloat16 for member in (network, network.others[0]))


def test_the_first_network_of_a_choice():
    choice = choose_model("tiny", precision="bf16", prompts="mine.pt").first_network()
    assert choice.fast
    assert choice.prompts == "mine.pt"
    assert choice.values == {"network_def#clip#precision": "bf16", "fast": True}
    published = choose_model("vitl14_336")
    assert published.first_network() is published


@pytest.mark.parametrize("options", [{"model": "vitl14_336"}, {"backbone": "ViT-B-16-quickgelu", "weights": "w.pt"}])
def test_fast_needs_an_ensemble(tmp_path, options):
    if "weights" in options:
        (tmp_path / "w.pt").touch()
        options = {**options, "weights": tmp_path / "w.pt"}
    with pytest.raises(UsageError, match="no ensemble"):
        choose_model(fast=True, **options)
