"""What a derived DICOM object takes over from its source: whose it is, and where each frame is.

Nothing is read again, and nothing but the attributes named in :mod:`anomalyclip_monai.data.dicom_origin` is known
here. What is not named there (comments, history, institution, operators, devices, private tags) cannot reach the
output.
"""

from __future__ import annotations

import copy
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VM
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import validate_value

from anomalyclip_monai.data.dicom_headers import SliceHeader
from anomalyclip_monai.data.dicom_origin import OF_ANIMALS, OPTIONAL, REQUIRED
from anomalyclip_monai.data.dicom_series import MAX_ORIENTATION_NOISE
from anomalyclip_monai.data.geometry import is_sheared, plane_distance
from anomalyclip_monai.data.volume import Source
from anomalyclip_monai.exceptions import OutputError
from anomalyclip_monai.types import Affine

MAX_GRID_ERROR = 0.1
"""mm between a corner of a slice by the affine and by its own header; twice what the reader allows."""

_NEVER_EMPTIED = frozenset({"PatientName", "PatientID"})
"""Kept even if longer than PS3.5 6.2 allows: a result must not lose whose it is."""

_SEXES = frozenset({"", "F", "M", "O"})
_SET = re.compile(r"(ISO|GB|UTF)[A-Z0-9_ -]{0,14}|")
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """The stored frame that a frame was computed from; ``frame`` counts from 1, None for a single-frame object."""

    sop_class: str
    sop_uid: str
    frame: int | None


@dataclass(frozen=True, slots=True)
class SourceGrid:
    """The frames of a source in the order in which a derived object stores them.

    That is ascending along the normal, or, for slices that lie on no grid, the order in which they were read.

    Attributes:
        header: identifiers and frame of reference, in the form of a classic single-frame image without texts.
        texts: of patient and study, as the source stores them.
        character_set: Specific Character Set of these, None for the default repertoire.
        series_uid: of the source.
        series_number: of the source, 0 if it has none.
        rows: H.
        columns: W.
        order: (N,) index of each frame on the array's last axis.
        positions: (N, 3) Image Position (Patient), LPS mm.
        orientations: (1, 6) Image Orientation (Patient) of all frames, or (N, 6) where they differ.
        spacing: (2,) Pixel Spacing: mm between rows, mm between columns.
        thickness: Slice Thickness in mm.
        step: mm between slices, None for one slice and for a tilted or uneven stack.
        references: (N,) source frames.
    """

    header: Dataset
    texts: tuple[DataElement | RawDataElement, ...]
    character_set: str | list[str] | None
    series_uid: str
    series_number: int
    rows: int
    columns: int
    order: NDArray[np.intp]
    positions: NDArray[np.float64]
    orientations: NDArray[np.float64]
    spacing: tuple[float, ...]
    thickness: float
    step: float | None
    references: tuple[Reference, ...]

    def place(self, voxel: tuple[int, int, int]) -> NDArray[np.float64]:
        """(i, j, k) of the array -> (3,) LPS mm by the header of that very slice, PS3.3 C.7.6.2.1.1."""
        i, j, k = voxel
        frame = int(np.flatnonzero(self.order == k)[0])
        row, column = np.reshape(self.orientations[frame if len(self.orientations) > 1 else 0], (2, 3))
        between_rows, between_columns = self.spacing
        found: NDArray[np.float64] = self.positions[frame] + i * between_columns * row + j * between_rows * column
        return found


def source_grid(source: Source, affine: Affine, shape: tuple[int, ...]) -> SourceGrid:
    """The geometry of each frame as it is stored, and whose it is: what was read with the pixels.

    Args:
        source: its frames are in the order of the array's last axis.
        affine: (4, 4) voxel index to RAS mm.
        shape: (X, Y, Z) of the array that is to be written.

    Raises:
        OutputError: the source has no patient geometry, lacks a UID that links results to it, or is not on the grid
            of the array (``E_WRITE``).
    """
    origin = source.origin
    if source.kind != "dicom" or not source.has_physical_size or not source.frames or origin is None:
        what = "DICOM SEG and Parametric Map need patient geometry, and this source has none"
        raise OutputError("E_WRITE", what, source.path, "use the other files of the result")
    slices = [origin.slices[frame] for frame in source.frames]
    series_uid = str(_value(origin.header, "SeriesInstanceUID") or "")
    for header in slices:
        if not all(map(_UID.fullmatch, (header.sop_class, header.sop_uid, series_uid))):
            what = "the source has no valid SOP Class, SOP Instance or Series Instance UID: nothing can be linked to it"
            raise OutputError("E_WRITE", what, header.frame.path, "use the other files of the result")
    _check_grid(slices, affine, shape, source)
    positions = np.array([header.position for header in slices], np.float64)
    orientations = np.array([header.orientation for header in slices], np.float64)
    if np.abs(orientations - orientations[0]).max() <= MAX_ORIENTATION_NOISE:
        orientations = orientations[:1]
    order = np.arange(len(slices))
    if source.regular:
        normal = np.cross(orientations[0, :3], orientations[0, 3:])
        order = np.argsort(positions @ normal, kind="stable")
    texts = _texts(origin.header)
    return SourceGrid(
        header=_plain_header(origin.header, slices[0], series_uid),
        texts=texts,
        character_set=_character_set(origin.header, texts),
        series_uid=series_uid,
        series_number=_series_number(origin.header),
        rows=slices[0].rows,
        columns=slices[0].columns,
        order=order,
        positions=positions[order],
        orientations=orientations if len(orientations) == 1 else orientations[order],
        spacing=slices[0].spacing or (),
        thickness=_thickness(slices[0]) or plane_distance(affine, 2),
        step=_even_step(positions, affine) if source.regular else None,
        references=tuple(_reference(slices[k]) for k in order),
    )


