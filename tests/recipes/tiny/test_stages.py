import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.weights import load_backbone, read_state_dict
from anomalyclip_monai.weights.bundle import backbone_file
from recipes.tiny.commands import main
from recipes.tiny.commands.reproduce import unlike_the_record
from recipes.tiny.sources import fingerprint, read_subjects
from recipes.tiny.stages import FIRST, SECOND, Mean, Stage, reproduce, write_mean
from recipes.tiny.training import Plan

POSITIONS = "visual.positional_embedding"


@pytest.fixture
def data(tmp_path, write_photo):
    rng = np.random.default_rng(0)
    for index in range(3):
        write_photo(f"data/kvasir_256/images/{index}.jpg", rng.integers(60, 200, (48, 64, 3)))
        write_photo(f"data/kvasir_256/masks/{index}.png", np.pad(np.full((20, 30), 255), ((10, 18), (20, 14))))
    return tmp_path / "data"


def recorded(name):
    record = resources.bundle_root("tiny") / "models" / name / "training.json"
    return json.loads(record.read_text())["stages"]


@pytest.mark.parametrize(
    ("steps", "folder", "unrecorded"),
    [(FIRST, "", ["first"]), (SECOND, "320", [])],  # of the very first training only a sentence is left
)
def test_stages_are_those_of_the_record(steps, folder, unrecorded):
    stages = [step for step in steps if isinstance(step, Stage) and step.name not in unrecorded]
    there = [stage for stage in recorded(folder) if "crops" in stage]
    assert [stage.crops for stage in stages] == [stage["crops"] for stage in there]
    for stage, record in zip(stages, there, strict=True):
        if "plan" not in record:
            continue
        plan = Plan.starting_from(stage.start, seed=stage.seed, crops=stage.crops, **stage.settings)
        of_the_run = ("init", "model", "crops", "minutes", "threads")  # where it ran and how its length was given
        for key, value in record["plan"].items():
            if key not in of_the_run:
                assert getattr(plan, key) == value, (stage.name, key)
        assert (stage.start == "imagenet") == (record["init_sha256"] is None)


@pytest.mark.parametrize("steps", [FIRST, SECOND])
def test_every_step_has_what_it_starts_from(steps):
    known = {"imagenet"}
    for step in steps:
        assert known.issuperset(step.of if isinstance(step, Mean) else [step.start])
        assert step.name not in known
        known.add(step.name)
    assert isinstance(steps[-1], Mean)


def test_a_mean_of_trainings_on_other_squares_has_the_grid_of_its_own(tmp_path):
    state = read_state_dict(backbone_file(resources.bundle_root("tiny")))
    count, width = 1 + 24 * 24, state[POSITIONS].shape[1]
    save_file({**state, POSITIONS: torch.full((count, width), 3.0)}, tmp_path / "small.safetensors")
    save_file({**state, POSITIONS: torch.full((1 + 32 * 32, width), 5.0)}, tmp_path / "large.safetensors")
    files = {name: tmp_path / f"{name}.safetensors" for name in ("small", "large")}
    mean = write_mean(Mean("mean", ("small", "large")), files, tmp_path / "mean.safetensors")
    positions = read_state_dict(mean)[POSITIONS]
    assert positions.shape == (1025, width)
    assert positions.unique().tolist() == [4.0]
    side = write_mean(Mean("side", ("large",), image_side=True), files, tmp_path / "side.safetensors")
    assert all(key.startswith("visual.") for key in read_state_dict(side))


def test_steps_run_one_after_the_other_and_once(data, tmp_path, write_photo):
    out, subjects, told = tmp_path / "out", read_subjects(data), []
    steps = (
        Stage("a", "bundle", seed=3, crops=4, image_size=64, settings={"batch": 4}),
        Stage("b", "a", seed=4, crops=4, image_size=96, settings={"batch": 4}),
        Mean("both", ("a", "b"), image_size=96),
        Stage("c", "both", seed=5, crops=4, image_size=96, settings={"batch": 4}),
    )

    def run(steps):
        def log(name):
            return lambda line: told.append(name)

        return reproduce(steps, data, subjects, out, device=torch.device("cpu"), workers=0, log=log)

    assert run(steps) == out / "c" / "backbone.safetensors"
    load_backbone(out / "a" / "backbone.safetensors")
    reports = {name: json.loads((out / name / "report.json").read_text()) for name in "abc"}
    assert reports["b"]["plan"]["init"] == str(out / "a" / "backbone.safetensors")
    assert reports["b"]["init_sha256"] == reports["a"]["weights_sha256"]
    assert reports["c"]["init_sha256"] == resources.sha256(out / "both.safetensors")
    assert len(read_state_dict(out / "both.safetensors")[POSITIONS]) == 1 + 12 * 12

    times = {file: file.stat().st_mtime_ns for file in out.glob("*/backbone.safetensors")}
    told.clear()
    run(steps)
    assert told == []
    assert {file: file.stat().st_mtime_ns for file in times} == times

    with pytest.raises(UsageError, match="E_RESUME: a run with another seed is there"):
        run([Stage("a", "bundle", seed=9, crops=4, image_size=64, settings={"batch": 4})])


def test_sets_that_the_shipped_weights_did_not_see_are_named(data):
    known = json.loads((resources.bundle_root("tiny") / "models" / "training.json").read_text())["data_sha256"]
    assert unlike_the_record(known) == []
    assert unlike_the_record({**known, "busi": "0" * 64}) == ["busi"]
    assert unlike_the_record(fingerprint(data)) == list(known)


def test_a_folder_without_data_is_one_line(tmp_path, capsys):
    assert main(["reproduce", str(tmp_path), "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("E_NO_INPUT: no training data found")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_learns_from_and_what_it_wrote(data, tmp_path, monkeypatch, capsys):
    steps = (Stage("a", "bundle", seed=3, crops=4, image_size=64, settings={"batch": 4}), Mean("end", ("a",), 64))
    monkeypatch.setattr("recipes.tiny.stages.NETWORKS", {"first": steps, "second": ()})
    command = ["reproduce", str(data), "-o", str(tmp_path / "out"), "--network", "first", "--workers", "0"]
    assert main([*command, "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("not the files that the shipped weights learned from: ")
    assert "kvasir_256" in lines[0]
    assert lines[-1] == f"first network: {tmp_path / 'out' / 'end.safetensors'}"
    assert len(read_state_dict(tmp_path / "out" / "end.safetensors")[POSITIONS]) == 1 + 8 * 8
