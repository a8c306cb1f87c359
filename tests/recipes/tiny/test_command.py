import json

import numpy as np
import pytest

from anomalyclip_monai import cli
from anomalyclip_monai.weights import load_backbone
from recipes.tiny.commands import main
from recipes.tiny.commands.train import ORGANS
from recipes.tiny.sources import DOMAIN_OF


@pytest.fixture
def data(tmp_path, write_photo):
    rng = np.random.default_rng(0)
    mask = np.zeros((48, 64))
    mask[10:30, 20:50] = 255
    for index in range(3):
        write_photo(f"data/kvasir_256/images/{index}.jpg", rng.integers(60, 200, (48, 64, 3)))
        write_photo(f"data/kvasir_256/masks/{index}.png", mask)
    return tmp_path / "data"


def test_a_run_leaves_a_backbone_that_loads_and_its_record(data, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["train", str(data), "-o", str(out), "--crops", "16", "--seed", "4"]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["schema"] == "anomalyclip-training/1"
    assert report["steps"] == 1
    assert report["plan"]["seed"] == 4
    assert set(report["data_sha256"]) == {"kvasir_256"}
    assert len(report["init_sha256"]) == len(report["weights_sha256"]) == 64
    load_backbone(out / "backbone.safetensors")
    assert "report.json: 1 steps of 16 crops" in capsys.readouterr().out


def test_every_organ_can_be_left_out():
    assert set(ORGANS) == set(DOMAIN_OF)


def test_a_folder_without_data_is_refused(tmp_path, capsys):
    assert main(["train", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("E_NO_INPUT: no training data found")


def test_an_organ_that_is_left_out_starts_from_imagenet(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("recipes.tiny.start.IMAGENET_PACKAGE", "no_such_package_anywhere")
    assert main(["train", str(data), "-o", str(tmp_path / "out"), "--leave-out", "head_ct"]) == 2
    assert capsys.readouterr().err.startswith("E_EXTRA: the ImageNet weights are not installed")


def test_trainings_side_by_side_get_folders(data, tmp_path, write_photo, capsys):
    write_photo("data/busi/normal/normal (1).png", np.full((48, 64), 100))
    out = tmp_path / "out"
    command = ["train", str(data), "-o", str(out), "--crops", "8", "--set", "batch=4", "--init", "bundle"]
    assert main([*command, "--seed", "4", "5", "--also-leave-out", "colonoscopy"]) == 0
    plans = {file.parent.name: json.loads(file.read_text())["plan"] for file in out.glob("*/report.json")}
    assert set(plans) == {"seed4", "seed5", "without_colonoscopy"}
    assert {plan["batch"] for plan in plans.values()} == {4}
    assert (plans["seed5"]["seed"], plans["without_colonoscopy"]["leave_out"]) == (5, "colonoscopy")
    assert "seed5/report.json: 2 steps of 4 crops" in capsys.readouterr().out


def test_a_number_that_no_plan_has_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path), "-o", str(tmp_path), "--set", "colour=3"])
    assert "'colour' is none of batch, encoder_rate" in capsys.readouterr().err


def test_a_number_that_is_none_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", str(tmp_path), "-o", str(tmp_path), "--set", "batch=many"])
    assert "argument --set: 'many' is no int" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train-embedded", "average-backbones"])
def test_the_installed_command_knows_nothing_of_it(name, capsys):
    with pytest.raises(SystemExit):
        cli.main([name, "x", "-o", "y"])
    assert "invalid choice" in capsys.readouterr().err
