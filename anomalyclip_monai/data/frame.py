"""Where a slice of a DICOM volume lies on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Frame:
    """The file and the frame in it (0 for a single-frame object) that hold one slice of a DICOM volume."""

    path: Path
    number: int = 0
