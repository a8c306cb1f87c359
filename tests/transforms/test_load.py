from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, LoadImaged
from PIL import Image

from anomalyclip_monai.data import Source, the_case
from anomalyclip_monai.exceptions import CaseError, NoInputError
from anomalyclip_monai.transforms import LoadImageCase, LoadImageCased

SHAPE = (4, 5, 3)
DATA = np.arange(60, dtype=np.int16).reshape(SHAPE)

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path, affines: dict[str, np.ndarray]) -> Save:
    def _save(data: np.ndarray = DATA, name: str = "case.nii.gz", affine: np.ndarray = affines["oblique"]) -> Path:
        nib.save(nib.Nifti1Image(data, affine), tmp_path / name)
        return tmp_path / name

    return _save


def test_viewers_take_them_for_monais_loading_step() -> None:
    assert isinstance(LoadImageCase(), LoadImage)
    assert isinstance(LoadImageCased(), LoadImaged)


def test_record_after_loading(save: Save) -> None:
    path = save()
    record = LoadImageCased()({"image": path, "extra": 3})
    image = record["image"]
    assert isinstance(image, MetaTensor)
    assert image.dtype == torch.float32
    np.testing.assert_array_equal(image.as_tensor()[0], DATA)
    np.testing.assert_array_equal(image.affine, nib.load(path).affine)  # bit for bit
    assert replace(record["source"], grid=None) == Source("nifti", path)
    assert (record["case"], record["notes"], record["extra"]) == ("case", [], 3)
    assert record["started"] > 0
    assert "roi" not in record


def test_meta_data_hold_no_path(save: Save) -> None:
    meta = LoadImageCased()({"image": save()})["image"].meta
    assert set(meta) == {
        *("affine", "spatial_shape", "original_affine", "space"),
        *("acquisition_axis", "stacked_axis", "physical_size"),
    }
    assert tuple(meta["spatial_shape"]) == SHAPE
    assert meta["acquisition_axis"] == -1


def test_the_way_monai_label_asks(save: Save) -> None:
    step = LoadImageCased()
    step._loader.image_only = False
    record = step({"image": str(save())})
    np.testing.assert_array_equal(record["image_meta_dict"]["affine"], record["image"].affine)


def test_a_case_brings_its_name_and_its_warnings(save: Save) -> None:
    data = DATA.astype(np.float32)
    data[0, 0, 0] = np.nan
    case = the_case(save(data, "sub 1.nii"))
    record = LoadImageCased()({"image": case})
    assert record["case"] == "sub 1"
    assert record["notes"] == ["1 voxels were NaN or infinite and took the volume's minimum"]
    assert LoadImageCased()({"image": case, "case": "named"})["case"] == "named"


def test_one_of_several_volumes(save: Save) -> None:
    path = save(np.stack([DATA, DATA + 1], axis=-1))
    np.testing.assert_array_equal(LoadImageCase(volume="1")(path).data[0], DATA + 1)
    with pytest.raises(CaseError, match="E_4D"):
        LoadImageCase()(path)


