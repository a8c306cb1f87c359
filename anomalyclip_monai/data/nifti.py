"""Read NIfTI and FreeSurfer volumes on nibabel: the stored grid and affine, or one line that says why not."""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import IO, Any

import nibabel as nib
import numpy as np

from anomalyclip_monai.data.geometry import UNITS, check_plausible
from anomalyclip_monai.data.volume import Source, StoredGrid, Volume
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import Affine, PathLike

MGH_SUFFIXES = (".mgh", ".mgz")
PAIR_SUFFIXES = (".hdr", ".hdr.gz", ".img", ".img.gz")
SUFFIXES = (".nii", ".nii.gz", *PAIR_SUFFIXES, *MGH_SUFFIXES)

MAX_VOXELS = 2**30
"""Largest volume that is read, 4 GiB as float32. The header is checked before anything is decoded."""

MAX_POSITION = 1e9
"""Largest number in an affine, in mm; beyond it a header is damaged."""

MAX_OFFSET = 2**40
"""Largest byte at which voxels are believed to begin."""

MAX_EXACT = 2**24
"""Float32 holds every integer up to this one."""

ROUNDED = "voxel values above 16,777,216 are rounded to float32"
NO_ORIENTATION = "no orientation in the header: left, right, up and down are guesses"

_UNITS = {1: "metres", 3: "micrometres"}
"""NIfTI's codes of spatial units; 2 is millimetres, and so is a header taken that says nothing."""

_GZIP_MAGIC = b"\x1f\x8b"
_HEADER_SIZES = {348, 540}
_FOREIGN_BYTES = 512
_MAX_EXTENSION_CODE = 1000
_CHUNK = 1 << 20
_nibabel_logger = logging.getLogger("nibabel.global")


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file, or of a FreeSurfer volume, which is read in the same way."""
    return path.name.lower().endswith(SUFFIXES)


def header_file(path: Path) -> Path:
    """The file that stands for a volume: the ``.hdr`` of an ``.img`` beside which one lies, else the path itself."""
    return (other_half(path) or path) if _suffix(path).startswith(".img") else path


def _suffix(path: Path) -> str:
    """The suffix of a pair's half in lower case, empty for any other file."""
    return next((suffix for suffix in PAIR_SUFFIXES if path.name.lower().endswith(suffix)), "")


def other_half(path: Path) -> Path | None:
    """The ``.img`` of a ``.hdr`` or the reverse, compressed or not; None if it is missing."""
    suffix = _suffix(path)
    stem = path.name[: -len(suffix)]
    wanted = ".img" if suffix.startswith(".hdr") else ".hdr"
    compressed = (".gz", ".GZ", "") if suffix.endswith(".gz") else ("", ".gz", ".GZ")
    for name, zipped in product((wanted, wanted.upper()), compressed):
        if (candidate := path.with_name(f"{stem}{name}{zipped}")).is_file():
            return candidate
    return None


def is_foreign(path: Path) -> bool:
    """Whether this is a ``.hdr`` of another format, ENVI or Radiance say, or the ``.img`` beside one.

    Half a pair is none, as long as its header is that of a volume: an ``.img`` alone may be a volume that lost it.
    """
    header = header_file(path)
    if not _suffix(header).startswith(".hdr"):
        return False
    try:
        with open(header, "rb") as raw:
            block = raw.read(_FOREIGN_BYTES)
        if block[:2] == _GZIP_MAGIC:
            block = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(block, 4)
    except OSError:
        return False
    except zlib.error:
        return True
    return not _HEADER_SIZES & _sizes(block)


def _sizes(block: bytes) -> set[int]:
    """What the first four bytes of a header say of its size, in both orders."""
    return {int.from_bytes(block[:4], order) for order in ("little", "big")}


def read_nifti(path: PathLike, volume: int | None = None, keep_nan: bool = False) -> Volume:
    """Read one volume, (1, X, Y, Z) float32.

    Args:
        path: a ``.nii``, ``.nii.gz``, ``.mgh`` or ``.mgz`` file, or either half of an ``.hdr`` and ``.img`` pair.
        volume: which volume of a 4D file, counted from 0.
        keep_nan: leave NaN and infinity as they are, for masks.

    Raises:
        CaseError: ``E_NIFTI``, ``E_NOT_FOUND`` (half of a pair), ``E_TRUNCATED``, ``E_GEOMETRY``, ``E_4D``,
            ``E_COLOUR``, ``E_PIXELS``, ``E_TOO_LARGE``.
    """
    path = Path(path)
    with _one_error(path), _opened(_voxel_file(path)) as stream:
        image, notes = _parse(stream, path)
        result = volume_from_nibabel(image, path, volume, keep_nan)
        if isinstance(image, nib.MGHImage) and not _places_patient(stream):
            notes.append(NO_ORIENTATION)
        result = replace(result, source=replace(result.source, warnings=(*notes, *result.source.warnings)))
        _read_to_end(stream)
        return result


