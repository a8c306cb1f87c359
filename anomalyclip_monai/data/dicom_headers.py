"""Read what the header of a DICOM file says of its frames, without touching a pixel.

Every parser error stays with its file: one that cannot be used is a reason, one that belongs to a series
but is broken is remembered, so that the series is refused when it is read instead of losing a slice.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom import FileDataset, config, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian

from anomalyclip_monai.data.dicom_elements import too_many_elements
from anomalyclip_monai.data.dicom_terms import defined_body_part, defined_modality
from anomalyclip_monai.data.frame import Frame
from anomalyclip_monai.types import PathLike

MAX_INFLATED_BYTES = 256 * 2**20
"""Largest data set that a deflated file may hold; 1.2 MB can inflate to 2 GB."""

MAX_VALUE_BYTES = 2**16
"""Longest value that is looked at; in a file with explicit value representations there is none longer."""

MAX_FRAMES = 100_000
"""Most frames of one object; more is a lie in the header."""

CROSS_SECTIONAL = frozenset({"CT", "MR", "PT", "NM"})
"""Modalities whose slices make no sense without a position, and whose values have a scale of their own."""

_SOP = "1.2.840.10008.5.1.4.1.1."
_NOT_IMAGES = {
    "1.2.840.10008.1.3.10": "DICOMDIR",
    _SOP + "4.2": "spectroscopy",
    _SOP + "9": "waveform",
    _SOP + "11": "PR",
    _SOP + "30": "parametric map",
    _SOP + "66.4": "SEG",
    _SOP + "66.7": "SEG",
    _SOP + "66": "raw data or registration",
    _SOP + "67": "real world value map",
    _SOP + "77.1.6": "whole slide",
    _SOP + "88.59": "KO",
    _SOP + "88": "SR",
    _SOP + "104": "encapsulated document",
    _SOP + "481.2": "RTDOSE",
    _SOP + "481.3": "RTSTRUCT",
    _SOP + "481": "RT object",
}  # PS3.4 B.5, the most specific first
_NOT_IMAGE_MODALITIES = frozenset(
    {"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "REG", "FID", "RWV", "DOC", "ECG"}
)
SECONDARY_CAPTURE = _SOP + "7"

# pydicom's messages quote header values, which may name a patient: they must not reach the user's log.
_pydicom_logger = logging.getLogger("pydicom")
_pydicom_logger.propagate = False
_pydicom_logger.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a file of a series cannot be read: what a coded error needs."""

    code: str
    what: str
    todo: str | None = None


@dataclass(frozen=True, slots=True)
class SliceHeader:
    """What the header says of one stored frame.

    Attributes:
        frame: the file and the frame in it.
        sop_class: SOP Class UID.
        sop_uid: SOP Instance UID, only ever compared.
        frames: how many the object has.
        instance: Instance Number, None if absent.
        rows: H.
        columns: W.
        channels: 1, or 3 for colour (a palette counts as colour).
        position: Image Position (Patient), LPS mm.
        orientation: Image Orientation (Patient), direction of the rows, then of the columns.
        spacing: Pixel Spacing: mm between rows, mm between columns.
        thickness: Slice Thickness in mm.
        between: Spacing Between Slices in mm.
        rescale: Rescale Slope and Intercept, each None where the header has none, infinite where it is no number.
        has_lut: whether a Modality LUT stands in their place.
        frame_of_reference: Frame of Reference UID, only ever compared.
        stack: Stack ID, only ever compared.
        keys: attributes that tell volumes at the same positions apart, as ``(name, value)``.
        problem: set when the frame cannot be read.
    """

    frame: Frame
    sop_class: str = ""
    sop_uid: str = ""
    frames: int = 1
    instance: int | None = None
    rows: int = 0
    columns: int = 0
    channels: int = 1
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    thickness: float | None = None
    between: float | None = None
    rescale: tuple[float | None, float | None] = (None, None)
    has_lut: bool = False
    frame_of_reference: str = ""
    stack: str = ""
    keys: tuple[tuple[str, float | str], ...] = ()
    problem: Problem | None = None

    @property
    def has_geometry(self) -> bool:
        """Whether the header places the frame in the patient, be it incompletely."""
        return self.position is not None or self.orientation is not None


