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
