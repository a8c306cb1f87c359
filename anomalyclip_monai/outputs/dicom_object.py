"""What all our DICOM objects share: whose they are and who made them, their texts, their errors, how they are named."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.uid import generate_uid

from anomalyclip_monai.data.dicom_headers import quiet
from anomalyclip_monai.data.volume import Source
from anomalyclip_monai.exceptions import AnomalyCLIPError, OutputError
from anomalyclip_monai.outputs.dicom_source import SourceGrid
from anomalyclip_monai.resources import installed_version

NAME = "anomalyclip-monai"

_NUMBERS: Mapping[str, int] = {"mask": 1, "heatmap": 2, "measurements": 3}
"""Last digits of the new Series Number of each kind of object, after the source's own."""


@dataclass(frozen=True, slots=True)
class Instance:
    """An object that was written, for others that refer to it."""

    sop_class: str
    sop_uid: str
    series_uid: str

    @classmethod
    def of(cls, ds: Dataset) -> Instance:
        """From the object itself."""
        return cls(str(ds.SOPClassUID), str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID))


def identity(grid: SourceGrid, source: Source, model: Mapping[str, str], kind: str) -> dict[str, Any]:
    """What a highdicom object of this kind is told of itself: its series, and who made it."""
    version = installed_version(NAME)
    made_by = [f"{key} {printable_ascii(value)[:32]}" for key, value in model.items()]
    return {
        "series_instance_uid": generate_uid(None),
        "series_number": 100 * grid.series_number % 10**8 + _NUMBERS[kind],
        "series_description": describe_series(grid, source, kind),
        "sop_instance_uid": generate_uid(None),
        "instance_number": 1,
        "manufacturer": NAME,
        "manufacturer_model_name": NAME,
        "software_versions": (version, *(text[:64] for text in made_by)),
        "device_serial_number": printable_ascii(model.get("prompts_sha256", version))[:64],
    }


def describe_series(grid: SourceGrid, source: Source, kind: str) -> str:
    """``Anomaly mask of series 3 (CT)``: a number and a defined term tell series apart, no free text of the source."""
    number = f" of series {grid.series_number}" if grid.series_number else ""
    return f"Anomaly {kind}{number}" + (f" ({source.modality})" if source.modality else "")


def save_object(ds: Dataset, grid: SourceGrid, path: Path) -> None:
    """Write an object with the texts of its source, byte for byte.

    Wrongly declared, they would not survive being decoded: Latin-1 called UTF-8 becomes U+FFFD for good. pydicom
    writes bytes as they are only in a data set that seems to have been read in the encodings in which it is written.
    """
    if grid.character_set is not None:
        ds.SpecificCharacterSet = grid.character_set
    correct_ambiguous_vr(ds, True)
    for element in grid.texts:
        ds[element.tag] = element
    encodings = default_encoding if grid.character_set is None else convert_encodings(grid.character_set)
    ds.set_original_encoding(False, True, encodings)
    ds.save_as(path, enforce_file_format=True)


def printable_ascii(text: str) -> str:
    """Text that every value representation of text takes, in every character set."""
    return "".join(c if c.isascii() and c.isprintable() and c != "\\" else "?" for c in text)


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Keep the libraries' warnings, records and errors, which quote header values, from the user."""
    logger = logging.getLogger("highdicom")
    propagate, silent = logger.propagate, logging.NullHandler()
    logger.propagate = False
    logger.addHandler(silent)
    try:
        with quiet():
            yield
    except AnomalyCLIPError:
        raise
    except Exception as error:
        what = f"the source's header does not allow a DICOM result ({type(error).__name__})"
        raise OutputError("E_WRITE", what, path, "use the other files of the result") from None
    finally:
        logger.propagate = propagate
        logger.removeHandler(silent)
