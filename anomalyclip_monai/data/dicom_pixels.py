"""Decode stored DICOM frames into modality values, one frame at a time."""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import FileDataset
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame, parse_fragments
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from anomalyclip_monai.data.dicom_headers import CROSS_SECTIONAL, SliceHeader, quiet, read_dataset
from anomalyclip_monai.data.dicom_isolated import IsolatedDecoder
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import FloatArray

MAX_VOLUME_BYTES = 8 * 2**30
"""Largest volume in float32 that is decoded: 2 G voxels."""

MAX_BLIND_FRAME_BYTES = 32 * 2**20
"""Frames up to this size are decoded whatever their compression; larger ones must not be blown up too far."""

MAX_COMPRESSION = 1000
"""Largest ratio of decoded to stored bytes of a frame above :data:`MAX_BLIND_FRAME_BYTES`."""

_Codec = tuple[tuple[str, ...], str]
_JPEG: _Codec = (("pillow", "pylibjpeg"), "pip install pillow")
_JPEG_EXTENDED: _Codec = (("pylibjpeg", "pillow"), "pip install pylibjpeg pylibjpeg-libjpeg (GPL-3.0)")
_JPEG_LOSSLESS: _Codec = (("pylibjpeg", "gdcm"), "pip install python-gdcm")
_JPEG_LS: _Codec = (("pyjpegls", "pylibjpeg"), "pip install pyjpegls")
_JPEG_2000: _Codec = (("pylibjpeg", "pillow"), "pip install pylibjpeg pylibjpeg-openjpeg")
_CODECS: dict[str, _Codec] = {
    "1.2.840.10008.1.2.4.50": _JPEG,
    "1.2.840.10008.1.2.4.51": _JPEG_EXTENDED,
    "1.2.840.10008.1.2.4.57": _JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.70": _JPEG_LOSSLESS,
    "1.2.840.10008.1.2.4.80": _JPEG_LS,
    "1.2.840.10008.1.2.4.81": _JPEG_LS,
    "1.2.840.10008.1.2.4.90": _JPEG_2000,
    "1.2.840.10008.1.2.4.91": _JPEG_2000,
    "1.2.840.10008.1.2.4.201": _JPEG_2000,
    "1.2.840.10008.1.2.4.202": _JPEG_2000,
    "1.2.840.10008.1.2.4.203": _JPEG_2000,
    "1.2.840.10008.1.2.5": (("pydicom",), "pip install pydicom"),
}
"""For each compressed transfer syntax (PS3.5 A.4) pydicom's plugins in the order of preference, and what to
install.

A damaged file must not end the process, so the order is not pydicom's own: gdcm aborts on broken streams,
so it runs in a process of its own and only where nothing else can decode; the plugin for RLE in Rust
panics, and pydicom's own decoder does not.
"""
_JPEG_EXTENDED_UID = "1.2.840.10008.1.2.4.51"
_COLOURS = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "PALETTE COLOR"})


def decode_volume(headers: Sequence[SliceHeader], modality: str) -> tuple[FloatArray, tuple[str, ...]]:
    """Decode slices, in the given order, into (C, X, Y, Z) modality values.

    Values are the rescaled stored ones: Modality LUT or rescale slope and intercept of each frame (PS3.3
    C.11.1, C.7.6.16.2.9). Real world value maps and windows are left alone. MONOCHROME1 says that low
    values are to be shown bright (PS3.3 C.7.6.3.1.2). Where values have a scale of their own (CT, MR, PT,
    NM) they are kept, since HU stay HU whatever the display. Elsewhere (a radiograph, say) the value only
    means brightness, and it is mirrored within its stored range, so that bone is bright as in the pictures
    that the network knows. Colour is RGB, 0 to 255.

    Returns:
        The array and sentences on what was corrected.

    Raises:
        CaseError: ``E_TOO_LARGE``, ``E_TRUNCATED``, ``E_PIXELS``, ``E_CODEC`` or ``E_COLOUR``.
    """
    first = headers[0]
    shape = (first.channels, first.columns, first.rows, len(headers))
    if math.prod(shape) * 4 > MAX_VOLUME_BYTES:
        size = f"{first.columns} x {first.rows} x {len(headers)}"
        raise CaseError("E_TOO_LARGE", f"{size} voxels are more than can be decoded", first.frame.path)
    places: dict[Path, list[tuple[int, int]]] = defaultdict(list)
    for k, header in enumerate(headers):
        places[header.frame.path].append((header.frame.number, k))
    try:
        data = np.empty(shape, np.float32)
    except MemoryError:
        raise CaseError("E_TOO_LARGE", "not enough memory for the volume", first.frame.path) from None
    notes: dict[str, None] = {}
    with IsolatedDecoder() as isolated:
        for path, wanted in places.items():
            for k, image in _decode_file(path, sorted(wanted), first, modality, notes, isolated):
                # (H, W[, 3]) -> (C, W, H): X runs along the columns, Y along the rows.
                data[..., k] = image.transpose(2, 1, 0) if image.ndim == 3 else image.T
    return data, tuple(notes)