def _stored_plane(image: Any, k: int, volume: int | None) -> np.ndarray:
    """(X, Y) at index k of the third axis, scaled by the header, in the type that this gives."""
    rest = (volume or 0,) if len(image.shape) == 4 else (0,) * (len(image.shape) - 3)
    where = (slice(None), slice(None), k, *rest) if len(image.shape) > 2 else (slice(None), slice(None))
    return np.asanyarray(image.dataobj[where])


@contextlib.contextmanager
def _one_error(path: Path) -> Iterator[None]:
    """Turn whatever nibabel and numpy raise in a damaged file into one line."""
    try:
        yield
    except CaseError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CaseError("E_TRUNCATED", "the compressed data are cut off or damaged", path, "copy it again") from error
    except Exception as error:
        short = any(words in str(error) for words in ("Expected", "mmap", "could not be read", "not enough data"))
        code, what = (
            ("E_TRUNCATED", "the file is shorter than its header says")
            if short
            else ("E_NIFTI", f"not a readable {_format(path)} file ({type(error).__name__})")
        )
        raise CaseError(code, what, path, "copy it again, or convert it with dcm2niix") from error


def _format(path: Path) -> str:
    return "FreeSurfer" if _is_mgh(path) else "NIfTI"


def _is_mgh(path: Path) -> bool:
    return path.name.lower().endswith(MGH_SUFFIXES)


def _voxel_file(path: Path) -> Path:
    """The file that holds the voxels: the path itself, or the ``.img`` of a pair of which both halves are there."""
    if not (suffix := _suffix(path)):
        return path
    if is_foreign(path):
        raise CaseError("E_NIFTI", "the .hdr is that of another format", path, "convert it to NIfTI")
    other = other_half(path)
    if other is None:
        missing = (
            ".img with the voxels of this .hdr" if suffix.startswith(".hdr") else ".hdr with the header of this .img"
        )
        raise CaseError("E_NOT_FOUND", f"the {missing} is missing", path, "put both into one folder")
    return other if suffix.startswith(".hdr") else path


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """The file, uncompressed on the way where its name says so."""
    zipped = path.name.lower().endswith((".gz", ".mgz"))
    with open(path, "rb") as raw:
        if (raw.read(2) == _GZIP_MAGIC) != zipped:
            kind = "is not gzip-compressed" if zipped else "is gzip-compressed"
            raise CaseError("E_NIFTI", f"the name ends in {path.suffix} but the file {kind}", path, "rename it")
        raw.seek(0)
        if not zipped:
            yield raw
            return
        with gzip.open(raw) as stream:
            yield stream


def _places_patient(stream: IO[bytes] | gzip.GzipFile) -> bool:
    """FreeSurfer's ``goodRASFlag``, which nibabel sets while it makes up an orientation."""
    stream.seek(28)
    return stream.read(2) != b"\0\0"


def _read_to_end(stream: IO[bytes] | gzip.GzipFile) -> None:
    if isinstance(stream, gzip.GzipFile):
        while stream.read(_CHUNK):  # the checksum lies behind the last byte
            pass


def _parse(stream: Any, path: Path) -> tuple[Any, list[str]]:
    """The nibabel image of a stream of voxels, its data still to be read, and what is odd about where they begin."""
    voxels = nib.FileHolder(fileobj=stream)
    if _is_mgh(path):
        with _checked_header(path):
            # nibabel jumps behind the data for a footer, so the size comes first: version, four dimensions
            _, *dims = struct.unpack(">5i", stream.read(20))
            if min(dims) < 1:
                raise CaseError("E_GEOMETRY", f"the volume has no voxels, its shape is {dims}", path, "check the file")
            check_size(dims, path)
            stream.seek(0)
            return nib.MGHImage.from_file_map({"image": voxels, "header": voxels}), []
    block = _header_block(stream, path)
    sizes = _sizes(block)
    if _suffix(path) and 348 in sizes and block[344:347] not in (b"ni1", b"n+1"):
        raise CaseError("E_NIFTI", "an ANALYZE pair does not say where left and right are", path, "convert it to NIfTI")
    # A pair, also where both are one file: its header is handed over alone, without extensions, which nobody reads.
    image_class = nib.Nifti2Pair if 540 in sizes else nib.Nifti1Pair
    header_class = image_class.header_class
    with _checked_header(path):
        header = header_class(block[: header_class.template_dtype.itemsize], check=False)
        # nibabel turns voxel sizes of 0 into 1 while it reads
        _check_voxel_size(header, path)
        header["vox_offset"], notes = _data_offset(header, stream, path)
        holder = nib.FileHolder(fileobj=io.BytesIO(header.binaryblock))
        return image_class.from_file_map({"image": voxels, "header": holder}), notes