@dataclass(frozen=True, slots=True)
class ImageObject:
    """One DICOM image file: its frames and what decides on the series that it belongs to."""

    path: Path
    series_uid: str
    series_number: int | None
    sop_class: str
    modality: str
    body_part: str
    localizer: bool
    headers: tuple[SliceHeader, ...]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from quoting header values: no validation of what is read, no warnings, no log records."""
    mode, disabled = config.settings.reading_validation_mode, _pydicom_logger.disabled
    config.settings.reading_validation_mode = config.IGNORE
    _pydicom_logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        config.settings.reading_validation_mode = mode
        _pydicom_logger.disabled = disabled


def is_dicom(path: PathLike) -> bool:
    """Whether a file is DICOM: by its ``DICM`` prefix (PS3.10 7.1) or a header that parses without it."""
    file = Path(path)
    try:
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            head = stream.read(132)
        if head[128:] == b"DICM":
            return True
        if not _may_start_data_set(head):
            return False
        header = read_dataset(file, pixels=False)
        return "SOPClassUID" in header or "Rows" in header
    except Exception:  # any parser error means: not DICOM
        return False


def _may_start_data_set(head: bytes) -> bool:
    # A data set without preamble starts with group 0002 or 0008, in either byte order.
    return head[:2] in (b"\x02\x00", b"\x08\x00", b"\x00\x08") and head[3:4] <= b"\x20"


class TooLargeError(Exception):
    """A file that would take minutes or gigabytes to parse; the message says why."""


def read_dataset(path: Path, *, pixels: bool) -> FileDataset:
    """Parse one file, with inflation (PS3.5 A.5) and the number of elements capped.

    Raises:
        TooLargeError: it inflates to more, or has more elements.
        Exception: whatever the parser raises; the caller turns it into one coded line.
    """
    with quiet(), path.open("rb") as file:
        stream: BinaryIO = file
        read_preamble(stream, force=True)
        meta = _read_file_meta_info(stream)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            body = inflater.decompress(stream.read(), MAX_INFLATED_BYTES)
            if inflater.unconsumed_tail:
                raise TooLargeError("the deflated header is too large to be inflated")
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            stream = io.BytesIO()
            stream.write(b"\0" * 128 + b"DICM")
            write_file_meta_info(DicomIO(stream), meta, enforce_standard=False)
            start = stream.tell()
            stream.write(body)
            stream.seek(start)
        if too_many_elements(stream, little=meta.get("TransferSyntaxUID") != ExplicitVRBigEndian):
            raise TooLargeError("the header has more elements than are believable")
        stream.seek(0)
        return dcmread(stream, force=True, stop_before_pixels=not pixels)


def read_object(path: Path) -> ImageObject | str:
    """Read one file's header: its frames, or the reason why it has none.

    Reasons are words such as ``SEG``, ``junk`` for what is not DICOM and ``unreadable`` for a damaged header.
    """
    if not is_dicom(path):
        return "junk"
    try:
        with quiet():
            return parse_object(read_dataset(path, pixels=False), path)
    except TooLargeError as error:
        return _broken_object(path, Problem("E_TOO_LARGE", str(error)))
    except Exception:  # bad VR, recursion, bad lengths: no parser error may end the scan
        return "unreadable"


def parse_object(ds: FileDataset, path: Path) -> ImageObject | str:
    """What :func:`read_object` makes of a data set that is parsed already."""
    sop_class = _text(ds, "SOPClassUID") or str(ds.file_meta.get("MediaStorageSOPClassUID", ""))
    return _not_an_image(ds, sop_class) or _parse_object(ds, path, sop_class)


def _broken_object(path: Path, problem: Problem) -> ImageObject:
    return ImageObject(path, f"@{path}", None, "", "", "", False, (SliceHeader(Frame(path), problem=problem),))


def _not_an_image(ds: Dataset, sop_class: str) -> str | None:
    for uid, reason in _NOT_IMAGES.items():
        if sop_class == uid or sop_class.startswith(uid + "."):
            return reason
    modality = _text(ds, "Modality")
    if modality in _NOT_IMAGE_MODALITIES:
        return modality
    if "Rows" not in ds and not sop_class.startswith(_SOP):
        return "not an image" if sop_class else "unreadable"
    return None


def _parse_object(ds: FileDataset, path: Path, sop_class: str) -> ImageObject:
    modality = _text(ds, "Modality")
    image_type = _texts(ds, "ImageType")
    series_uid = _text(ds, "SeriesInstanceUID")
    return ImageObject(
        path=path,
        series_uid=series_uid or f"@{path.parent}",
        series_number=_integer(ds, "SeriesNumber"),
        sop_class=sop_class,
        modality=defined_modality(modality),
        body_part=defined_body_part(_text(ds, "BodyPartExamined")),
        localizer="LOCALIZER" in image_type,  # PS3.3 C.8.2.1.1.1, C.8.3.1.1.1
        headers=_parse_frames(ds, path, image_type, modality, sop_class),
    )


def _parse_frames(
    ds: FileDataset, path: Path, image_type: tuple[str, ...], modality: str, sop_class: str
) -> tuple[SliceHeader, ...]:
    photometric = _text(ds, "PhotometricInterpretation")
    count = max(_integer(ds, "NumberOfFrames") or 1, 1)
    common = SliceHeader(
        frame=Frame(path),
        sop_class=sop_class,
        sop_uid=_text(ds, "SOPInstanceUID"),
        frames=count,
        instance=_integer(ds, "InstanceNumber"),
        rows=_integer(ds, "Rows") or 0,
        columns=_integer(ds, "Columns") or 0,
        channels=3 if (_integer(ds, "SamplesPerPixel") or 1) > 1 or photometric == "PALETTE COLOR" else 1,
        rescale=_rescale(ds),
        has_lut=modality_lut(ds) is not None,
        frame_of_reference=_text(ds, "FrameOfReferenceUID"),
    )
    if problem := _header_problem(ds, common, count, image_type):
        return (replace(common, problem=problem),)
    per_frame = ds.get("PerFrameFunctionalGroupsSequence")
    if per_frame:
        if len(per_frame) != count:
            what = f"{count} frames, but {len(per_frame)} descriptions of frames"
            return (replace(common, problem=Problem("E_FRAMES", what)),)
        shared = _first(ds, "SharedFunctionalGroupsSequence")
        return tuple(
            _parse_enhanced(ds, item, shared, replace(common, frame=Frame(path, i))) for i, item in enumerate(per_frame)
        )
    header = _parse_classic(ds, common, image_type)
    if count == 1:
        return (header,)
    if modality in CROSS_SECTIONAL or header.has_geometry:
        what = f"{count} frames in one object without a position for each"
        return (replace(header, problem=Problem("E_FRAMES", what, "convert it with dcm2niix")),)
    return tuple(replace(header, frame=Frame(path, i)) for i in range(count))


def _header_problem(ds: FileDataset, header: SliceHeader, count: int, image_type: tuple[str, ...]) -> Problem | None:
    if header.rows < 1 or header.columns < 1:
        return Problem("E_PIXELS", "Rows or Columns is absent or zero", "copy the file again")
    if {"MOSAIC", "VFRAME"} & set(image_type) or _is_tiled(ds):
        todo = "convert it with dcm2niix and give its NIfTI file"
        return Problem("E_MOSAIC", "all slices of a volume are tiled into one image (mosaic or VFRAME)", todo)
    if count > MAX_FRAMES:
        return Problem("E_TOO_LARGE", f"the header claims {count} frames")
    return None


def _is_tiled(ds: FileDataset) -> bool:
    """Whether a vendor's private tags say that one image holds several slices."""
    siemens = _private(ds, 0x0019, "SIEMENS MR HEADER", 0x0A)  # Number of Images in Mosaic
    return "SQ" in _private(ds, 0x0065, "Image Private Header", 0x51) or siemens not in ("", "0", "1")


