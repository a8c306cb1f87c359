"""Texts that are made from the evidence: a number changed by hand is noticed, a number that is missing as well."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from anomalyclip_monai import resources
from anomalyclip_monai.outputs.report.content import Measure, Report
from recipes.evidence import Evidence, evidence_file, read_evidence
from recipes.evidence.pages import REGIONS, Source, filled
from recipes.evidence.parts import Provenance, held_out_part, organs_part
from recipes.evidence.presets import preset_lines, published_lines
from recipes.evidence.texts import cell, cell_over_sets, listed, table

ROOT = Path(__file__).parents[3]
FROM = Provenance("2026-11-30", "0123456789ab", "0.2.0")


@pytest.fixture
def shipped() -> Source:
    """What the repository says of the embedded model."""
    root = resources.bundle_root("tiny")
    return Source(root, read_evidence(evidence_file(root)))


@pytest.fixture
def made(make_organs: Any) -> Source:
    """Organs alone, of weights that no bundle has."""
    part = organs_part(Report.from_json(make_organs()), FROM)
    return Source(resources.bundle_root("tiny"), Evidence({"organs": part, "organs_fast": part}))


def test_a_number_changed_by_hand_fails_the_check(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    generate = runpy.run_path(str(ROOT / "tools" / "generate.py"), run_name="generate")
    page = tmp_path / "README.md"
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| 20 sets | this model | "))
    value = row.split("|")[3].split()[0]
    for content, stale in ((text, []), (text.replace(row, row.replace(value, "99.9", 1)), [page])):
        page.write_text(content, encoding="utf-8")
        monkeypatch.setitem(generate["generated"].__globals__, "pages", lambda: [page])
        found = [path for path, wanted in generate["generated"]() if path.read_text(encoding="utf-8") != wanted]
        assert found == stale


@pytest.mark.parametrize("region", REGIONS)
def test_every_number_that_a_region_shows_is_there(region: str, shipped: Source) -> None:
    assert any(REGIONS[region](shipped))


@pytest.mark.parametrize("fast", [False, True])
def test_every_preset_has_a_line(fast: bool, shipped: Source) -> None:
    assert set(preset_lines(shipped.evidence, fast=fast)) == set(published_lines()) == set(resources.presets())
    assert all(preset_lines(shipped.evidence, fast=fast).values())


def test_lines_of_presets_show_the_numbers_of_their_networks(shipped: Source) -> None:
    dice = {name: shipped.evidence.part(name).value("lgg", "dice", "shipped") for name in ("embedded", "embedded_fast")}
    for (_, value), fast in zip(dice.items(), (False, True), strict=True):
        assert f"Dice {100 * value:.1f}" in preset_lines(shipped.evidence, fast=fast)["mr_brain"]
    assert published_lines()["ct_head"] == (
        "not measured here; the paper reports image AUROC 93.4 on photos of CT slices (HeadCT), "
        "prompts trained on MVTec AD"
    )


def test_a_missing_number_is_named(shipped: Source) -> None:
    without = Evidence({name: part for name, part in shipped.evidence.parts.items() if name != "organs"})
    with pytest.raises(KeyError, match="evidence has no part organs"):
        filled("<!-- evidence: organs_short -->\n<!-- end -->", replace(shipped, evidence=without))
    part = shipped.evidence.part("embedded")
    less = replace(part, measurements=tuple(one for one in part.measurements if one.set != "busi"))
    with pytest.raises(KeyError, match="no measurement of busi, pointing, shipped"):
        preset_lines(Evidence({**shipped.evidence.parts, "embedded": less}))


def test_a_page_keeps_what_is_not_between_the_comments(made: Source) -> None:
    page = "before\n<!-- evidence: {} -->\nold\n<!-- end -->\nafter\n<!-- end -->\n"
    written = filled(page.format("organs_short"), made)
    assert written.startswith("before\n<!-- evidence: organs_short -->\n\n|")
    assert written.endswith("\n\n<!-- end -->\nafter\n<!-- end -->\n")
    assert "old" not in written
    assert filled(written, made) == written
    with pytest.raises(ValueError, match="no region organ, there are"):
        filled(page.format("organ"), made)
    with pytest.raises(ValueError, match="1 of the page's regions have no name or no"):
        filled("<!-- evidence: organs -->\n" + page.format("organs"), made)


def test_the_verdict_follows_from_the_numbers(made: Source) -> None:
    lines = REGIONS["organs_short"](made)
    assert "| 3 sets | this model | 66.7 |" in lines[2]
    assert lines[4].startswith("| 2 of 3 sets | this model | 55.0 (45.0, 65.0) |")
    assert (
        "Over 3 sets the model is surely above the centre of the body in pixel AUROC, lit field, AP, PRO and pointing."
        in lines[-1]
    )
    assert lines[-1].endswith(
        "Over 2 of 3 sets the model is surely above the centre of the body in pixel AUROC, lit field and PRO; "
        "above it by no more than chance explains in pointing; **not above it in AP**."
    )


def test_numbers_of_other_weights_are_called_so(made: Source) -> None:
    assert made.origin("organs") == (
        "Measured 2026-11-30; version 0.2.0, commit 0123456789ab; weights cdcdcdcd, "
        "**not those that are shipped now**; masks at 0.55; 95 % intervals of 1000 draws with seed 0."
    )
    head = replace(made.evidence.part("organs").head, origin="transcribed", weights={}, repeats=0, commit="")
    bare = replace(made.evidence.part("organs"), head=head)
    assert replace(made, evidence=Evidence({"organs": bare})).origin("organs") == (
        "Taken from the tables of 2026-11-30, not measured again; version 0.2.0; masks at 0.55."
    )


def test_held_out_organs_are_shown_once_they_are_measured(made: Source, make_organs: Any) -> None:
    assert REGIONS["held_out_organs"](made) == ["Not measured for these weights."]
    reports = [Report.from_json(make_organs(brain=value)) for value in (0.7, 0.8)]
    part = held_out_part({"brain": reports}, FROM)
    lines = REGIONS["held_out_organs"](replace(made, evidence=Evidence({"held_out_organs": part})))
    assert [line.split(" | ")[:3] for line in lines[6:10]] == [
        ["| brain MR (1)", "mean of seeds", "75.0"],
        ["| ", "seed 0", "70.0 [60.0, 80.0]"],
        ["| ", "seed 1", "80.0 [70.0, 90.0]"],
        ["| ", "centre of the body", "55.0 [45.0, 65.0]"],
    ]


def test_organs_that_no_network_was_trained_on_have_a_sentence(made: Source, make_organs: Any) -> None:
    reports = {name: [Report.from_json(make_organs(kidney=0.7, liver=0.8))] for name in ("brain", "kidney,liver")}
    part = held_out_part(reports, FROM, untrained=["kidney_ct", "liver_us"])
    line = REGIONS["held_out_organs"](replace(made, evidence=Evidence({"held_out_organs": part})))[-1]
    assert "Over 3 sets the model is surely above the centre of the body in " in line
    assert "Over 2 of 3 sets whose organ was not trained the model is surely above the centre of the body in " in line


def test_texts() -> None:
    found = Measure(0.8244, 0.8, 0.85, classes_low=0.7, classes_high=0.9)
    assert cell("dice", found) == "82.4 [80.0, 85.0] (70.0, 90.0)"
    assert cell_over_sets("dice", found) == "82.4 (70.0, 90.0)"
    assert cell("normal_false_ml", Measure(4.26)) == "4.3"
    assert cell("dice", None) == cell("dice", Measure(undefined="no lesion")) == ""
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert table(["a", "b"], [["1", ""], ["2", ""]]) == ["| a |", "| --- |", "| 1 |", "| 2 |"]