def _header_block(stream: Any, path: Path) -> bytes:
    """The first 540 bytes of the header, enough for both versions of NIfTI."""
    if not _suffix(path):
        return bytes(stream.read(540))
    half = header_file(path)
    with _opened(half) as header:
        return header.read(540)


def _data_offset(header: Any, stream: Any, path: Path) -> tuple[int, list[str]]:
    """The byte at which the voxels begin: not inside the header, where some programs say 0.

    Raises:
        CaseError: no file of this size can have them there (``E_NIFTI``).
    """
    given = float(header["vox_offset"])
    size = MAX_OFFSET if isinstance(stream, gzip.GzipFile) else stream.seek(0, io.SEEK_END)
    if not (0 <= given <= size and given.is_integer()):
        what = f"the header says that the voxels begin at byte {given:.15g}, where they cannot be"
        raise CaseError("E_NIFTI", what, path, "repair vox_offset in the header")
    first = header.pair_vox_offset if _suffix(path) else header.single_vox_offset
    if given >= first:
        return int(given), []
    if not _suffix(path) and _has_extensions(stream, first, header.endianness):
        what = f"the header says that the voxels begin at byte {given:.0f}, inside of it, and texts stand before them"
        raise CaseError("E_NIFTI", what, path, "repair vox_offset in the header")
    return first, [f"the header says that the voxels begin at byte {given:.0f}, inside of it; byte {first} was taken"]


def _has_extensions(stream: Any, first: int, order: str) -> bool:
    """Whether an extension stands in a single file where its voxels could begin: a flag, its size and its code."""
    stream.seek(first - 4)
    block = stream.read(12)
    if len(block) < 12 or not block[0]:
        return False
    size, code = struct.unpack(f"{order}2i", block[4:])
    return size > 0 and size % 16 == 0 and 0 <= code <= _MAX_EXTENSION_CODE


@contextlib.contextmanager
def _checked_header(path: Path) -> Iterator[None]:
    """One line for a header that does not parse, and none of nibabel's that quote what it repairs."""
    disabled, _nibabel_logger.disabled = _nibabel_logger.disabled, True
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    except (CaseError, EOFError, gzip.BadGzipFile, zlib.error):
        raise
    except Exception as error:
        what = f"the header is not that of a {_format(path)} file ({type(error).__name__})"
        raise CaseError("E_NIFTI", what, path, "check the file") from error
    finally:
        _nibabel_logger.disabled = disabled


def _check_voxel_size(header: Any, path: Path) -> None:
    count = min(3, int(header["dim"][0]))
    size, shape = header["pixdim"][1 : 1 + count], header["dim"][1 : 1 + count]
    if ((size == 0) & (shape > 1)).any():
        what = f"the voxel size in the header is {size.tolist()}"
        raise CaseError("E_GEOMETRY", what, path, "repair the header")


def volume_from_nibabel(
    image: Any, path: Path | None = None, volume: int | None = None, keep_nan: bool = False
) -> Volume:
    """A nibabel image in memory or on disk -> :class:`Volume`; see :func:`read_nifti` for the errors."""
    shape = _check_image(image, path, volume)
    affine, grid, notes = _affine(image, shape, path)
    # Plane by plane: scaled by the header, a whole volume would pass through float64.
    data = np.empty(shape, np.float32)
    rounded = False
    for k in range(shape[2]):
        plane = _stored_plane(image, k, volume)
        wide = np.issubdtype(plane.dtype, np.integer) and plane.dtype.itemsize > 2
        rounded |= bool(wide) and _largest(plane) > MAX_EXACT
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite, and is replaced
            data[:, :, k] = plane
    if rounded:
        notes.append(ROUNDED)
    if not keep_nan:
        notes += replace_non_finite(data, path)
    source = Source("nifti" if path else "memory", path, grid=grid, warnings=tuple(notes))
    return Volume(data[np.newaxis], affine, source)


def _check_image(image: Any, path: Path | None, volume: int | None) -> tuple[int, int, int]:
    """What the header says of the voxels, before any is read -> (X, Y, Z)."""
    dtype = image.get_data_dtype()
    if dtype.fields is not None:
        raise CaseError("E_COLOUR", "the voxels are colours", path, "give photos as PNG or JPEG, or DICOM")
    if np.issubdtype(dtype, np.complexfloating):
        raise CaseError("E_NIFTI", "the voxels are complex numbers", path, "save the magnitude as a volume")
    return check_shape(image.shape, path, volume)


