"""Feed mutated DICOM and NIfTI files to the readers: each must end in a checked volume or in one coded line.

    python benchmarks/fuzz.py [--count 3000] [--seed 0] [--keep FOLDER]

All files go through one process, by `find_cases` and `Case.read`, a share of them through the network and the
writers as well. Prints a table; ends with exit code 1 if a file broke a promise: another exception, a line that does
not name the file or that quotes the patient, 10 seconds, 1 GB above the process after its imports, a volume without
sound geometry, or a result that is there in part.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gzip
import io
import os
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import torch
from PIL import Image
from pydicom import DataElement, Dataset, FileDataset, config
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "data"))

from dicom_factory import CASES, cine, enhanced, image, pixels, set_pixels, stack, write

from anomalyclip_monai.api import Pipeline
from anomalyclip_monai.data import cases, dicom_headers, dicom_pixels, find_cases, nifti, photo
from anomalyclip_monai.data.dicom_series import BETWEEN_SLICES
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError

MAX_SECONDS = 10
MAX_GROWTH = 2**30
MAX_ADDRESSES = 12 * 2**30
EVERY = 6
"""One file of so many goes on through the network and the writers, if it can be read."""
MAX_SLICES = 32
"""Volumes with more slices do not: how long the network takes is no reader's business."""
MARKERS = ("Marker^Patient", "marker-id", "Marker")

rng = np.random.default_rng(0)


# --- seeds


@dataclass(frozen=True)
class Seed:
    """Good files, one of which is to be mutated."""

    files: dict[str, bytes]
    target: str
    weight: float = 1
    volume: int | None = None


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file()}  # fmt: skip


def one(ds: FileDataset, **options: Any) -> Seed:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, ds, **(options or {"enforce_file_format": True}))
    return Seed({"case.dcm": buffer.getvalue()}, "case.dcm")


def smooth(shape: tuple[int, ...], high: int) -> np.ndarray:
    """Values that compress like an image, not like noise."""
    grid = np.indices(shape).sum(axis=0)
    return ((np.sin(grid / 3) + 1) / 2 * high).astype(np.int64)


def compressed(syntax: str, *, bits: int = 16) -> Seed:
    ds = image(0)
    set_pixels(ds, smooth((40, 48), 200 if bits == 8 else 3000), bits=bits, signed=False)
    ds.compress(syntax)
    return one(ds)


def jpeg(*, frames: int = 1) -> Seed:
    ds = cine(frames)
    coded = []
    for _ in range(frames):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (ds.Rows, ds.Columns, 3), np.uint8)).save(buffer, "JPEG")
        coded.append(buffer.getvalue())
    ds.file_meta.TransferSyntaxUID, ds.PhotometricInterpretation = "1.2.840.10008.1.2.4.50", "YBR_FULL_422"
    ds.PixelData = encapsulate(coded)
    ds["PixelData"].is_undefined_length = True
    return one(ds)


def jpeg_lossless(folder: Path) -> Seed | None:
    try:
        import gdcm
    except ImportError:
        return None
    path = folder / "lossless.dcm"
    image(0, stored=smooth((40, 48), 3000)).save_as(path)
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(path))
    reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    change.Change()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(path))
    writer.Write()
    return Seed({"case.dcm": path.read_bytes()}, "case.dcm", weight=0.3)  # each starts a process


