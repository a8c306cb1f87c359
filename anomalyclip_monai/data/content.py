"""The bytes that an input is made of, and their hash: whether a case is the one of an earlier run."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from anomalyclip_monai.data.nifti import PAIR_SUFFIXES, other_half

_HEADER_BYTES = 2**16
_DATA_FILE = re.compile(
    rb"^\s*(?:ElementDataFile\s*=|data ?file\s*:)\s*(\S[^\r\n]*?)\s*$", re.IGNORECASE | re.MULTILINE
)


def sha256_of(paths: Sequence[Path]) -> str:
    """Hash of one file's bytes, or of those of several, one behind the other; empty if one cannot be read.

    For one file it is what ``sha256sum`` prints. The files are read in blocks.
    """
    digest = hashlib.sha256()
    try:
        for path in paths:
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
    except OSError:
        return ""
    return digest.hexdigest() if paths else ""


def stamps_of(paths: Sequence[Path]) -> list[tuple[int, ...]]:
    """What changes when a file is written anew: device, number, size and time of change of each."""
    found: list[tuple[int, ...]] = []
    for path in paths:
        try:
            stat = os.stat(path)
        except OSError:
            found.append(())
            continue
        found.append((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return found


def files_of(path: Path) -> list[Path]:
    """A file, and the one with its voxels where it is a header alone: ``.hdr`` and ``.img``, ``.mhd``, ``.nrrd``."""
    name = path.name.lower()
    if name.endswith(PAIR_SUFFIXES):
        half = other_half(path)
        return [path] if half is None else sorted([path, half])
    if name.endswith((".mhd", ".mha", ".nrrd")) and (voxels := _named_in(path)) is not None:
        return [path, voxels]
    return [path]


def _named_in(header: Path) -> Path | None:
    """The file of voxels that a header names, inside its folder; None where they are in the same file."""
    try:
        with open(header, "rb") as file:
            found = _DATA_FILE.search(file.read(_HEADER_BYTES))
    except OSError:
        return None
    named = header.parent / os.fsdecode(found[1]) if found else header
    inside = ".." not in named.parts and named.is_relative_to(header.parent)
    return named if inside and named != header and named.is_file() else None
