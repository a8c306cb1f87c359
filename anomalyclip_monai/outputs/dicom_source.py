"""What a derived DICOM object takes over from its source: whose it is, and where each frame is.

The header for the writer is built up from nothing but the attributes named here. What is not named (comments,
history, institution, operators, devices, private tags) cannot reach the output.
"""

from __future__ import annotations

import copy
import math
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VM
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from pydicom.valuerep import validate_value

from anomalyclip_monai.data.dicom_headers import ImageObject, SliceHeader, read_dataset, read_object
from anomalyclip_monai.data.dicom_series import MAX_ORIENTATION_NOISE
from anomalyclip_monai.data.geometry import is_sheared, plane_distance
from anomalyclip_monai.data.volume import Source
from anomalyclip_monai.exceptions import OutputError
from anomalyclip_monai.types import Affine

MAX_GRID_ERROR = 0.1
"""mm between a corner of a slice by the affine and by its own header; twice what the reader allows."""

_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),  # PS3.3 C.7.1.1
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),  # PS3.3 C.7.2.1
    "PositionReferenceIndicator",  # PS3.3 C.7.4.1
)
"""Attributes of type 2: the object must have them, be it empty."""

_OPTIONAL = (
    *("IssuerOfPatientID", "TypeOfPatientID", "QualityControlSubject"),  # PS3.3 C.7.1.1
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),  # PS3.3 C.7.1.1
    "StudyDescription",  # PS3.3 C.7.2.1
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),  # PS3.3 C.7.6.1.1.5
)
"""Attributes that are copied where the source has a valid value. Of the rest of the Patient and Study Modules,
comments, history, occupation, alerts and allergies among them, a derived object needs none."""

_OF_ANIMALS = (
    *("PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientSexNeutered"),
    *("PatientBreedDescription", "PatientBreedCodeSequence", "BreedRegistrationSequence"),
    *("ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization"),
)
"""Types 1C and 2C of the Patient Module, for animals only. PS3.3 C.7.1.1."""

_CODE = (
    *("CodeValue", "LongCodeValue", "URNCodeValue"),
    *("CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"),
)
"""Basic Code Sequence Macro, PS3.3 8.8."""

_NEVER_EMPTIED = frozenset({"PatientName", "PatientID"})
"""Kept even if longer than PS3.5 6.2 allows: a result must not lose whose it is."""

_SEXES = frozenset({"F", "M", "O"})
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
        header: identity and frame of reference, in the form of a classic single-frame image.
        character_set: Specific Character Set of the text in it, None for the default repertoire.
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


def read_grid(source: Source, affine: Affine, shape: tuple[int, ...]) -> SourceGrid:
    """Read the headers of a source again: the geometry of each frame as it is stored, and whose it is.

    Args:
        source: its frames are in the order of the array's last axis.
        affine: (4, 4) voxel index to RAS mm.
        shape: (X, Y, Z) of the array that is to be written.

    Raises:
        OutputError: the source has no patient geometry, cannot be read any more, lacks a UID that links results to
            it, or is not on the grid of the array (``E_WRITE``).
    """
    if source.kind != "dicom" or not source.has_physical_size or not source.frames:
        what = "DICOM SEG and Parametric Map need patient geometry, and this source has none"
        raise OutputError("E_WRITE", what, source.path, "use the other files of the result")
    objects = {path: _read_object(path) for path in dict.fromkeys(frame.path for frame in source.frames)}
    slices = [_slice(objects[frame.path], frame.number) for frame in source.frames]
    _check_grid(slices, affine, shape, source)
    positions = np.array([header.position for header in slices], np.float64)
    orientations = np.array([header.orientation for header in slices], np.float64)
    if np.abs(orientations - orientations[0]).max() <= MAX_ORIENTATION_NOISE:
        orientations = orientations[:1]
    order = np.arange(len(slices))
    if source.regular:
        normal = np.cross(orientations[0, :3], orientations[0, 3:])
        order = np.argsort(positions @ normal, kind="stable")
    first = objects[source.frames[0].path]
    ds = _read_header(first.path)
    return SourceGrid(
        header=_copy_header(ds, slices[0], first.series_uid),
        character_set=_character_set(ds),
        series_uid=first.series_uid,
        series_number=max(first.series_number or 0, 0),
        rows=slices[0].rows,
        columns=slices[0].columns,
        order=order,
        positions=positions[order],
        orientations=orientations if len(orientations) == 1 else orientations[order],
        spacing=slices[0].spacing or (),
        thickness=_slice_thickness(ds, slices[0].frame.number) or plane_distance(affine, 2),
        step=_even_step(positions, affine) if source.regular else None,
        references=tuple(_reference(objects[slices[k].frame.path], slices[k]) for k in order),
    )


