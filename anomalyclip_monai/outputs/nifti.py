"""Write volumes as NIfTI with a header of their own."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from anomalyclip_monai.data.geometry import is_sheared, spacing
from anomalyclip_monai.data.volume import StoredGrid
from anomalyclip_monai.files import whole_file
from anomalyclip_monai.types import Affine


def write_nifti(path: Path, data: np.ndarray, affine: Affine, grid: StoredGrid | None = None) -> None:
    """Write (X, Y, Z) on the grid of a NIfTI source, or with its affine as ``sform``, code 1.

    The header is a fresh one: a source's holds free text that may name a patient. Of a NIfTI source it takes sform,
    qform, their codes and the unit, number for number. Without one the ``qform`` is set as well, except for sheared
    affines, which it cannot hold: readers that prefer it would silently unshear.

    Args:
        path: the file.
        data: the voxels.
        affine: (4, 4) voxel index to RAS mm.
        grid: what the source's header says of the same affine.

    Raises:
        OutputError: the file cannot be written (``E_WRITE``).
    """
    image = _with_affine(data, affine) if grid is None else _on_grid(data, grid)
    with whole_file(path) as temporary:
        nib.save(image, temporary)


def _with_affine(data: np.ndarray, affine: Affine) -> nib.Nifti1Image:
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    if is_sheared(affine):
        image.set_qform(None, code=0)
    else:
        image.set_qform(affine, code=1)
    # set_qform rewrites the voxel sizes; they are those of the sform.
    image.header["pixdim"][1:4] = spacing(affine)
    return image


def _on_grid(data: np.ndarray, grid: StoredGrid) -> nib.Nifti1Image | nib.Nifti2Image:
    # Without an affine nibabel leaves the header as it is.
    image = (nib.Nifti2Image if grid.version == 2 else nib.Nifti1Image)(data, None)
    header = image.header
    for row, start in (("srow_x", 0), ("srow_y", 4), ("srow_z", 8)):
        header[row] = grid.sform[start : start + 4]
    for name, value in zip("bcd", grid.quaternion, strict=True):
        header[f"quatern_{name}"] = value
    for name, value in zip("xyz", grid.offset, strict=True):
        header[f"qoffset_{name}"] = value
    header["sform_code"], header["qform_code"] = grid.sform_code, grid.qform_code
    header["xyzt_units"] = grid.unit
    header["pixdim"][:4] = grid.pixdim
    return image