def check_size(shape: Sequence[int], path: Path | None) -> None:
    """Refuse a volume, (X, Y, Z, ...), that is too large to be read, before memory is asked for.

    Raises:
        CaseError: ``E_TOO_LARGE``.
    """
    x, y, z = (int(count) for count in shape[:3])
    if x * y * z > MAX_VOXELS:
        raise CaseError("E_TOO_LARGE", f"the header announces {x} x {y} x {z} voxels", path, "crop the volume")


def check_shape(shape: tuple[int, ...], path: Path | None, volume: int | None) -> tuple[int, int, int]:
    """(X, Y[, Z[, T]]) -> (X, Y, Z) of the volume to read.

    Raises:
        CaseError: ``E_GEOMETRY``, ``E_TOO_LARGE`` or ``E_4D``.
    """
    if len(shape) < 2 or 0 in shape:
        raise CaseError("E_GEOMETRY", f"the volume has no voxels, its shape is {shape}", path, "check the file")
    x, y, z, *rest = (*shape, 1)[: max(3, len(shape))]
    check_size((x, y, z), path)
    if any(count > 1 for count in rest[1:]):
        raise CaseError("E_4D", f"the file has {len(shape)} dimensions, {shape}", path, "save one volume of it")
    count = rest[0] if rest else 1
    if volume is None and count > 1:
        raise CaseError("E_4D", f"the file holds {count} volumes, 0 to {count - 1}", path, "choose one with --volume")
    if volume is not None and not 0 <= volume < count:
        raise CaseError("E_4D", f"there is no volume {volume}, the file holds {count}", path, "choose from 0")
    return x, y, z


@np.errstate(over="ignore", invalid="ignore")
def _affine(image: Any, shape: Sequence[int], path: Path | None) -> tuple[Affine, StoredGrid | None, list[str]]:
    """The affine in mm that the header defines, sform before qform, how that is stored, and what is odd about it."""
    header = image.header
    notes: list[str] = []
    zooms = np.asarray(header.get_zooms()[:3], dtype=np.float64)
    affine = np.asarray(image.affine, dtype=np.float64)
    if not hasattr(header, "get_sform"):
        return check_plausible(checked_affine(affine, path), shape, path), None, notes
    grid = _stored_grid(header) if np.allclose(affine, header.get_best_affine(), equal_nan=True) else None
    sform, sform_code = header.get_sform(coded=True)
    if not sform_code and not header["qform_code"]:
        notes.append(NO_ORIENTATION)
    elif sform_code and not _invertible(sform):
        qform, qform_code = header.get_qform(coded=True)
        if not qform_code or not _invertible(qform):
            raise CaseError("E_GEOMETRY", "the orientation in the header has no volume", path, "repair the header")
        notes.append("the header's sform is unusable, its qform was taken")
        affine = np.asarray(qform, dtype=np.float64)
        grid = replace(_stored_grid(header), sform=(0.0,) * 12, sform_code=0)
    unit = _UNITS.get(int(header["xyzt_units"]) & 7, "millimetres")
    in_mm = affine.copy()
    in_mm[:3] *= UNITS[unit]
    lengths = np.linalg.norm(in_mm[:3, :3], axis=0)
    if len(zooms) == 3 and not np.allclose(lengths, zooms * UNITS[unit], rtol=1e-3, atol=1e-3):
        taken = np.round(lengths, 4).tolist()
        notes.append(f"the header's voxel size disagrees with its orientation, {taken} mm taken")
    return check_plausible(checked_affine(in_mm, path), shape, path, unit), grid, notes


def _stored_grid(header: Any) -> StoredGrid:
    """What a NIfTI header says of its grid."""

    def numbers(*names: str) -> tuple[float, ...]:
        return tuple(float(value) for name in names for value in np.atleast_1d(header[name]))

    return StoredGrid(
        sform=numbers("srow_x", "srow_y", "srow_z"),
        sform_code=int(header["sform_code"]),
        quaternion=numbers("quatern_b", "quatern_c", "quatern_d"),
        offset=numbers("qoffset_x", "qoffset_y", "qoffset_z"),
        pixdim=numbers("pixdim")[:4],
        qform_code=int(header["qform_code"]),
        unit=int(header["xyzt_units"]) & 7,
        version=2 if header.sizeof_hdr == 540 else 1,
    )


def checked_affine(affine: Affine, path: Path | None) -> Affine:
    """The affine itself.

    Raises:
        CaseError: it is not finite or not invertible (``E_GEOMETRY``).
    """
    if not _invertible(affine):
        raise CaseError("E_GEOMETRY", "the orientation in the header has no volume", path, "repair the header")
    return affine


def _largest(data: np.ndarray) -> int:
    return max(int(data.max()), -int(data.min()))  # the lowest integer has no positive counterpart


def _invertible(affine: Any) -> bool:
    if affine is None or not np.abs(affine).max() < MAX_POSITION:  # NaN too
        return False
    return bool(abs(np.linalg.det(affine[:3, :3])) > 1e-12)


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
