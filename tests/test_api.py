"""The Python API as the README shows it."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

import anomalyclip_monai as ac

AFFINE = np.array([[0, 0, 4.0, -30], [-1.1, 0, 0, 20], [0, 0.9, 0, -7], [0, 0, 0, 1]])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A sagittal volume with thick slices: axes P, S, R."""
    data = np.random.default_rng(1).normal(200, 20, (28, 33, 5)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, AFFINE), tmp_path / "case.nii.gz")
    return tmp_path / "case.nii.gz"


def test_result_is_on_the_input_grid(path):
    result = ac.localize(path)
    assert isinstance(result.heatmap, MetaTensor)
    assert result.heatmap.shape == result.mask.shape == (1, 28, 33, 5)
    assert result.heatmap.dtype == torch.float32
    assert result.mask.dtype == torch.uint8
    assert np.array_equal(result.heatmap.affine.numpy(), nib.load(path).affine)
    assert result.slice_axis == 2
    assert result.slice_scores.shape == (5,)
    assert result.score == pytest.approx(np.sort(result.slice_scores)[-3:].mean(), abs=1e-6)
    assert 0 <= float(result.heatmap.min()) <= float(result.heatmap.max()) <= 1


def test_paths_nibabel_images_and_tensors_give_the_same(path):
    image = nib.load(path)
    data = torch.from_numpy(image.get_fdata(dtype=np.float32))
    results = [ac.localize(given) for given in (path, str(path), image, MetaTensor(data[None], affine=image.affine))]
    for result in results[1:]:
        assert torch.equal(result.heatmap.as_tensor(), results[0].heatmap.as_tensor())
        assert np.array_equal(result.affine, results[0].affine)


def test_arrays_and_pictures_are_taken_as_they_are(path):
    image = nib.load(path)
    data = image.get_fdata(dtype=np.float32)
    expected = ac.localize(path)
    given = ac.localize(data, affine=image.affine)
    assert torch.equal(given.heatmap.as_tensor(), expected.heatmap.as_tensor())
    assert np.array_equal(given.affine, expected.affine)
    roi = np.zeros(data.shape, bool)
    roi[5:15, 5:20, 2] = True
    inside = ac.localize(data, affine=image.affine, roi=roi)
    assert np.flatnonzero(inside.slice_scores).tolist() == [2]
    pixels = np.random.default_rng(1).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path.parent / "frame.png")
    picture = ac.localize(Image.fromarray(pixels))
    frame = ac.localize(path.parent / "frame.png")
    assert torch.equal(picture.heatmap.as_tensor(), frame.heatmap.as_tensor())
    assert picture.preset["name"] == "photo"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (np.zeros((5, 4)), "E_GEOMETRY"),
        (np.zeros((5, 4, 3), np.uint8), "E_GEOMETRY"),
        (np.zeros((5, 4, 3), complex), "E_PIXELS"),
        ("", "E_NOT_FOUND"),
        (3, "E_NOT_IMAGE"),
        (None, "E_NOT_IMAGE"),
        ([1, 2], "E_NOT_IMAGE"),
    ],
)
def test_what_is_no_image_is_an_error_of_ours(given, code):
    with pytest.raises(ac.AnomalyCLIPError) as raised:
        ac.localize(given)
    assert str(raised.value).startswith(f"{code}: ")
    assert "\n" not in str(raised.value)


def test_an_affine_goes_with_an_array(path):
    with pytest.raises(ac.AnomalyCLIPError, match="E_OPTION: affine goes with an array"):
        ac.localize(path, affine=np.eye(4))


def test_results_compare_by_what_was_found_and_print_briefly(path):
    one, same, other = ac.localize(path), ac.localize(path), ac.localize(path, threshold=0.01, min_volume=0)
    assert one == same
    assert one != other
    assert one != "case"
    found = f"score={one.score:.3f}, lesions=0, threshold=0.55 with outlines from 0.35"
    assert repr(one) == f"Result(case='case', {found}, 28 x 33 x 5 voxels)"
    failed = [ac.Result("a", error=ac.AnomalyCLIPError("E_X", "no")) for _ in range(2)]
    assert failed[0] == failed[1]
    assert repr(failed[0]) == "Result(case='a', error='E_X: no')"


def test_several_cases_need_localize_many(path):
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(path.parent / "frame.png")
    with pytest.raises(ac.AnomalyCLIPError, match="E_MULTI_SERIES: 2 cases are there: case, frame"):
        ac.localize(path.parent)
    (path.parent / "bad.nii").write_bytes(b"")
    results = {result.case: result for result in ac.localize_many(path.parent)}
    assert set(results) == {"bad", "case", "frame"}
    assert results["bad"].error.code == "E_NIFTI"
    assert results["case"].error is None
    with pytest.raises(ac.AnomalyCLIPError, match="E_NIFTI"):
        results["bad"].save(path.parent / "out")


def test_roi_restricts_scores_and_lesions(path):
    roi = np.zeros((28, 33, 5), np.uint8)
    roi[5:15, 5:20, 2] = 1
    nib.save(nib.Nifti1Image(roi, AFFINE), path.parent / "roi.nii.gz")
    result = ac.localize(path, roi=path.parent / "roi.nii.gz", threshold="quantile:0.5", min_volume=0)
    assert np.flatnonzero(result.slice_scores).tolist() == [2]
    mask = np.asarray(result.mask[0]) > 0
    assert mask.any()
    assert not mask[roi == 0].any()
    inside = np.asarray(result.heatmap[0])[roi > 0]
    assert result.threshold.value == pytest.approx(np.quantile(inside, 0.5))
    # top 2 % of 150 pixels are 3 pixels
    assert result.slice_scores[2] == pytest.approx(np.sort(inside)[-3:].mean(), abs=1e-6)


def test_model_is_a_module_with_cached_text_features():
    model = ac.load_model("tiny")
    assert isinstance(model, torch.nn.Module)
    assert not model.training
    with torch.no_grad():
        assert model.text_features() is model.text_features()
        assert model(torch.rand(2, 1, 50, 40)).shape == (2, 2, 50, 40)


def test_saved_files_hold_the_result(path, tmp_path):
    result = ac.localize(path)
    folder = result.save(tmp_path / "out")
    assert folder == tmp_path / "out" / "case"
    stored = nib.load(folder / "heatmap.nii.gz")
    assert np.array_equal(stored.get_fdata(dtype=np.float32), result.heatmap[0].numpy())
    assert np.array_equal(stored.affine, nib.load(path).affine)


@pytest.mark.slow
def test_real_glioma_and_polyp_are_found(test_data):
    case = test_data / "dev" / "lgg6" / "TCGA_CS_4942_19970222"
    result = ac.localize(case / "flair.nii.gz")
    truth = nib.load(case / "mask.nii.gz").get_fdata() > 0
    mask = np.asarray(result.mask[0]) > 0
    assert truth[np.unravel_index(int(result.heatmap[0].argmax()), truth.shape)]
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.7


@pytest.mark.slow
def test_real_dicom_series(test_data):
    result = ac.localize(test_data / "dicom" / "sts001_sarcoma_rtstruct" / "MR_T1" / "image")
    assert result.preset["name"] == "mr_body"
    assert result.slice_axis == 2
    assert result.score > 0.9
