"""Decode stored DICOM frames into modality values, one frame at a time."""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import FileDataset
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame, parse_fragments
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from anomalyclip_monai.data.dicom_headers import (
    ImageObject,
    SliceHeader,
    TooLargeError,
    parse_object,
    quiet,
    read_dataset,
)
from anomalyclip_monai.data.dicom_isolated import IsolatedDecoder
from anomalyclip_monai.data.dicom_origin import Origin, check_same_patient, kept_header
from anomalyclip_monai.data.dicom_values import Line, Mask, Padding, agreed_lines, padding_range, to_modality
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


@dataclass(frozen=True, slots=True)
class Decoded:
    """The pixels of a volume and what was read with them.

    Attributes:
        data: (C, X, Y, Z) float32 modality values.
        notes: sentences on what was corrected.
        origin: whose it is.
    """

    data: FloatArray
    notes: tuple[str, ...]
    origin: Origin


def decode_volume(headers: Sequence[SliceHeader], modality: str) -> Decoded:
    """Decode slices, in the given order, into (C, X, Y, Z) modality values.

    Values are the rescaled stored ones: Modality LUT or rescale slope and intercept of each frame (PS3.3 C.11.1,
    C.7.6.16.2.9). Real world value maps and windows are left alone, see :func:`dicom_values.to_modality` for
    MONOCHROME1. Padding becomes as dark as air. Colour is RGB, 0 to 255.

    Raises:
        CaseError: ``E_TOO_LARGE``, ``E_TRUNCATED``, ``E_PIXELS``, ``E_CODEC``, ``E_COLOUR``, ``E_TIMEOUT`` or
            ``E_PATIENT``.
    """
    first = headers[0]
    shape = (first.channels, first.columns, first.rows, len(headers))
    if math.prod(shape) * 4 > MAX_VOLUME_BYTES:
        size = f"{first.columns} x {first.rows} x {len(headers)}"
        raise CaseError("E_TOO_LARGE", f"{size} voxels are more than can be decoded", first.frame.path)
    lines, assumed = agreed_lines(headers)
    places: dict[Path, list[_Wanted]] = defaultdict(list)
    for k, (header, line) in enumerate(zip(headers, lines, strict=True)):
        places[header.frame.path].append(_Wanted(k, header, line))
    try:
        data = np.empty(shape, np.float32)
    except MemoryError:
        raise CaseError("E_TOO_LARGE", "not enough memory for the volume", first.frame.path) from None
    notes = dict.fromkeys(assumed)
    padding = Padding()
    kept: Dataset | None = None
    with IsolatedDecoder() as isolated:
        for path, wanted in places.items():
            ds = _read_file(path, wanted)
            kept = kept_header(ds) if kept is None else kept
            check_same_patient(kept, ds, path)
            for k, image, padded in _decode_file(ds, path, wanted, modality, notes, isolated):
                # (H, W[, 3]) -> (C, W, H): X runs along the columns, Y along the rows.
                data[..., k] = image.transpose(2, 1, 0) if image.ndim == 3 else image.T
                padding.add(k, image, padded)
    notes |= dict.fromkeys(padding.darken(data, modality))
    if modality == "CT" and first.channels == 1 and padding.low >= 0 and math.isfinite(padding.low):
        what = "no rescale" if _is_unscaled(headers) else "no Rescale Intercept" if _lacks_intercept(headers) else ""
        known = f"has {what}: its stored values" if what else "is odd: its values"
        notes[f"The CT {known}, none of them below 0, are taken for HU."] = None
    return Decoded(data, tuple(notes), Origin.of(kept or Dataset(), headers))


def _is_unscaled(headers: Sequence[SliceHeader]) -> bool:
    return all(header.rescale == (None, None) and not header.has_lut for header in headers)


def _lacks_intercept(headers: Sequence[SliceHeader]) -> bool:
    return all(header.rescale[1] is None and not header.has_lut for header in headers)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Slice ``k`` of a volume: what the scan found of its frame, and the line for its values."""

    k: int
    header: SliceHeader
    line: Line


def _read_file(path: Path, wanted: Sequence[_Wanted]) -> FileDataset:
    """Parse a file with its pixels, and refuse it if it is not the one that the scan placed."""
    try:
        with quiet():
            ds = read_dataset(path, pixels=True)
            _check_storage(ds, path)
            found = parse_object(ds, path)
    except CaseError:
        raise
    except TooLargeError as error:
        raise CaseError("E_TOO_LARGE", str(error), path) from None
    except Exception as error:
        what = f"the file cannot be parsed ({type(error).__name__})"
        raise CaseError("E_PIXELS", what, path, "copy it again") from None
    headers = found.headers if isinstance(found, ImageObject) else ()
    if any(headers[one.header.frame.number : one.header.frame.number + 1] != (one.header,) for one in wanted):
        raise CaseError("E_PIXELS", "the file was replaced while the series was read", path, "run it again")
    return ds


def _decode_file(
    ds: FileDataset,
    path: Path,
    wanted: Sequence[_Wanted],
    modality: str,
    notes: dict[str, None],
    isolated: IsolatedDecoder,
) -> Iterator[tuple[int, FloatArray, Mask | None]]:
    """Yield slice index, modality values and padding of the wanted frames of one file."""
    for one in sorted(wanted, key=lambda one: one.header.frame.number):
        number, like = one.header.frame.number, one.header
        try:
            with quiet(), np.errstate(over="ignore", invalid="ignore"):
                stored = _decode_frame(ds, path, number, isolated)
                padded = _padded(stored, ds, number)
                image = to_modality(stored, ds, one.line, modality, notes)
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
        yield one.k, image, padded


def _padded(stored: NDArray[np.generic], ds: FileDataset, number: int) -> Mask | None:
    """Which pixels of a grey frame hold a value that the header calls padding."""
    is_grey = str(ds.get("PhotometricInterpretation", "")).startswith("MONOCHROME")
    if not is_grey or "PixelPaddingValue" not in ds or stored.dtype.kind not in "iu":
        return None
    allocated = int(ds.get("BitsAllocated") or 16)
    bits = int(ds.get("BitsStored") or allocated)
    ends = padding_range(ds, bits)
    if ends is None and bits < allocated and not ds.file_meta.TransferSyntaxUID.is_compressed:
        # Padding in bits that belong to no value, which the decoder cuts off.
        ends = padding_range(ds, allocated)
        stored = pixel_array(ds, index=number, correct_unused_bits=False)
    values = stored.astype(np.int64)
    return None if ends is None else (values >= ends[0]) & (values <= ends[1])


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
        except TimeoutError as error:
            raise CaseError("E_TIMEOUT", str(error), todo="convert it to Explicit VR Little Endian") from None
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