def _decode_file(
    path: Path,
    wanted: list[tuple[int, int]],
    like: SliceHeader,
    modality: str,
    notes: dict[str, None],
    isolated: IsolatedDecoder,
) -> Iterator[tuple[int, FloatArray]]:
    """Yield slice index and modality values of the wanted frames of one file."""
    try:
        with quiet():
            ds = read_dataset(path, pixels=True)
            _check_storage(ds, path)
    except CaseError:
        raise
    except Exception as error:
        what = f"the file cannot be parsed ({type(error).__name__})"
        raise CaseError("E_PIXELS", what, path, "copy it again") from None
    for number, k in wanted:
        try:
            with quiet(), np.errstate(over="ignore", invalid="ignore"):
                stored = _decode_frame(ds, path, number, isolated)
                image = _to_modality(stored, ds, number, modality, notes)
        except CaseError as error:
            raise CaseError(error.code, error.what, path, error.todo) from None
        except Exception as error:
            if ds.file_meta.TransferSyntaxUID == _JPEG_EXTENDED_UID:
                raise _codec_error(_JPEG_EXTENDED_UID, path) from None
            what = f"the pixels cannot be decoded ({type(error).__name__})"
            raise CaseError("E_PIXELS", what, path, "copy the file again") from None
        if image.shape != (like.rows, like.columns, 3)[: 3 if like.channels == 3 else 2]:
            raise CaseError("E_PIXELS", "the decoded image is not of the size in the header", path)
        if not np.isfinite(image).all():
            raise CaseError("E_PIXELS", "values are not finite after rescaling", path)
        yield k, image


def _check_storage(ds: FileDataset, path: Path) -> None:
    """Refuse pixels that are missing, short, of an unknown kind or blown up, before any is decoded."""
    if "Rows" not in ds:
        # The parser gives up on the whole data set where compressed pixels have no end.
        raise CaseError("E_TRUNCATED", "the file ends before its pixels do", path, "copy the file again")
    pixels = next((ds.get(key) for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if key in ds), None)
    if not isinstance(pixels, bytes) or not pixels:
        raise CaseError("E_PIXELS", "the file has no pixels", path, "copy it again")
    photometric = str(ds.get("PhotometricInterpretation", "")).strip()
    samples = int(ds.get("SamplesPerPixel") or 1)
    if (photometric.startswith("MONOCHROME") and samples != 1) or (
        not photometric.startswith("MONOCHROME") and photometric not in _COLOURS
    ):
        raise CaseError("E_COLOUR", "this kind of colour is not supported", path)
    frames = int(ds.get("NumberOfFrames") or 1)
    bits = int(ds.get("BitsAllocated") or 0)
    size = math.ceil(int(ds.Rows) * int(ds.Columns) * samples * bits / 8)
    syntax = UID(str(ds.file_meta.get("TransferSyntaxUID", "") or ""))
    if not syntax:
        # A file without meta information is native, in the encoding that the parser found (PS3.10 7.1).
        implicit, little = ds.original_encoding
        syntax = UID("1.2.840.10008.1.2" if implicit else "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2")
        ds.file_meta.TransferSyntaxUID = syntax
    try:
        compressed = syntax.is_compressed
        if compressed and not _plugins(syntax):
            raise _codec_error(syntax, path)
    except (NotImplementedError, ValueError):
        raise _codec_error(syntax, path) from None
    if not compressed:
        # PS3.3 C.7.6.3.1.2: 4:2:2 stores two thirds of the samples.
        expected = (
            size * frames * 2 // 3
            if photometric == "YBR_FULL_422"
            else math.ceil(int(ds.Rows) * int(ds.Columns) * samples * bits * frames / 8)
        )
        if len(pixels) < expected:
            what = f"{len(pixels)} bytes of pixels where {expected} belong"
            raise CaseError("E_TRUNCATED", what, path, "copy the file again")
        return
    if parse_fragments(pixels)[0] < frames:
        raise CaseError("E_TRUNCATED", f"fewer than {frames} compressed frames", path, "copy the file again")
    if size > MAX_BLIND_FRAME_BYTES and size * frames > MAX_COMPRESSION * len(pixels):
        raise CaseError("E_TOO_LARGE", "the pixels are compressed beyond belief", path)


def _plugins(syntax: str) -> list[str]:
    """The installed plugins for a compressed transfer syntax, the preferred one first."""
    installed = get_decoder(syntax).available_plugins
    return [plugin for plugin in _CODECS.get(syntax, ((), ""))[0] if plugin in installed]