@pytest.mark.parametrize("shape", [SHAPE, (1, *SHAPE), (3, *SHAPE)])
def test_images_in_memory(affines: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    values = torch.arange(float(np.prod(shape))).reshape(shape)
    given = MetaTensor(values, affine=torch.from_numpy(affines["sheared"]), meta={"acquisition_axis": 1})
    record = LoadImageCased()({"image": given})
    assert record["image"].shape == (3 if len(shape) == 4 and shape[0] == 3 else 1, *SHAPE)
    np.testing.assert_array_equal(record["image"].as_tensor().reshape(shape), values)
    np.testing.assert_array_equal(record["image"].affine, affines["sheared"])
    assert record["image"].meta["acquisition_axis"] == 1
    assert record["source"].kind == "memory"
    plain = LoadImageCase()(values)
    np.testing.assert_array_equal(plain.affine, np.eye(4))


def test_nibabel_image_in_memory(affines: dict[str, np.ndarray]) -> None:
    record = LoadImageCased()({"image": nib.Nifti1Image(DATA, affines["sheared"])})
    np.testing.assert_array_equal(record["image"].affine, affines["sheared"])
    np.testing.assert_array_equal(record["image"].as_tensor()[0], DATA)


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5, 3), (1, 1, 4, 5, 3), (1, 4, 0, 3)])
def test_tensors_that_are_no_volumes(shape: tuple[int, ...]) -> None:
    with pytest.raises(CaseError, match=r"give \(X, Y, Z\) or \(1 or 3, X, Y, Z\)") as caught:
        LoadImageCase()(torch.zeros(shape))
    assert caught.value.code == "E_GEOMETRY"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_with_values_that_are_no_numbers(value: float) -> None:
    given = torch.full(SHAPE, 5.0)
    given[0, 0, 0] = value
    given[1, 1, 1] = 2
    volume = LoadImageCase()(given)
    assert volume.data[0, 0, 0, 0] == 2
    assert volume.source.warnings[-1] == "1 voxels were NaN or infinite and took the volume's minimum"
    assert not given[0, 0, 0].isfinite()  # the caller's own tensor is left alone
    with pytest.raises(CaseError, match="E_PIXELS"):
        LoadImageCase()(torch.full(SHAPE, value))


def test_a_singular_affine_in_memory() -> None:
    with pytest.raises(CaseError) as caught:
        LoadImageCase()(MetaTensor(torch.zeros(SHAPE), affine=torch.diag(torch.tensor([1.0, 0, 1, 1]))))
    assert caught.value.code == "E_GEOMETRY"


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="E_NOT_FOUND"):
        LoadImageCased()({"image": tmp_path / "gone.nii"})


# --- masks


def test_mask_on_the_grid_of_the_image(save: Save) -> None:
    mask = (DATA > 50).astype(np.uint8) * 7
    record = LoadImageCased()({"image": save(), "roi": str(save(mask, "mask.nii"))})
    assert record["roi"].dtype == torch.bool
    np.testing.assert_array_equal(record["roi"][0], DATA > 50)
    assert "roi" not in LoadImageCased()({"image": save(), "roi": None})


def test_masks_in_memory(save: Save) -> None:
    affine = torch.from_numpy(nib.load(save()).affine)
    record = LoadImageCased()({"image": save(), "roi": MetaTensor(torch.ones(SHAPE), affine=affine)})
    assert record["roi"].all()


def _refused(record: dict[str, Any]) -> str:
    with pytest.raises(CaseError) as caught:
        LoadImageCased()(record)
    assert caught.value.code == "E_ROI"
    return str(caught.value)


def test_masks_that_do_not_fit(save: Save, affines: dict[str, np.ndarray]) -> None:
    image, ones = save(), np.ones(SHAPE, dtype=np.uint8)
    other = save(np.ones((4, 5, 4), dtype=np.uint8), "other.nii")
    assert f"the mask is 4 x 5 x 4, the image 4 x 5 x 3 ({other})" in _refused({"image": image, "roi": other})
    moved = affines["oblique"].copy()
    moved[0, 3] += 0.6
    elsewhere = save(ones, "elsewhere.nii", moved)
    assert "its corners are up to 0.6 mm away" in _refused({"image": image, "roi": elsewhere})
    flipped = affines["oblique"] @ np.diag([-1, 1, 1, 1])
    _refused({"image": image, "roi": save(ones, "flipped.nii", flipped)})
    assert "the mask is empty" in _refused({"image": image, "roi": save(0 * ones, "empty.nii")})


def test_rounding_of_an_affine_is_no_other_place(save: Save, affines: dict[str, np.ndarray]) -> None:
    nearly = affines["oblique"] + 1e-4
    nearly[3] = [0, 0, 0, 1]
    record = LoadImageCased()({"image": save(), "roi": save(np.ones(SHAPE, np.uint8), "mask.nii", nearly)})
    assert record["roi"].all()


