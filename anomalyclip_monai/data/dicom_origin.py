"""What results take over from the files that were read, kept from the very read that gave their pixels.

A file may be replaced between scoring and writing. What is written then still names the patient whose pixels were
scored, since nothing is read again.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from anomalyclip_monai.data.dicom_headers import MAX_VALUE_BYTES, SliceHeader
from anomalyclip_monai.data.frame import Frame
from anomalyclip_monai.exceptions import CaseError

REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),  # PS3.3 C.7.1.1
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),  # PS3.3 C.7.2.1
    "PositionReferenceIndicator",  # PS3.3 C.7.4.1
)
"""Attributes of type 2: a derived object must have them, be it empty."""

OPTIONAL = (
    *("IssuerOfPatientID", "TypeOfPatientID", "QualityControlSubject"),  # PS3.3 C.7.1.1
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),  # PS3.3 C.7.1.1
    "StudyDescription",  # PS3.3 C.7.2.1
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),  # PS3.3 C.7.6.1.1.5
)
"""Attributes that are copied where the source has a valid value. Of the rest of the Patient and Study Modules,
comments, history, occupation, alerts and allergies among them, a derived object needs none."""

OF_IMAGES = (
    "PositionReferenceIndicator",
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
"""Those of the above that objects without pixels do not have."""

OF_ANIMALS = (
    *("PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PatientSexNeutered"),
    *("PatientBreedDescription", "PatientBreedCodeSequence", "BreedRegistrationSequence"),
    *("ResponsiblePerson", "ResponsiblePersonRole", "ResponsibleOrganization"),
)
"""Types 1C and 2C of the Patient Module, for animals only. PS3.3 C.7.1.1."""

CODE = (
    *("CodeValue", "LongCodeValue", "URNCodeValue"),
    *("CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"),
)
"""Basic Code Sequence Macro, PS3.3 8.8."""

_LINKS = ("SpecificCharacterSet", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber")
_IDENTITY = ("PatientName", "PatientID", "StudyInstanceUID")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Origin:
    """Whose a volume is and where each of its slices lies. Neither printed nor compared: it names a patient.

    Attributes:
        header: the attributes named in this module and no others, of the file of the first slice. Texts are the
            stored bytes.
        slices: by stored frame.
    """

    header: Dataset
    slices: dict[Frame, SliceHeader]

    @classmethod
    def of(cls, header: Dataset, slices: Sequence[SliceHeader]) -> Origin:
        """Put together what :func:`kept_header` kept and the headers of the slices of a volume."""
        return cls(header, {header.frame: header for header in slices})


def kept_header(ds: Dataset) -> Dataset:
    """The attributes of a data set that a derived object needs, texts as the bytes that are stored."""
    kept = Dataset()
    for keyword in (*_LINKS, *REQUIRED, *OPTIONAL, *OF_ANIMALS):
        if keyword not in ds:
            continue
        try:
            element = _codes(ds[keyword]) if dictionary_VR(keyword) == "SQ" else _stored(ds, keyword)
        except Exception:  # what cannot be read is as good as absent
            continue
        if element is not None:
            kept[element.tag] = element
    return kept


def _stored(ds: Dataset, keyword: str) -> DataElement | RawDataElement | None:
    element = ds.get_item(keyword)
    if not isinstance(element, RawDataElement):
        return copy.deepcopy(element)
    if element.value is None or len(element.value) > MAX_VALUE_BYTES:
        return None
    value = bytes(element.value)
    return element._replace(
        VR=dictionary_VR(keyword),
        length=len(value) + len(value) % 2,
        value=value + b" " * (len(value) % 2),  # PS3.5 6.2: of even length
        is_implicit_VR=False,
        is_little_endian=True,
    )


def _codes(element: DataElement) -> DataElement:
    """A sequence of codes, each with the attributes that make a code; an item may hold any others, private ones too."""
    items = []
    for item in element.value:
        code = Dataset()
        for keyword in CODE:
            if keyword in item:
                code.add(copy.deepcopy(item[keyword]))
        if len(code):
            items.append(code)
    return DataElement(element.tag, "SQ", items)


def check_same_patient(one: Dataset, other: Dataset, path: Path) -> None:
    """Hold the header of a file against that of the first: results would be written in the first one's name.

    Raises:
        CaseError: names, identifiers or studies differ, and neither is empty (``E_PATIENT``).
    """
    for keyword in _IDENTITY:
        a, b = _bytes(one, keyword), _bytes(other, keyword)
        if a and b and a != b:
            what = "slices of different patients or studies in one series"
            raise CaseError("E_PATIENT", what, path, "keep one patient and study in a series")


def _bytes(kept: Dataset, keyword: str) -> bytes:
    if Tag(keyword) not in kept:
        return b""
    element = kept.get_item(keyword)
    value = element.value if element is not None else None
    stored = value if isinstance(value, bytes) else str(value or "").encode("utf-8", "replace")
    return stored.rstrip(b" \0^=").lstrip(b" ")
