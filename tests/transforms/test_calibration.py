"""The file of a calibration, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from anomalyclip_monai.data import Source
from anomalyclip_monai.exceptions import CaseError, UsageError
from anomalyclip_monai.transforms import FindLesionsd, Threshold
from anomalyclip_monai.transforms.calibration import Calibration, plain_conditions

CONDITIONS = {"model": {"bundle": "b", "weights_sha256": "12ab"}, "axes": 3, "smooth_mm": 0.0, "slice_axis": "auto"}


@pytest.fixture
def calibration() -> Calibration:
    conditions = plain_conditions({**CONDITIONS, "min_volume": None})
    threshold = Threshold(0.625, 0.5, "calibrated on 2 normal mr_brain cases")
    return Calibration(threshold, "mr_brain", conditions, {"reached": 0.5})


@pytest.fixture
def file(calibration: Calibration, tmp_path: Path) -> Path:
    path = tmp_path / "calibration.json"
    path.write_text(calibration.to_json())
    return path


def _record(preset: str) -> dict[str, Any]:
    heatmap = torch.tensor([0.6, 0.625, 0.7, 0]).reshape(1, 1, 4, 1)
    found = {
        "axes": torch.tensor([[2, 0, 1]]),
        "slice_scores": torch.tensor([[0.7]]),
        "batch_halvings": torch.tensor([0]),
    }
    return {
        "pred": MetaTensor(heatmap, affine=torch.diag(torch.tensor([3.0, 3, 3, 1])), meta=found),
        "preset": {"name": preset},
    }


def test_a_file_comes_back_as_it_was(calibration: Calibration, file: Path) -> None:
    assert Calibration.read(file) == calibration


def test_the_threshold_and_its_origin_are_used(file: Path) -> None:
    step = FindLesionsd(threshold=str(file), conditions=CONDITIONS, min_volume=None)
    record = step({**_record("mr_brain"), "source": None})
    assert record["findings"].threshold == Threshold(0.625, 0.5, "calibrated on 2 normal mr_brain cases")
    assert record["findings"].axes == (2, 0, 1)
    assert record["notes"] == []
    assert np.asarray(record["pred"]).flatten().tolist() == [1, 1, 1, 0]  # .6 hangs on .625


def test_a_lower_threshold_that_is_given_takes_the_place_of_its_own(file: Path) -> None:
    step = FindLesionsd(threshold=str(file), threshold_low=0.62, conditions=CONDITIONS, min_volume=None)
    record = step(_record("mr_brain"))
    origin = "calibrated on 2 normal mr_brain cases, low given"
    assert record["findings"].threshold == Threshold(0.625, 0.62, origin)
    assert np.asarray(record["pred"]).flatten().tolist() == [0, 1, 1, 0]
    with pytest.raises(UsageError, match=r"^E_THRESHOLD: threshold_low '0.7' is above the threshold 0.625"):
        FindLesionsd(threshold=str(file), threshold_low="0.7", conditions=CONDITIONS, min_volume=None)


def test_a_file_of_one_threshold(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "earlier.json"
    path.write_text(calibration.to_json().replace('"threshold_low": 0.5,', ""))
    assert Calibration.read(path).threshold == Threshold(0.625, 0.625, calibration.threshold.origin)


def test_another_preset_is_refused_case_by_case(file: Path) -> None:
    step = FindLesionsd(threshold=str(file), conditions=CONDITIONS)
    with pytest.raises(CaseError, match=r"^E_CALIBRATION: .*fitted with preset mr_brain, this case has ct_head"):
        step(_record("ct_head"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"bundle": "b", "weights_sha256": "34cd"}}, "fitted for another model"),
        ({"axes": 1}, "fitted with axes 3, this run has 1 "),
        ({"smooth_mm": 2}, "fitted with smooth_mm 0, this run has 2 "),
        ({"slice_axis": "coronal"}, "fitted with slice_axis auto, this run has coronal "),
    ],
)
def test_another_model_or_setting_is_refused_before_any_work(file: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"^E_CALIBRATION: .*{message}") as caught:
        FindLesionsd(threshold=str(file), conditions={**CONDITIONS, **change})
    assert caught.value.path == file


def test_another_min_volume_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="fitted with min_volume its default, this run has 5"):
        FindLesionsd(threshold=str(file), conditions=CONDITIONS, min_volume=5)


def test_a_calibration_of_chosen_axes_holds_for_auto_only(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "auto.json"
    path.write_text(calibration.to_json().replace('"axes": 3.0', '"axes": "auto"'))
    FindLesionsd(threshold=str(path), conditions={**CONDITIONS, "axes": "auto"})
    with pytest.raises(UsageError, match="fitted with axes auto, this run has 3 "):
        FindLesionsd(threshold=str(path), conditions=CONDITIONS)


def test_settings_that_mean_the_same_are_the_same(file: Path) -> None:
    FindLesionsd(threshold=str(file), conditions={**CONDITIONS, "axes": "3", "smooth_mm": 0})
    assert plain_conditions({"axes": ["axial", "coronal"]}) == plain_conditions({"axes": "axial, coronal"})


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"schema": "another/1"}', "\udcff", '{"schema": "anomalyclip-calibration/1", "threshold": 1}'],
)
def test_other_files_are_no_calibrations(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(UsageError, match=r"^E_CALIBRATION: this is no calibration"):
        FindLesionsd(threshold=str(path))
    with pytest.raises(UsageError, match=r"^E_CALIBRATION: the file cannot be read"):
        FindLesionsd(threshold=str(tmp_path / "absent.json"))


@pytest.mark.parametrize("threshold", [0, 0.4, 1.5, "NaN", "none"])
def test_a_threshold_out_of_range_is_none(calibration: Calibration, tmp_path: Path, threshold: object) -> None:
    path = tmp_path / "edited.json"
    path.write_text(calibration.to_json().replace("0.625", str(threshold) if threshold != "none" else '"none"'))
    with pytest.raises(UsageError, match=r"^E_CALIBRATION: this is no calibration"):
        Calibration.read(path)


def test_planes_that_were_left_out_are_named() -> None:
    record = _record("mr_brain")
    meta = {**record["pred"].meta, "axes": torch.tensor([[2, -1, -1]])}
    record["pred"] = MetaTensor(torch.zeros(1, 3, 4, 5), meta=meta)
    step = FindLesionsd(threshold=0.5, conditions={"axes": "3"})
    (note,) = step(record)["notes"]
    assert note.startswith("slices along 1 of the 3 axes only: along the others pixels are too oblong or too few")
    assert step({**record, "source": Source("photo", has_physical_size=False)})["notes"] == []
    assert FindLesionsd(threshold=0.5, conditions={"axes": "auto"})(record)["notes"] == []


def test_a_shipped_threshold_is_of_one_axis_unless_it_has_values_for_others() -> None:
    shipped = {"value": 0.6, "origin": "training data"}
    (note,) = FindLesionsd(shipped_threshold=shipped)(_record("mr_brain"))["notes"]
    assert note == "the threshold 0.6 was not fitted for slices along 3 axes: calibrate one on normal cases"
    (note,) = FindLesionsd(shipped_threshold={**shipped, "by_axes": {"2": 0.4}})(_record("mr_brain"))["notes"]
    assert "0.6 was not fitted for slices along 3 axes" in note
    assert FindLesionsd(shipped_threshold={**shipped, "by_axes": {"3": 0.4}})(_record("mr_brain"))["notes"] == []
    assert FindLesionsd(threshold=0.6, shipped_threshold=shipped)(_record("mr_brain"))["notes"] == []
