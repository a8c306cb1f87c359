"""Write volumes as NIfTI with a header of their own."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from anomalyclip_monai.data.geometry import is_sheared
from anomalyclip_monai.files import whole_file
from anomalyclip_monai.types import Affine


def write_nifti(path: Path, data: np.ndarray, affine: Affine) -> None:
    """Write (X, Y, Z) with its affine as ``sform``, code 1.

    The header is a fresh one: a source's holds free text that may name a patient. The ``qform`` is set as well,
    except for sheared affines, which it cannot hold: readers that prefer it would silently unshear.

    Raises:
        OutputError: the file cannot be written (``E_WRITE``).
    """
    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    if is_sheared(affine):
        image.set_qform(None, code=0)
    else:
        image.set_qform(affine, code=1)
    # set_qform rewrites the voxel sizes; they are those of the sform.
    image.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    with whole_file(path) as temporary:
        nib.save(image, temporary)
