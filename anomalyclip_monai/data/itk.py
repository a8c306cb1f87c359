"""Read NRRD and MetaImage volumes through MONAI's ITKReader, which needs the ``itk`` extra."""

from __future__ import annotations

import ctypes
import functools
import math
import re
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import ITKReader
from monai.utils import optional_import

from anomalyclip_monai.data.geometry import UNITS, check_plausible
from anomalyclip_monai.data.nifti import (
    MAX_EXACT,
    MAX_VOXELS,
    NO_ORIENTATION,
    ROUNDED,
    check_shape,
    checked_affine,
    replace_non_finite,
)
from anomalyclip_monai.data.volume import Source, Volume
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import PathLike

itk, has_itk = optional_import("itk", allow_namespace_pkg=True)

SUFFIXES = (".nrrd", ".mha", ".mhd")

_HEADER_BYTES = 2**16
_CHUNK = 2**20
_RGB = ("rgb", "rgba")
_UNITS = {
    "m": "metres",
    "meter": "metres",
    "metre": "metres",
    "cm": "centimetres",
    "centimeter": "centimetres",
    "centimetre": "centimetres",
    "mm": "millimetres",
    "millimeter": "millimetres",
    "millimetre": "millimetres",
    "um": "micrometres",
    "micron": "micrometres",
    "micrometer": "micrometres",
    "micrometre": "micrometres",
}
UNKNOWN_UNIT = "the header's unit of length is not known, millimetres were taken"
_SPACES = {"lps", "las", "ras", "lpst", "last", "rast"} | {
    f"{words}{time}"
    for words in ("left-posterior-superior", "left-anterior-superior", "right-anterior-superior")
    for time in ("", "-time")
}


def is_itk(path: Path) -> bool:
    """Whether the name is that of an NRRD or a MetaImage file."""
    return path.suffix.lower() in SUFFIXES


def read_itk(path: PathLike, volume: int | None = None, keep_nan: bool = False) -> Volume:
    """Read one volume, (1, X, Y, Z) float32.

    Args:
        path: a ``.nrrd``, ``.mha`` or ``.mhd`` file.
        volume: which volume of a 4D file, or which component of a vector, counted from 0.
        keep_nan: leave NaN and infinity as they are, for masks.

    Raises:
        CaseError: ``E_EXTRA`` if ITK is not installed; ``E_ITK``, ``E_TRUNCATED``, ``E_GEOMETRY``, ``E_4D``,
            ``E_COLOUR``, ``E_PIXELS`` or ``E_TOO_LARGE``.
    """
    path = Path(path)
    if not has_itk:
        what = f"reading {path.suffix.lower()} files needs ITK"
        raise CaseError("E_EXTRA", what, path, 'pip install "anomalyclip-monai[itk]"')
    try:
        with warnings.catch_warnings():
            # ITK loads its modules when they are first used, and dies if one of SWIG's warnings is made an error.
            warnings.simplefilter("ignore")
            itk.ImageIOFactory  # noqa: B018 # loads ITK
            _keep_swig_types()
            return _read(path, volume, keep_nan)
    except CaseError:
        raise
    except Exception as error:  # ITK raises RuntimeError with lines of its own source
        what = f"not a readable {_format(path)} file ({type(error).__name__})"
        raise CaseError("E_ITK", what, path, "copy it again") from error


@functools.cache
def _keep_swig_types() -> None:
    """Keep what ITK's wrapper, made by SWIG, would free when the interpreter ends.

    Its destructor makes a new object of a type that may be gone by then, and the process ends with a segmentation
    fault after all work is done.
    """
    runtime = sys.modules.get("swig_runtime_data4")
    if runtime is not None and hasattr(runtime, "type_pointer_capsule"):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime.type_pointer_capsule))


def _format(path: Path) -> str:
    return "NRRD" if path.suffix.lower() == ".nrrd" else "MetaImage"