def test_a_picture_is_a_mask_for_a_photo(tmp_path: Path) -> None:
    picture = np.array([[0, 255, 0], [0, 0, 255]], dtype=np.uint8)
    for name in ("photo.png", "mask.png"):
        Image.fromarray(picture).save(tmp_path / name)
    record = LoadImageCased()({"image": tmp_path / "photo.png", "roi": tmp_path / "mask.png"})
    np.testing.assert_array_equal(record["roi"][0, :, :, 0].T, picture > 0)


LABELS = np.zeros(SHAPE, np.float32)
LABELS[0], LABELS[1], LABELS[2, 0, 0] = 2, 5, 7


@pytest.mark.parametrize(("wanted", "inside"), [(5, (5,)), ([2, 5], (2, 5)), ((7,), (7,)), (None, (2, 5, 7))])
def test_labels_of_a_mask(save: Save, wanted: Any, inside: tuple[int, ...]) -> None:
    record = LoadImageCased(roi_label=wanted)({"image": save(), "roi": save(LABELS, "mask.nii")})
    np.testing.assert_array_equal(record["roi"][0], np.isin(LABELS, inside))
    said = ["mask values taken as inside: 2, 5, 7"] if wanted is None else []
    assert record["notes"] == said


def test_a_label_that_is_not_there(save: Save) -> None:
    record = {"image": save(), "roi": save(LABELS, "mask.nii")}
    with pytest.raises(CaseError, match=r"E_ROI: no label 3, 9 in the mask, it holds 2, 5, 7 \(.*mask\.nii\)"):
        LoadImageCased(roi_label=[3, 5, 9])(record)
    soft = {"image": save(), "roi": save(LABELS / 9, "soft.nii")}
    with pytest.raises(CaseError, match="E_ROI: the mask holds no labels but soft values"):
        LoadImageCased(roi_label=1)(soft)


def test_many_organs_need_a_label(save: Save) -> None:
    many = np.arange(60, dtype=np.float32).reshape(SHAPE)
    record = {"image": save(), "roi": save(many, "mask.nii")}
    with pytest.raises(CaseError, match=r"E_ROI: nothing of the mask is inside, its labels are 1, 2, .* - choose with"):
        LoadImageCased()(record)
    assert LoadImageCased(roi_label=41)(record)["roi"].sum() == 1


def test_nan_is_outside_a_mask(save: Save) -> None:
    nan = np.where(LABELS > 0, 1, np.nan).astype(np.float32)
    affine = torch.from_numpy(nib.load(save()).affine)
    for roi in (save(nan, "mask.nii"), MetaTensor(torch.from_numpy(nan), affine=affine), nib.load(save(nan, "m.nii"))):
        record = LoadImageCased()({"image": save(), "roi": roi})
        np.testing.assert_array_equal(record["roi"][0], LABELS > 0)
        assert record["notes"] == ["NaN in the mask was taken as outside"]


def test_sizes_that_no_scan_has() -> None:
    far = MetaTensor(torch.zeros(SHAPE), affine=torch.diag(torch.tensor([60.0, 1, 1, 1])))
    with pytest.raises(CaseError, match=r"E_GEOMETRY: voxels of 60 x 1 x 1 mm in a volume of 240 x 5 x 3 mm"):
        LoadImageCase()(far)
    assert LoadImageCase()(torch.zeros(4000, 2, 2)).data.shape == (1, 4000, 2, 2)  # says nothing of its voxels


def test_a_volume_of_the_caller_is_not_what_later_steps_change(save: Save) -> None:
    volume = the_case(save()).read()
    record = LoadImageCased()({"image": volume})
    record["image"] += 1
    np.testing.assert_array_equal(volume.data[0], DATA)