def _read_object(path: Path) -> ImageObject:
    found = read_object(path)
    if isinstance(found, str):
        raise OutputError("E_WRITE", "the source cannot be read again", path, "keep it in place until the end")
    if not all(map(_UID.fullmatch, (found.sop_class, found.headers[0].sop_uid, found.series_uid))):
        what = "the source has no valid SOP Class, SOP Instance or Series Instance UID: nothing can be linked to it"
        raise OutputError("E_WRITE", what, path, "use the other files of the result")
    return found


def _read_header(path: Path) -> Dataset:
    try:
        return read_dataset(path, pixels=False)
    except Exception:
        raise OutputError("E_WRITE", "the source cannot be read again", path) from None


def _slice(found: ImageObject, number: int) -> SliceHeader:
    if number < len(found.headers):
        header = found.headers[number]
        if header.problem is None and header.position and header.orientation and header.spacing:
            return header
    raise OutputError("E_WRITE", "a frame of the source has no valid geometry any more", found.path)


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


def _reference(found: ImageObject, header: SliceHeader) -> Reference:
    frame = header.frame.number + 1 if len(found.headers) > 1 else None
    return Reference(found.sop_class, header.sop_uid, frame)


def _copy_header(ds: Dataset, geometry: SliceHeader, series_uid: str) -> Dataset:
    """Build the header that highdicom copies from: that of one pixel, since the frames are set later.

    It is that of a classic image, whatever the source is: highdicom refuses enhanced objects whose frames do not
    share their functional groups, and more than one of them.
    """
    header = Dataset()
    header.SOPClassUID = CTImageStorage
    header.SOPInstanceUID = geometry.sop_uid
    header.SeriesInstanceUID = series_uid
    header.StudyInstanceUID = str(_value(ds, "StudyInstanceUID") or "")
    if not _UID.fullmatch(header.StudyInstanceUID):
        what = "the source has no valid Study Instance UID: nothing can be linked to it"
        raise OutputError("E_WRITE", what, geometry.frame.path, "use the other files of the result")
    reference = geometry.frame_of_reference
    header.FrameOfReferenceUID = reference if _UID.fullmatch(reference) else _own_frame_of_reference(series_uid)
    header.Rows = header.Columns = 1
    header.PixelSpacing, header.SliceThickness = [1, 1], 1
    header.ImagePositionPatient, header.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
    animal = any(_value(ds, keyword) for keyword in _OF_ANIMALS[:2])
    for keyword in (*_REQUIRED, *_OPTIONAL, *(_OF_ANIMALS if animal else ())):
        if (element := _valid_element(ds, keyword)) is not None:
            header.add(element)
        elif keyword in _REQUIRED:
            setattr(header, keyword, None)
    if header.PatientSex not in _SEXES:
        header.PatientSex = None
    return header


def _own_frame_of_reference(series_uid: str) -> str:
    """A frame of reference for a source without one: the same for all that is derived from this series."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, series_uid).int}"


def _valid_element(ds: Dataset, keyword: str) -> DataElement | None:
    """A copy of an element whose value is what its value representation allows (PS3.5 6.2); else None."""
    try:
        element = copy.deepcopy(ds[keyword])
        if element.VR == "SQ":
            element.value = [code for code in map(_code, element.value) if len(code)]
            return element
        if element.VM > 1 and dictionary_VM(element.tag) == "1":
            return None
        if keyword not in _NEVER_EMPTIED:
            for value in element.value if element.VM > 1 else [element.value]:
                validate_value(element.VR, str(value), config.RAISE)
    except Exception:  # a value that cannot be converted is as good as absent
        return None
    return element


def _code(item: Dataset) -> Dataset:
    """The attributes that make a code; an item may hold any others, private ones too."""
    code = Dataset()
    for keyword in _CODE:
        if keyword in item:
            code.add(item[keyword])
    return code


def _character_set(ds: Dataset) -> str | list[str] | None:
    """Specific Character Set (PS3.3 C.12.1.1.2); UTF-8 where the source names one that nobody knows."""
    value = _value(ds, "SpecificCharacterSet")
    if not value:
        return None
    names = [value] if isinstance(value, str) else [str(name) for name in value]
    if not all(name in python_encoding for name in names):
        return "ISO_IR 192"
    return names[0] if len(names) == 1 else names


def _slice_thickness(ds: Dataset, number: int) -> float | None:
    groups: list[Dataset] = [ds]
    per_frame, shared = _value(ds, "PerFrameFunctionalGroupsSequence"), _value(ds, "SharedFunctionalGroupsSequence")
    for group in (per_frame[number] if per_frame else None, shared[0] if shared else None):
        groups += (_value(group, "PixelMeasuresSequence") or []) if group is not None else []
    for group in groups:
        try:
            thickness = float(_value(group, "SliceThickness"))
        except (TypeError, ValueError):
            continue
        if 0 < thickness < math.inf:
            return thickness
    return None


def _value(ds: Dataset, keyword: str) -> Any:
    try:
        return ds.get(keyword)
    except Exception:  # values are converted when they are first looked at
        return None
