"""The table of the recipe's ``benchmarks/embedded.py``: which number stands where, from reports that are made up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_report import made_report
from PIL import Image

from anomalyclip_monai import resources
from anomalyclip_monai.weights.bundle import fingerprint, other_encoders
from recipes.evidence import MeasuredOn, read_evidence
from recipes.tiny.benchmarks import embedded


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """HeadCT and BUSI with pictures of noise."""
    random = np.random.default_rng(0)
    for name in ("headct/good/0", "headct/hemorrhage/1", "busi/normal/0", "busi/benign/1"):
        path = tmp_path / "dev" / f"{name}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(random.integers(0, 255, (48, 40), np.uint8)).save(path)
    mask = np.zeros((48, 40), np.uint8)
    mask[10:20, 10:20] = 255
    Image.fromarray(mask).save(tmp_path / "dev" / "busi" / "benign" / "1_mask.png")
    return tmp_path / "dev"


def make_run(folder: Path, values: Mapping[int, str], leave_out: str | None = None) -> Path:
    """A training whose files hold the number that the made-up evaluation finds."""
    folder.mkdir()
    for step, value in values.items():
        (folder / f"checkpoint_{step:06d}.safetensors").write_text(value)
    (folder / "backbone.safetensors").write_text("0.9")
    (folder / "report.json").write_text(json.dumps({"plan": {"leave_out": leave_out}}))
    return folder


def made_up(seen: list[tuple[str, str]]) -> Any:
    def evaluate(part: Any, choice: Any, out: Path, options: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        files = [choice.root / "models" / "backbone.safetensors"]
        if not choice.fast:
            files += other_encoders(choice.root)[:1]  # the third network stays that of the bundle
        contents = [file.read_text() for file in files]
        value, interval = (
            sum(map(float, contents)),
            {"low": 0.7, "high": 0.95} if options["bootstrap"] else {"low": None},
        )
        seen.append((part.name, " + ".join(contents)))
        measures = {name: {"value": value, **interval} for name in ("image_auroc", "pointing")}
        baselines = {"brightness": 0.6, "centre": 0.5} if "methods" not in options else {}
        return {
            "methods": {
                "anomalyclip": {"measures": measures, "by_category": {}},
                **{name: {"measures": {"image_auroc": {"value": found}}} for name, found in baselines.items()},
            },
            "measure_titles": {"image_auroc": "image AUROC"},
            "published": {"image_auroc": 0.934} if part.name == "headct" else {},
            "protocol": {"id": "paper"},
            "samples": {"count": 4, "groups": 2},
            "note": "",
            "warnings": [],
            "failed": [],
        }, 1.0

    return evaluate


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What was measured, in turn: set and content of its weights; the evaluation is made up."""
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(embedded, "evaluate", made_up(found))
    return found


