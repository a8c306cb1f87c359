"""The published model with random weights of full size. Slices are 70 pixels wide, but for one test at 518."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from photo_set import make_photo_set
from random_weights import write_backbone, write_prompts

import anomalyclip_monai as ac
from anomalyclip_monai import resources
from anomalyclip_monai.cli import main
from anomalyclip_monai.exceptions import UsageError, WeightsError
from anomalyclip_monai.networks import AnomalyCLIP

NAME = "anomalyclip_vitl14_336"


@pytest.fixture(scope="module")
def shipped() -> Path:
    return resources.bundle_root(NAME)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An ``ANOMALYCLIP_HOME`` with a random backbone in bfloat16 and two sets of prompts."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "weights" / "vitl14_336"
    write_backbone(folder / "backbone.safetensors", "ViT-L-14-336-quickgelu", "bf16")
    write_prompts(folder / "prompts_visa.pt")
    mvtec = {key: -value for key, value in torch.load(folder / "prompts_visa.pt", weights_only=True).items()}
    torch.save(mvtec, folder / "prompts_mvtec.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANOMALYCLIP_HOME", str(home))
        yield home
    shutil.rmtree(home)


@pytest.fixture(scope="module")
def bundle(shipped: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle for small slices and in half precision; all weights keep their full size."""
    copy = tmp_path_factory.mktemp("bundles") / NAME
    shutil.copytree(shipped, copy, ignore=shutil.ignore_patterns("models"))
    config = json.loads((copy / "configs" / "inference.json").read_text())
    config["settings"]["image_size"] = 70
    config["precision"] = "bf16"
    (copy / "configs" / "inference.json").write_text(json.dumps(config))
    return copy


@pytest.fixture(scope="module")
def case(two_slices: Path) -> Path:
    return two_slices


def config(bundle: Path) -> str:
    return str(bundle / "configs" / "inference.json")


def test_files_of_the_specification_are_there(shipped: Path) -> None:
    names = ["LICENSE", "LICENSE.weights", "large_files.yml", "docs/README.md", "docs/data_license.txt"]
    names += [f"configs/{name}" for name in ("metadata.json", "inference.json", "logging.conf", "multi_gpu.json")]
    assert [name for name in names if not (shipped / name).is_file()] == []


def test_configuration_is_the_published_one(shipped: Path) -> None:
    definition = json.loads(Path(config(shipped)).read_text())
    network = {key: value for key, value in definition["network_def"].items() if key != "clip"}
    assert network == {"_target_": "anomalyclip_monai.networks.AnomalyCLIP", "settings": "@settings"}
    assert definition["settings"] == {
        "_target_": "anomalyclip_monai.networks.NetworkSettings",
        "image_size": 518,
        "feature_layers": [24],
        "dpam_layer": 20,
        "n_ctx": 12,
        "depth": 9,
        "t_n_ctx": 4,
        "fp16_prompts": True,
        "temperature": 0.07,
        "sigma": 4.0,
        "image_score": "class_token",
    }


def test_evaluation_and_training_are_those_of_the_other_bundle(shipped: Path) -> None:
    """But for what belongs to the network, which is that of ``inference.json``."""
    tiny = resources.bundle_root("tiny")
    network = ("settings", "network_def", "empty_below", "precision")
    for name, own in (
        ("evaluate", {"prompts", "trained_on"}),
        ("train", {"imports", "bundle_root", *network}),
        ("multi_gpu_train", set()),
        ("multi_gpu", set()),
    ):
        here, there = (json.loads((root / "configs" / f"{name}.json").read_text()) for root in (shipped, tiny))
        assert {key for key in here | there if here.get(key) != there.get(key)} == own, name
    inference, train = (
        json.loads((shipped / "configs" / f"{name}.json").read_text()) for name in ("inference", "train")
    )
    assert [key for key in ("bundle_root", *network) if train[key] != inference[key]] == []


def test_one_plane_unless_slices_are_cheap(shipped: Path) -> None:
    """The mean of three planes is the default of the small network only."""
    here, there = (json.loads(Path(config(root)).read_text()) for root in (shipped, resources.bundle_root("tiny")))
    assert [content["displayable_configs"]["axes"] for content in (here, there)] == [1, "auto"]


