"""What every reader returns: the voxels as stored, their affine, and what the file says of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from anomalyclip_monai.types import Affine, FloatArray

SourceKind = Literal["nifti", "dicom", "photo", "memory"]


@dataclass(frozen=True, slots=True)
class Frame:
    """The file and the frame in it (0 for a single-frame object) that hold one slice of a DICOM volume."""

    path: Path
    number: int = 0


@dataclass(frozen=True, slots=True)
class Source:
    """Where a volume came from. Holds no patient attribute.

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
        warnings: what the reader noticed and corrected, one sentence each.
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
    warnings: tuple[str, ...] = ()
    sha256: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume on its stored grid.

    Attributes:
        data: (C, X, Y, Z) float32 in modality values (HU for CT), C is 1 or, for colour, 3; never NaN or inf.
        affine: (4, 4) float64, voxel index to RAS millimetres, as the file defines it.
        source: what the file says of the volume.
    """

    data: FloatArray
    affine: Affine
    source: Source