def test_seeds_are_means_of_their_last_checkpoints(
    data: Path,
    tmp_path: Path,
    seen: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = make_run(tmp_path / "first", {900: "0.1", 1000: "0.6", 1100: "0.8", 10000: "0.85"})  # by number, not name
    second = make_run(tmp_path / "second", {1: "0.5", 2: "0.5", 3: "0.5"})
    without = make_run(tmp_path / "without", {1: "0.3", 2: "0.4", 3: "0.2"}, "head_ct")
    arguments = [str(data), "-o", str(tmp_path / "out"), "--fast", "--model", str(first), str(second)]
    assert embedded.main([*arguments, "--left-out", f"head_ct={without}"]) == 0
    printed = capsys.readouterr().out
    cells = [cell.strip() for cell in printed.splitlines()[2].split("|")[1:-1]]
    assert cells == [
        *("HeadCT", "image AUROC", "4 in 2 groups", ".600", ".934"),
        *(".750", ".500", ".625", ".900 [.700, .950]", ".300"),
    ]
    assert printed == (tmp_path / "out" / "table.md").read_text()
    rows = {
        (row["set"], row["measure"]): row for row in json.loads((tmp_path / "out" / "table.json").read_text())["rows"]
    }
    assert list(rows) == [("headct", "image_auroc"), ("busi", "pointing"), ("busi", "image_auroc")]
    assert rows["headct", "image_auroc"]["seeds"]["first"]["checkpoints"] == {
        "checkpoint_001000": 0.6,
        "checkpoint_001100": 0.8,
        "checkpoint_010000": 0.85,
    }
    assert rows["busi", "pointing"]["left_out"] is None
    assert len(seen) == len(set(seen))  # three equal checkpoints are measured once
    assert ("busi", "0.3") not in seen


def test_checkpoints_of_both_networks_run_in_step(
    data: Path,
    tmp_path: Path,
    seen: list[tuple[str, str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = make_run(tmp_path / "one", {1: "0.1", 2: "0.2", 3: "0.3"})
    other = make_run(tmp_path / "other", {10: "0.01", 20: "0.02", 30: "0.03"})
    without = make_run(tmp_path / "without", {3: "0.5"}, "head_ct")
    arguments = [str(data), "-o", str(tmp_path / "out"), "--model", str(one)]
    assert embedded.main([*arguments, "--beside", str(other), "--left-out", f"head_ct={without}"]) == 0
    table = capsys.readouterr().out
    assert "one + other" in table.splitlines()[0]
    assert [text for name, text in seen if name == "headct"] == [
        *("0.9 + 0.9", "0.1 + 0.01", "0.2 + 0.02", "0.3 + 0.03", "0.5"),
    ]
    assert embedded.main([*arguments, "--beside", str(without)]) == 2  # without an organ
    less = make_run(tmp_path / "less", {30: "0.03"})
    assert embedded.main([*arguments, "--beside", str(less)]) == 2
    assert "1 checkpoints stand beside 3" in capsys.readouterr().err
    assert embedded.main([*arguments, "--beside", str(other), "--fast"]) == 2


def test_a_run_without_another_organ_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", {1: "0.3"}, "ultrasound")
    arguments = [str(data), "-o", str(tmp_path / "out")]
    assert embedded.main([*arguments, "--left-out", f"head_ct={run}"]) == 2
    assert "trained without ultrasound, not without head_ct" in capsys.readouterr().err
    assert embedded.main([*arguments, "--model", str(run)]) == 2
    assert capsys.readouterr().err.startswith("E_RUN: it was trained without ultrasound, not without nothing")


def test_rows_become_evidence_of_the_shipped_weights() -> None:
    row = {"set": "headct", "title": "HeadCT", "measure": "image_auroc", "measure_title": "image AUROC", "case": ""}
    row |= {"samples": 30, "groups": 29, "protocol": "paper", "best_baseline": 0.7, "mean_over_seeds": 0.85}
    row |= {"seeds": {"run a": {"mean": 0.8}, "run b": {"mean": 0.9}}}
    row |= {"final": {"value": 0.1}, "shipped": {"value": 0.95, "low": 0.9, "high": 1.0}}
    heads = row | {"set": "normal_volumes", "measure": "normal_false_ml", "case": "one", "best_baseline": None}
    heads |= {"seeds": {}, "mean_over_seeds": None, "shipped": {"value": 0.25}, "samples": 1, "groups": 1}
    part = embedded.evidence_of([row, heads], {"headct": made_report()}, "shipped")
    assert {(one.set, one.measure, one.variant): one.found.value for one in part.measurements} == {
        ("headct", "image_auroc", "trivial"): 0.7,
        ("headct", "image_auroc", "seed 0"): 0.8,
        ("headct", "image_auroc", "seed 1"): 0.9,
        ("headct", "image_auroc", "seeds"): 0.85,
        ("headct", "image_auroc", "shipped"): 0.95,
        ("normal_volumes/one", "normal_false_ml", "shipped"): 0.25,
    }
    found = part.find("headct", "image_auroc", "shipped")
    assert found is not None
    assert (found.low, found.high) == (0.9, 1.0)
    assert part.sets["headct"] == MeasuredOn("HeadCT", 30, 29, "paper")
    assert (part.head.thresholds, part.head.settings) == ((0.5,), {"preset": "auto", "axes": 3})
    assert part.head.weights["weights_sha256"] == "cd" * 32


def test_evidence_of_a_training_is_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evidence = tmp_path / "evidence.json"
    with pytest.raises(SystemExit):
        embedded.main([str(data), "-o", str(tmp_path), "--model", str(tmp_path), "--evidence", str(evidence)])
    assert "--evidence is of the shipped weights: add --shipped" in capsys.readouterr().err
    assert not evidence.exists()


def test_a_missing_value_makes_no_mean() -> None:
    assert embedded.mean([0.5, 1.0]) == 0.75
    assert embedded.mean([0.5, None]) is None
    assert embedded.mean([]) is None


def test_numbers() -> None:
    assert [embedded.number(value, "dice") for value in (0.8014, 1.0, 0.0, None)] == [".801", "1.000", ".000", "-"]
    assert embedded.number(12.34, "normal_false_ml") == "12.3"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_shipped_model_is_measured_once(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(data), "-o", str(tmp_path / "out"), "--bootstrap", "10", "--device", "cpu"]
    arguments += ["--evidence", str(tmp_path / "evidence.json")]
    assert embedded.main(arguments) == 0
    before = capsys.readouterr().out
    found = read_evidence(tmp_path / "evidence.json").part("embedded")
    assert (set(found.sets), found.head.weights) == ({"headct", "busi"}, fingerprint(resources.bundle_root("tiny")))
    assert embedded.main(arguments) == 0
    after = capsys.readouterr()
    assert after.out == before
    assert after.err.count("there already") == 2
