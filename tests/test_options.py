"""Options are declared once: flags, Python, JSON files and docs follow."""

from __future__ import annotations

import argparse
import inspect
import math
import runpy
import sys
from pathlib import Path

import pytest

from anomalyclip_monai import resources
from anomalyclip_monai.cli.console import add_options, given_options
from anomalyclip_monai.definition import read_definition
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.inferers import SliceAnomalyInferer
from anomalyclip_monai.options import (
    SETS,
    CaseOptions,
    LearnOptions,
    ModelOptions,
    Option,
    heatmap_settings,
    protocol_phrases,
    reported_settings,
)

ROOT = Path(__file__).resolve().parent.parent


def test_generated_files_are_what_the_options_say(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "tools" / "generate.py"), run_name="__main__")
    assert (ended.value.code, capsys.readouterr().out) == (0, "")


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("smooth_mm", "1.5", 1.5),
        ("smooth_mm", 2, 2.0),
        ("slice_batch", "4", 4),
        ("slice_batch", 4.0, 4),
        ("mirror", False, False),
        ("roi_label", [5, "6"], (5, 6)),
        ("roi_label", 5, (5,)),
        ("roi_label", ["5,6", "7"], (5, 6, 7)),
        ("axes", 3, 3),
        ("axes", ("axial", "sagittal"), ("axial", "sagittal")),
        ("axes", "$print('x')", "$print('x')"),
        ("preset", Path("a.yaml"), str(Path("a.yaml").resolve())),
    ],
)
def test_what_is_given_becomes_a_value(name, given, value):
    options = CaseOptions(**{name: given})
    assert options.given() == {name: value}
    assert type(getattr(options, name)) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("smooth_mm", "x", "smooth_mm 'x' - give a number from 0 on"),
        ("smooth_mm", -0.1, "smooth_mm -0.1 - give a number from 0 on"),
        ("smooth_mm", math.nan, "smooth_mm nan - give a number from 0 on"),
        ("smooth_mm", True, "smooth_mm True - give a number from 0 on"),
        ("slice_batch", 0, "slice_batch 0 - give a whole number from 1 on"),
        ("slice_batch", 1.5, "slice_batch 1.5 - give a whole number from 1 on"),
        ("empty_below", 2, "empty_below 2 - give a number from 0 to 1"),
        ("mirror", "no", "mirror 'no' - give yes or no: True or False"),
        ("axes", "", "axes '' - leave it out, or give a value"),
        ("axes", "a\0b", r"axes 'a\x00b' - leave the null character out"),
        ("roi_label", [5, 0], "roi_label 0 - give a whole number from 1 on"),
    ],
)
def test_what_is_none_is_refused_in_one_line(name, given, said):
    with pytest.raises(UsageError) as refused:
        CaseOptions(**{name: given})
    assert str(refused.value) == f"E_OPTION: {said}"


def test_above_means_not_the_limit_itself():
    assert LearnOptions(learning_rate=1).learning_rate == 1
    with pytest.raises(UsageError, match="give a number above 0 to 1"):
        LearnOptions(learning_rate=0)


def test_names_are_used_once():
    names = [name for options in SETS for name in options.names()]
    assert len(names) == len(set(names))


def test_flags_are_those_of_the_command_and_empty_unless_given():
    parser = argparse.ArgumentParser()
    add_options(parser, CaseOptions, "calibrate")
    assert not {"--threshold", "--per-slice"} & set(parser._option_string_actions)
    assert given_options(parser.parse_args([]), CaseOptions).given() == {}
    words = ["--smooth", "2", "--no-mirror", "--axes", "axial,sagittal"]
    found = given_options(parser.parse_args(words), CaseOptions).given()
    assert found == {"smooth_mm": 2.0, "mirror": False, "axes": "axial,sagittal"}
    assert "".join(parser.format_help().split()).count("(default:thebundle's)") >= 5


def test_the_steps_take_the_options_that_are_handed_to_them():
    taken = set(inspect.signature(SliceAnomalyInferer).parameters)
    assert {known.name for known in CaseOptions.known() if "inferer" in known.used_in} <= taken
    definition = read_definition(resources.inference_config(resources.bundle_root("tiny")))
    assert set(CaseOptions.names()) <= set(definition)
    assert set(definition["conditions"]) == {"model", "preset_table", *heatmap_settings()}


def test_a_report_names_every_setting_that_changes_heatmaps():
    assert set(heatmap_settings()) <= set(reported_settings())
    bespoke = {"slice_axis", "axes", "smooth_mm", "smooth_slices", "mirror", "empty_below"}
    for known in CaseOptions.known():
        assert known.changes != "heatmap" or known.said or known.name in bespoke, known.name
    settings = {"crop": True, "fill_glare": True}
    assert protocol_phrases(settings, "volumes") == "; of the slices the part that holds the body"
    assert protocol_phrases(settings, "photos") == "; reflections in colour pictures filled"
    assert protocol_phrases({}, "photos") == ""


def test_a_number_is_said_with_its_value_where_it_is_not_the_usual_one(monkeypatch):
    share = Option("share", "number", "", "heatmap", default=0.02, said="the highest {:.0%} of a slice")
    monkeypatch.setattr(CaseOptions, "known", classmethod(lambda _: (share,)))
    assert protocol_phrases({"share": 0.1}, "volumes") == "; the highest 10% of a slice"
    assert protocol_phrases({"share": 0.02}, "volumes") == protocol_phrases({}, "volumes") == ""


def test_the_model_is_the_default_one_unless_named():
    assert ModelOptions().given() == {"model": resources.DEFAULT_BUNDLE, "device": "auto"}