def _decode_frame(ds: FileDataset, path: Path, number: int, isolated: IsolatedDecoder) -> NDArray[np.generic]:
    """Stored values of one frame: (H, W), or (H, W, 3) for colour, as RGB unless it is a palette's index."""
    syntax = ds.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        # Not `iter_pixels`: its frames are read-only, where pydicom corrects a wrong sign in place.
        return pixel_array(ds, index=number)
    coded = get_frame(ds.PixelData, number, number_of_frames=int(ds.get("NumberOfFrames") or 1))
    size = _coded_size(coded)
    if size is not None and size != (ds.Rows, ds.Columns, ds.SamplesPerPixel):
        raise CaseError("E_PIXELS", "the compressed image is not of the size in the header")
    failure: Exception | None = None
    for plugin in _plugins(syntax):
        try:
            if plugin == "gdcm":
                return isolated.decode(path, number)
            return pixel_array(ds, index=number, decoding_plugin=plugin)
        except Exception as error:
            failure = error
    raise failure or ValueError


def _coded_size(coded: bytes) -> tuple[int, int, int] | None:
    """(H, W, C) that a JPEG, JPEG-LS or JPEG 2000 stream claims, so that no decoder works for a lie.

    Raises:
        ValueError: a JPEG stream without an image in it.
    """
    if coded[:4] == b"\xff\x4f\xff\x51":  # SOC, SIZ (ISO/IEC 15444-1 A.5.1)
        width, height, left, top = struct.unpack(">4I", coded[8:24])
        return height - top, width - left, int.from_bytes(coded[40:42], "big")
    if coded[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 10 <= len(coded) and coded[at] == 0xFF:
        marker = coded[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        # SOF0 to SOF15 without DHT, JPG and DAC (ITU-T T.81 B.1.1.3), SOF55 for JPEG-LS
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            height, width, channels = struct.unpack(">2HB", coded[at + 5 : at + 10])
            return height, width, channels
        at += 2 + int.from_bytes(coded[at + 2 : at + 4], "big")
    raise ValueError("no frame header")


def _codec_error(syntax: str, path: Path) -> CaseError:
    uid = UID(syntax)
    # Only the standard's own names: an unknown UID is a value from the header.
    name = uid.name if uid.is_valid and uid.name != uid else "unknown transfer syntax"
    if name.startswith(("MPEG", "HEVC")):
        return CaseError("E_CODEC", f"no decoder for video: {name}", path, "export the frames as PNG")
    todo = _CODECS[syntax][1] if syntax in _CODECS else "convert it to Explicit VR Little Endian"
    return CaseError("E_CODEC", f"no decoder for the transfer syntax {name}", path, todo)


def _to_modality(
    stored: NDArray[np.generic], ds: FileDataset, number: int, modality: str, notes: dict[str, None]
) -> FloatArray:
    """Turn stored values into modality values, or colour into RGB from 0 to 255."""
    photometric = str(ds.get("PhotometricInterpretation", "")).strip()
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, ds)[..., :3]
        return _to_byte_range(stored, stored.dtype.itemsize * 8)
    if stored.ndim == 3:
        return _to_byte_range(stored, int(ds.get("BitsStored") or 8))
    bits, signed = int(ds.get("BitsStored") or 16), bool(ds.get("PixelRepresentation"))
    if bits > 24:
        notes["Values of more than 24 bits are rounded to float32."] = None
    if ds.get("ModalityLUTSequence"):
        values = np.asarray(apply_modality_lut(stored, ds), np.float64)
        ends = 2.0 ** int(ds.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    else:
        slope, intercept = _rescale(ds, number)
        values = stored.astype(np.float64)
        values *= slope
        values += intercept
        # Lowest plus highest value that the stored bits can hold: 2**n - 1, or -1 if signed.
        ends = slope * (-1.0 if signed else 2.0**bits - 1) + 2 * intercept
    if photometric == "MONOCHROME1":
        if modality in CROSS_SECTIONAL:
            notes["MONOCHROME1: the values are kept, since they have a scale of their own."] = None
        else:
            np.subtract(ends, values, out=values)
            notes["MONOCHROME1: the values are mirrored so that high is bright."] = None
    return values.astype(np.float32)


def _to_byte_range(colour: NDArray[np.generic], bits: int) -> FloatArray:
    values = colour.astype(np.float32)
    return values if bits <= 8 else values * np.float32(255 / (2**bits - 1))


def _rescale(ds: Dataset, number: int) -> tuple[float, float]:
    """Rescale slope and intercept of a frame: its own group, then the shared one, then the object's."""
    for keyword, index in (
        ("PerFrameFunctionalGroupsSequence", number),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        groups = ds.get(keyword)
        transform = groups[index].get("PixelValueTransformationSequence") if groups else None
        if transform:
            return _slope_intercept(transform[0])
    return _slope_intercept(ds)


def _slope_intercept(ds: Dataset) -> tuple[float, float]:
    slope, intercept = ds.get("RescaleSlope"), ds.get("RescaleIntercept")
    line = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    if line[0] == 0 or not all(map(math.isfinite, line)):
        raise CaseError("E_PIXELS", "the rescale slope is zero or not a number")
    return line
