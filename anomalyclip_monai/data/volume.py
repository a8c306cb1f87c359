"""What every reader returns: the voxels as stored, their affine, and what the file says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from anomalyclip_monai.data.frame import Frame
from anomalyclip_monai.types import Affine, FloatArray

if TYPE_CHECKING:
    from anomalyclip_monai.data.dicom_origin import Origin

SourceKind = Literal["nifti", "dicom", "photo", "memory"]


@dataclass(frozen=True, slots=True)
class StoredGrid:
    """How a NIfTI header places its voxels, number for number, so that results lie on the source in every viewer.

    A viewer may prefer the qform to the sform, or take no heed of the unit: what it does with the source it then does
    with the results. Numbers alone: a header's texts and extensions may name a patient.

    Attributes:
        sform: the rows of ``srow_x``, ``srow_y`` and ``srow_z``, 12 numbers.
        sform_code: what they refer to, 0 for nothing.
        quaternion: ``quatern_b``, ``quatern_c``, ``quatern_d``.
        offset: ``qoffset_x``, ``qoffset_y``, ``qoffset_z``.
        pixdim: qfac, the handedness of the qform, and the voxel sizes along the three axes.
        qform_code: what the qform refers to, 0 for nothing.
        unit: the spatial part of ``xyzt_units``: 1 metre, 2 millimetre, 3 micrometre, 0 not said.
        version: of NIfTI, 1 (float32) or 2 (float64).
    """

    sform: tuple[float, ...]
    sform_code: int
    quaternion: tuple[float, ...]
    offset: tuple[float, ...]
    pixdim: tuple[float, ...]
    qform_code: int
    unit: int
    version: Literal[1, 2] = 1


@dataclass(frozen=True, slots=True)
class Source:
    """Where a volume came from. Nothing that is printed or compared is a patient attribute.

    Attributes:
        kind: the family of the reader.
        path: the file or folder that the user gave, None for a volume made in memory.
        modality: DICOM modality code (``MR``, ``CT``, ``US`` ...), empty if the file does not say.
        body_part: DICOM Body Part Examined in upper case, empty if the file does not say.
        acquisition_axis: the array axis along which the scanner stacked its slices, None if unknown.
        has_physical_size: False for photos and frames, whose voxels are pixels without a size in mm.
        regular: False where the slices do not lie on one grid and were taken one by one: then only ``frames`` say
            where a slice lies, the affine is nominal, and results go to DICOM only.
        frames: for DICOM, the stored frame of each slice in the order of the array's last axis.
        grid: for NIfTI, how its header places the voxels, in its own unit.
        warnings: what the reader noticed and corrected, one sentence each.
        origin: for DICOM, whose the volume is, for results in DICOM and for nothing else.
        sha256: of the input's bytes, see :func:`~anomalyclip_monai.data.content.sha256_of`; empty if not known.
    """

    kind: SourceKind
    path: Path | None = None
    modality: str = ""
    body_part: str = ""
    acquisition_axis: int | None = None
    has_physical_size: bool = True
    regular: bool = True
    frames: tuple[Frame, ...] = ()
    grid: StoredGrid | None = None
    warnings: tuple[str, ...] = ()
    origin: Origin | None = field(default=None, repr=False, compare=False)
    sha256: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume on its stored grid.

    Attributes:
        data: (C, X, Y, Z) float32 in modality values (HU for CT), C is 1 or, for colour, 3; never NaN or inf.
        affine: (4, 4) float64, voxel index to RAS millimetres, as the file defines it: whatever unit that counts in.
        source: what the file says of the volume.
    """

    data: FloatArray
    affine: Affine
    source: Source
