"""``anomalyclip serve`` on a DICOMweb server: the network gets the DICOM files, from the first request on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pytest
from dicom_factory import AXIAL, stack, write
from label_server import small_head

import anomalyclip_monai as ac

READER = Path(__file__).parents[1] / "data" / "label_orthanc.py"

pytestmark = [pytest.mark.label, pytest.mark.timeout(280)]


def isolated() -> bool:
    """Whether a process may have a network of its own."""
    return (
        shutil.which("unshare") is not None and subprocess.run(["unshare", "-n", "true"], check=False).returncode == 0
    )


def make_series(folder: Path, name: str, modality: str, part: str, *, slope: int, intercept: int) -> None:
    """The synthetic head as a series; of 60 rows, which are no multiple of 8."""
    data, _ = small_head(lesion=True)
    images = stack(count=16, series=name, orientation=AXIAL, spacing=(2.7, 2.7), step=(0, 0, 5.0), modality=modality)
    for image, plane in zip(images, np.moveaxis(data, -1, 0), strict=True):
        image.Rows, image.Columns = plane.T.shape
        image.PixelData = plane.T.astype("<i2").tobytes()
        image.RescaleSlope, image.RescaleIntercept = slope, intercept
        image.BodyPartExamined = part
    write(folder / name, images)


@pytest.fixture(scope="module")
def read(monai_label: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all that a reader got."""
    if shutil.which("Orthanc") is None:
        pytest.skip("Orthanc is not installed: apt-get install orthanc orthanc-dicomweb")
    if not isolated():
        pytest.skip("this user may not make a network namespace, and Orthanc would answer the whole network")
    folder = tmp_path_factory.mktemp("dicomweb")
    make_series(folder / "dicom", "ct", "CT", "THIGH", slope=1, intercept=-300)
    make_series(folder / "dicom", "mr", "MR", "BRAIN", slope=1, intercept=0)
    ac.localize(folder / "dicom" / "mr", fast=True, threshold=0.3).save(folder / "own")
    seg = next((folder / "own").rglob("mask.dcm"))  # a result of ours is no reader's label
    (folder / "dicom" / "seg").mkdir()
    shutil.copy(seg, folder / "dicom" / "seg" / "seg.dcm")
    script = f'ip link set lo up && exec "{sys.executable}" "{READER}" "{folder}"'
    places = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def answers(read: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((read / "answers.json").read_text())
    return found


@pytest.fixture(scope="module")
def expected(read: Path) -> ac.Result:
    return ac.localize(read / "dicom" / "ct", fast=True, device="cpu", threshold=0.3)


def test_the_first_answer_is_the_commands(read, answers, expected):
    """The preset comes from the header, which a NIfTI does not have."""
    assert answers["params"]["preset"]["name"] == expected.preset["name"] == "ct_abdomen"
    assert expected.lesions
    for name, array in (("mask", expected.mask), ("heatmap", expected.heatmap)):
        found = nib.load(read / f"{name}.nii.gz")
        assert np.array_equal(np.asarray(found.dataobj), np.asarray(array)[0])
        assert np.array_equal(found.affine, expected.affine.astype(np.float32))


def test_the_image_for_viewers_lies_under_the_mask(read, expected):
    image = nib.load(read / "image.nii.gz")
    assert np.array_equal(image.affine, nib.load(read / "mask.nii.gz").affine)
    data, _ = small_head(lesion=True)
    assert image.shape == data.shape
    values = np.asarray(image.dataobj)
    assert sorted(np.unique(values + 300)) == sorted(np.unique(data))


@pytest.mark.parametrize(("name", "count"), [("mask", 1), ("bands", 3)])
def test_a_seg_has_the_voxels_of_the_answer(read, name, count):
    seg = highdicom.seg.segread(read / f"{name}.dcm")
    assert seg.number_of_segments == count
    stored = np.asarray(nib.load(read / f"{name}.nii.gz").dataobj)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    segments = [
        int(item.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        for item in seg.PerFrameFunctionalGroupsSequence
    ]
    for value in range(1, count + 1):
        assert frames[np.array(segments) == value].sum() == (stored == value).sum()


def test_there_are_no_images_but_those_of_the_server(answers):
    assert set(answers["refused"].values()) == {"E_NOT_FOUND"}


def test_the_work_list_holds_what_no_reader_has_labelled(answers):
    series = answers["series"]
    assert answers["status"]["scored"] == 2
    assert {answers["first"], answers["second"]} <= {series["ct"], series["mr"]}
    assert answers["saved"] == 200
    assert answers["second"] == series["mr"]  # the label of the CT went to the server
    assert (answers["info"]["total"], answers["info"]["completed"]) == (2, 1)


def test_ohif_is_told_where_the_server_is(answers):
    assert answers["cookie"].startswith(f"MONAILABEL_SERVER_URL={answers['address']}/; Path=/")
    assert answers["proxied"] == 200


def test_nothing_of_the_patients_is_left(read, answers):
    assert (answers["end"], answers["left"]) == (143, [])
    assert sorted(path.name for path in (read / "work").iterdir()) == ["anomalyclip_scores.json"]
    assert any("labels go to the DICOMweb server" in line for line in answers["printed"])
