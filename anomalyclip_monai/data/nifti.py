"""Read NIfTI volumes on nibabel: the stored grid and affine, or one line that says why not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from anomalyclip_monai.data.volume import Source, Volume
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import Affine, PathLike

SUFFIXES = (".nii", ".nii.gz")

MAX_VOXELS = 2**30
"""Largest volume that is read, 4 GiB as float32. The header is checked before anything is decoded."""

_GZIP_MAGIC = b"\x1f\x8b"


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith(SUFFIXES)


def read_nifti(path: PathLike, volume: int | None = None) -> Volume:
    """Read one volume, (1, X, Y, Z) float32.

    Args:
        path: a ``.nii`` or ``.nii.gz`` file.
        volume: which volume of a 4D file, counted from 0.

    Raises:
        CaseError: ``E_NIFTI``, ``E_TRUNCATED``, ``E_GEOMETRY``, ``E_4D``, ``E_COLOUR``, ``E_PIXELS``, ``E_TOO_LARGE``.
    """
    path = Path(path)
    zipped = path.name.lower().endswith(".gz")
    try:
        with open(path, "rb") as raw:
            if (raw.read(2) == _GZIP_MAGIC) != zipped:
                kind = "is not gzip-compressed" if zipped else "is gzip-compressed"
                raise CaseError("E_NIFTI", f"the name ends in {path.suffix} but the file {kind}", path, "rename it")
            raw.seek(0)
            if not zipped:
                return volume_from_nibabel(_parse(raw, path), path, volume)
            with gzip.open(raw) as stream:
                result = volume_from_nibabel(_parse(stream, path), path, volume)
                while stream.read(1 << 20):  # the checksum lies behind the last byte
                    pass
                return result
    except CaseError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CaseError("E_TRUNCATED", "the compressed data are cut off or damaged", path, "copy it again") from error
    except Exception as error:  # nibabel and numpy raise whatever they meet in a damaged file
        short = "Expected" in str(error) or "mmap" in str(error) or "could not be read" in str(error)
        code, what = (
            ("E_TRUNCATED", "the file is shorter than its header says")
            if short
            else ("E_NIFTI", f"not a readable NIfTI file ({type(error).__name__})")
        )
        raise CaseError(code, what, path, "copy it again, or convert it with dcm2niix") from error


def _parse(stream: Any, path: Path) -> nib.Nifti1Image:
    holder = nib.FileHolder(fileobj=stream)
    size = int.from_bytes(head := stream.read(4), "little")
    stream.seek(0)
    version2 = 540 in (size, int.from_bytes(head, "big"))
    image_class = nib.Nifti2Image if version2 else nib.Nifti1Image
    try:
        # nibabel turns voxel sizes of 0 into 1 while it reads
        header = image_class.header_class.from_fileobj(stream, check=False)
        stream.seek(0)
        _check_voxel_size(header, path)
        return image_class.from_file_map({"image": holder, "header": holder})
    except (CaseError, EOFError, gzip.BadGzipFile, zlib.error):
        raise
    except Exception as error:
        raise CaseError(
            "E_NIFTI", f"the header is not that of a NIfTI file ({type(error).__name__})", path, "check the file"
        ) from error


def _check_voxel_size(header: Any, path: Path) -> None:
    count = min(3, int(header["dim"][0]))
    size, shape = header["pixdim"][1 : 1 + count], header["dim"][1 : 1 + count]
    if ((size == 0) & (shape > 1)).any():
        what = f"the voxel size in the header is {size.tolist()}"
        raise CaseError("E_GEOMETRY", what, path, "repair the header")


def volume_from_nibabel(image: Any, path: Path | None = None, volume: int | None = None) -> Volume:
    """A nibabel image in memory or on disk -> :class:`Volume`; see :func:`read_nifti` for the errors."""
    dtype = image.get_data_dtype()
    if dtype.fields is not None:
        raise CaseError("E_COLOUR", "the voxels are colours", path, "give photos as PNG or JPEG, or DICOM")
    if np.issubdtype(dtype, np.complexfloating):
        raise CaseError("E_NIFTI", "the voxels are complex numbers", path, "save the magnitude as a volume")
    shape = _check_shape(image.shape, path, volume)
    affine, warnings = _affine(image, path)
    if len(image.shape) > 3 and volume is not None:
        data = np.asanyarray(image.dataobj[..., volume] if len(image.shape) == 4 else image.dataobj)
    else:
        data = np.asanyarray(image.dataobj)
    if np.issubdtype(data.dtype, np.integer) and data.dtype.itemsize > 2 and _largest(data) > 2**24:
        warnings.append("voxel values above 16,777,216 are rounded to float32")
    data = np.array(data.reshape(shape), dtype=np.float32, order="C")
    warnings += replace_non_finite(data, path)
    source = Source("nifti" if path else "memory", path, warnings=tuple(warnings))
    return Volume(data[np.newaxis], affine, source)


def _check_shape(shape: tuple[int, ...], path: Path | None, volume: int | None) -> tuple[int, int, int]:
    """(X, Y[, Z[, T]]) -> (X, Y, Z) of the volume to read."""
    if len(shape) < 2 or 0 in shape:
        raise CaseError("E_GEOMETRY", f"the volume has no voxels, its shape is {shape}", path, "check the file")
    x, y, z, *rest = (*shape, 1)[: max(3, len(shape))]
    if x * y * z > MAX_VOXELS:
        raise CaseError("E_TOO_LARGE", f"the header announces {x} x {y} x {z} voxels", path, "crop the volume")
    if any(count > 1 for count in rest[1:]):
        raise CaseError("E_4D", f"the file has {len(shape)} dimensions, {shape}", path, "save one volume of it")
    count = rest[0] if rest else 1
    if volume is None and count > 1:
        raise CaseError("E_4D", f"the file holds {count} volumes, 0 to {count - 1}", path, "choose one with --volume")
    if volume is not None and not 0 <= volume < count:
        raise CaseError("E_4D", f"there is no volume {volume}, the file holds {count}", path, "choose from 0")
    return x, y, z


def _affine(image: Any, path: Path | None) -> tuple[Affine, list[str]]:
    """The affine that the header defines, sform before qform, and what is odd about it."""
    header = image.header
    warnings: list[str] = []
    zooms = np.asarray(header.get_zooms()[:3], dtype=np.float64)
    affine = np.asarray(image.affine, dtype=np.float64)
    if not hasattr(header, "get_sform"):
        return _checked(affine, path), warnings
    sform, sform_code = header.get_sform(coded=True)
    if not sform_code and not header["qform_code"]:
        warnings.append("no orientation in the header: left, right, up and down are guesses")
    elif sform_code and not _invertible(sform):
        qform, qform_code = header.get_qform(coded=True)
        if not qform_code or not _invertible(qform):
            raise CaseError("E_GEOMETRY", "the orientation in the header has no volume", path, "repair the header")
        warnings.append("the header's sform is unusable, its qform was taken")
        affine = np.asarray(qform, dtype=np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if len(zooms) == 3 and not np.allclose(lengths, zooms, rtol=1e-3, atol=1e-3):
        taken = np.round(lengths, 4).tolist()
        warnings.append(f"the header's voxel size disagrees with its orientation, {taken} mm taken")
    return _checked(affine, path), warnings


def _checked(affine: Affine, path: Path | None) -> Affine:
    if not _invertible(affine):
        raise CaseError("E_GEOMETRY", "the orientation in the header has no volume", path, "repair the header")
    return affine


def _largest(data: np.ndarray) -> int:
    return max(int(data.max()), -int(data.min()))  # the lowest integer has no positive counterpart


def _invertible(affine: Any) -> bool:
    return affine is not None and bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) > 1e-12


def replace_non_finite(data: np.ndarray, path: Path | None) -> list[str]:
    """Put the smallest finite value in the place of NaN and infinity, in place; -> a warning if there were any.

    Raises:
        CaseError: no voxel is finite (``E_PIXELS``).
    """
    finite = np.isfinite(data)
    if finite.all():
        return []
    if not finite.any():
        raise CaseError("E_PIXELS", "no voxel has a finite value", path, "check how the file was made")
    bad = int(data.size - finite.sum())
    data[~finite] = data[finite].min()
    return [f"{bad} voxels were NaN or infinite and took the volume's minimum"]