def _private(ds: FileDataset, group: int, creator: str, element: int) -> str:
    """A private value as text, ``SQ`` for a sequence, empty if absent (PS3.5 7.8.1)."""
    try:
        found = ds.private_block(group, creator)[element]
    except KeyError:
        return ""
    return "SQ" if found.VR == "SQ" else str(found.value)


def _parse_classic(ds: Dataset, header: SliceHeader, image_type: tuple[str, ...]) -> SliceHeader:
    keys = _keys(
        ("image type", "/".join(image_type[2:]) or None),
        ("echo time", _number(ds, "EchoTime")),
        ("echo number", _number(ds, "EchoNumbers")),
        ("temporal position", _number(ds, "TemporalPositionIdentifier")),
        ("b-value", _number(ds, "DiffusionBValue")),
        ("gradient", _joined(_numbers(ds, "DiffusionGradientOrientation", 3))),
        ("inversion time", _number(ds, "InversionTime")),
        ("trigger time", _number(ds, "TriggerTime")),
        ("acquisition number", _number(ds, "AcquisitionNumber")),
        ("acquisition time", _text(ds, "AcquisitionTime") or None),
        ("content time", _text(ds, "ContentTime") or None),
    )
    return replace(
        header,
        position=_numbers(ds, "ImagePositionPatient", 3),
        orientation=_numbers(ds, "ImageOrientationPatient", 6),
        spacing=_numbers(ds, "PixelSpacing", 2),
        thickness=_number(ds, "SliceThickness"),
        between=_number(ds, "SpacingBetweenSlices"),
        stack=_text(ds, "StackID"),
        keys=keys,
    )


