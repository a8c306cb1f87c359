"""``anomalyclip train`` and the bundle's ``train.json``: killed and resumed, on two processes, over several seeds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from photo_set import make_photo_set

from anomalyclip_monai import resources
from anomalyclip_monai.cli import main
from anomalyclip_monai.weights import bundle as bundle_weights

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # MONAI says on every start that configurations can run code; ours come with the package.
    pytest.mark.filterwarnings("ignore:.*parsing config_file.*:UserWarning"),
]

CONFIGS = resources.bundle_root("tiny") / "configs"
COMMAND = (sys.executable, "-m", "anomalyclip_monai.cli")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """9 photos: batches of 4, 4 and 1."""
    return make_photo_set(tmp_path / "photos", 9)


def arguments(photos: Path, out: Path, *more: str) -> list[str]:
    return ["train", "folder", str(photos), "-o", str(out), "--batch-size", "4", "--device", "cpu", *more]


def start(command: Sequence[str], **kwargs: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, env=environment, text=True, **kwargs)  # type: ignore[call-overload]


def prompts_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model.pt", weights_only=True)


def curve_of(folder: Path) -> np.ndarray:
    curve = json.loads((folder / "training.json").read_text())["curve"]
    return np.array([[epoch[name] for name in ("epoch", "loss", "image_loss", "map_loss")] for epoch in curve])


@pytest.mark.slow
def test_a_killed_run_is_resumed_with_the_same_result(photos, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    epochs = ("--epochs", "30", "--quiet")
    process = start([*COMMAND, *arguments(photos, killed, *epochs)])
    while not (killed / "checkpoint.pt").is_file():
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.1)  # into a later epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "model.pt").exists()
    epoch = len(torch.load(killed / "checkpoint.pt", weights_only=True)["curve"])
    assert 1 <= epoch < 30
    assert main(arguments(photos, killed, *epochs)) == 0
    assert main(arguments(photos, whole, *epochs)) == 0
    assert (curve_of(killed) == curve_of(whole)).all()
    found, expected = prompts_of(killed), prompts_of(whole)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert not (killed / "work").exists()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["command", "bundle"])
def test_two_processes_give_the_result_of_one(photos, tmp_path, way):
    one, two = tmp_path / "one", tmp_path / "two"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    if way == "command":
        command = ["anomalyclip_monai.cli", *arguments(photos, two, "--epochs", "3", "--features", "fp32")]
    else:
        places = {"dataset_dir": photos, "output_dir": two, "batch_size": 4, "epochs": 3, "features": "fp32"}
        files = f"['{CONFIGS / 'train.json'}', '{CONFIGS / 'multi_gpu_train.json'}']"
        settings = [part for name, value in places.items() for part in (f"--{name}", str(value))]
        command = ["monai.bundle", "run", "--config_file", files, *settings]
    process = start([*launcher, *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    printed = process.communicate(timeout=200)[0]
    assert process.returncode == 0, printed
    assert json.loads((two / "training.json").read_text())["processes"] == 2
    if way == "command":
        assert printed.count("prompts: ") == 1  # one of the two speaks
        assert not (two / "work").exists()
    assert main(arguments(photos, one, "--epochs", "3", "--features", "fp32", "--quiet")) == 0
    np.testing.assert_allclose(curve_of(two), curve_of(one), rtol=1e-5)
    found, expected = prompts_of(two), prompts_of(one)
    for key in expected:
        # A gradient whose sum is nothing but rounding may take a whole step of Adam another way.
        difference = (found[key] - expected[key]).abs()
        assert float(difference.max()) < 0.02
        assert float((difference < 1e-5).float().mean()) > 0.97


def test_bundle_and_command_run_one_definition(photos, tmp_path):
    workflow = ConfigWorkflow(
        str(CONFIGS / "train.json"), workflow_type="train", meta_file=None, logging_file=None,
        dataset_dir=str(photos), output_dir=str(tmp_path / "bundle"), batch_size=4, epochs=2, log=False,
    )  # fmt: skip
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    assert main(arguments(photos, tmp_path / "cli", "--epochs", "2", "--quiet")) == 0
    found, expected = prompts_of(tmp_path / "cli"), prompts_of(tmp_path / "bundle")
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    reports = [json.loads((tmp_path / way / "training.json").read_text()) for way in ("cli", "bundle")]
    assert reports[0]["options"] == reports[1]["options"]


def test_training_sees_what_inference_sees():
    train, inference = (json.loads((CONFIGS / f"{name}.json").read_text()) for name in ("train", "inference"))
    # prompts are learned on the first network of the ensemble
    inference["network_def"] = inference["network_def"]["networks"][0]
    precisions = [content["network_def"]["clip"].pop("precision") for content in (train, inference)]
    assert precisions == ["$@precision or 'fp32'", "$@precision or 'auto'"]  # gradients of prompts want fp32
    shared = (
        "bundle_root",
        "device",
        "precision",
        "settings",
        "network_def",
        "preset",
        "preset_table",
        "volume",
        "per_slice",
    )
    inference |= inference["displayable_configs"]  # where viewers change them
    for name in (*shared, "slice_axis", "empty_below"):
        assert train[name] == inference[name], name
    steps = [dict(step) for step in inference["preprocessing"]["transforms"]]
    steps[0].pop("roi_label")  # of a region of interest, which training has none of
    steps[1].pop("evidence")  # words for people
    steps[1].pop("inplace")  # memory alone
    assert train["preprocessing"]["transforms"] == steps


def test_several_seeds_give_mean_and_spread(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(arguments(photos, out, "--epochs", "1", "--seeds", "2", "--keep-features")) == 0
    printed = capsys.readouterr().out
    finals = [curve_of(out / f"seed_{seed}")[-1] for seed in (111, 112)]
    summary = json.loads((out / "training.json").read_text())
    assert summary["seeds"] == [111, 112]
    assert summary["final"]["loss"]["values"] == [final[1] for final in finals]
    assert summary["final"]["loss"]["mean"] == pytest.approx((finals[0][1] + finals[1][1]) / 2)
    assert summary["final"]["loss"]["sd"] == pytest.approx(abs(finals[0][1] - finals[1][1]) / 2**0.5)
    assert f"loss: mean {summary['final']['loss']['mean']:.4f}" in printed
    first, second = (prompts_of(out / f"seed_{seed}") for seed in (111, 112))
    assert not torch.equal(first["ctx"], second["ctx"])
    assert (out / "work" / "features").is_dir()


def test_learned_prompts_are_those_of_the_bundle_model(photos, tmp_path):
    assert main(arguments(photos, tmp_path / "out", "--epochs", "1", "--quiet")) == 0
    shipped = torch.load(bundle_weights.prompts_file(resources.bundle_root("tiny")), weights_only=True)
    found = prompts_of(tmp_path / "out")
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in shipped.items()}


@pytest.mark.parametrize(("words", "line"), [
    (["train", "folder", "-o", "out"], "E_DATASET: 1 words are no pairs"),
    (["train", "nothing", ".", "-o", "out"], "E_DATASET"),
    (["train", "mvtec", ".", "-o", "out"], "E_LAYOUT"),
])  # fmt: skip
def test_what_cannot_start_is_one_line(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    errors = capsys.readouterr().err.strip()
    assert errors.startswith(line)
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "out" / "model.pt").exists()


def test_other_options_in_the_same_folder_are_refused_in_one_line(photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(arguments(photos, out, "--epochs", "1", "--quiet")) == 0
    assert main(arguments(photos, out, "--epochs", "1", "--quiet", "--lr", "0.01")) == 2
    errors = capsys.readouterr().err.strip()
    assert errors.startswith("E_RESUME: the folder holds a run with other options: learning_rate 0.001, now 0.01")
    assert len(errors.splitlines()) == 1


def test_a_damaged_photo_ends_the_run_in_one_line(photos, tmp_path, capsys):
    (photos / "normal" / "00.png").write_bytes(b"no photo")
    assert main(arguments(photos, tmp_path / "out", "--epochs", "1", "--quiet")) == 1
    errors = capsys.readouterr().err.strip()
    assert errors.startswith("E_PIXELS")
    assert len(errors.splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_one_line(photos, tmp_path, capsys):
    (tmp_path / "out").write_text("a file is in the way")
    assert main(arguments(photos, tmp_path / "out", "--epochs", "1", "--quiet")) == 1
    errors = capsys.readouterr().err.strip()
    assert errors.startswith("E_WRITE")
    assert len(errors.splitlines()) == 1


def test_tensorboard_logs_every_loss(photos, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "out"
    assert main(arguments(photos, out, "--epochs", "2", "--quiet", "--tensorboard")) == 0
    log = EventAccumulator(str(out / "tensorboard"))
    log.Reload()
    steps = {tag: len(log.Scalars(tag)) for tag in log.Tags()["scalars"]}
    assert steps["loss"] == steps["image_loss"] == steps["map_loss"] == 2  # epochs
    assert steps["batch_loss"] == 2 * 3
