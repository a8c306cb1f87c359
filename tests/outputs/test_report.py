from __future__ import annotations

import base64
import copy
import hashlib
import json
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_report import made_measure, made_report
from PIL import Image

from anomalyclip_monai.exceptions import CaseError, OutputError, UsageError
from anomalyclip_monai.outputs.preview import OUTLINE
from anomalyclip_monai.outputs.report import CaseView, Report, all_sets_table, write_all_sets, write_report
from anomalyclip_monai.outputs.report.cases import (
    PANEL_SIZE,
    ShownCase,
    choose_cases,
    draw_case,
    draw_sheet,
    show_cases,
)
from anomalyclip_monai.outputs.report.content import Difference, Measure, MeasuredSample, read_report
from anomalyclip_monai.outputs.report.curves import MATPLOTLIB_MISSING, chance_precision, curve_points, draw_curves
from anomalyclip_monai.outputs.report.numbers import Footnotes, difference, measured, number, p_value
from anomalyclip_monai.outputs.report.page import report_page
from anomalyclip_monai.outputs.report.pages import RESEARCH_USE
from anomalyclip_monai.outputs.report.tables import category_table, measures_table, report_markdown

EVIL = "<script>alert(1)</script>'\"&|`](javascript:x)\n\u202e\udcff"
ALL_FILES = [
    "report.json",
    "table.md",
    "curves_roc.png",
    "curves_pr.png",
    "curves_pro.png",
    "curves_froc.png",
    "cases.png",
    "report.html",
]


read = Report.from_json


@pytest.fixture
def report() -> dict[str, Any]:
    """Content of a ``report.json``, to be changed by a test."""
    return made_report()


def _view(name: str = "", *, height: int = 20, width: int = 30, note: str = "") -> CaseView:
    truth = np.zeros((height, width), bool)
    truth[5:10, 5:15] = True
    heat = np.where(truth, 0.9, 0.0)
    return CaseView(np.full((height, width), 0.5), heat, truth, heat >= 0.5, note=note)