def _parse_enhanced(ds: Dataset, item: Dataset, shared: Dataset | None, header: SliceHeader) -> SliceHeader:
    """Read one item of the per-frame groups, with the shared ones behind it (PS3.3 C.7.6.16)."""

    def group(keyword: str) -> Dataset:
        return _first(item, keyword) or _first(shared, keyword) or Dataset()

    content, measures = group("FrameContentSequence"), group("PixelMeasuresSequence")
    diffusion = group("MRDiffusionSequence")
    kinds = [group(keyword) for keyword in _FRAME_TYPES]
    frame_type = next((_texts(kind, "FrameType") for kind in kinds if "FrameType" in kind), ())
    gradient = _first(diffusion, "DiffusionGradientDirectionSequence")
    keys = _keys(
        ("image type", "/".join(frame_type[2:]) or None),
        ("echo time", _number(group("MREchoSequence"), "EffectiveEchoTime")),
        ("temporal position", _number(content, "TemporalPositionIndex")),
        ("b-value", _number(diffusion, "DiffusionBValue")),
        ("gradient", _joined(_numbers(gradient, "DiffusionGradientOrientation", 3))),
        ("component", _text(group("MRImageFrameTypeSequence"), "ComplexImageComponent") or None),
        ("label", _text(group("MRArterialSpinLabelingSequence"), "ASLContext") or None),
        ("trigger time", _number(group("CardiacSynchronizationSequence"), "NominalCardiacTriggerDelayTime")),
        *_dimensions(ds, content),
        ("acquisition number", _number(content, "FrameAcquisitionNumber")),
    )
    if "PlanePositionVolumeSequence" in item:
        problem = Problem("E_FRAMES", "frames of an ultrasound volume are placed in the probe's own space")
        return replace(header, problem=problem)
    return replace(
        header,
        position=_numbers(group("PlanePositionSequence"), "ImagePositionPatient", 3),
        orientation=_numbers(group("PlaneOrientationSequence"), "ImageOrientationPatient", 6),
        spacing=_numbers(measures, "PixelSpacing", 2),
        thickness=_number(measures, "SliceThickness") or _number(ds, "SliceThickness"),
        between=_number(measures, "SpacingBetweenSlices"),
        rescale=_rescale(transform) if len(transform := group("PixelValueTransformationSequence")) else header.rescale,
        stack=_text(content, "StackID"),
        keys=keys,
    )


