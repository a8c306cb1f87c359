from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImaged
from PIL import Image

from anomalyclip_monai import resources
from anomalyclip_monai.data import Source
from anomalyclip_monai.data.nifti import read_nifti
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, OutputError
from anomalyclip_monai.folders.marker import MARKER
from anomalyclip_monai.outputs import Result, SaveImageResultd
from anomalyclip_monai.transforms import FindLesionsd

SHAPE = (12, 9, 5)

MakeRecord = Callable[..., dict[str, Any]]


@pytest.fixture
def record(affines: dict[str, np.ndarray]) -> MakeRecord:
    """A record as the bundle's post-processing leaves it, made from a heatmap."""

    def _record(
        shape: tuple[int, int, int] = SHAPE,
        affine: np.ndarray = affines["oblique"],
        source: Source | None = None,
    ) -> dict[str, Any]:
        heatmap = np.full(shape, 0.05, dtype=np.float32)
        heatmap[2:6, 3:5, 0] = 0.9
        heatmap[2, 3, 0] = 0.95
        meta = {
            "axes": torch.tensor([[2, -1, -1]]),
            "slice_scores": torch.linspace(0.9, 0.1, shape[2])[None],
            "batch_halvings": torch.tensor([0]),
        }
        affine_tensor = torch.from_numpy(affine)
        return FindLesionsd(min_volume=0)(
            {
                "case": "sub/case 1",
                "image": MetaTensor(torch.rand(1, *shape), affine=affine_tensor),
                "pred": MetaTensor(torch.from_numpy(heatmap)[None], affine=affine_tensor, meta=meta),
                "source": source or Source("nifti", Path("/home/somebody/Jane Doe.nii.gz")),
                "preset": {
                    "name": "mr_brain",
                    "scaling": "percentile",
                    "chosen": "asked for",
                    "evidence": "none",
                },
                "notes": [],
                "started": 0.0,
            }
        )

    return _record


MODEL = {"bundle": "anomalyclip_tiny", "weights_sha256": "ab", "prompts_sha256": "cd"}


@pytest.fixture
def result(record: MakeRecord) -> Result:
    return Result.from_record(record(), model=MODEL, device="cpu")


def _files(folder: Path) -> list[str]:
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(file.as_posix() for file in files if file.name != MARKER)


def test_attributes(result: Result, affines: dict[str, np.ndarray]) -> None:
    assert (result.heatmap.shape, result.heatmap.dtype) == ((1, *SHAPE), torch.float32)
    assert (result.mask.shape, result.mask.dtype) == ((1, *SHAPE), torch.uint8)
    assert result.score == pytest.approx((0.9 + 0.7 + 0.5) / 3)
    assert result.slice_scores.shape == (5,)
    assert [lesion.voxels for lesion in result.lesions] == [8]
    np.testing.assert_array_equal(result.affine, affines["oblique"])
    assert not result.is_photo
    assert result.error is None


def test_files_of_a_volume(result: Result, tmp_path: Path) -> None:
    folder = result.save(tmp_path)
    assert folder == tmp_path / "sub/case 1"
    assert _files(folder) == ["heatmap.nii.gz", "mask.nii.gz", "preview.png", "scores.json"]
    heatmap, mask = nib.load(folder / "heatmap.nii.gz"), nib.load(folder / "mask.nii.gz")
    assert (heatmap.get_data_dtype(), mask.get_data_dtype()) == (np.float32, np.uint8)
    np.testing.assert_array_equal(heatmap.get_fdata(dtype=np.float32), result.heatmap[0])
    np.testing.assert_array_equal(np.asarray(mask.dataobj), result.mask[0])
    for written in (heatmap, mask):
        np.testing.assert_array_equal(written.affine, result.affine.astype(np.float32))
    with Image.open(folder / "preview.png") as preview:
        assert preview.size == result.preview().size


def test_keys_of_scores_json(result: Result, tmp_path: Path) -> None:
    text = (result.save(tmp_path) / "scores.json").read_text()
    scores = json.loads(text)
    promised = ["case", "score", "slice_axis", "slice_scores", "threshold", "lesions", "model", "preset", "warnings",
                "versions", "device", "seconds"]  # fmt: skip
    assert set(promised) <= set(scores)
    assert scores["case"] == "sub/case 1"
    assert scores["slice_axis"] == 2
    assert scores["slice_scores"] == pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1])
    assert scores["threshold"] == {"value": 0.5, "low": 0.5, "origin": "uncalibrated"}
    assert scores["model"] == MODEL
    (lesion,) = scores["lesions"]
    assert set(lesion) >= {"volume_mm3", "centroid_world_mm", "centroid_voxel", "bbox_voxel", "peak", "mean"}
    assert lesion["bbox_voxel"] == [[2, 3, 0], [6, 5, 1]]
    assert lesion["centroid_voxel"] == [3.5, 3.5, 0]
    peak = [*lesion["peak_voxel"], 1]
    assert np.asarray(result.heatmap)[0][tuple(peak[:3])] == np.float32(0.95)
    assert lesion["peak_world_mm"] == pytest.approx((result.affine @ peak)[:3].tolist())
    assert lesion["centroid_world_mm"] == pytest.approx((result.affine @ [3.5, 3.5, 0, 1])[:3].tolist())
    assert lesion["volume_mm3"] == pytest.approx(8 * 0.9 * 1.1 * 3.0)
    assert (lesion["peak"], lesion["mean"]) == pytest.approx((0.95, (7 * 0.9 + 0.95) / 8))
    assert scores["physical_size"] is True
    assert len(scores["warnings"]) == 1
    assert {"torch", "monai", "anomalyclip-monai"} <= set(scores["versions"])
    # neither the path of the input nor a name in it
    assert "Jane" not in text
    assert "/home" not in text


