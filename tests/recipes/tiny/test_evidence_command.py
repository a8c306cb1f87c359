"""``python -m recipes.tiny evidence``: reports in, a part of the bundle's file out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_report import made_measure, made_report

from anomalyclip_monai import resources
from anomalyclip_monai.weights.bundle import fingerprint
from recipes.evidence import evidence_file, read_evidence
from recipes.evidence.parts import ORGAN_MEASURES
from recipes.tiny.commands import main


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with weights that nobody reads."""
    root = tmp_path / "anomalyclip_small"
    shutil.copytree(resources.bundle_root("tiny") / "configs", root / "configs")
    (root / "models" / "320").mkdir(parents=True)
    for name in ("backbone.safetensors", "model.pt", "320/image_encoder.safetensors"):
        (root / "models" / name).write_text(name)
    return root


def write_report(path: Path, model: dict[str, str], value: float = 0.75) -> str:
    """A report of one set, `liver_us`."""
    measures = {name: made_measure(value) for name in ORGAN_MEASURES}
    method: dict[str, Any] = {"title": "", "seeds": [], "measures": measures, "by_subset": {"untrained": measures}}
    method["by_category"] = {"liver_us": measures}
    content = made_report() | {"dataset": "organs", "failed": [], "model": model}
    content |= {
        "methods": {"anomalyclip": method, "body": method},
        "measure_titles": dict.fromkeys(ORGAN_MEASURES, "m"),
    }
    content["subsets"] = [{"name": "untrained", "title": "1 of 1 sets", "categories": ["liver_us"]}]
    path.write_text(json.dumps(content))
    return str(path)


def test_a_report_becomes_a_part(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = write_report(tmp_path / "both.json", fingerprint(bundle))
    first = write_report(tmp_path / "first.json", fingerprint(bundle, fast=True), 0.5)
    assert main(["evidence", both, "--bundle", str(bundle) + "/"]) == 0
    assert main(["evidence", first, "--bundle", str(bundle) + "/", "--part", "organs_fast"]) == 0
    parts = read_evidence(evidence_file(bundle)).parts
    values = {name: part.value("liver_us", "pointing", "shipped") for name, part in parts.items()}
    assert values == {"organs": 0.75, "organs_fast": 0.5}
    assert capsys.readouterr().out.startswith("organs: 30 numbers in ")


@pytest.mark.parametrize("part", ["organs", "organs_fast"])
def test_a_report_of_other_weights_is_refused(
    bundle: Path, tmp_path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_report(tmp_path / "other.json", fingerprint(bundle, fast=part == "organs"))
    assert main(["evidence", other, "--bundle", str(bundle) + "/", "--part", part]) == 2
    assert capsys.readouterr().err.startswith("E_REPORT: the report is not of ")
    assert not evidence_file(bundle).exists()


def test_trainings_without_organs_become_a_part(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = [write_report(tmp_path / f"{seed}.json", {"weights_sha256": seed}, float(seed)) for seed in "01"]
    command = ["evidence", "--bundle", str(bundle) + "/", "--part", "held_out_organs"]
    assert main([*command, *(f"liver={report}" for report in reports)]) == 0
    part = read_evidence(evidence_file(bundle)).part("held_out_organs")
    assert part.value("liver_us", "pointing", "seeds") == 0.5
    assert part.head.weights == {
        "without liver, seed 0, weights_sha256": "0",
        "without liver, seed 1, weights_sha256": "1",
    }
    assert main([*command, *reports]) == 2
    assert capsys.readouterr().err.endswith("does not say which organs - give ORGAN,ORGAN=REPORT\n")
