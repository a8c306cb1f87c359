"""Prompts by hand, on a grid with H != W != D that stands oblique in the world."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_result import PHOTO, made_result
from PIL import Image
from skimage.measure import label

from anomalyclip_monai.data import Source
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.outputs import SaveImageResultd

OBLIQUE = np.array([[3.0, -8, 0, 10], [4, 6, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]])
"""World of (i, j, k): (10 + 3 i - 8 j, 20 + 4 i + 6 j, 30 + 2 k), voxels of 5 x 10 x 2 mm."""

SHAPE = (5, 7, 9)


def heatmap() -> np.ndarray:
    """A bent lesion with its peak in slice 3, and another one inside the first one's box and in its slice."""
    found = np.zeros(SHAPE, np.float32)
    found[1:4, 2, 3] = 0.6
    found[1, 3:5, 4] = 0.6
    found[2, 2, 3] = 0.9
    found[3, 4, 3] = 0.7
    return found


def test_by_hand() -> None:
    prompts = made_result(heatmap(), OBLIQUE, case="a/b").prompts()
    first, second = prompts.pop("lesions")
    assert prompts == {"case": "a/b", "mask": "mask.nii.gz", "shape": [5, 7, 9], "affine_ras_mm": OBLIQUE.tolist()}
    assert first == {
        "lesion": 1,
        "peak": pytest.approx(0.9),
        "voxel": {"point": [2, 2, 3], "box": [[1, 2, 3], [4, 5, 5]]},  # half-open
        # faces at i .5 and 3.5, j 1.5 and 4.5, k 2.5 and 4.5
        "ras_mm": {"point": [0, 40, 36], "box": [[-24.5, 31, 35], [8.5, 61, 39]]},
        "lps_mm": {"point": [0, -40, 36], "box": [[-8.5, -61, 35], [24.5, -31, 39]]},
        "nninteractive": {"point": [2, 2, 3], "box": [[1, 4], [2, 3], [3, 4]]},  # half-open, slice 3 alone
        "medsam2": {"frame": 3, "point": [2, 2], "box": [1, 2, 3, 2]},  # of slice 3, closed
    }
    assert second["voxel"] == {"point": [3, 4, 3], "box": [[3, 4, 3], [4, 5, 4]]}
    assert second["medsam2"] == {"frame": 3, "point": [3, 4], "box": [3, 4, 3, 4]}


@pytest.mark.parametrize(
    ("axis", "expected"),
    [(0, [[2, 3], [2, 3], [3, 4]]), (1, [[1, 4], [2, 3], [3, 4]]), (2, [[1, 4], [2, 3], [3, 4]])],
)
def test_box_of_one_slice_lies_in_the_plane_of_the_case(axis: int, expected: list[list[int]]) -> None:
    first = made_result(heatmap(), OBLIQUE, axis=axis).prompts()["lesions"][0]
    assert first["nninteractive"]["box"] == expected
    assert first["medsam2"]["frame"] == 3  # always along the last axis, the first of SimpleITK's arrays


def test_of_any_form() -> None:
    values = np.random.default_rng(3).random((13, 11, 7), dtype=np.float32)
    values[values < 0.8] = 0
    result = made_result(values, OBLIQUE)
    assert result.mask is not None
    mask = np.asarray(result.mask[0])
    components = label(mask, connectivity=3)
    prompts = result.prompts()["lesions"]
    assert len(prompts) == components.max() > 5
    for prompt in prompts:
        i, j, k = prompt["voxel"]["point"]
        lesion = components == components[i, j, k]
        assert mask[i, j, k] == 1
        assert values[i, j, k] == prompt["peak"] == values[lesion].max()
        where = np.argwhere(lesion)
        assert prompt["voxel"]["box"] == [where.min(0).tolist(), (where.max(0) + 1).tolist()]
        columns, rows = np.nonzero(lesion[:, :, k])
        box = prompt["medsam2"]["box"]
        assert box == [columns.min(), rows.min(), columns.max(), rows.max()]
        slices = prompt["nninteractive"]["box"]
        assert slices == [[box[0], box[2] + 1], [box[1], box[3] + 1], [k, k + 1]]


def test_photo_in_pixels(tmp_path: Path) -> None:
    """3 columns from x = 1, 2 rows from y = 2, the peak in the last of them."""
    values = np.zeros((6, 4, 1), np.float32)
    values[1:4, 2:4, 0] = 0.6
    values[3, 3, 0] = 0.8
    folder = made_result(values, np.diag([-1.0, -1, 1, 1]), source=PHOTO).save(tmp_path, prompts_out=True)
    content = json.loads((folder / "prompts.json").read_text())
    assert content["mask"] == "mask.png"
    assert content["affine_ras_mm"] is None
    (lesion,) = content["lesions"]
    assert set(lesion) == {"lesion", "peak", "voxel", "pixel"}
    assert lesion["pixel"] == {"point": [3, 3], "box": [1, 2, 3, 3]}
    with Image.open(folder / "mask.png") as mask:
        assert mask.getpixel((3, 3)) == 255
        assert mask.getbbox() == (1, 2, 4, 4)  # Pillow's is half-open


def test_frames_without_a_size_are_a_film() -> None:
    film = Source("dicom", modality="US", has_physical_size=False)
    first, _ = made_result(heatmap(), np.diag([-1.0, -1, 1, 1]), source=film).prompts()["lesions"]
    assert set(first) == {"lesion", "peak", "voxel", "nninteractive", "medsam2"}
    assert first["medsam2"] == {"frame": 3, "point": [2, 2], "box": [1, 2, 3, 2]}


def test_slices_on_no_grid_have_no_world() -> None:
    prompts = made_result(heatmap(), OBLIQUE, source=Source("dicom", modality="CT", regular=False)).prompts()
    assert (prompts["mask"], prompts["affine_ras_mm"]) == ("mask.dcm", None)
    assert not {"ras_mm", "lps_mm"} & set(prompts["lesions"][0])


def test_written_where_asked_for_and_no_lesion_is_said(tmp_path: Path) -> None:
    result = made_result(heatmap() * 0, OBLIQUE)
    assert not (result.save(tmp_path) / "prompts.json").exists()
    content = json.loads((result.save(tmp_path, prompts_out=True) / "prompts.json").read_text())
    assert content["lesions"] == []
    assert (result.save(tmp_path) / content["mask"]).is_file()


def test_an_unknown_kind_of_segmentation_is_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="E_OPTION: seg_type 'fractional' - choose from: binary, labelmap"):
        SaveImageResultd("pred", "out", "bundle", seg_type="fractional")
    with pytest.raises(UsageError, match="E_OPTION: seg_type"):
        made_result(heatmap(), OBLIQUE).save("out", seg_type="fractional")