def palette() -> Seed:
    ds = image(0, stored=pixels(1, high=256))
    set_pixels(ds, pixels(1, high=256), bits=8, signed=False)
    ds.PhotometricInterpretation = "PALETTE COLOR"
    for name in ("Red", "Green", "Blue"):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        ds[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(ds, f"{name}PaletteColorLookupTableData", rng.bytes(512))
    return one(ds)


def of_case(folder: Path, name: str, weight: float = 1, volume: int | None = None) -> Seed:
    """A series from the test's factory; the slice in its middle is mutated."""
    case = next(case for case in CASES if case.name.startswith(name))
    case.make(folder / name)
    files = folder_bytes(folder / name)
    return Seed(files, sorted(files)[len(files) // 2], weight, volume)


def series(folder: Path) -> Seed:
    write(folder / "series", stack(count=5, modality="MR"))
    files = folder_bytes(folder / "series")
    return Seed(files, "002.dcm", weight=2)


def nifti_seed(name: str, img: Any, weight: float = 1, volume: int | None = None) -> Seed:
    with tempfile.TemporaryDirectory() as folder:
        nib.save(img, Path(folder) / name)
        return Seed(folder_bytes(Path(folder)), name, weight, volume)


def picture(name: str, **options: Any) -> Seed:
    buffer = io.BytesIO()
    values = rng.integers(0, 255, (20, 24, 3), np.uint8)
    Image.fromarray(values).save(buffer, **options)
    return Seed({name: buffer.getvalue()}, name, weight=0.5)


def make_seeds() -> dict[str, Seed]:
    affine = np.array([[-0.9, 0, 0, 10], [0, 0.8, 0.3, 20], [0, 0, 2.5, 30], [0, 0, 0, 1.0]])
    data = smooth((20, 16, 5), 2000).astype(np.int16)
    scaled = nib.Nifti1Image(data, affine)
    scaled.header.set_slope_inter(0.25, -100)
    big = nib.Nifti1Image(data, affine, nib.Nifti1Header(endianness=">"))
    big_endian = image(0)
    big_endian.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.2"
    big_endian.PixelData = big_endian.pixel_array.astype(">i2").tobytes()
    implicit, deflated = image(1), image(2)
    implicit.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    deflated.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    frames = [{"position": (0, 0, 3.0 * k), "slope": 1 + k} for k in range(5)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = {
            "DICOM series": series(folder),
            "DICOM implicit": one(implicit),
            "DICOM big endian": one(big_endian, implicit_vr=False, little_endian=False, force_encoding=True),
            "DICOM deflated": one(deflated),
            "DICOM no preamble": of_case(folder, "d29"),
            "DICOM Modality LUT": of_case(folder, "d36"),
            "DICOM 4D": of_case(folder, "g05", volume=1),
            "DICOM zip": of_case(folder, "d38", weight=0.5),
            "enhanced MR": Seed(one(enhanced(frames, stored=pixels(2, shape=(5, 20, 24)))).files, "case.dcm", 2),
            "colour cine": one(cine(3)),
            "YBR cine": one(cine(3, photometric="YBR_FULL")),
            "palette": palette(),
            "RLE": compressed(RLELossless),
            "JPEG 2000": compressed(JPEG2000Lossless),
            "JPEG-LS": compressed(JPEGLSLossless),
            "JPEG 8 bit cine": jpeg(frames=3),
            ".nii int16": nifti_seed("case.nii", scaled, weight=2),
            ".nii float64": nifti_seed("case.nii", nib.Nifti1Image(data.astype(float), affine)),
            ".nii big endian": nifti_seed("case.nii", big),
            ".nii.gz": nifti_seed("case.nii.gz", nib.Nifti1Image(data.astype(np.float32), affine), weight=2),
            "NIfTI-2": nifti_seed("case.nii", nib.Nifti2Image(data, affine)),
            "NIfTI-2 gz": nifti_seed("case.nii.gz", nib.Nifti2Image(data, affine)),
            "NIfTI 4D": nifti_seed("case.nii.gz", nib.Nifti1Image(np.stack([data, data + 1], -1), affine), volume=1),
            "FreeSurfer": nifti_seed("case.mgz", nib.MGHImage(data, affine)),
            "PNG": picture("case.png", format="PNG"),
            "JPEG": picture("case.jpg", format="JPEG"),
            "TIFF": picture("case.tif", format="TIFF", compression="tiff_lzw"),
        }
        lossless = jpeg_lossless(folder)
    return seeds | ({"JPEG lossless": lossless} if lossless else {})


# --- mutations of bytes


def choice(items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def flip_bits(raw: bytes) -> bytes:
    """Up to 64 bits, anywhere."""
    out = bytearray(raw)
    for _ in range(int(2 ** rng.uniform(0, 6))):
        out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def flip_late_bits(raw: bytes) -> bytes:
    """In the last three quarters, which is where the pixels of the seeds are."""
    start = len(raw) // 4
    return raw[:start] + flip_bits(raw[start:])


def truncate(raw: bytes) -> bytes:
    cut = len(raw) - int(2 ** rng.uniform(0, 8)) if rng.random() < 0.5 else int(rng.integers(len(raw)))
    return raw[: max(cut, 0)]


def overwrite(raw: bytes) -> bytes:
    """A block of zeros, ones or noise."""
    start, size = int(rng.integers(len(raw))), int(2 ** rng.uniform(0, 9))
    block = choice([bytes(size), b"\xff" * size, rng.bytes(size)])
    return raw[:start] + block + raw[start + size :]


def splice(raw: bytes) -> bytes:
    """A block removed, or there twice."""
    start, size = int(rng.integers(len(raw))), int(2 ** rng.uniform(0, 9))
    return raw[:start] + (b"" if rng.random() < 0.5 else raw[start : start + size] * 2) + raw[start + size :]


# --- mutations of DICOM


@dataclass(frozen=True)
class Element:
    tag: int
    start: int
    length_at: int
    length_size: int
    value_at: int
    length: int


_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}


def elements(raw: bytes) -> list[Element]:
    """The elements of a little-endian file, those in sequences too."""
    at = 132 if raw[128:132] == b"DICM" else 0
    found: list[Element] = []
    implicit = False
    while at + 8 <= len(raw):
        group, number = struct.unpack_from("<HH", raw, at)
        if group == 0xFFFE:
            at += 8
            continue
        if (not found or found[-1].tag >> 16 == 2) and group != 2:
            implicit = not raw[at + 4 : at + 6].isalpha()
        if implicit:
            place = (at + 4, 4, at + 8)
        elif raw[at + 4 : at + 6] in _LONG:
            place = (at + 8, 4, at + 12)
        else:
            place = (at + 6, 2, at + 8)
        length = int.from_bytes(raw[place[0] : place[0] + place[1]], "little")
        found.append(Element(group << 16 | number, at, *place, length))
        nested = length == 0xFFFFFFFF or raw[at + 4 : at + 6] == b"SQ"
        at = place[2] + (0 if nested else length)
    return found


def swap_tags(raw: bytes) -> bytes:
    """Two elements change their tags."""
    known = [item for item in elements(raw) if item.start + 8 <= len(raw)]
    if len(known) < 2:
        return flip_bits(raw)
    a, b = choice(known), choice(known)
    out = bytearray(raw)
    out[a.start : a.start + 4], out[b.start : b.start + 4] = raw[b.start : b.start + 4], raw[a.start : a.start + 4]
    return bytes(out)


def lie_about_length(raw: bytes) -> bytes:
    known = elements(raw)
    if not known:
        return flip_bits(raw)
    item = choice(known)
    limit = 256**item.length_size - 1
    length = choice([0, 1, item.length + 1, item.length + 2, max(item.length - 2, 0), limit, limit - 1, limit // 2,
                     int(rng.integers(limit))]) & limit  # fmt: skip
    out = bytearray(raw)
    out[item.length_at : item.length_at + item.length_size] = length.to_bytes(item.length_size, "little")
    return bytes(out)


def other_representation(raw: bytes) -> bytes:
    """One element says that it is of another kind."""
    known = [item for item in elements(raw) if raw[item.start + 4 : item.start + 6].isalpha()]
    if not known:
        return flip_bits(raw)
    start = choice(known).start + 4
    kind = choice([b"SQ", b"UN", b"DS", b"US", b"FD", b"AT", b"UI", b"PN", b"OW", b"XX", b"UT", b"IS"])
    return raw[:start] + kind + raw[start + 2 :]


ABSURD: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("Rows", "US", (0, 1, 19, 21, 4096, 65535)),
    ("Columns", "US", (0, 1, 23, 25, 4096, 65535)),
    ("BitsAllocated", "US", (0, 1, 7, 8, 12, 24, 32, 64, 65535)),
    ("BitsStored", "US", (0, 1, 8, 12, 17, 33, 65535)),
    ("HighBit", "US", (0, 7, 31, 65535)),
    ("PixelRepresentation", "US", (0, 1, 2, 65535)),
    ("SamplesPerPixel", "US", (0, 1, 2, 3, 4, 65535)),
    ("PlanarConfiguration", "US", (0, 1, 2)),
    ("NumberOfFrames", "IS", ("0", "-1", "1", "2", "7", "1000", "1000000", "99999999999", "x", "")),
    ("PhotometricInterpretation", "CS", ("", "RGB", "MONOCHROME1", "PALETTE COLOR", "YBR_FULL_422", "CMYK", "YBR_RCT")),
    ("RescaleSlope", "DS", ("0", "-1", "1e308", "1e-320", "nan", "inf", "", "1\\2")),
    ("RescaleIntercept", "DS", ("1e308", "-inf", "nan", "", "x")),
    ("ImagePositionPatient", "DS", ("0\\0\\0", "1e30\\0\\0", "nan\\0\\0", "0\\0", "", "0\\0\\1e5", "1e308\\1e308\\1")),
    ("ImageOrientationPatient", "DS", ("0\\0\\0\\0\\0\\0", "1\\0\\0\\1\\0\\0", "1\\0\\0\\0\\1", "nan\\0\\0\\0\\1\\0",
                                       "1\\0\\0\\0\\0\\-1", "1e200\\0\\0\\0\\1\\0", "0\\-1\\0\\1\\0\\0")),
    ("PixelSpacing", "DS", ("0\\0", "-1\\1", "1e-30\\1e-30", "1e30\\1", "nan\\1", "1", "", "0.3\\0.3")),
    ("SliceThickness", "DS", ("0", "-3", "1e30", "nan", "")),
    ("SpacingBetweenSlices", "DS", ("0", "-3", "1e30", "x")),
    ("ImageType", "CS", ("ORIGINAL\\PRIMARY\\MOSAIC", "", "DERIVED", "A\\B\\LOCALIZER")),
    ("SOPClassUID", "UI", ("", "1.2", "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.7")),
    ("SOPInstanceUID", "UI", ("", "1.2.3", "../../x")),
    ("SeriesInstanceUID", "UI", ("", "1.2.3", "../../x")),
    ("FrameOfReferenceUID", "UI", ("", "9.9")),
    ("Modality", "CS", ("", "US", "PT", "SEG", "OT", "CR", "../x")),
    ("SeriesNumber", "IS", ("999999999999", "-5", "", "1.5", "x")),
    ("InstanceNumber", "IS", ("999999999999", "-5", "", "1", "1.5")),
    ("SpecificCharacterSet", "CS", ("ISO_IR 192", "nonsense", "ISO 2022 IR 87\\ISO 2022 IR 159")),
    ("LargestImagePixelValue", "US", (65535,)),
    ("StackID", "SH", ("1", "\\", "x" * 16)),
    ("BodyPartExamined", "CS", ("", "Marker^Patient", "x" * 300)),
    ("EchoTime", "DS", ("nan", "1e400", "5")),
    ("DiffusionBValue", "FD", (float("nan"), float("inf"), 1000.0)),
    ("TemporalPositionIdentifier", "IS", ("99999999999", "2")),
    ("LUTDescriptor", "US", ([0, 0, 16], [65535, 65535, 0], [256, 0, 300], [1])),
    ("LUTData", "US", ([0], [1, 2])),
    ("DimensionIndexValues", "UL", ([0], [4294967295, 1, 2], 5)),
    ("FrameType", "CS", ("", "DERIVED\\SECONDARY\\MPR\\NONE")),
    ("RedPaletteColorLookupTableDescriptor", "US", ([0, 0, 16], [65535, 9, 8], [10, 60000, 16], [256, 0, 77])),
    ("BluePaletteColorLookupTableData", "OW", (b"", b"\1\2")),
)  # fmt: skip


def all_items(ds: Dataset) -> list[Dataset]:
    found = [ds]
    for element in ds:
        if element.VR == "SQ":
            found += [inner for item in element.value for inner in all_items(item)]
    return found


def absurd_values(raw: bytes) -> bytes:
    """One to three attributes get a value that they should not have, wherever they are."""
    ds = pydicom.dcmread(io.BytesIO(raw), force=True)
    for _ in range(int(rng.integers(1, 4))):
        name, vr, values = choice(ABSURD)
        homes = [item for item in all_items(ds) if name in item] or [ds]
        value = choice(values)
        if vr == "DS" and isinstance(value, str):
            vr = "LO"  # which takes any text
        for home in homes if rng.random() < 0.5 else [choice(homes)]:
            home[name] = DataElement(pydicom.datadict.tag_for_keyword(name), vr, value)
    return relabelled(saved(ds, raw))


def relabelled(raw: bytes) -> bytes:
    """Give numbers written as plain text their own VR back."""
    numeric = {pydicom.datadict.tag_for_keyword(name) for name, vr, _ in ABSURD if vr == "DS"}
    out = bytearray(raw)
    for item in elements(raw):
        if item.tag in numeric and raw[item.start + 4 : item.start + 6] == b"LO":
            out[item.start + 4 : item.start + 6] = b"DS"
    return bytes(out)


def saved(ds: Dataset, raw: bytes) -> bytes:
    if not ds.file_meta.get("TransferSyntaxUID"):
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    buffer = io.BytesIO()
    if ds.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.2":
        pydicom.dcmwrite(buffer, ds, implicit_vr=False, little_endian=False, force_encoding=True)
    else:
        pydicom.dcmwrite(buffer, ds)
    return buffer.getvalue()


def nested(raw: bytes) -> bytes:
    """Sequences in sequences, more than a parser's stack may hold."""
    after = [item for item in elements(raw) if item.tag >> 16 == 8]
    if not after or not raw[after[-1].start + 4 : after[-1].start + 6].isalpha():
        return flip_bits(raw)
    at, depth = after[-1].value_at + after[-1].length, int(2 ** rng.uniform(2, 12))
    opening = b"\x08\0\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return raw[:at] + opening * depth + closing * depth + raw[at:]


def missing_or_moved(raw: bytes) -> bytes:
    """Attributes or items of sequences are missing, doubled, or of another object; pixels are short or long."""
    ds = pydicom.dcmread(io.BytesIO(raw), force=True)
    kind = int(rng.integers(6))
    home = choice(all_items(ds))
    keys = [key for key in home if key.tag.group > 2]
    sequences = [element for item in all_items(ds) for element in item if element.VR == "SQ" and element.value]
    if kind <= 1 or (kind == 2 and not sequences):
        for _ in range(int(rng.integers(1, 4))):
            if keys:
                del home[choice(keys).tag]
                keys = [key for key in home if key.tag.group > 2]
    elif kind == 2:
        items = choice(sequences).value
        n = int(rng.integers(len(items)))
        if rng.random() < 0.5:
            del items[n]
        else:
            items.append(items[n])
    elif kind == 3 and "PixelData" in ds:
        data = ds.PixelData
        ds.PixelData = choice([b"", data[: len(data) // 2], data * 2, data[:1], data[:-1]])
    elif kind == 4:
        known = ("1", "1.1", "1.2", "1.5", "4.50", "4.51", "4.70", "4.80", "4.90", "4.201", "4.102")
        syntaxes = [f"1.2.840.10008.1.2.{end}" for end in known] + ["1.2.840.10008.1.2", "9.9", ""]
        out = saved(ds, raw)
        old = next((item for item in elements(out) if item.tag == 0x00020010), None)
        if old is None:
            return flip_bits(raw)
        new = choice(syntaxes).encode()
        new += b"\0" * (len(new) % 2)
        size = len(new).to_bytes(2, "little")
        return out[: old.length_at] + size + new + out[old.value_at + old.length :]
    else:
        return nested(raw)
    return saved(ds, raw)


def codestream(raw: bytes) -> bytes:
    """Bytes at the start of the compressed pixels, where the decoders read sizes and tables."""
    found = [raw.find(mark, 132) for mark in (b"\xff\x4f\xff\x51", b"\xff\xd8\xff", b"\xfe\xff\0\xe0")]
    at = next((place for place in found[:2] if place >= 0), found[2])
    if at < 0:
        return flip_late_bits(raw)
    out = bytearray(raw)
    for _ in range(int(rng.integers(1, 4))):
        place = at + int(rng.integers(2, 120))
        value = choice([b"\0", b"\1", b"\xff", b"\x7f", b"\0\0\0\1", b"\xff\xff", b"\0\1", rng.bytes(1), rng.bytes(2)])
        out[place : place + len(value)] = value
    return bytes(out[: len(raw)])


def big_lie(raw: bytes) -> bytes:
    """Rows, Columns and the size in the compressed stream agree, and there are not as many pixels."""
    size = choice([256, 2000, 4000, 16000, 65535])
    ds = pydicom.dcmread(io.BytesIO(raw), force=True)
    old = (int(ds.Rows), int(ds.Columns))
    ds.Rows = ds.Columns = size
    if rng.random() < 0.3:
        ds.NumberOfFrames = choice([2, 100, 99999])
    out = saved(ds, raw)
    if (at := out.find(b"\xff\x4f\xff\x51")) >= 0:
        sizes = struct.pack(">2I", size, size)
        tiles = choice([sizes, struct.pack(">2I", 1, 1), struct.pack(">2I", old[1], old[0])])
        out = out[: at + 8] + sizes + out[at + 16 : at + 24] + tiles + out[at + 32 :]
    else:
        out = out.replace(struct.pack(">2H", *old), struct.pack(">2H", size, size))
    return out


# --- mutations of NIfTI and FreeSurfer headers

NIFTI1 = {"sizeof_hdr": (0, "i"), "dim": (40, "8h"), "datatype": (70, "h"), "bitpix": (72, "h"), "pixdim": (76, "8f"),
          "vox_offset": (108, "f"), "slope": (112, "f"), "inter": (116, "f"), "xyzt": (123, "b"), "qcode": (252, "h"),
          "scode": (254, "h"), "quatern": (256, "6f"), "srow": (280, "12f"), "magic": (344, "4b"),
          "extension": (348, "4b")}  # fmt: skip
NIFTI2 = {"sizeof_hdr": (0, "i"), "magic": (4, "8b"), "datatype": (12, "h"), "bitpix": (14, "h"), "dim": (16, "8q"),
          "pixdim": (104, "8d"), "vox_offset": (168, "q"), "slope": (176, "d"), "inter": (184, "d"),
          "qcode": (344, "i"), "scode": (348, "i"), "quatern": (352, "6d"), "srow": (400, "12d")}  # fmt: skip
MGH = {"version": (0, "i"), "dim": (4, "4i"), "type": (20, "i"), "good": (28, "h"), "delta": (30, "3f"),
       "cosines": (42, "9f"), "centre": (78, "3f")}  # fmt: skip
DATATYPES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, -1)


def absurd_header(raw: bytes) -> bytes:
    """One to three fields of the header."""
    out = bytearray(raw)
    if raw[:4] == b"\0\0\0\1":
        order, fields = ">", MGH
    else:
        order = "<" if raw[:2] in (b"\x5c\x01", b"\x1c\x02") else ">"
        fields = NIFTI2 if 540 in struct.unpack(order + "i", raw[:4]) else NIFTI1
    for _ in range(int(rng.integers(1, 4))):
        name = choice(sorted(fields))
        offset, layout = fields[name]
        kind, size = layout[-1], struct.calcsize("=" + layout[-1])
        index = int(rng.integers(int(layout[:-1] or 1)))
        if name == "datatype":
            value: float = choice(DATATYPES)
        elif kind in "fd":
            value = choice([0.0, -1.0, float("nan"), float("inf"), 1e30, 1e-30, 0.5, 7.0, 1e-3])
        else:
            top = 2 ** (8 * size - 1) - 1
            value = choice([0, 1, 2, 3, 4, 7, 20, -1, top, -top, 100, 1000 % (top + 1)])
        struct.pack_into(order + kind, out, offset + index * size, value)
    return bytes(out)


def same_size_dimensions(raw: bytes) -> bytes:
    """Dimensions in another order, so that all bytes are there."""
    if raw[:4] == b"\0\0\0\1":
        order, at, kind, first = ">", 4, "i", 0
    else:
        order = "<" if raw[:2] in (b"\x5c\x01", b"\x1c\x02") else ">"
        at, kind = (16, "q") if 540 in struct.unpack(order + "i", raw[:4]) else (40, "h")
        first = 1
    out = bytearray(raw)
    dims = list(struct.unpack_from(f"{order}{first + 4}{kind}", raw, at))
    total = dims[first:]
    dims[first:] = [int(v) for v in rng.permutation(total)]
    if first and rng.random() < 0.3:
        dims[0] = int(rng.integers(1, 8))
    struct.pack_into(f"{order}{first + 4}{kind}", out, at, *dims)
    return bytes(out)


def inside(mutation: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Mutate what is compressed and compress it again."""

    def mutate(raw: bytes) -> bytes:
        if raw[:2] != b"\x1f\x8b":
            return mutation(raw)
        return gzip.compress(mutation(gzip.decompress(raw)), 1)

    return mutate


BYTES = {"bit flips": flip_bits, "late bit flips": flip_late_bits, "truncated": truncate, "overwritten": overwrite,
         "spliced": splice}  # fmt: skip
CODED = {"codestream": codestream, "big lie": big_lie, "codestream ": codestream}
DICOM = {"absurd values": absurd_values, "missing or moved": missing_or_moved, "swapped tags": swap_tags,
         "length": lie_about_length, "VR": other_representation}  # fmt: skip
NIFTI = {"absurd header": inside(absurd_header), "dimensions": inside(same_size_dimensions),
         "bit flips inside": inside(flip_bits), "truncated inside": inside(truncate)}  # fmt: skip


def mutations_for(target: str, coded: bool) -> Mapping[str, Callable[[bytes], bytes]]:
    if target.endswith((".nii", ".nii.gz", ".mgz")):
        return BYTES | NIFTI
    if target.endswith((".png", ".jpg", ".tif", ".zip")):
        return dict(BYTES)
    # Twice as many of what the header parser lets through.
    return (
        BYTES
        | DICOM
        | (CODED if coded else {})
        | {f"{name}{again}": f for name, f in DICOM.items() for again in (" ",) if " " in name}
    )


# --- one file


@dataclass
class Depth:
    """How deep a file reached, told by functions that are passed on the way."""

    path: Path | None = None
    header: bool = False
    pixels: bool = False

    def watch(self) -> None:
        def header(path: Path | None) -> None:
            self.header |= path == self.path

        def pixels(path: Path | None) -> None:
            self.pixels |= path == self.path

        def after(module: Any, name: str, at: int, mark: Callable[[Path | None], None]) -> None:
            original = getattr(module, name)

            def passed(*args: Any, **kwargs: Any) -> Any:
                result = original(*args, **kwargs)
                mark(args[at])
                return result

            setattr(module, name, passed)

        def before(module: Any, name: str, at: int) -> None:
            original = getattr(module, name)

            def passed(*args: Any, **kwargs: Any) -> Any:
                pixels(args[at])
                return original(*args, **kwargs)

            setattr(module, name, passed)

        after(dicom_headers, "_parse_object", 1, header)
        after(nifti, "_parse", 1, header)
        after(nifti, "_affine", 1, pixels)
        before(dicom_pixels, "_decode_frame", 1)
        before(photo, "_pixels", 1)


class ViolationError(Exception):
    pass


class Hang(BaseException):
    pass


def check_volume(volume: Volume, case: cases.Case) -> None:
    data, affine = volume.data, volume.affine
    if data.ndim != 4 or data.shape[0] not in (1, 3) or 0 in data.shape or data.dtype != np.float32:
        raise ViolationError(f"shape {data.shape} {data.dtype}")
    if not np.isfinite(data).all():
        raise ViolationError("values that are not finite")
    if affine.shape != (4, 4) or affine.dtype != np.float64 or not np.isfinite(affine).all():
        raise ViolationError("affine not finite")
    if abs(np.linalg.det(affine[:3, :3])) < 1e-12 or affine[3].tolist() != [0, 0, 0, 1]:
        raise ViolationError("affine not invertible")
    if case.series is not None and len(volume.source.frames) != data.shape[3]:
        raise ViolationError("frames and slices differ")


def check_line(text: str, error: AnomalyCLIPError, folders: tuple[Path, ...]) -> None:
    if "\n" in text or not re.match(r"E_[A-Z0-9_]+: \S", text):
        raise ViolationError(f"not one coded line: {text!r}")
    inside_zip = error.path is not None and "anomalyclip-" in str(error.path)
    below = error.path is not None and str(error.path).startswith(tuple(map(str, folders)))
    if not (below or inside_zip) or str(error.path) not in text:
        raise ViolationError(f"the line does not name the file: {text}")
    if any(marker in text for marker in MARKERS):
        raise ViolationError(f"the line quotes the patient: {text}")


def check_output(folder: Path, volume: Volume) -> None:
    files = {path.name for path in folder.iterdir()}
    wanted = {"scores.json", "preview.png"} | ({"heatmap.nii.gz", "mask.nii.gz"} if volume.source.regular else set())
    if not wanted <= files:
        raise ViolationError(f"the result has only {sorted(files)}")
    if volume.source.regular:
        heatmap = nib.load(folder / "heatmap.nii.gz")
        shape = (*heatmap.shape, 1, 1)[:3]
        if shape != volume.data.shape[1:] or not np.allclose(heatmap.affine, volume.affine, rtol=1e-5, atol=1e-4):
            raise ViolationError("the heatmap is not on the grid of the volume")
        values = np.asarray(heatmap.dataobj)
        if not (values.min() >= 0 and values.max() <= 1):
            raise ViolationError("the heatmap leaves [0, 1]")


@dataclass
class Run:
    """What became of a file."""

    outcome: str = "broken"
    line: str = ""
    written: int = 0
    per_slice: int = 0


def read_and_run(given: Path, seed: Seed, pipeline: Pipeline | None, out: Path, run: Run) -> None:
    for case in find_cases([given]):
        try:
            volume = case.read(seed.volume)
        except CaseError as error:
            if error.code in BETWEEN_SLICES:
                with contextlib.suppress(CaseError):
                    check_volume(volume := case.read(seed.volume, per_slice=True), case)
                    run.per_slice += not volume.source.regular
            raise
        check_volume(volume, case)
        if pipeline is None or max(volume.data.shape[1:]) > 64 or min(volume.data.shape[1:]) > MAX_SLICES:
            continue
        record = {"image": case if seed.volume is None else volume, "case": case.name}
        check_output(pipeline.run(record).save(out), volume)
        run.written += 1
    run.outcome = "result"


def leftovers(out: Path, done: bool) -> list[str]:
    """Temporary files of a result; any file where there is no result."""
    files = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    return [name for name in files if ".partial" in name or not done]


def rss() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def virtual() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextlib.contextmanager
def limit() -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        raise Hang

    faulthandler.dump_traceback_later(6 * MAX_SECONDS, exit=True)  # where no Python code runs
    signal.signal(signal.SIGALRM, ring)
    signal.alarm(MAX_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()


@dataclass
class Report:
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    by_seed: dict[str, Counter[str]] = field(default_factory=dict)
    by_mutation: dict[str, Counter[str]] = field(default_factory=dict)
    depth: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    warned: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")
    piped: int = 0
    written: int = 0
    per_slice: int = 0

    def add(self, seed: str, mutation: str, outcome: str, depth: Depth) -> None:
        self.outcomes.setdefault(outcome, Counter())[seed] += 1
        for counts in (
            self.by_seed.setdefault(seed, Counter()),
            self.by_mutation.setdefault(mutation, Counter()),
            self.depth,
        ):
            counts["files"] += 1
            counts["parsed"] += depth.header or depth.pixels
            counts["pixels"] += depth.pixels
            counts[outcome] += 1

    def print(self, count: int, arguments: argparse.Namespace, imports: int, base: int, seconds: float) -> None:
        print(f"`python benchmarks/fuzz.py --count {count} --seed {arguments.seed}`\n")
        print(f"* {count} mutated files in one process, {seconds:.0f} s, violations: **{len(self.violations)}**")
        shares = [f"{words}: {n} ({n / count:.0%})" for words, n in (
            ("header parsed", self.depth["parsed"]), ("pixels reached", self.depth["pixels"]),
            ("volume with checked geometry", self.depth["result"]),
        )]  # fmt: skip
        print(f"* {'; '.join(shares)}")
        print(f"* offered to the whole pipeline: {self.piped}, results written and checked: {self.written}; "
              f"uneven series read slice by slice: {self.per_slice}")  # fmt: skip
        print(f"* slowest file: {self.slowest[0]:.1f} s ({self.slowest[1]})")
        print(f"* memory: {imports / 2**20:.0f} MB after imports; above that {(base - imports) / 2**20:.0f} MB with "
              f"the network loaded and used, {(peak() - imports) / 2**20:.0f} MB at the peak, "
              f"{(rss() - imports) / 2**20:.0f} MB at the end")  # fmt: skip
        print("\n| outcome | files | most often from |\n|---|---|---|")
        for name, seeds in sorted(self.outcomes.items(), key=lambda item: -item[1].total()):
            print(f"| {name} | {seeds.total()} | {', '.join(f'{key} {n}' for key, n in seeds.most_common(3))} |")
        for title, table in (("seed", self.by_seed), ("mutation", self.by_mutation)):
            print(f"\n| {title} | files | header parsed | pixels reached | volume | most frequent codes |")
            print("|---|---|---|---|---|---|")
            for key, counts in sorted(table.items()):
                codes = Counter({code: n for code, n in counts.items() if code.startswith("E_")}).most_common(4)
                listed = ", ".join(f"{code} {n}" for code, n in codes)
                cells = [key, *(counts[column] for column in ("files", "parsed", "pixels", "result")), listed]
                print(f"| {' | '.join(map(str, cells))} |")
        if self.warned:
            print("\nPython warnings: " + ", ".join(f"{name} {n}" for name, n in self.warned.most_common()))
        for text in self.violations:
            print(f"\nVIOLATION {text}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="copy files that break a promise into this folder")
    parser.add_argument("--verbose", action="store_true", help="name each file before it is read")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    imports = rss()
    global rng
    rng = np.random.default_rng(arguments.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config.settings.writing_validation_mode = config.IGNORE
        config.settings.reading_validation_mode = config.IGNORE
        seeds = make_seeds()
    names, weights = list(seeds), np.array([seed.weight for seed in seeds.values()])
    pipeline, depth, report = Pipeline("tiny", device="cpu"), Depth(), Report()
    depth.watch()

    # A blow-up shall end as a violation, not with the machine: address space beyond the limit is refused.
    resource.setrlimit(resource.RLIMIT_AS, (virtual() + MAX_ADDRESSES, resource.RLIM_INFINITY))
    with tempfile.TemporaryDirectory() as temporary:
        work, out = Path(temporary) / "in", Path(temporary) / "out"
        base, floor, start = 0, imports, 0.0
        for number in range(-len(names), arguments.count):
            # The seeds themselves come first: every one of them must be a result.
            intact = number < 0
            name = names[number] if intact else str(rng.choice(names, p=weights / weights.sum()))
            seed = seeds[name]
            table = mutations_for(seed.target, "J" in name or "RLE" in name)
            mutation = choice(sorted(table))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = seed.files[seed.target]
                if not intact:
                    try:
                        content = table[mutation](content)
                    except Exception:  # pydicom cannot write what it was told to
                        mutation, content = "bit flips", flip_bits(content)
            if number == 0:
                base, start = rss(), time.monotonic()
            for folder in (work, out):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            for file, good in seed.files.items():
                path = work / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content if file == seed.target else good)
            whole = number % EVERY == 0 or (intact and number == -1)
            report.piped += whole and not intact
            depth.path, depth.header, depth.pixels = work / seed.target, False, False
            label = f"{number}: {name}, {mutation.strip()}"
            if arguments.verbose:
                print(label, file=sys.stderr, flush=True)
            before = time.monotonic()
            broken = ""
            run = Run()
            given = path if len(seed.files) == 1 and rng.random() < 0.5 else work
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                try:
                    with limit():
                        read_and_run(given, seed, pipeline if whole else None, out, run)
                except AnomalyCLIPError as error:
                    run.outcome, run.line = error.code, str(error)
                    try:
                        check_line(str(error), error, (work, out))
                    except ViolationError as violation:
                        broken = str(violation)
                    if run.outcome == "E_INTERNAL" or intact:
                        broken = str(error)
                except ViolationError as violation:
                    broken = str(violation)
                except Hang:
                    broken = f"more than {MAX_SECONDS} s"
                except Exception:
                    broken = traceback.format_exc()
            seconds = time.monotonic() - before
            if arguments.verbose:
                print(f"    {run.outcome} {run.line}", file=sys.stderr, flush=True)
            for item in caught:
                report.warned[
                    f"{item.category.__name__} {str(item.message)[:60]!r} {Path(item.filename).parent.name}"
                ] += 1
                if any(marker in str(item.message) for marker in MARKERS):
                    broken = f"a warning quotes the patient: {item.category.__name__}"
            if left := leftovers(out, run.outcome == "result"):
                broken = f"left behind: {left}"
            if "zip" in name:
                cases._unpacked.close()
            if (growth := peak() - floor) > MAX_GROWTH:
                broken = f"{growth / 2**20:.0f} MB above the process after its imports"
                floor = peak()
            if broken:
                report.violations.append(f"{label}: {broken}")
                print(f"VIOLATION {label}: {broken}", file=sys.stderr)
                if arguments.keep:
                    shutil.copytree(work, arguments.keep / str(number), dirs_exist_ok=True)
            if not intact:
                report.slowest = max(report.slowest, (seconds, label))
                report.add(name, mutation.strip(), run.outcome, depth)
                report.written += run.written
                report.per_slice += run.per_slice
        report.print(arguments.count, arguments, imports, base, time.monotonic() - start)
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
