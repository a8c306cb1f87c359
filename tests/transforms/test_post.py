from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from skimage.measure import label, regionprops

from anomalyclip_monai.data import Source
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.transforms import FindLesionsd, Lesion, Threshold, post
from anomalyclip_monai.transforms.post import case_score, find_lesions, resolve_threshold, roi_slice_scores

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]])
"""Voxels of 24 mm3."""


# --- scores


def test_case_score_is_the_mean_of_the_three_highest() -> None:
    assert case_score(torch.tensor([0.1, 0.9, 0.2, 0.6, 0.3])) == pytest.approx(0.6)
    assert case_score(torch.tensor([0.2, 0.4])) == pytest.approx(0.3)
    assert case_score(torch.tensor([0.7])) == pytest.approx(0.7)


def test_slice_scores_inside_a_region() -> None:
    heatmap = torch.zeros(1, 10, 20, 3)
    heatmap[0, :, :, 0] = torch.arange(200.0).reshape(10, 20) / 200
    heatmap[0, :, :, 1] = 0.5
    heatmap[0, 0, 0, 1] = 1  # outside
    roi = torch.ones(1, 10, 20, 3, dtype=torch.bool)
    roi[0, 0, 0, 1] = roi[..., 2] = False
    # 200 pixels: the 4 highest are .98, .985, .99 and .995
    assert roi_slice_scores(heatmap, roi, 2).tolist() == [pytest.approx(0.9875), 0.5, 0]
    assert roi_slice_scores(heatmap, roi, 0).shape == (10,)


# --- thresholds


HEAT = torch.linspace(0, 1, 101).reshape(1, 101, 1, 1)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("auto", Threshold(0.42, 0.42, "calibrated")),
        (0.3, Threshold(0.3, 0.3, "given")),
        (" 0.3 ", Threshold(0.3, 0.3, "given")),
        (1, Threshold(1.0, 1.0, "given")),
    ],
)
def test_threshold_and_its_origin(given: Any, expected: Threshold) -> None:
    assert resolve_threshold(given, {"value": 0.42, "origin": "calibrated"}, HEAT) == expected


def test_threshold_of_this_case() -> None:
    found = resolve_threshold("quantile:0.9", None, HEAT)
    assert (found.value, found.origin) == (pytest.approx(0.9), "quantile:0.9 of this case")
    inside = HEAT <= 0.5
    assert resolve_threshold("quantile:0.9", None, HEAT, inside).value == pytest.approx(0.45)


SHIPPED = {"value": 0.55, "origin": "training data", "by_axes": {"3": 0.45}}


@pytest.mark.parametrize(("axes", "value"), [(1, 0.55), (2, 0.55), (3, 0.45)])
def test_shipped_threshold_by_the_number_of_axes(axes: int, value: float) -> None:
    assert resolve_threshold("auto", SHIPPED, HEAT, axes=axes) == Threshold(value, value, "training data")
    assert resolve_threshold(0.3, SHIPPED, HEAT, axes=axes) == Threshold(0.3, 0.3, "given")


TWO = {"value": 0.55, "low": 0.35, "origin": "training data", "by_axes": {"3": {"value": 0.45, "low": 0.25}}}


def test_shipped_threshold_of_the_outlines() -> None:
    assert resolve_threshold("auto", TWO, HEAT) == Threshold(0.55, 0.35, "training data")
    assert resolve_threshold("auto", TWO, HEAT, axes=3) == Threshold(0.45, 0.25, "training data")
    assert resolve_threshold("auto", TWO, HEAT, low="0.1", axes=3) == Threshold(0.45, 0.1, "training data, low given")
    # that of another threshold is not that of this one
    assert resolve_threshold(0.3, TWO, HEAT) == Threshold(0.3, 0.3, "given")
    assert resolve_threshold(0.3, TWO, HEAT, low=0) == Threshold(0.3, 0, "given")
    assert resolve_threshold("quantile:0.9", TWO, HEAT).low == pytest.approx(0.9)
    assert not resolve_threshold("auto", None, HEAT, low=0.2).is_calibrated


