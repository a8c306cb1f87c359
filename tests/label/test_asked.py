"""Options of a request: every value acts or is refused, none is passed over."""

from __future__ import annotations

import pytest

from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.label.asked import Asked
from anomalyclip_monai.options import CaseOptions, ModelOptions


def asked(**case: object) -> Asked:
    return Asked(ModelOptions(fast=True), CaseOptions(**case))


def test_what_viewers_show_begins_with_the_default():
    shown = asked(preset="mr_brain", threshold=0.4).shown()
    assert shown["preset"][:2] == ["mr_brain", "auto"]
    assert shown["threshold"] == "0.4"
    assert shown["axes"] == ["auto", "1", "3"]
    assert shown["fast"] is True
    assert set(shown) == {known.name for known in CaseOptions.known() if known.displayed} | {"fast"}


def test_what_is_shown_changes_nothing_when_it_comes_back():
    """3D Slicer sends every default with each request, OHIF a list as a whole."""
    mine = asked(preset="mr_brain", threshold=0.4)
    shown = mine.shown()
    first = {name: value[0] if isinstance(value, list) else value for name, value in shown.items()}
    assert mine.options(shown) == mine.options(first) == mine.options({}) == (mine.model, mine.case)


def test_values_of_a_request_come_before_those_of_the_server():
    request = {
        "threshold": 0.9,
        "axes": "3",
        "slice_axis": "coronal",
        "min_volume": "5",
        "mirror": "false",
        "fast": False,
    }
    model, case = asked(threshold=0.4, smooth_mm=1.0).options(request)
    assert case.given() == {
        "threshold": "0.9",
        "axes": "3",
        "slice_axis": "coronal",
        "min_volume": 5.0,
        "mirror": False,
        "smooth_mm": 1.0,
    }
    assert model.fast is None
    with pytest.raises(UsageError, match=r"E_OPTION: fast 'no\?'"):
        asked().options({"fast": "no?"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("preset", "/etc/preset.yaml"),
        ("preset", "mine.yaml"),
        ("threshold", "../calibration.json"),
        ("threshold", "calibration.json "),
        ("min_volume", "much"),
        ("mirror", "perhaps"),
        ("slice_batch", 0),
    ],
)
def test_files_of_the_server_and_nonsense_are_refused(name, value):
    with pytest.raises(UsageError, match=f"^E_OPTION: {name} "):
        asked().options({name: value})


def test_a_file_that_the_server_was_started_with_is_shown_by_its_name(tmp_path):
    mine = asked(threshold=str(tmp_path / "calibration.json"))
    assert mine.shown()["threshold"] == "calibration.json"
    assert mine.options({"threshold": "calibration.json"}) == (mine.model, mine.case)
