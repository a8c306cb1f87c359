from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from anomalyclip_monai.data.geometry import is_sheared
from anomalyclip_monai.data.nifti import read_nifti
from anomalyclip_monai.exceptions import OutputError
from anomalyclip_monai.outputs import nifti
from anomalyclip_monai.outputs.nifti import write_nifti

DATA = np.linspace(0, 1, 60, dtype=np.float32).reshape(4, 5, 3)


def test_sform_of_a_source_comes_back_bit_for_bit(tmp_path: Path, any_affine: np.ndarray) -> None:
    source = nib.Nifti1Image(np.zeros((4, 5, 3), dtype=np.int16), any_affine)
    source.header["descrip"] = b"free text that may name somebody"
    nib.save(source, tmp_path / "source.nii.gz")
    volume = read_nifti(tmp_path / "source.nii.gz")
    write_nifti(tmp_path / "heatmap.nii.gz", DATA, volume.affine)

    given, written = nib.load(tmp_path / "source.nii.gz"), nib.load(tmp_path / "heatmap.nii.gz")
    for row in ("srow_x", "srow_y", "srow_z"):
        assert given.header[row].tobytes() == written.header[row].tobytes()
    np.testing.assert_array_equal(written.affine, given.affine)
    assert written.header["sform_code"] == 1
    np.testing.assert_allclose(written.header["pixdim"][1:4], given.header["pixdim"][1:4], rtol=1e-6)
    assert written.header.get_xyzt_units()[0] == "mm"
    assert written.header["descrip"].item() == b""
    assert len(written.header.extensions) == 0
    np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), DATA)
    assert written.get_data_dtype() == np.float32
    assert read_nifti(tmp_path / "heatmap.nii.gz").source.warnings == ()


def test_qform_is_the_same_or_absent_where_it_would_unshear(tmp_path: Path, any_affine: np.ndarray) -> None:
    write_nifti(tmp_path / "a.nii.gz", DATA, any_affine)
    written = nib.load(tmp_path / "a.nii.gz")
    qform, code = written.get_qform(coded=True)
    if is_sheared(any_affine):
        assert code == 0
    else:
        assert code == 1
        np.testing.assert_allclose(qform, any_affine, atol=1e-4)


FIELDS = ("srow_x", "srow_y", "srow_z", "sform_code", "qform_code", "pixdim")
FIELDS += ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("unit", ["meter", "mm", "micron", "unknown"])
@pytest.mark.parametrize("codes", [(1, 1), (4, 2), (0, 1), (3, 0), (0, 0)])
def test_a_source_is_carried_number_for_number(
    tmp_path: Path, any_affine: np.ndarray, kind: Any, unit: str, codes: tuple[int, int]
) -> None:
    affine, shape = any_affine.copy(), (4, 5, 3)
    affine[:3] /= {"meter": 1000, "micron": 0.001}.get(unit, 1)
    source = kind(np.zeros(shape, dtype=np.int16), affine)
    turned = affine @ np.diag([1, 1, 1.5, 1])  # a qform that says something else
    source.set_qform(turned if codes[1] else None, codes[1])
    source.set_sform(affine if codes[0] else None, codes[0])
    source.header.set_xyzt_units(unit, "sec")
    source.header["aux_file"] = b"free text"
    nib.save(source, tmp_path / "source.nii.gz")
    volume = read_nifti(tmp_path / "source.nii.gz")
    write_nifti(tmp_path / "heatmap.nii.gz", DATA, volume.affine, volume.source.grid)

    given, written = nib.load(tmp_path / "source.nii.gz"), nib.load(tmp_path / "heatmap.nii.gz")
    for name in FIELDS:
        stored, carried = np.ravel(given.header[name])[:4], np.ravel(written.header[name])[:4]
        assert stored.tobytes() == carried.tobytes(), name
    assert type(written) is kind
    assert written.header.get_xyzt_units() == (unit, "unknown")
    np.testing.assert_array_equal(written.affine, given.affine)
    assert written.header["aux_file"].item() == b""
    np.testing.assert_array_equal(written.get_fdata(dtype=np.float32), DATA)
    np.testing.assert_array_equal(read_nifti(tmp_path / "heatmap.nii.gz").affine, volume.affine)


def test_an_sform_that_was_not_used_is_not_carried(tmp_path: Path) -> None:
    source = nib.Nifti1Image(DATA, np.diag([1.0, 2, 3, 1]))
    source.set_qform(np.diag([1.0, 2, 3, 1]), 1)
    source.header["srow_x"] = np.nan
    nib.save(nib.Nifti1Image(DATA, None, source.header), tmp_path / "source.nii")
    volume = read_nifti(tmp_path / "source.nii")
    write_nifti(tmp_path / "heatmap.nii", DATA, volume.affine, volume.source.grid)
    written = nib.load(tmp_path / "heatmap.nii")
    assert (written.header["sform_code"], written.header["qform_code"]) == (0, 1)
    np.testing.assert_array_equal(written.affine, volume.affine)


def test_a_plane_becomes_a_volume_of_one(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(DATA[..., 0], np.diag([1.0, 2, 3, 1])), tmp_path / "source.nii")
    volume = read_nifti(tmp_path / "source.nii")
    write_nifti(tmp_path / "heatmap.nii", DATA[..., :1], volume.affine, volume.source.grid)
    written = nib.load(tmp_path / "heatmap.nii")
    np.testing.assert_array_equal(written.affine, volume.affine)
    assert written.shape == (4, 5, 1)


def test_labels_stay_labels(tmp_path: Path) -> None:
    write_nifti(tmp_path / "mask.nii.gz", (DATA > 0.5).astype(np.uint8), np.eye(4))
    written = nib.load(tmp_path / "mask.nii.gz")
    assert written.get_data_dtype() == np.uint8
    assert set(np.unique(np.asarray(written.dataobj))) == {0, 1}


@pytest.mark.parametrize("error", [OSError(28, os.strerror(28)), ValueError("in the middle"), KeyboardInterrupt()])
def test_failure_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def half(image: Any, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(nifti.nib, "save", half)
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        write_nifti(tmp_path / "case" / "heatmap.nii.gz", DATA, np.eye(4))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