class _Page(HTMLParser):
    """What a browser would make of a page: every tag with its attributes, and the text of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


# --- content


def test_what_is_read_is_written_again_key_by_key(report: dict[str, Any]) -> None:
    report["comparison"] = {
        "with": "other",
        "model": {"bundle": "b"},
        "measures": {"dice": {"difference": -0.5, "low": -1, "high": 0.0, "p": 0.25}},
    }
    after = {}
    for name in list(report)[list(report).index("samples") :]:  # the order of the file
        after[name] = report.pop(name)
    report["subsets"] = [{"name": "untrained", "title": "one of two", "categories": ["demo"]}]
    report["shortfalls"] = [
        {"baseline": "brightness", "measure": "dice", "subset": "untrained", "difference": -0.5},
        {"baseline": "brightness", "measure": "dice", "difference": 0.5, "low": -1, "high": 1, "p": 0.5}
        | {"classes_low": -0.5, "classes_high": 2},
    ]
    report |= after
    method = report["methods"]["anomalyclip"]
    first = {"title": "own", "seeds": ["one", "two"], "model": {"bundle": "b"}, "models": [{"bundle": "b"}, {}]}
    method["measures"]["dice"] |= {"classes_low": 0.25, "classes_high": 0.75}
    method["by_subset"] = {"untrained": {"dice": made_measure(0.5)}}
    names = ("measures", "by_subset", "by_category", "curves")
    report["methods"]["anomalyclip"] = first | {name: method[name] for name in names}
    assert json.dumps(read(report).to_json()) == json.dumps(report)  # order of keys and 1 against 1.0 as well


def test_what_an_earlier_version_did_not_write_is_empty(report: dict[str, Any]) -> None:
    for name in ("asked", "trained_on", "curve_titles", "published", "comparison", "options"):
        del report[name]
    for sample in report["samples"]["list"]:
        del sample["axes"], sample["threshold"], sample["threshold_low"]
    found = read(report)
    assert (found.asked, found.trained_on, found.published, found.comparison) == ("", "", {}, None)
    assert found.samples.samples[0].threshold is found.samples.samples[0].threshold_low is None
    assert "Demo set" in report_page(found, {}, [])


def _without(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.pop(key)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_without("schema"), "schema is missing"),
        (lambda c: c.update(schema="anomalyclip-ablation/1"), "its schema is anomalyclip-ablation/1"),
        (lambda c: c.update(methods={}), "methods is empty"),
        (lambda c: c.update(methods=[]), "methods is not an object"),
        (lambda c: c["methods"]["brightness"].pop("title"), "methods/brightness/title is missing"),
        (lambda c: c["methods"]["anomalyclip"]["measures"].update(dice={"low": 1}), "measures/dice/value is missing"),
        (lambda c: c["methods"]["anomalyclip"]["measures"].update(dice=0.5), "measures/dice is not an object"),
        (lambda c: c["methods"]["anomalyclip"]["curves"].update(roc=[[0, 0, 0]]), r"curves/roc/0 is not a point"),
        (lambda c: c["samples"]["list"][3].update(score="high"), "samples/list/3/score is not a number"),
        (lambda c: c["samples"]["list"][3].update(score=float("nan")), "samples/list/3/score is not finite"),
        (lambda c: c["samples"]["list"][3].update(label=True), "samples/list/3/label is not a whole number"),
        (lambda c: c.update(complete=1), "complete is not true or false"),
        (lambda c: c["bootstrap"].update(repeats=None), "bootstrap/repeats is not a whole number"),
    ],
)
def test_what_is_wrong_with_a_report_is_named(
    report: dict[str, Any], tmp_path: Path, spoil: Callable[[dict[str, Any]], object], words: str
) -> None:
    spoil(report)
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(UsageError, match=rf"^E_REPORT: no report: .*{words}.*\(.*report.json\) - give the report.json"):
        read_report(tmp_path / "report.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[]", b"null", b"[" * 100_000, b'{"schema": "anomalyclip-report/1", "title": 1e999}'],
    ids=["empty", "no text", "list", "null", "deep", "a part"],
)
def test_what_is_no_report_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content)
    for unreadable in (path, tmp_path, tmp_path / "nothing.json"):
        with pytest.raises(UsageError, match=r"^E_REPORT: no report: \S") as error:
            read_report(unreadable)
        assert len(str(error.value).splitlines()) == 1


def test_a_number_beyond_every_float_is_no_measure(report: dict[str, Any], tmp_path: Path) -> None:
    report["methods"]["anomalyclip"]["measures"]["dice"]["value"] = 10**400
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(UsageError, match="E_REPORT"):
        read_report(tmp_path / "report.json")


def test_a_measure_has_a_value_or_a_reason() -> None:
    assert Measure(0.5).to_json() == {"value": 0.5, "low": None, "high": None, "sd": None}
    assert Measure(undefined="no mask").to_json() == {"undefined": "no mask"}
    for wrong in ({}, {"value": 0.5, "undefined": "no mask"}):
        with pytest.raises(ValueError, match="a value or a reason"):
            Measure(**wrong)


def test_a_difference_beyond_chance_has_an_interval_on_one_side_of_0() -> None:
    assert Difference(0.1).to_json() == {"difference": 0.1}
    ends = [(None, None), (-0.1, 0.2), (0.0, 0.2), (0.01, 0.2), (-0.2, -0.01)]
    assert [Difference(0.1, *end).excludes_zero for end in ends] == [False, False, False, True, True]


# --- numbers


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("dice", 0.8244, "82.4"),
        ("dice", 1.0, "100.0"),
        ("dice", -0.0001, "0.0"),
        ("dice", -0.05, "\N{MINUS SIGN}5.0"),
        ("normal_false_ml", 4.26, "4.3"),
        ("pixel_dice_max_threshold", 0.4321, "0.432"),
    ],
)
def test_number(name: str, value: float, text: str) -> None:
    assert number(name, value) == text


def test_measured_cells() -> None:
    notes = Footnotes()
    assert measured("dice", Measure(0.824, 0.801, 0.849), notes) == "82.4 [80.1, 84.9]"
    assert measured("dice", Measure(0.824, 0.801, 0.849, 0.006), notes) == "82.4 ± 0.6 [80.1, 84.9]"
    assert measured("dice", Measure(0.824), notes) == "82.4"
    assert measured("dice", None, notes) == ""
    cells = [measured("dice", Measure(undefined=reason), notes)[-1] for reason in ("no mask", "no image", "no mask")]
    assert cells == ["¹", "²", "¹"]
    assert notes.lines() == ["¹ undefined: no mask", "² undefined: no image"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0054, "+0.5"), (-0.031, "\N{MINUS SIGN}3.1"), (0.0001, "0.0"), (-0.0001, "0.0")]
)
def test_difference(value: float, text: str) -> None:
    assert difference("dice", value) == text


def test_p_values() -> None:
    assert [p_value(p) for p in (0.0002, 0.001, 0.0125, 1.0)] == ["<.001", ".001", ".013", "1.000"]


# --- tables


def test_measures_table(report: dict[str, Any]) -> None:
    table = measures_table(read(report))
    assert table.header == ["measure", "AnomalyCLIP tiny", "brightness", "published", "difference"]
    assert table.rows == [
        ["image AUROC", "82.4 [80.1, 84.9]", "60.0 [50.0, 70.0]", "81.9", "+0.5"],
        ["PRO (paper)", "70.0 [65.0, 75.0]", "\N{EN DASH} ¹", "71.3", "\N{MINUS SIGN}1.3"],
        ["Dice", "50.0", "", "", ""],
        ["threshold at F1-max", "0.432", "", "", ""],
        ["false mask, ml", "4.3 [1.0, 9.0]", "", "", ""],
    ]
    assert table.lead == 2
    assert table.notes[0] == "¹ undefined: no lesion"
    assert "1000 bootstrap resamples by group" in table.notes[1]
    assert "only a part of the set was run" in table.notes[-1]


def of_two_sets(report: dict[str, Any]) -> dict[str, Any]:
    """A report of two sets, one of an organ that was not trained, with a baseline that is ahead there."""
    value = {**made_measure(0.8, 0.7, 0.9), "classes_low": 0.6, "classes_high": 0.95}
    own, guess = report["methods"]["anomalyclip"], report["methods"]["brightness"]
    own["by_category"] = {"brain_mr": {"image_auroc": made_measure(0.9)}, "skin": {"image_auroc": made_measure(0.7)}}
    own["measures"] = {"image_auroc": value}
    own["by_subset"] = {"untrained": {"image_auroc": made_measure(0.7)}}
    guess["measures"] = {"image_auroc": made_measure(0.2)}
    guess["by_subset"] = {"untrained": {"image_auroc": made_measure(0.75)}}
    return report | {
        "subsets": [{"name": "untrained", "title": "1 of 2 sets whose organ was not trained", "categories": ["skin"]}],
        "shortfalls": [
            {"baseline": "brightness", "measure": "image_auroc", "difference": 0.0, "low": -0.1, "high": 0.1},
            {"baseline": "brightness", "measure": "image_auroc", "subset": "untrained", "difference": -0.05},
        ],
    }


def test_a_result_that_does_not_beat_a_baseline_says_so_in_words(report: dict[str, Any]) -> None:
    found = read(of_two_sets(report))
    lines = [
        "AnomalyCLIP tiny DOES NOT BEAT brightness: image AUROC 80.0 against 20.0 (or 80.0 turned round).",
        "AnomalyCLIP tiny DOES NOT BEAT brightness, on 1 of 2 sets whose organ was not trained: "
        "image AUROC 70.0 against 75.0.",
    ]
    assert measures_table(found).notes[:2] == lines
    for text in (report_markdown(found), report_page(found, {}, []), all_sets_table([found])):
        assert all(line in text for line in lines)
    first = found.shortfalls[0]
    ahead = replace(first, difference=Difference(0.01, -0.02, 0.04, None, -0.05, 0.07))
    note = measures_table(replace(found, shortfalls=(ahead,))).notes[0]
    assert note == (
        "AnomalyCLIP tiny is not surely better than brightness: image AUROC 80.0 against 20.0 (or 80.0 turned round), "
        "difference +1.0 [\N{MINUS SIGN}2.0, 4.0] (\N{MINUS SIGN}5.0, 7.0)."
    )
    assert "BEAT" not in report_markdown(replace(found, shortfalls=()))


def test_sets_have_a_row_each_then_the_means_of_all_methods(report: dict[str, Any]) -> None:
    found = read(of_two_sets(report))
    table = category_table(found)
    assert table is not None
    assert table.header == ["set", "image AUROC"]
    assert table.rows == [
        ["brain_mr", "90.0"],
        ["skin", "70.0"],
        ["mean of 2: AnomalyCLIP tiny", "80.0 [70.0, 90.0] (60.0, 95.0)"],
        ["mean of 2: brightness", "20.0"],
        ["mean of 1: AnomalyCLIP tiny", "70.0"],
        ["mean of 1: brightness", "75.0"],
    ]
    assert table.notes[0] == "Mean of 1: 1 of 2 sets whose organ was not trained (skin)."
    assert any("by group; in parentheses: by set." in note for note in measures_table(found).notes)
    assert json.dumps(found.to_json()["subsets"]) == json.dumps(report_of(found)["subsets"])


def report_of(found: Report) -> dict[str, Any]:
    """Written and read again."""
    return read(found.to_json()).to_json()


def test_no_published_column_where_the_set_has_no_published_value(report: dict[str, Any]) -> None:
    table = measures_table(read({**report, "published": {}}))
    assert table.header == ["measure", "AnomalyCLIP tiny", "brightness"]
    assert not any("Published" in note for note in table.notes)


def test_no_word_of_intervals_where_none_were_asked_for(report: dict[str, Any]) -> None:
    table = measures_table(read({**report, "bootstrap": {"unit": "group", "repeats": 0, "seed": 0}}))
    assert not any("bootstrap" in note for note in table.notes)


def test_markdown_says_what_was_run(report: dict[str, Any]) -> None:
    text = report_markdown(read(report))
    assert "**A part of the set:** 12 of the 380 images of the published set." in text
    assert "12 cases (3 normal, 9 abnormal) in 12 groups, 1 failed." in text
    assert "| **image AUROC** | 82.4 [80.1, 84.9] | 60.0 [50.0, 70.0] | 81.9 | +0.5 |" in text
    assert "| --- | ---: | ---: | ---: | ---: |" in text
    assert "\n\n- ¹ undefined: no lesion\n- " in text
    assert "| bad | E_READ: the file is cut short (bad.png) - copy it again |" in text
    assert "Comparison" not in text
    assert "Classes" not in text
    assert "part of the set:" not in report_markdown(read({**report, "complete": True}))


def test_comparison_and_classes(report: dict[str, Any]) -> None:
    own = report["methods"]["anomalyclip"]
    own["by_category"] = {
        "bottle": {"image_auroc": made_measure(0.9)},
        "screw": {"image_auroc": {"undefined": "no image"}},
    }
    entry = {"difference": -0.02, "low": -0.05, "high": 0.01, "p": 0.0004}
    report["comparison"] = {"with": "other", "measures": {"image_auroc": entry}}
    text = report_markdown(read(report))
    assert "| image AUROC | \N{MINUS SIGN}2.0 [\N{MINUS SIGN}5.0, 1.0] | <.001 |" in text
    assert "| bottle | 90.0 |\n| screw | \N{EN DASH} ¹ |\n\n- ¹ undefined: no image" in text


def test_all_sets_table(report: dict[str, Any]) -> None:
    whole = {**copy.deepcopy(report), "title": "Whole set", "complete": True, "published": {}, "failed": []}
    text = all_sets_table([read(report), read(whole)])
    assert "| Demo set † | image AUROC | 82.4 [80.1, 84.9] | 81.9 | +0.5 | 60.0 [50.0, 70.0] |  |  |" in text
    assert "|  | PRO (paper) | 70.0 [65.0, 75.0] | 71.3 | \N{MINUS SIGN}1.3 | \N{EN DASH} ¹ |  |  |" in text
    assert "| Whole set | image AUROC | 82.4 [80.1, 84.9] |  |  | 60.0 [50.0, 70.0] |  |  |" in text
    assert "- † Demo set: 12 of the 380 images of the published set" in text
    assert "- Demo set: 1 case failed" in text
    assert "† Whole set" not in text


def test_a_set_of_the_kind_that_was_trained_on_is_no_zero_shot_test(report: dict[str, Any]) -> None:
    trained = {**report, "complete": True, "trained_on": "frames of another hospital"}
    notes = measures_table(read(trained)).notes
    assert "Not zero-shot: AnomalyCLIP tiny was trained on frames of another hospital." in notes
    assert "; this model was trained on images of the kind, so the difference is a hint at most." in notes[-1]
    text = all_sets_table([read(report), read({**trained, "title": "Known kind"})])
    assert "| Known kind ‡ | image AUROC |" in text
    assert "- ‡ Known kind: not zero-shot, the model was trained on frames of another hospital" in text
    assert "‡ Demo set" not in text


def test_index_links_to_the_reports(report: dict[str, Any], tmp_path: Path) -> None:
    paths = write_all_sets([read({**report, "dataset": "my set'"})], tmp_path)
    assert [path.name for path in paths] == ["table.md", "index.html"]
    page = _Page(paths[1].read_text())
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == ["my%20set%27/report.html"]


# --- cases


def test_best_median_and_worst_by_dice(report: dict[str, Any]) -> None:
    chosen = {kind: [s.name for s in found] for kind, found in choose_cases(read(report).samples.samples).items()}
    assert chosen == {
        "best Dice": ["a8", "a7", "a6"],
        "median Dice": ["a5", "a4", "a3"],
        "worst Dice": ["a2", "a1", "a0"],
        "normal, highest score": ["n2", "n1", "n0"],
    }


@pytest.mark.parametrize("count", range(1, 12))
def test_no_case_is_chosen_twice(count: int) -> None:
    chosen = choose_cases([MeasuredSample(f"a{index}", 1, "demo", "g", index / 12, 0.5) for index in range(count)])
    names = [sample.name for found in chosen.values() for sample in found]
    assert len(set(names)) == len(names) > 0
    assert names[0] == f"a{count - 1}"
    assert next(iter(chosen)) == "best score"
    assert count == 1 or chosen["worst score"][-1].name == "a0"


def test_case_picture() -> None:
    picture = np.asarray(draw_case(_view())).astype(int)
    assert picture.shape == (round(PANEL_SIZE * 20 / 30), 2 * PANEL_SIZE + 4, 3)
    left, right = picture[:, :PANEL_SIZE], picture[:, -PANEL_SIZE:]
    np.testing.assert_array_equal(np.unique(left), 128)  # the image as it is
    scale = PANEL_SIZE / 30
    inside, outside = (round(7.5 * scale), round(10 * scale)), (round(15 * scale), round(25 * scale))
    assert right[inside][0] > 180 > right[inside][2]  # .9 is yellow
    np.testing.assert_array_equal(right[outside], [128] * 3)
    assert (right == 255).all(axis=-1).any()  # the lesion's border, which lies on the mask's


def test_colours_do_not_depend_on_the_case() -> None:
    weak, strong = _view(), _view()
    weak = CaseView(weak.image, weak.heatmap / 9 * 5, None, np.zeros((20, 30), bool))  # .5 where lesion, 0 elsewhere
    heat = strong.heatmap / 9 * 5
    heat[18, 28] = 1.0
    strong = CaseView(strong.image, heat, None, np.zeros((20, 30), bool))
    at = (round(7.5 * PANEL_SIZE / 30), 4 + PANEL_SIZE + round(10 * PANEL_SIZE / 30))
    assert np.asarray(draw_case(weak))[at].tolist() == np.asarray(draw_case(strong))[at].tolist()


def test_colour_images_and_anisotropic_pixels() -> None:
    image = np.zeros((20, 10, 3), np.uint8)
    image[..., 0] = 200
    none = np.zeros((20, 10), bool)
    picture = draw_case(CaseView(image, none.astype(float), None, ~none, aspect=2.0))
    assert picture.size == (2 * PANEL_SIZE // 4 + 4, PANEL_SIZE)
    assert picture.getpixel((10, 10)) == (200, 0, 0)
    assert OUTLINE in {colour for _, colour in picture.getcolors(1 << 20)}


def test_a_case_that_cannot_be_read_again_is_named(report: dict[str, Any]) -> None:
    def cases(name: str) -> CaseView:
        if name == "a8":
            raise CaseError("E_READ", "the file is gone", "a8.png")
        return _view(note="slice 3")

    first, second, *_ = show_cases(read(report).samples.samples, cases)
    assert first.picture is None
    assert first.caption == "score 0.85 · Dice 1.00 · E_READ: the file is gone (a8.png)"
    assert second.caption == "score 0.75 · Dice 0.88 · slice 3"
    assert draw_sheet([first]).size[0] > PANEL_SIZE
    assert "cannot be shown" in _Page(report_page(read(report), {}, [first])).text


def test_long_and_odd_names_fit_on_the_sheet() -> None:
    picture = draw_case(_view())
    sheet = draw_sheet([ShownCase("best Dice", EVIL * 20, EVIL, picture)])
    plain = draw_sheet([ShownCase("best Dice", "a", "b", picture)])
    assert sheet.size == plain.size
    margin = np.asarray(sheet)[:, -20:]
    assert (margin == 255).all()


# --- curves


def test_curves_of_all_kinds(report: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    curves = draw_curves(read(report))
    assert list(curves) == ["roc", "pr", "pro", "froc"]
    assert all(png.startswith(b"\x89PNG") for png in curves.values())


def test_matplotlib_is_left_as_it_was(report: dict[str, Any]) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    helpers = pytest.importorskip("matplotlib._pylab_helpers")
    matplotlib.use("agg")  # looked up late otherwise
    before = dict(matplotlib.rcParams)
    report["methods"] = {
        "centre": {"title": "centre", "seeds": [], "measures": {}, "curves": {"roc": [[0, 0], [1, 1]]}}
    }
    with matplotlib.rc_context({"font.size": 40, "lines.linewidth": 9}):  # a user's own style
        large = draw_curves(read(report))
    assert draw_curves(read(report)) == large
    assert dict(matplotlib.rcParams) == before
    assert helpers.Gcf.get_all_fig_managers() == []


def test_titles_are_no_formulas(report: dict[str, Any]) -> None:
    pytest.importorskip("matplotlib")
    report["methods"]["anomalyclip"]["title"] = r"_$\frac{$ 脳"
    report["curve_titles"] = {"roc": r"$\nothing$"}
    assert draw_curves(read(report))


def test_chance_precision_is_that_of_calling_everything_abnormal() -> None:
    assert chance_precision([[[0, 1], [1, 0.75]], [[0.5, 0.1], [1, 0.8], [1, 0.7]]]) == 0.7
    assert chance_precision([[[0, 1], [0.9, 0.75]]]) is None


def test_froc_is_read_as_the_best_before_a_rate_is_exceeded() -> None:
    x, y = curve_points("froc", [[0, 0.25], [2, 0.5], [1, 0.75]])
    assert x.tolist() == [0, 0, 2, 2, 8]
    assert y.tolist() == [0, 0.25, 0.5, 0.75, 0.75]
    assert [values.tolist() for values in curve_points("roc", [[0, 0], [1, 1]])] == [[0, 1], [0, 1]]


# --- files


def test_all_files(report: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = write_report(read(report), tmp_path / "new" / "demo", _view)
    assert [path.name for path in paths] == ALL_FILES
    assert sorted(path.name for path in (tmp_path / "new" / "demo").iterdir()) == sorted(ALL_FILES)
    assert paths[0].read_text() == json.dumps(report, indent=1) + "\n"
    Image.open(paths[-2]).verify()


def test_pictures_of_an_earlier_report_do_not_stay(report: dict[str, Any], tmp_path: Path) -> None:
    write_report(read(report), tmp_path, _view)
    for method in report["methods"].values():
        method["curves"] = {}
    write_report(read(report), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json", "table.md"]
    assert "<h2>C" not in (tmp_path / "report.html").read_text()


def test_without_matplotlib(
    report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with caplog.at_level(logging.WARNING):
        paths = write_report(read(report), tmp_path, _view)
    assert [path.name for path in paths] == ["report.json", "table.md", "cases.png", "report.html"]
    assert [record.getMessage() for record in caplog.records] == [MATPLOTLIB_MISSING]
    assert 'pip install "anomalyclip-monai[report]"' in caplog.text
    assert MATPLOTLIB_MISSING in _Page(paths[-1].read_text()).text


def test_a_set_of_which_everything_failed(report: dict[str, Any], tmp_path: Path) -> None:
    report["samples"] = {"count": 0, "normal": 0, "abnormal": 0, "groups": 0, "sha256": "", "list": []}
    for method in report["methods"].values():
        method["measures"] = {"image_auroc": {"undefined": "no image"}}
        method["curves"] = {}
    paths = write_report(read(report), tmp_path, _view)
    assert "0 cases" in paths[1].read_text()


def test_nan_is_no_number(report: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_report(replace(read(report), seconds=float("nan")), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="E_WRITE"):
        write_report(read(report), tmp_path / "file")


# --- page


def test_page_stands_alone(report: dict[str, Any], tmp_path: Path) -> None:
    page = (tmp_path / "report.html", write_report(read(report), tmp_path, _view))[0].read_text()
    tags = _Page(page).tags
    sources = [attributes["src"] or "" for tag, attributes in tags if tag == "img"]
    assert len(sources) == 4 + 12
    for source in sources:
        kind, data = source.split(";base64,")
        assert kind in ("data:image/png", "data:image/jpeg")
        assert base64.b64decode(data, validate=True)
    assert not {tag for tag, _ in tags} & {"link", "iframe", "object", "base"}
    assert not re.search(r"https?:|url\(|@import", page)
    assert page.count(RESEARCH_USE) == page.count("esearch use only") == 1


def test_policy_allows_this_script_alone(report: dict[str, Any]) -> None:
    page = report_page(read(report), {}, [])
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    policy = next(attributes["content"] for tag, attributes in _Page(page).tags if "http-equiv" in attributes)
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_page_names_everything(report: dict[str, Any]) -> None:
    text = "".join(_Page(report_page(read(report), {}, [])).text)
    for words in (
        "Demo set",
        "A part of the set: 12 of the 380 images of the published set.",
        "Squashed to 518 x 518.",
        "paper-518-pro200",
        "12 cases (3 normal, 9 abnormal) in 12 groups, 1 failed",
        "ab" * 32,
        "cd" * 32,
        "E_READ: the file is cut short (bad.png) - copy it again",
        "the threshold 0.5 is uncalibrated",
        "12.3",
        "anomalyclip-monai0.1.0",
    ):
        assert words in text


def test_table_of_cases(report: dict[str, Any]) -> None:
    page = report_page(read(report), {}, [])
    table = page[page.index("<table class='sortable'>") :]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)]
    assert rows[0] == ["case", "label", "score", "peak", "peak in lesion", "Dice", "brightness", "seconds"]
    assert rows[9] == ["a8", "abnormal", "0.850", "0.850", "yes", "1.000", "0.250", "0.50"]
    assert rows[10] == ["n0", "normal", "0.000", "0.000", "", "", "0.250", "0.50"]
    assert "<details open>" in page


@pytest.mark.parametrize("name", ["index.html", "table.md"])
def test_a_table_over_all_sets_leaves_files_of_others(report, tmp_path, name):
    (tmp_path / name).write_text("of others")
    with pytest.raises(OutputError, match=r"^E_WRITE: a file is there that was not written by this program"):
        write_all_sets([read(report)], tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "of others")]
    (tmp_path / name).unlink()
    write_all_sets([read(report)], tmp_path)
    write_all_sets([read(report)], tmp_path)  # ours are replaced


def test_names_cannot_become_html(report: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: poisoned(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [poisoned(inner) for inner in value]
        return value + EVIL if isinstance(value, str) and value else value

    def structure(text: str) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attributes)) for tag, attributes in _Page(text).tags]

    evil = poisoned(report)
    for made_up in (report, evil):  # several classes and a comparison as well
        method = made_up["methods"]["anomalyclip"]
        more = EVIL if made_up is evil else ""
        method["by_category"] = {f"c{index}{more}": method["measures"] for index in range(2)}
        entry = {"difference": 0.1, "low": 0.0, "high": 0.2, "p": 0.04}
        made_up["comparison"] = {"with": f"other{more}", "measures": {"dice": entry}}
    evil["primary"], evil["protocol"]["name"], evil["schema"] = report["primary"], "paper", report["schema"]
    good, bad = (tmp_path / name for name in ("good", "bad"))
    write_report(read(report), good, _view)
    write_report(read(evil), bad, lambda name: _view(note=EVIL))
    write_all_sets([read(report)], good / "all")
    write_all_sets([read(evil)], bad / "all")
    for name in ("report.html", "all/index.html"):
        assert structure((bad / name).read_text()) == structure((good / name).read_text())
    text = (bad / "all" / "table.md").read_text() + report_markdown(read(evil))
    assert "<script" not in text
    assert "](javascript" not in text
    columns = [
        [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("|")]
        for text in map(report_markdown, map(read, (report, evil)))
    ]
    assert columns[0] == columns[1]