def _check_grid(slices: Sequence[SliceHeader], affine: Affine, shape: tuple[int, ...], source: Source) -> None:
    """Hold rows and columns of each slice against the array's: a transposed or resampled one must not be written."""
    for header in slices:
        grid = (header.columns, header.rows, len(slices))
        if grid != shape:
            raise OutputError("E_WRITE", f"the array has {shape} voxels, the source {grid}", header.frame.path)
    if not source.regular:
        return
    in_plane = np.diag([-1.0, -1.0, 1.0]) @ affine[:3, :2]
    for header in slices:
        row, column = np.reshape(np.asarray(header.orientation, np.float64), (2, 3))
        between_rows, between_columns = header.spacing or (0.0, 0.0)
        own = np.stack([row * between_columns, column * between_rows], axis=1)
        error = np.abs((own - in_plane) * [header.columns, header.rows]).max()
        if not error <= MAX_GRID_ERROR:
            raise OutputError("E_WRITE", "the array is not on the grid of this slice", header.frame.path)


def _even_step(positions: NDArray[np.float64], affine: Affine) -> float | None:
    if len(positions) < 2 or is_sheared(affine):
        return None
    index = np.zeros((len(positions), 4))
    index[:, 2], index[:, 3] = np.arange(len(positions)), 1
    expected = (index @ affine.T)[:, :3] * [-1, -1, 1]
    if np.linalg.norm(positions - expected, axis=1).max() > MAX_GRID_ERROR:
        return None
    return plane_distance(affine, 2)


def _reference(header: SliceHeader) -> Reference:
    return Reference(header.sop_class, header.sop_uid, header.frame.number + 1 if header.frames > 1 else None)


def _thickness(header: SliceHeader) -> float | None:
    return header.thickness if header.thickness is not None and header.thickness > 0 else None


def _series_number(kept: Dataset) -> int:
    try:
        number = int(_value(kept, "SeriesNumber"))
    except (TypeError, ValueError, OverflowError):
        return 0
    return max(number, 0)


def _plain_header(kept: Dataset, geometry: SliceHeader, series_uid: str) -> Dataset:
    """Build the header that highdicom copies from: that of one pixel, since frames and texts are set later.

    It is that of a classic image, whatever the source is: highdicom refuses enhanced objects whose frames do not
    share their functional groups, and more than one of them.
    """
    header = Dataset()
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = geometry.sop_uid
    header.SeriesInstanceUID = series_uid
    header.StudyInstanceUID = str(_value(kept, "StudyInstanceUID") or "")
    if not _UID.fullmatch(header.StudyInstanceUID):
        what = "the source has no valid Study Instance UID: nothing can be linked to it"
        raise OutputError("E_WRITE", what, geometry.frame.path, "use the other files of the result")
    reference = geometry.frame_of_reference
    header.FrameOfReferenceUID = reference if _UID.fullmatch(reference) else _own_frame_of_reference(series_uid)
    header.Rows = header.Columns = 1
    header.PixelSpacing, header.SliceThickness = [1, 1], 1
    header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    for keyword in REQUIRED:
        setattr(header, keyword, None)
    return header


def _texts(kept: Dataset) -> tuple[DataElement | RawDataElement, ...]:
    """The attributes that are copied, with the bytes that the source stores; type 2 without a valid value is empty."""
    animal = any(_value(kept, keyword) for keyword in OF_ANIMALS[:2])
    elements = []
    for keyword in (*REQUIRED, *OPTIONAL, *(OF_ANIMALS if animal else ())):
        stored = kept.get_item(keyword) if keyword in kept else None
        if stored is not None and _is_valid(kept, keyword):
            elements.append(stored)
    return tuple(elements)


def _own_frame_of_reference(series_uid: str) -> str:
    """A frame of reference for a source without one: the same for all that is derived from this series."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, series_uid).int}"


def _is_valid(kept: Dataset, keyword: str) -> bool:
    """Whether a value is what its value representation allows (PS3.5 6.2)."""
    element = copy.deepcopy(kept)[keyword]  # to look at a value is to lose its bytes
    if element.VR == "SQ":
        return True
    if element.VM > 1 and dictionary_VM(element.tag) == "1":
        return False
    if keyword == "PatientSex" and str(element.value) not in _SEXES:
        return False
    if keyword not in _NEVER_EMPTIED:
        try:
            for value in element.value if element.VM > 1 else [element.value]:
                validate_value(element.VR, str(value), config.RAISE)
        except ValueError:
            return False
    return True


def _character_set(kept: Dataset, texts: Sequence[DataElement | RawDataElement]) -> str | list[str] | None:
    """Specific Character Set as stored (PS3.3 C.12.1.1.2), since the bytes of the texts are kept.

    One that nobody knows is only kept where texts need it.
    """
    value = _value(kept, "SpecificCharacterSet")
    if not value:
        return None
    names = [value] if isinstance(value, str) else [str(name) for name in value]
    plain = all(bytes(text.value).isascii() for text in texts if isinstance(text.value, bytes))
    if not all(name in python_encoding for name in names) and (plain or not all(map(_SET.fullmatch, names))):
        return "ISO_IR 192"
    return names[0] if len(names) == 1 else names


def _value(ds: Dataset, keyword: str) -> Any:
    try:
        return ds.get(keyword)
    except Exception:  # values are converted when they are first looked at
        return None