_FRAME_TYPES = (
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "XRay3DFrameTypeSequence",
)
_POSITION_DIMENSIONS = frozenset(
    {0x00209056, 0x00209057, 0x00200032, 0x00201041, 0x00189258}
)  # Stack ID, In-Stack Position Number, Image Position (Patient), Slice Location


def _dimensions(ds: Dataset, content: Dataset) -> Iterator[tuple[str, float | str | None]]:
    """Yield the frame's index along each dimension that is not its place (PS3.3 C.7.6.17)."""
    values = _numbers(content, "DimensionIndexValues")
    for i, dimension in enumerate(ds.get("DimensionIndexSequence") or ()):
        pointer = dimension.get("DimensionIndexPointer")
        if values and i < len(values) and isinstance(pointer, int) and int(pointer) not in _POSITION_DIMENSIONS:
            yield f"dimension {i + 1}", values[i]


def modality_lut(ds: Dataset) -> Dataset | None:
    """The item of the Modality LUT Sequence (PS3.3 C.11.1) if there is a table in it."""
    item = _first(ds, "ModalityLUTSequence")
    return item if item is not None and item.get("LUTDescriptor") and item.get("LUTData") else None


def _rescale(ds: Dataset) -> tuple[float | None, float | None]:
    return _line_value(ds, "RescaleSlope"), _line_value(ds, "RescaleIntercept")


def _line_value(ds: Dataset, keyword: str) -> float | None:
    """A number; None for none, infinity for one that cannot be read, which is not the same."""
    try:
        value = ds.get(keyword)
        number = None if value is None or value == "" else float(value)
    except Exception:  # values are converted when they are first looked at
        return math.inf
    return number if number is None or math.isfinite(number) else math.inf


def _first(ds: Dataset | None, keyword: str) -> Dataset | None:
    sequence = ds.get(keyword) if ds is not None else None
    return cast(Dataset, sequence[0]) if sequence else None


def _value(ds: Dataset | None, keyword: str) -> Any:
    # Values are converted when they are first looked at, which fails for a bad one: the same as absent.
    try:
        element = ds.get_item(keyword) if ds is not None else None
        if element is None or ds is None:
            return None
        if not isinstance(element, RawDataElement):
            return element.value
        return None if len(element.value or b"") > MAX_VALUE_BYTES else ds[keyword].value
    except Exception:
        return None


def _text(ds: Dataset | None, keyword: str) -> str:
    value = _value(ds, keyword)
    return "" if value is None else str(value).strip("\0 ")


def _texts(ds: Dataset | None, keyword: str) -> tuple[str, ...]:
    value = _value(ds, keyword)
    if value is None:
        return ()
    return (str(value),) if isinstance(value, str) else tuple(str(item).strip() for item in value)


def _numbers(ds: Dataset | None, keyword: str, length: int | None = None) -> tuple[float, ...] | None:
    try:
        values = tuple(float(value) for value in _value(ds, keyword))
    except (TypeError, ValueError):
        return None
    if not all(map(math.isfinite, values)) or length not in (None, len(values)):
        return None
    return values


def _number(ds: Dataset | None, keyword: str) -> float | None:
    value = _value(ds, keyword)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _integer(ds: Dataset | None, keyword: str) -> int | None:
    number = _number(ds, keyword)
    return None if number is None else int(number)


def _joined(values: tuple[float, ...] | None) -> str | None:
    return None if values is None else "/".join(f"{value:.4f}" for value in values)


def _keys(*pairs: tuple[str, float | str | None]) -> tuple[tuple[str, float | str], ...]:
    return tuple((name, value) for name, value in pairs if value is not None)
