"""Which networks run, and under which hashes."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from anomalyclip_monai import resources
from anomalyclip_monai.definition import read_definition
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.networks import AnomalyCLIPEnsemble
from anomalyclip_monai.networks.neck import TokenNeck
from anomalyclip_monai.networks.similarity import resize_map
from anomalyclip_monai.weights.bundle import other_encoders
from anomalyclip_monai.weights.choice import INFERENCE, choose_model, load_network

CPU = torch.device("cpu")


def test_fast_is_the_first_network_alone():
    every, fast = (load_network(choose_model("tiny", fast=fast, precision="fp32"), CPU) for fast in (False, True))
    assert isinstance(every, AnomalyCLIPEnsemble)
    assert [network.settings.size for network in every.members] == [(256, 256), (320, 320), (364, 364)]
    assert [network.settings.size for network in fast.members] == [(256, 256)]
    images = torch.rand(1, 1, 30, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(fast.score_and_map(images)[1], every.members[0].score_and_map(images)[1])
        maps = [resize_map(member.look(images)[1], (256, 256)) for member in every.members]
        fused = resize_map(every.fusion.fuse(maps, images), (30, 40))
        torch.testing.assert_close(every.score_and_map(images)[1], fused)


def test_hashes_name_all_networks_that_run():
    root = resources.bundle_root("tiny")
    both, fast = (choose_model("tiny", fast=fast).fingerprint() for fast in (False, True))
    second = resources.sha256(root / "models" / "320" / "image_encoder.safetensors")
    third = resources.sha256(root / "models" / "dino" / "image_encoder.safetensors")
    trunk = resources.sha256(root / "models" / "dino" / "trunk.safetensors")
    others = {"weights_320_sha256": second, "weights_dino_sha256": third, "weights_dino_trunk_sha256": trunk}
    assert both == {**fast, **others}
    assert fast["weights_sha256"] == resources.sha256(root / "models" / "backbone.safetensors")
    for choice in (choose_model("tiny"), choose_model("tiny", fast=True)):  # monai.bundle run says the same
        assert choice.configured(INFERENCE, values={}).get_parsed_content("fingerprint") == choice.fingerprint()


def test_networks_of_the_bundle_are_alike_but_for_the_square():
    first, second, third = load_network(choose_model("tiny"), CPU).members
    assert second.settings == replace(first.settings, image_size=320)
    assert third.settings.temperature == first.settings.temperature
    assert (third.settings.feature_layers, third.settings.mirrors) == ((3, 6, 9), False)


def test_every_further_network_has_a_folder_of_its_own():
    root = resources.bundle_root("tiny")
    definitions = read_definition(resources.inference_config(root))["network_def"]["networks"]
    first, *others = (definition["clip"]["weights"] for definition in definitions)
    assert first == "$@bundle_root + '/models/backbone.safetensors'"
    expected = {f"$@bundle_root + '/{file.relative_to(root).as_posix()}'" for file in other_encoders(root)}
    assert set(others) == expected


def test_precision_is_that_of_all_networks():
    network = load_network(choose_model("tiny", precision="bf16"), CPU)
    assert all(next(member.clip.visual.parameters()).dtype == torch.bfloat16 for member in network.members)


@pytest.fixture
def with_another(tmp_path: Path) -> Path:
    """The bundle with one network more, random behind a neck, on the text side of the first."""
    shipped, root = resources.bundle_root("tiny"), tmp_path / "anomalyclip_four"
    shutil.copytree(shipped, root)
    description = json.loads((shipped / "models" / "open_clip_config.json").read_text())["model_cfg"]
    vision = {"timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"}  # 6 blocks, patches of 16
    neck = {"layers": 2, "components": 6, "hidden": 4, "members": 2}
    config = {"model_cfg": {**description, "vision_cfg": {"image_size": 64, **vision}}, "neck": neck}
    torch.manual_seed(0)
    visual = open_clip.model.CLIP(
        128, open_clip.CLIPVisionCfg(**vision), open_clip.CLIPTextCfg(**description["text_cfg"])
    ).visual
    visual.neck = TokenNeck(**neck, width=64, embed_dim=128)
    (root / "models" / "vit").mkdir()
    state = {f"visual.{key}": value for key, value in visual.state_dict().items()}
    save_file(state, root / "models" / "vit" / "image_encoder.safetensors")
    (root / "models" / "vit" / "open_clip_config.json").write_text(json.dumps(config))

    definition = read_definition(resources.inference_config(root))
    networks = definition["network_def"]["networks"]
    fourth = copy.deepcopy(networks[1])
    fourth["clip"] |= {
        "weights": "$@bundle_root + '/models/vit/image_encoder.safetensors'",
        "precision": "$@precision or 'bf16'",
    }
    changes = "image_size=64, feature_layers=(3, 6), local_attention='none', dpam_layer=1, mirrors=False"
    fourth["settings"] = f"$@settings.changed({changes})"
    networks.append(fourth)
    definition["network_def"]["fusion"]["weights"] = [0.5, 0.4, 0.3, 0.2]
    (root / "configs" / INFERENCE).write_text(json.dumps(definition))
    return root


def test_another_network_is_an_entry_and_a_folder(with_another: Path):
    choice = choose_model(str(with_another))
    network = load_network(choice, CPU)
    assert [member.settings.size for member in network.members] == [(256, 256), (320, 320), (364, 364), (64, 64)]
    first, *_, fourth = network.members
    assert fourth.clip.visual.trunk.cls_token.dtype == torch.bfloat16
    # The text side beside a neck stays in float32.
    torch.testing.assert_close(fourth.text_features(), first.text_features().float(), atol=0.01, rtol=0)
    score, anomaly_map = network.score_and_map(torch.rand(1, 3, 30, 40), mirror=True)
    assert score.isfinite().all()
    assert anomaly_map.shape == (1, 1, 30, 40)
    weights = with_another / "models" / "vit" / "image_encoder.safetensors"
    assert choice.fingerprint()["weights_vit_sha256"] == resources.sha256(weights)

    full = load_network(choose_model(str(with_another), precision="fp32"), CPU)
    assert full.members[3].clip.visual.trunk.cls_token.dtype == torch.float32
    fast = load_network(choose_model(str(with_another), fast=True), CPU)
    assert (len(fast.members), fast.fusion) == (1, None)


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


def test_prompts_are_learned_on_the_first_network_in_fp32():
    assert choose_model("tiny").for_learning().values == {"precision": "fp32", "fast": True}
    assert choose_model("tiny", precision="bf16").for_learning().values == {"precision": "bf16", "fast": True}


@pytest.mark.parametrize("options", [{"model": "vitl14_336"}, {"backbone": "ViT-B-16-quickgelu", "weights": "w.pt"}])
def test_fast_needs_an_ensemble(tmp_path, options):
    if "weights" in options:
        (tmp_path / "w.pt").touch()
        options = {**options, "weights": tmp_path / "w.pt"}
    with pytest.raises(UsageError, match="no ensemble"):
        choose_model(fast=True, **options)