@pytest.mark.parametrize(
    ("threshold", "low", "message"),
    [
        ("0.3", 0.4, "threshold_low '0.4' is above the threshold 0.3 - use auto or a value from 0 up to 0.3"),
        ("auto", 0.5, "threshold_low '0.5' is above the threshold 0.45"),  # that of three axes
        ("auto", 2, "threshold_low '2' is none"),
        ("auto", -0.1, "threshold_low '-0.1' is none"),
        ("auto", "nan", "threshold_low 'nan' is none"),
        ("auto", "low", "threshold_low 'low' is none"),
        ("quantile:0.9", 0.1, "threshold_low 0.1 with a quantile"),
    ],
)
def test_thresholds_of_outlines_that_are_none(threshold: str, low: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^E_THRESHOLD: {message}"):
        FindLesionsd(threshold=threshold, threshold_low=low, shipped_threshold=TWO)


def test_two_thresholds_in_words() -> None:
    assert Threshold(0.55, 0.55, "given").said == "0.55"
    assert Threshold(0.55, 0.35, "given").said == "0.55 with outlines from 0.35"


def test_threshold_that_nobody_calibrated() -> None:
    assert resolve_threshold("auto", None, HEAT) == Threshold(0.5, 0.5, "uncalibrated")


@pytest.mark.parametrize(
    "given", ["high", "0", 0, -0.1, 1.01, "nan", "quantile:1", "quantile:0", "quantile:", "q:.5", ""]
)
def test_thresholds_that_are_none(given: Any) -> None:
    with pytest.raises(UsageError, match=r"^E_THRESHOLD: .*use auto, a value above 0 up to 1 or quantile:Q"):
        FindLesionsd(threshold=given)


# --- lesions by hand


def test_two_voxels_that_share_a_corner() -> None:
    heatmap = np.zeros((4, 5, 6), dtype=np.float32)
    heatmap[1, 1, 1], heatmap[2, 2, 2] = 0.75, 0.5
    mask, lesions = find_lesions(heatmap, 0.5, AFFINE)
    assert lesions == [
        Lesion(
            volume_mm3=pytest.approx(48),
            voxels=2,
            centroid_voxel=(1.5, 1.5, 1.5),
            centroid_world_mm=pytest.approx((10 - 3, 20 + 4.5, 30 + 6)),
            bbox_voxel=((1, 1, 1), (3, 3, 3)),  # half-open
            peak_voxel=(1, 1, 1),
            peak_world_mm=pytest.approx((10 - 2, 20 + 3, 30 + 4)),
            peak=0.75,
            mean=0.625,
        )
    ]
    assert mask.dtype == np.uint8
    assert np.argwhere(mask).tolist() == [[1, 1, 1], [2, 2, 2]]


def test_lesions_are_apart_sorted_by_peak_and_not_too_small() -> None:
    heatmap = np.zeros((9, 5, 1), dtype=np.float32)
    heatmap[0:2, 0:2] = 0.6  # 96 mm3
    heatmap[4, 0:3] = 0.7  # 72 mm3
    heatmap[8, 4] = 0.9  # 24 mm3
    assert [lesion.peak for lesion in find_lesions(heatmap, 0.5, AFFINE)[1]] == pytest.approx([0.9, 0.7, 0.6])
    mask, lesions = find_lesions(heatmap, 0.5, AFFINE, min_volume=72)  # 72 mm3 is enough
    assert [lesion.voxels for lesion in lesions] == [3, 4]
    assert mask[8, 4] == 0
    assert mask.sum() == 7


def test_centroid_and_mean_of_a_component_of_any_form(monkeypatch: pytest.MonkeyPatch) -> None:
    heatmap = np.random.default_rng(0).random((30, 20, 9), dtype=np.float32)
    mask, found = find_lesions(heatmap, 0.7, np.eye(4))
    assert mask.any()
    for region in regionprops(label(heatmap >= 0.7, connectivity=3), heatmap):
        (lesion,) = (one for one in found if one.peak == float(region.intensity_max))
        assert lesion.centroid_voxel == tuple(float(value) for value in region.centroid)
        assert heatmap[lesion.peak_voxel] == lesion.peak
        assert mask[lesion.peak_voxel] == 1
    monkeypatch.setattr(post, "LARGE", 0)  # plane by plane
    again, others = find_lesions(heatmap, 0.7, np.eye(4))
    np.testing.assert_array_equal(again, mask)
    for one, other in zip(found, others, strict=True):
        assert replace(other, mean=one.mean) == one
        assert other.mean == pytest.approx(one.mean, rel=1e-12)


def test_in_a_single_slice_corners_touch_too() -> None:
    heatmap = np.eye(3, dtype=np.float32)[..., np.newaxis]
    assert len(find_lesions(heatmap, 0.5, AFFINE)[1]) == 1


def test_a_lesion_is_all_of_its_outline() -> None:
    heatmap = np.zeros((5, 4, 3), dtype=np.float32)
    heatmap[0:3, 1, 1] = 0.4, 0.8, 0.6
    heatmap[4, 3, 2] = 0.4  # faint throughout
    mask, (lesion,) = find_lesions(heatmap, 0.6, AFFINE, low=0.4, min_volume=48)  # two voxels of .6 and more
    assert np.argwhere(mask).tolist() == [[0, 1, 1], [1, 1, 1], [2, 1, 1]]
    assert (lesion.voxels, lesion.volume_mm3, lesion.bbox_voxel) == (3, pytest.approx(72), ((0, 1, 1), (3, 2, 2)))
    assert (lesion.centroid_voxel, lesion.peak) == ((1, 1, 1), pytest.approx(0.8))
    assert lesion.mean == pytest.approx(0.6)
    assert find_lesions(heatmap, 0.6, AFFINE, low=0.4, min_volume=49)[1] == []


def test_without_a_physical_size_lesions_are_counted_in_pixels() -> None:
    heatmap = np.zeros((4, 4, 1), dtype=np.float32)
    heatmap[0, 0], heatmap[2:, 2:] = 1, 1
    _, lesions = find_lesions(heatmap, 0.5, AFFINE, min_volume=2, has_physical_size=False)
    assert [(lesion.volume_mm3, lesion.centroid_world_mm, lesion.voxels) for lesion in lesions] == [(None, None, 4)]


def test_the_threshold_itself_is_abnormal_and_0_never_is() -> None:
    heatmap = np.array([0, 0.1, 0.2, 0], dtype=np.float32).reshape(4, 1, 1)
    assert find_lesions(heatmap, 0.1, AFFINE)[0].ravel().tolist() == [0, 1, 1, 0]
    # a low quantile of a volume with many empty slices
    assert find_lesions(heatmap, 0.0, AFFINE)[0].ravel().tolist() == [0, 1, 1, 0]


def test_a_healthy_case() -> None:
    mask, lesions = find_lesions(np.full((3, 4, 5), 0.1, dtype=np.float32), 0.5, AFFINE)
    assert not mask.any()
    assert lesions == []


# --- the whole step


def _record(heatmap: np.ndarray, **more: Any) -> dict[str, Any]:
    found = {
        "axes": torch.tensor([[2, -1, -1]]),
        "slice_scores": torch.tensor([[0.1, 0.2, 0.9, 0.4]]),
        "batch_halvings": torch.tensor([0]),
    }
    pred = MetaTensor(torch.from_numpy(heatmap)[None], affine=torch.from_numpy(AFFINE), meta=found)
    return {"pred": pred, "source": Source("nifti"), "notes": ["read with care"], "case": "a", **more}


@pytest.fixture
def heatmap() -> np.ndarray:
    heatmap = np.full((5, 6, 4), 0.05, dtype=np.float32)
    heatmap[1, 1, 1] = 0.8
    heatmap[3:, 4:, 2] = 0.6
    return heatmap


def test_record_after_the_step(heatmap: np.ndarray) -> None:
    step = FindLesionsd(shipped_threshold={"value": 0.5, "origin": "calibrated"}, min_volume=50)
    given = _record(heatmap)
    record = step(given)
    assert (record["pred"].dtype, record["pred"].shape) == (torch.uint8, (1, 5, 6, 4))
    assert record["pred"].sum() == 4
    np.testing.assert_array_equal(record["heatmap"].as_tensor()[0], heatmap)
    for key in ("pred", "heatmap"):
        np.testing.assert_array_equal(record[key].affine, AFFINE)
        assert not {"slice_scores", "axes", "batch_halvings"} & set(record[key].meta)
    np.testing.assert_allclose(record["findings"].slice_scores, [0.1, 0.2, 0.9, 0.4], atol=1e-7)
    assert record["findings"].slice_axis == 2
    assert record["findings"].score == pytest.approx(0.5)
    assert record["findings"].threshold == Threshold(0.5, 0.5, "calibrated")
    assert [lesion.voxels for lesion in record["findings"].lesions] == [4]
    assert record["notes"] == ["read with care"]
    assert record["case"] == "a"
    assert json.loads(json.dumps(record["result"])) == {
        "score": pytest.approx(0.5),
        "slice_scores": pytest.approx([0.1, 0.2, 0.9, 0.4]),
        "lesions": 1,
        "threshold": 0.5,
        "threshold_low": 0.5,
    }
    assert "heatmap" not in given  # the record that was given is left alone
    assert given["notes"] == ["read with care"]


def test_20_mm3_by_default_and_none_for_photos(heatmap: np.ndarray) -> None:
    small = AFFINE.copy()
    small[:3, :3] *= 0.5  # voxels of 3 mm3: the single one is too small, the four are not
    record = _record(heatmap)
    record["pred"].affine = torch.from_numpy(small)
    assert FindLesionsd()(record)["findings"].lesions == []  # 12 mm3
    record["source"] = Source("photo", has_physical_size=False)
    assert [lesion.voxels for lesion in FindLesionsd()(record)["findings"].lesions] == [1, 4]


def test_notes_say_what_happened(heatmap: np.ndarray) -> None:
    record = _record(heatmap)
    record["pred"].meta["batch_halvings"] = torch.tensor([2])
    assert FindLesionsd()(record)["notes"] == [
        "read with care",
        "memory ran out, the batch of slices was halved 2 times",
        "the threshold 0.5 is uncalibrated: it was not fitted for this model",
    ]
    assert len(FindLesionsd(threshold=0.5)(record)["notes"]) == 2


@pytest.mark.parametrize(
    ("axes", "value", "voxels"),
    [([2, -1, -1], 0.55, 4), ([2, 0, -1], 0.55, 4), ([2, 0, 1], 0.45, 9)],
)
def test_each_case_has_the_threshold_of_its_axes(axes: list[int], value: float, voxels: int) -> None:
    heatmap = np.full((5, 6, 4), 0.05, dtype=np.float32)
    heatmap[:3, 1:4, 1] = 0.5
    heatmap[1:3, 2:4, 1] = 0.6
    record = _record(heatmap)
    record["pred"].meta["axes"] = torch.tensor([axes])
    record = FindLesionsd(shipped_threshold=SHIPPED)(record)
    assert record["findings"].threshold == Threshold(value, value, "training data")
    assert record["pred"].sum() == voxels
    two = "the threshold 0.55 was not fitted for slices along 2 axes: calibrate one on normal cases"
    assert record["notes"][1:] == ([two] if len(record["findings"].axes) == 2 else [])


@pytest.mark.parametrize("threshold", ["auto", "quantile:0.1"])
def test_region_of_interest(heatmap: np.ndarray, threshold: str) -> None:
    roi = torch.zeros(1, 5, 6, 4, dtype=torch.bool)
    roi[0, :3, :, :2] = True
    record = FindLesionsd(threshold=threshold)(_record(heatmap, roi=roi))
    # 18 of 30 pixels of a slice are inside: the highest one counts
    np.testing.assert_allclose(record["findings"].slice_scores, [0.05, 0.8, 0, 0], atol=1e-7)
    assert record["findings"].score == pytest.approx((0.05 + 0.8 + 0) / 3)
    assert not record["pred"].as_tensor()[~roi].any()
    assert record["pred"][0, 1, 1, 1] == 1
    np.testing.assert_array_equal(record["heatmap"].as_tensor()[0], heatmap)  # the whole of it


def test_an_outline_stays_inside_the_region(heatmap: np.ndarray) -> None:
    heatmap[1, 2:5, 1] = 0.4
    roi = torch.zeros(1, 5, 6, 4, dtype=torch.bool)
    roi[0, :3, :4, :2] = True
    record = FindLesionsd(threshold=0.8, threshold_low="0.4")(_record(heatmap, roi=roi))
    assert np.argwhere(np.asarray(record["pred"][0])).tolist() == [[1, 1, 1], [1, 2, 1], [1, 3, 1]]
    assert record["findings"].threshold == Threshold(0.8, 0.4, "given")


def test_a_quantile_of_0_stays_inside_the_region() -> None:
    heatmap = np.zeros((5, 6, 4), dtype=np.float32)
    roi = torch.ones(1, 5, 6, 4, dtype=torch.bool)
    roi[0, 0] = False
    record = FindLesionsd(threshold="quantile:0.5")(_record(heatmap, roi=roi))
    assert not record["pred"].any()
