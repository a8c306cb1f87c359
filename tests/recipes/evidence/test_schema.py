"""The file of measured numbers: what is written is read back, part by part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.outputs.report.content import Measure
from recipes.evidence import Evidence, Measurement, Part, evidence_file, read_evidence, update


def test_what_is_written_is_read_back(tmp_path: Path, part: Part) -> None:
    file = tmp_path / "docs" / "evidence.json"
    update(file, "one", part)
    assert read_evidence(file) == Evidence({"one": part})
    assert Evidence.from_json(json.loads(Evidence({"one": part}).to_text())).parts["one"] == part


def test_a_part_takes_the_place_of_its_own_and_leaves_others(tmp_path: Path, part: Part) -> None:
    file = tmp_path / "evidence.json"
    update(file, "one", part)
    update(file, "other", part)
    later = replace(part, head=replace(part.head, date="2026-12-01"))
    update(file, "one", later)
    assert read_evidence(file).parts == {"one": later, "other": part}


def test_a_number_has_a_line_and_five_decimals(tmp_path: Path, part: Part) -> None:
    update(
        tmp_path / "e.json",
        "one",
        replace(
            part,
            measurements=(
                Measurement("lgg", "dice", "shipped", Measure(0.1234567, classes_low=0.1, classes_high=0.2)),
            ),
        ),
    )
    lines = [line.strip() for line in (tmp_path / "e.json").read_text().splitlines()]
    number = '"value": 0.12346, "classes_low": 0.1, "classes_high": 0.2'
    assert f'{{"set": "lgg", "measure": "dice", "variant": "shipped", {number}}}' in lines
    assert '"thresholds": [0.5],' in lines


def test_a_number_is_found_by_its_key(part: Part) -> None:
    assert part.value("lgg", "dice", "shipped") == 0.628
    assert part.find("lgg", "dice", "seeds") is None
    with pytest.raises(KeyError, match="no measurement of lgg, dice, seeds"):
        part.value("lgg", "dice", "seeds")
    with pytest.raises(KeyError, match="evidence has no part organs, it has one"):
        Evidence({"one": part}).part("organs")


def test_a_key_is_there_once_and_has_titles(part: Part) -> None:
    with pytest.raises(ValueError, match="lgg, dice, shipped is there twice"):
        replace(part, measurements=part.measurements * 2)
    with pytest.raises(ValueError, match="lgg, dice, shipped: set or measure has no title"):
        replace(part, measures={})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "no evidence"),
        ('{"schema": "anomalyclip-evidence/0", "parts": {}}', "its schema is anomalyclip-evidence/0"),
        ('{"schema": "anomalyclip-evidence/1", "parts": {"a": {}}}', "parts/a/head is missing"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "evidence.json").write_text(content)
    with pytest.raises(UsageError, match=said) as refused:
        read_evidence(tmp_path / "evidence.json")
    assert refused.value.code == "E_REPORT"


def test_without_a_file_nothing_was_measured(tmp_path: Path) -> None:
    assert read_evidence(tmp_path / "evidence.json") == Evidence()


def test_the_shipped_file_is_as_it_would_be_written() -> None:
    file = evidence_file(resources.bundle_root("tiny"))
    assert read_evidence(file).to_text() == file.read_text(encoding="utf-8")
