"""Where results may go: never among the files that they are made from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from anomalyclip_monai.data.volume import Source
from anomalyclip_monai.exceptions import OutputError


def check_place(folder: Path, source: Source) -> None:
    """Refuse to write the results of a case among its own input, see :func:`check_folders`.

    Raises:
        OutputError: they would lie there (``E_WRITE``).
    """
    frames = {frame.path.parent for frame in source.frames}
    files = [source.path] if source.path is not None and not frames else []
    check_folders(folder, frames, {file.parent for file in files if not file.is_dir()})


def check_folders(folder: Path, dicom: Iterable[Path], files: Iterable[Path]) -> None:
    """Refuse a case's folder that is an input's folder, or lies inside a DICOM series.

    A viewer, and the next run, would take the results for a part of the input.

    Args:
        folder: of a case.
        dicom: folders that hold frames of a DICOM series.
        files: folders that hold an input of one file.

    Raises:
        OutputError: it is one of them, however it is spelled (``E_WRITE``).
    """
    real = os.path.realpath(folder)
    above = {real, *map(str, Path(real).parents)}
    for given in sorted(set(map(os.path.realpath, dicom))):
        if given in above:
            raise _among(folder, "lie inside the DICOM folder that is read")
    if real in set(map(os.path.realpath, files)):
        raise _among(folder, "lie beside the file that is read, in its own folder")


def _among(folder: Path, what: str) -> OutputError:
    return OutputError("E_WRITE", f"the results would {what}", folder, "choose another output folder")