def test_files_of_a_photo(record: MakeRecord, tmp_path: Path) -> None:
    source = Source("photo", has_physical_size=False)
    data = record((12, 9, 1), np.diag([-1.0, -1, 1, 1]), source)
    result = Result.from_record(data, model={}, device="cpu")
    assert result.is_photo
    folder = result.save(tmp_path)
    assert _files(folder) == [
        "heatmap.nii.gz",
        "heatmap.png",
        "mask.nii.gz",
        "mask.png",
        "preview.png",
        "scores.json",
    ]
    with Image.open(folder / "heatmap.png") as image:
        assert image.size == (12, 9)
        pixels = np.asarray(image)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, np.round(np.asarray(result.heatmap[0, :, :, 0]).T * 65535))
    with Image.open(folder / "mask.png") as image:
        mask = np.asarray(image)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.asarray(result.mask[0, :, :, 0]).T * 255)
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["physical_size"] is False
    assert scores["lesions"][0]["volume_mm3"] is None
    assert scores["lesions"][0]["centroid_world_mm"] is None


def test_a_cine_has_no_single_picture(record: MakeRecord, tmp_path: Path) -> None:
    source = Source("photo", has_physical_size=False)
    result = Result.from_record(record(SHAPE, np.diag([-1.0, -1, 1, 1]), source), model={}, device="cpu")
    assert _files(result.save(tmp_path)) == ["heatmap.nii.gz", "mask.nii.gz", "preview.png", "scores.json"]


def test_slices_on_no_grid_have_no_nifti(record: MakeRecord, tmp_path: Path) -> None:
    result = Result.from_record(record(source=Source("dicom", regular=False)), model={}, device="cpu")
    assert _files(result.save(tmp_path, dicom=False)) == ["preview.png", "scores.json"]


def test_a_region_of_interest_is_said(record: MakeRecord) -> None:
    data = record()
    assert Result.from_record(data, model={}, device="cpu").scores()["roi"] is False
    data["roi"] = torch.ones(1, *SHAPE, dtype=torch.bool)
    assert Result.from_record(data, model={}, device="cpu").scores()["roi"] is True


def test_a_case_that_failed_has_nothing_to_save(tmp_path: Path) -> None:
    error = CaseError("E_NIFTI", "not a readable NIfTI file")
    with pytest.raises(CaseError) as caught:
        Result("a", error=error).save(tmp_path)
    assert caught.value is error
    assert _files(tmp_path) == []
    with pytest.raises(AnomalyCLIPError, match="E_RESULT"):
        Result("a").preview()


def test_unwritable_folder(result: Result, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError) as caught:
        result.save(tmp_path / "out")
    assert caught.value.code == "E_WRITE"


def test_failure_in_the_middle_leaves_no_half_file(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(self: Image.Image, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OutputError, match="No space left on device"):
        result.save(tmp_path)
    # neither the files that were finished before, nor the folder
    assert not (tmp_path / "sub/case 1").exists()


# --- the step of a bundle


def test_step_writes_the_same_files(record: MakeRecord, tmp_path: Path) -> None:
    root = resources.bundle_root("tiny")
    step = SaveImageResultd("pred", tmp_path, root, "cpu", prompts_out=True)
    data = record()
    assert step(data) == data
    folder = tmp_path / "sub/case 1"
    assert _files(folder) == ["heatmap.nii.gz", "mask.nii.gz", "preview.png", "prompts.json", "scores.json"]
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["model"]["bundle"] == "anomalyclip_tiny"
    assert len(scores["model"]["weights_sha256"]) == len(scores["model"]["prompts_sha256"]) == 64
    assert scores["device"] == "cpu"
    SaveImageResultd("pred", tmp_path, root, "cpu", report=True)(record())
    assert "report.html" in _files(folder)


def test_viewers_know_the_step_as_one_that_writes() -> None:
    assert issubclass(SaveImageResultd, SaveImaged)
    assert "SaveImage" in SaveImageResultd.__name__


def test_files_lie_on_the_stored_grid_of_a_nifti(tmp_path: Path, record: MakeRecord, affines: dict[str, Any]) -> None:
    in_metres = np.diag([1e-3, 1e-3, 1e-3, 1]) @ affines["oblique"]
    image = nib.Nifti1Image(np.zeros(SHAPE, np.float32), in_metres)
    image.header.set_xyzt_units("meter")
    image.set_sform(in_metres, code=3)
    nib.save(image, tmp_path / "source.nii")
    source = read_nifti(tmp_path / "source.nii").source
    folder = Result.from_record(record(source=source), model=MODEL, device="cpu").save(tmp_path / "out")
    for name in ("heatmap.nii.gz", "mask.nii.gz"):
        header = nib.load(folder / name).header
        assert (int(header["sform_code"]), header.get_xyzt_units()[0]) == (3, "meter")
        np.testing.assert_array_equal(header.get_sform(), nib.load(tmp_path / "source.nii").get_sform())