def _read(path: Path, volume: int | None, keep_nan: bool) -> Volume:
    with path.open("rb") as file:
        header = _Header(file.read(_HEADER_BYTES), path)
    info = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if info is None:
        raise CaseError("E_ITK", f"not a {_format(path)} file", path, "check the file")
    info.SetFileName(str(path))
    info.ReadImageInformation()
    stored = tuple(int(info.GetDimensions(i)) for i in range(info.GetNumberOfDimensions()))
    components = int(info.GetNumberOfComponents())
    _check_kind(info, components, path)
    shape = (*stored, 1)[: max(3, len(stored))] + ((components,) if components > 1 else ())
    grid = check_shape(shape, path, volume)
    _check_bytes(math.prod(shape), int(info.GetComponentSize()), header, path)

    pixel_type = itk.VariableLengthVector[itk.F] if components > 1 else itk.F
    reader = ITKReader(pixel_type=pixel_type)
    data, meta = reader.get_data(reader.read(str(path)))
    affine = np.eye(4)
    given = np.asarray(meta["affine"], dtype=np.float64)
    if given.shape == (4, 4):
        affine = given
    else:  # a plane
        affine[:2, :2], affine[:2, 3] = given[:2, :2], given[:2, 2]
    notes = [] if header.has_orientation else [NO_ORIENTATION]
    unit = header.unit
    if not unit:
        unit = "millimetres"
        notes.append(UNKNOWN_UNIT)
    affine[:3] *= UNITS[unit]  # ITK hands the numbers over as they are
    if len(shape) > 3:
        data = data[..., volume or 0] if len(shape) == 4 else data
    # ITK owns the memory behind its view.
    data = np.array(np.asarray(data).reshape(grid), dtype=np.float32, order="C")
    if "float" not in (kind := _component(info)) and "double" not in kind and np.abs(data).max() > MAX_EXACT:
        notes.append(ROUNDED)
    if not keep_nan:
        notes += replace_non_finite(data, path)
    affine = check_plausible(checked_affine(affine, path), grid, path, unit)
    return Volume(data[np.newaxis], affine, Source("nifti", path, warnings=tuple(notes)))


def _component(info: Any) -> str:
    return str(info.GetComponentTypeAsString(info.GetComponentType()))


def _check_kind(info: Any, components: int, path: Path) -> None:
    kind = str(info.GetPixelTypeAsString(info.GetPixelType()))
    if kind in _RGB or (components in (3, 4) and _component(info) == "unsigned_char"):
        raise CaseError("E_COLOUR", "the voxels are colours", path, "give photos as PNG or JPEG, or DICOM")
    if kind not in ("scalar", "vector"):
        what = f"voxels of the kind {kind.replace('_', ' ')} are not supported"
        raise CaseError("E_ITK", what, path, "save one scalar volume")


def _check_bytes(voxels: int, size: int, header: _Header, path: Path) -> None:
    """Hold what the header announces, all volumes at once since ITK reads them so, against the bytes there are."""
    if voxels > MAX_VOXELS:
        raise CaseError("E_TOO_LARGE", f"the header announces {voxels} voxels in all", path, "save one volume of it")
    if header.encoding == "text":
        return
    there = header.data.stat().st_size - header.start
    if header.encoding == "deflate":
        there = _inflated_size(header, voxels * size, path)
    if there < voxels * size:
        what = f"{there} bytes of pixels where the header announces {voxels * size}"
        raise CaseError("E_TRUNCATED", what, path, "copy it again")


def _inflated_size(header: _Header, enough: int, path: Path) -> int:
    """Count what comes out of compressed pixels and hold it to its checksum: ITK fills up what is missing."""
    inflater, size, left = zlib.decompressobj(zlib.MAX_WBITS | 32), 0, header.packed_bytes
    with header.data.open("rb") as file:
        file.seek(header.start)
        try:
            while not inflater.eof and size <= enough and (packed := file.read(min(_CHUNK, left))):
                left -= len(packed)
                while packed and not inflater.eof:
                    size += len(inflater.decompress(packed, _CHUNK))
                    packed = inflater.unconsumed_tail
        except zlib.error:
            size, enough = 0, 0
    if not inflater.eof and size <= enough:
        raise CaseError("E_TRUNCATED", "the compressed data are cut off or damaged", path, "copy it again")
    return size


