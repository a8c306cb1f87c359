"""The evaluation that a bundle defines: by the command, by MONAI's, by several processes, after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalyclip_monai import resources
from anomalyclip_monai.cli import main
from anomalyclip_monai.engines.evaluation import bundle_evaluator, trained_organs
from anomalyclip_monai.weights.choice import choose_model


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight noisy pictures in the layout of a user's folder, every second one with a bright disc."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:100, :110]
    for index in range(8):
        disc = (rows - 25 - 4 * index) ** 2 + (columns - 50) ** 2 < 200
        grey = random.normal(90, 20, rows.shape) + 90 * disc * (index % 2)
        kind = "abnormal" if index % 2 else "normal"
        for name, pixels in ((kind, grey.clip(0, 255)), ("masks", disc * 255)):
            if name != "masks" or index % 2:
                (folder / name).mkdir(exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:02}.png")
    return folder


@pytest.fixture(scope="module")
def by_command(photos, tmp_path_factory) -> dict[str, Any]:
    """The report of an uninterrupted run."""
    out = tmp_path_factory.mktemp("command")
    assert main(arguments(photos, out)) == 0
    return report(out)


def arguments(photos: Path, out: Path) -> list[str]:
    options = ["--device", "cpu", "--bootstrap", "40", "--quiet"]
    return ["evaluate", "folder", str(photos), "-o", str(out), *options]


def report(out: Path) -> dict[str, Any]:
    """What must be the same whoever runs it."""
    content = json.loads((out / "folder" / "report.json").read_text())
    content.pop("seconds")
    for sample in content["samples"]["list"]:
        sample.pop("seconds")
    return content


def assert_same(found: Any, expected: Any, place: str = "report") -> None:
    """Equal, numbers but for rounding: the sum over a matrix depends on the number of threads."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
    if isinstance(expected, (dict, list)):
        assert len(found) == len(expected), place
        for key, value in expected.items() if isinstance(expected, dict) else enumerate(expected):
            assert_same(found[key], value, f"{place}/{key}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, abs=1e-4), place
    else:
        assert found == expected, place


def bundle_arguments(bundle: Path, photos: Path, out: Path, *overlays: str) -> list[str]:
    files = [str(bundle / "configs" / f"{name}.json") for name in ("inference", *overlays, "evaluate")]
    values = {"bundle_root": bundle, "dataset_name": "folder", "dataset_dir": photos, "output_dir": out}
    places = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    return ["run", "--config_file", str(files), *places, "--bootstrap", "40", "--device", "cpu"]


def test_a_killed_command_is_finished_by_monai_with_the_same_report(bundle, photos, by_command, monai_bundle, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "anomalyclip_monai.cli", *arguments(photos, out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list(out.glob("folder/work/*.npz"))) < 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kept = len(list(out.glob("folder/work/*.npz")))
    assert 3 <= kept < 8
    assert not (out / "folder" / "report.json").exists()
    done = monai_bundle(*bundle_arguments(bundle, photos, out), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(report(out), by_command)


def test_two_processes_give_the_same_report(bundle, photos, by_command, monai_bundle, tmp_path):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
    call = bundle_arguments(bundle, photos, tmp_path / "out", "multi_gpu")
    done = monai_bundle(*call, cwd=tmp_path, launcher=launcher)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(report(tmp_path / "out"), by_command)


def test_the_metrics_of_monai_are_in_the_state_of_the_evaluator(photos, by_command, tmp_path):
    places = {"dataset_name": "folder", "dataset_dir": str(photos), "output_dir": str(tmp_path)}
    evaluator = bundle_evaluator(choose_model("tiny"), {**places, "device": "cpu", "bootstrap": 0})
    evaluator.run()
    found, measures = evaluator.state.metrics, by_command["methods"]["anomalyclip"]["measures"]
    for group, names in (("images", ("image_auroc", "image_ap")), ("pixels", ("pixel_auroc", "pixel_dice_max"))):
        for name in names:
            assert found[group][name] == pytest.approx(measures[name]["value"], abs=1e-4), name
            assert found[name] == pytest.approx(measures[name]["value"], abs=1e-4), name
    assert found["mask_dice"] == pytest.approx(measures["dice"]["value"], abs=1e-4)
    assert evaluator.state.metric_details["mask_dice"].shape == (8, 1)


def test_the_table_has_baselines_protocol_and_place(photos, tmp_path, capsys):
    assert main([*arguments(photos, tmp_path)[:-1], "--limit", "4", "--methods", "anomalyclip", "brightness"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Folder - A PART: 4 of the 8 images that are there"
    assert lines[1].split("  ")[0] == "measure"
    assert "brightness" in lines[1]
    assert any(line.startswith("pixel AUROC ") for line in lines)
    assert "protocol native-pro-exact; 4 cases (2 normal, 2 abnormal)" in lines[-1]
    assert lines[-1].endswith(str(tmp_path / "folder" / "report.html"))


def test_a_failed_picture_ends_with_code_1(photos, tmp_path, capsys):
    broken = tmp_path / "photos"
    for kind in ("normal", "abnormal", "masks"):
        (broken / kind).mkdir(parents=True)
        for path in sorted((photos / kind).iterdir())[:2]:
            (broken / kind / path.name).write_bytes(path.read_bytes())
    (broken / "normal" / "00.png").write_bytes(b"no picture")
    assert main(arguments(broken, tmp_path / "out")) == 1
    content = report(tmp_path / "out")
    assert [item["name"] for item in content["failed"]] == ["normal/00"]
    assert content["samples"]["count"] == 3


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], "E_USAGE"),
        (["colondb", ".", "--all", "."], "E_USAGE"),
        (["no_such_set", "."], "E_DATASET"),
        (["colondb", "nowhere"], "E_NOT_FOUND"),
        (["--all", "nowhere"], "E_NOT_FOUND"),
    ],
)
def test_what_cannot_start_ends_with_code_2_and_one_line(words, code, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *words, "-o", str(tmp_path / "out"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{code}: ")
    assert error.count("\n") == 1


def test_all_sets_below_a_folder_become_one_table(photos, tmp_path, capsys):
    root = tmp_path / "root"
    for kind, name in (("images", "Endo"), ("masks", "Endo")):
        (root / name / kind).mkdir(parents=True)
        for path in sorted((photos / "masks").iterdir())[:2]:
            source = photos / ("abnormal" if kind == "images" else "masks") / path.name
            (root / name / kind / path.name).write_bytes(source.read_bytes())
    options = ["--device", "cpu", "--bootstrap", "0", "--protocol", "native"]
    assert main(["evaluate", "--all", str(root), "-o", str(tmp_path / "out"), *options]) == 0
    assert "| published AnomalyCLIP |" in capsys.readouterr().out
    assert (tmp_path / "out" / "index.html").exists()
    assert (tmp_path / "out" / "endo" / "report.json").exists()


SETS = {
    **dict.fromkeys(("brain_tumour_mr_brisc", "brain_tumour_mr_figshare"), "brain"),
    **dict.fromkeys(("stroke_ct_aisd", "stroke_ct_cpaisd", "stroke_ct_rt"), "stroke_ct"),
    **dict.fromkeys(("breast_dce_mr", "breast_us_busbra"), "breast"),
    **{"bone_ct": "bone", "fundus_exudates": "fundus", "lung_tumour_ct": "lung", "lymph_node_histology": "lymph_node"},
    **{"polyp_etis": "polyp", "prostate_mr": "prostate", "skin_ham10000": "skin"},
    **dict.fromkeys(("kidney_stone_ct", "kidney_tumour_ct", "liver_us", "nasopharynx_mr", "ovary_us", "pancreas_mr")),
}
"""20 sets of lesions -> the trained organ that they are relatives of."""


def test_the_bundles_say_which_organs_they_have_trained():
    tiny, published = (trained_organs(resources.bundle_root(name)) for name in ("tiny", "vitl14_336"))
    assert {name: tiny.relatives(name) for name in SETS} == {
        name: [organ] if organ else [] for name, organ in SETS.items()
    }
    assert len(tiny.subset(SETS).categories) == 6
    assert published.subset(SETS).categories == tuple(SETS)


def test_organs_by_command(photos, tmp_path, capsys):
    """Two sets of the same pictures, one under the name of an organ that the bundle has trained."""
    rows = ["image,mask,label,group,category,split"]
    for category in ("brain_mr", "liver"):
        for index in range(4):
            kind = "abnormal" if index % 2 else "normal"
            (tmp_path / category).mkdir(exist_ok=True)
            (tmp_path / category / f"{index}.png").symlink_to(photos / kind / f"{index:02}.png")
            mask = photos / "masks" / f"{index:02}.png" if index % 2 else ""
            rows.append(f"{category}/{index}.png,{mask},{kind},,{category},test")
    (tmp_path / "organs.csv").write_text("\n".join(rows) + "\n")
    options = ["--device", "cpu", "--bootstrap", "20", "--fast", "--no-mirror"]
    assert main(["evaluate", "organs", str(tmp_path), "-o", str(tmp_path / "out"), *options]) == 0
    printed = capsys.readouterr().out
    assert "protocol organs-256; 8 cases (4 normal, 4 abnormal) in 8 groups" in printed
    for line in ("set ", "brain_mr ", "mean of 2: AnomalyCLIP tiny ", "mean of 1: centre of the body "):
        assert f"\n{line}" in printed
    assert "Mean of 1: 1 of 2 sets whose organ was not trained (liver)." in printed
    assert "sets with a relative in the training: brain_mr (brain)" in printed
    content = json.loads((tmp_path / "out" / "organs" / "report.json").read_text())
    sets = content["methods"]["anomalyclip"]["by_category"]
    assert sets["brain_mr"]["pixel_auroc"]["value"] == sets["liver"]["pixel_auroc"]["value"]
    assert "| set | pixel AUROC |" in (tmp_path / "out" / "organs" / "table.md").read_text()