def test_check_properties_of_training(bundle: Path, tmp_path: Path) -> None:
    overrides = {"settings#image_size": 70, "precision": "bf16", "bundle_root": str(bundle), "log": False}
    overrides |= {"dataset_dir": str(make_photo_set(tmp_path / "photos", 2)), "output_dir": str(tmp_path / "out")}
    train = str(bundle / "configs" / "train.json")
    workflow = ConfigWorkflow(train, workflow_type="train", meta_file=None, logging_file=None, **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_check_properties_finds_nothing_missing(bundle: Path, case: Path) -> None:
    workflow = ConfigWorkflow(config(bundle), workflow_type="inference", bundle_root=str(bundle), dataset_dir=str(case))
    workflow.initialize()
    assert workflow.check_properties() == []


def test_run_equals_python_and_command_line(bundle: Path, case: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"bundle_root": str(bundle), "dataset_dir": str(case), "output_dir": str(tmp_path / "bundle")}
    monai.bundle.run(config_file=config(bundle), **places)
    arguments = ["--model", str(bundle), "--device", "cpu", "--quiet"]
    assert main(["localize", str(case), "-o", str(tmp_path / "cli"), *arguments]) == 0
    result = ac.localize(case, model=str(bundle), device="cpu")
    stored = nib.load(case)
    for way in ("bundle", "cli"):
        found = nib.load(tmp_path / way / "case" / "heatmap.nii.gz")
        assert np.array_equal(found.get_fdata(dtype=np.float32), result.heatmap[0].numpy())
        assert np.array_equal(found.affine, stored.affine)
        scores = json.loads((tmp_path / way / "case" / "scores.json").read_text())
        assert set(scores["model"]) == {"bundle", "weights_sha256", "prompts_sha256"}
        assert scores["threshold"] == {"value": 0.5, "low": 0.5, "origin": "uncalibrated"}
        assert any("uncalibrated" in warning for warning in scores["warnings"])


def test_network_keeps_what_the_metadata_promise(bundle: Path, home: Path) -> None:
    metadata = str(bundle / "configs" / "metadata.json")
    monai.bundle.verify_net_in_out(
        net_id="network_def", config_file=config(bundle), meta_file=metadata, bundle_root=str(bundle), any=37
    )


def test_load_with_the_downloaded_prompts(bundle: Path, home: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = home / "weights" / "vitl14_336" / "prompts_visa.pt"
    places = {"bundle_dir": str(bundle.parent), "model_file": str(prompts)}
    network = monai.bundle.load(bundle.name, workflow_type="inference", device="cpu", **places)
    assert torch.equal(network.ctx, torch.load(prompts, weights_only=True)["ctx"])


def test_weights_in_the_bundle_come_first(bundle: Path, home: Path, case: Path, tmp_path: Path, monkeypatch) -> None:
    """As MONAI Label and Deploy want it: a copy with everything in ``models``."""
    complete = tmp_path / NAME
    shutil.copytree(bundle, complete)
    (complete / "models").mkdir()
    (complete / "models" / "backbone.safetensors").symlink_to(home / "weights/vitl14_336/backbone.safetensors")
    shutil.copy(home / "weights/vitl14_336/prompts_mvtec.pt", complete / "models" / "model.pt")
    monkeypatch.setenv("ANOMALYCLIP_HOME", str(tmp_path / "nothing here"))
    parser = ConfigParser()
    parser.read_config(config(complete))
    parser["bundle_root"] = str(complete)
    network: AnomalyCLIP = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(complete / "models" / "model.pt", weights_only=True), strict=False)
    assert torch.equal(ac.load_model(str(complete)).ctx, network.ctx)


def test_choice_of_prompts(bundle: Path, home: Path, case: Path) -> None:
    folder = home / "weights" / "vitl14_336"
    scores = {}
    for prompts, file in ((None, "visa"), ("mvtec", "mvtec"), (folder / "prompts_mvtec.pt", "mvtec")):
        result = ac.localize(case, model=str(bundle), device="cpu", prompts=prompts)
        assert result.model["prompts_sha256"] == resources.sha256(folder / f"prompts_{file}.pt")
        scores[str(prompts)] = result.score
    assert scores["mvtec"] == scores[str(folder / "prompts_mvtec.pt")] != scores["None"]
    with pytest.raises(WeightsError, match="E_WEIGHTS: no prompts 'monday' - give a file, or one of: mvtec, visa"):
        ac.localize(case, model=str(bundle), prompts="monday")


def test_precision_of_the_tower(bundle: Path, home: Path) -> None:
    for precision, dtype in ((None, torch.bfloat16), ("fp16", torch.float16)):
        clip = ac.load_model(str(bundle), precision=precision).clip
        assert {parameter.dtype for parameter in clip.parameters()} == {dtype}
    with pytest.raises(UsageError, match="E_PRECISION"):
        ac.load_model(str(bundle), precision="fp8")


def test_changed_weights_are_refused(bundle: Path, home: Path) -> None:
    ac.load_model(str(bundle))
    record = home / "weights" / "vitl14_336" / "weights.json"
    noted = record.read_text()
    digest = json.loads(noted)["backbone.safetensors"]["sha256"]
    record.write_text(noted.replace(digest, "0" * 64))
    with pytest.raises(WeightsError, match="E_WEIGHTS_CHANGED"):
        ac.load_model(str(bundle))
    record.write_text(noted)


def test_without_weights_one_line_says_what_to_do(
    shipped: Path, case: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("ANOMALYCLIP_HOME", str(tmp_path))
    folder = tmp_path / "weights" / "vitl14_336"
    run = ["localize", str(case), "-o", str(tmp_path / "out"), "--model", "vitl14_336"]
    todo = "run: anomalyclip download vitl14_336"
    assert main(run) == 2
    assert capsys.readouterr().err == (
        f"E_WEIGHTS: the learned prompts are missing ({folder / 'prompts_visa.pt'}) - {todo}\n"
    )
    write_prompts(folder / "prompts_visa.pt")
    assert main(run) == 2
    assert (
        capsys.readouterr().err == f"E_WEIGHTS: the backbone is missing ({folder / 'backbone.safetensors'}) - {todo}\n"
    )
    # a truncated download
    (folder / "backbone.safetensors").write_bytes(b"\0" * 100)
    assert main(run) == 2
    assert capsys.readouterr().err.startswith("E_WEIGHTS: weights cannot be read")


@pytest.mark.slow
# TorchScript is on its way out in torch, which says so at every step; MONAI's export still uses it.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
# Tracing warns of each size that it fixes: the exported network is meant for one.
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_torchscript_export_equals_the_network(bundle: Path, home: Path, tmp_path: Path) -> None:
    exported = tmp_path / "model.ts"
    monai.bundle.ckpt_export(
        net_id="network_def",
        filepath=str(exported),
        bundle_root=str(bundle),
        config_file=config(bundle),
        meta_file=str(bundle / "configs" / "metadata.json"),
        ckpt_file=str(home / "weights" / "vitl14_336" / "prompts_visa.pt"),
        use_trace=True,
        input_shape=[1, 1, 70, 70],
    )
    images = torch.rand(2, 1, 70, 70, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(exported)(images), ac.load_model(str(bundle))(images), atol=1e-3)


@pytest.mark.slow
def test_memory_at_full_size(home: Path, case: Path, tmp_path: Path) -> None:
    """The shipped bundle at 518 pixels, in a process of its own."""
    arguments = ["localize", str(case), "-o", str(tmp_path), "--model", "vitl14_336", "--precision", "bf16"]
    command = [sys.executable, "-m", "anomalyclip_monai.cli", *arguments, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "case" / "heatmap.nii.gz").is_file()
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 6 * 2**20  # in kilobytes


# --- another backbone over the same definition


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("small")
    weights = write_backbone(folder / "backbone.safetensors", "ViT-S-32-alt")
    prompts = write_prompts(folder / "model.pt", width=256)
    return {"backbone": "ViT-S-32-alt", "weights": str(weights), "prompts": str(prompts)}


def test_backbone_by_name(case: Path, small: dict[str, str], tmp_path: Path) -> None:
    result = ac.localize(case, device="cpu", **small)
    assert result.model == {
        "bundle": NAME,
        "backbone": "ViT-S-32-alt",
        "weights_sha256": resources.sha256(Path(small["weights"])),
        "prompts_sha256": resources.sha256(Path(small["prompts"])),
    }
    assert result.preset["evidence"] == "not measured on such images"
    options = [part for key, value in small.items() for part in (f"--{key}", value)]
    assert main(["localize", str(case), "-o", str(tmp_path), *options, "--device", "cpu", "--quiet"]) == 0
    found = nib.load(tmp_path / "case" / "heatmap.nii.gz").get_fdata(dtype=np.float32)
    assert np.array_equal(found, result.heatmap[0].numpy())


def test_backbone_without_prompts_or_without_a_name(case: Path, small: dict[str, str], capsys) -> None:
    with pytest.raises(WeightsError) as caught:
        ac.localize(case, backbone=small["backbone"], weights=small["weights"])
    assert str(caught.value) == (
        "E_PROMPTS: nothing was learned for the backbone ViT-S-32-alt - learn them: anomalyclip train --backbone "
        "ViT-S-32-alt, and give them: --prompts FILE"
    )
    with pytest.raises(UsageError, match="E_OPTION: weights are chosen for a backbone"):
        ac.localize(case, weights=small["weights"])
    assert main(["localize", str(case), "-o", "out", "--model", NAME, "--backbone", "ViT-B-16"]) == 2
    assert capsys.readouterr().err == "E_OPTION: --model and --backbone - leave one out\n"


def test_prompts_of_another_backbone_are_refused(case: Path, small: dict[str, str], tmp_path: Path) -> None:
    other = write_prompts(tmp_path / "model.pt", width=768)
    with pytest.raises(WeightsError, match=r"E_PROMPTS: .*ctx is \(2, 12, 768\), not \(2, 12, 256\)"):
        ac.localize(case, **{**small, "prompts": str(other)})