class _Header:
    """The lines of text that both formats begin with, as far as they say where the pixels are.

    Attributes:
        data: the file that holds the pixels.
        start: where they begin in it.
        packed_bytes: how many they are at most, if compressed.
        encoding: ``raw``, ``deflate``, or ``text`` for what is left to ITK.
        has_orientation: whether the header places the volume in the patient.
        unit: of its lengths, one of ``geometry.UNITS``; empty if it names another one.
    """

    def __init__(self, head: bytes, path: Path) -> None:
        nrrd = path.suffix.lower() == ".nrrd"
        # A MetaImage header ends with the line of the data file, an NRRD header with an empty line.
        end = re.search(rb"\r?\n\r?\n" if nrrd else rb"ElementDataFile[^\n]*(\n|$)", head)
        text = head[: end.end()] if end else head
        fields: dict[str, str] = {}
        for line in text.decode("latin-1").splitlines():
            if found := re.match(r"\s*([A-Za-z ]+?)\s*[:=]=?\s*(.*)", line):
                fields.setdefault(found[1].lower().replace(" ", ""), found[2].strip())
        self.data, self.start, self.packed_bytes = path, len(text), sys.maxsize
        name = fields.get("datafile", "LOCAL") if nrrd else fields.get("elementdatafile", "LOCAL")
        if name.upper() != "LOCAL":
            self.data, self.start = _beside(path, name), 0
        skipped = {fields.get(key, "0") for key in ("headersize", "lineskip", "byteskip")} - {"0"}
        if nrrd:
            coding = fields.get("encoding", "raw").lower()
            self.encoding = {"raw": "raw", "gzip": "deflate", "gz": "deflate"}.get(coding, "text")
            self.has_orientation = fields.get("space", "").lower() in _SPACES and "spacedirections" in fields
        else:
            binary = fields.get("binarydata", "").lower() == "true"
            packed = fields.get("compresseddata", "").lower() == "true"
            self.encoding = "text" if not binary else "deflate" if packed else "raw"
            if packed:
                # Without it ITK takes a part of the bytes for all of them and makes up the rest.
                self.packed_bytes = _count(fields.get("compresseddatasize", ""), path)
            self.has_orientation = any(key in fields for key in ("transformmatrix", "rotation", "orientation"))
        self.unit = _unit(fields.get("spaceunits" if nrrd else "distanceunits", ""))
        if skipped:
            self.encoding = "text"


def _unit(text: str) -> str:
    """One unit for all axes, ``"mm" "mm" "mm"`` or ``um``: as in ``geometry.UNITS``, empty if it is unknown."""
    names = {name.lower() for name in re.findall(r'[^"\s]+', text)} - {"?"}
    names = {name if name.isascii() else "um" if name.endswith("m") else "" for name in names}  # the Greek letter
    units = {_UNITS.get(name if len(name) < 3 else name.removesuffix("s"), "") for name in names}
    if not units:
        return "millimetres"
    return units.pop() if len(units) == 1 else ""


def _count(text: str, path: Path) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise CaseError("E_ITK", "the header does not say how large its compressed pixels are", path, "save it again")
    return int(text)


def _beside(path: Path, name: str) -> Path:
    """The file with pixels that a header names: one, and not outside of the header's folder."""
    if name.upper().startswith("LIST") or "%" in name:
        raise CaseError("E_ITK", "the pixels are spread over several files", path, "save it as one file")
    if Path(name).is_absolute() or ".." in Path(name).parts:
        what = "the header looks for its pixels outside of its folder"
        raise CaseError("E_ITK", what, path, "put both files into one folder")
    if not (path.parent / name).is_file():
        raise CaseError("E_NOT_FOUND", "the file with the pixels of this header is missing", path, "add it")
    return path.parent / name
