"""What tells our files and folders from those of others: a marker that lists them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from anomalyclip_monai.exceptions import OutputError
from anomalyclip_monai.files import read_json

MARKER = ".anomalyclip.json"
"""Marks a folder that holds files of ours and lists them, or a folder that is ours as a whole."""

FILES_OF_0_1 = ("heatmap.nii.gz", "mask.nii.gz", "heatmap.dcm", "mask.dcm", "heatmap.png", "mask.png", "preview.png",
                "scores.json")  # fmt: skip
"""What version 0.1.0 wrote of a case, without a marker."""

DICOM_FILES: Mapping[str, str] = {
    "heatmap": "heatmap.dcm",  # Parametric Map
    "mask": "mask.dcm",  # Segmentation
    "measurements": "measurements.dcm",  # Structured Report
}
"""Kind of a DICOM result -> its file in the folder of a case."""

FORM = 1
"""Of the marker."""


def own_files(folder: Path) -> frozenset[str]:
    """Names of the files in a folder that are results of ours, the marker among them; none where there are none.

    Told by the marker, or by the content of the ``scores.json`` of version 0.1.0.
    """
    marker = read_json(folder / MARKER)
    if marker is not None and marker.get("kind") == "case" and isinstance(marker.get("files"), list):
        listed = {name for name in marker["files"] if is_plain_name(name)}
        names = {MARKER, *listed}
    elif marker is None and _is_of_0_1(read_json(folder / "scores.json")):
        names = set(FILES_OF_0_1)
    else:
        return frozenset()
    return frozenset(name for name in names if os.path.lexists(folder / name) and not is_folder(folder / name))


def note_of(folder: Path) -> dict[str, Any]:
    """What the marker of a case's folder says; empty where there is none."""
    return read_json(folder / MARKER) or {}


def of_others(path: Path) -> tuple[str, str, Path, str]:
    """What is said of a file that is not ours and stands where one of ours should: the arguments of an error."""
    what = "a file is there that was not written by this program, it is left as it is"
    return "E_WRITE", what, path, "move it away, or choose another folder"


def has_schema(path: Path, schema: str) -> bool:
    """Whether a JSON file says that it is one of ours, of whatever version: ``"schema": "anomalyclip-report/1"``."""
    return str((read_json(path) or {}).get("schema", "")).startswith(f"{schema}/")


def keep_others(folder: Path, names: Iterable[str], *, ours: bool) -> None:
    """Refuse to write files of these names where some are that are not ours.

    Raises:
        OutputError: one is there, and ``ours`` is not said of them (``E_WRITE``).
    """
    for name in () if ours else names:
        if os.path.lexists(folder / name):
            raise OutputError(*of_others(folder / name))


def is_plain_name(name: Any) -> TypeGuard[str]:
    """Whether this is the name of a file in a folder, and leads nowhere else."""
    return isinstance(name, str) and name == os.path.basename(name) and name not in ("", ".", "..") and "\0" not in name


def is_folder(path: Path) -> bool:
    """Whether this is a folder and no link to one."""
    return path.is_dir() and not path.is_symlink()


def _is_of_0_1(scores: dict[str, Any] | None) -> bool:
    """Whether this is a ``scores.json`` of ours: it names a bundle and our version."""
    if scores is None or not {"score", "slice_scores", "lesions", "threshold"} <= scores.keys():
        return False
    model, versions = scores.get("model"), scores.get("versions")
    named = isinstance(model, dict) and isinstance(model.get("bundle"), str)
    return named and isinstance(versions, dict) and "anomalyclip-monai" in versions
