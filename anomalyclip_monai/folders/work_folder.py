"""Folders for work in progress that are ours as a whole: marked, so that none of a user's is ever removed."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

from anomalyclip_monai.files import cannot_write, read_json
from anomalyclip_monai.folders.marker import FORM, MARKER

_CONTENT = {"anomalyclip": FORM, "kind": "work"}


def owned_folder(wanted: Path) -> Path:
    """Make and mark a folder; where one of others has the name, the next free one: ``work-2``, ``work-3`` ...

    The folder of an earlier call with the same name is found again.

    Raises:
        OutputError: it cannot be made (``E_WRITE``).
    """
    folder = owned_place(wanted)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(json.dumps(_CONTENT) + "\n", encoding="utf-8")
    except OSError as error:
        raise cannot_write(folder, error) from error
    return folder


def owned_place(wanted: Path) -> Path:
    """Where :func:`owned_folder` makes the folder, or has made it."""
    number, folder = 1, wanted
    while not _is_free(folder) and not is_owned(folder):
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def is_owned(folder: Path) -> bool:
    """Whether a folder carries the mark of :func:`owned_folder`."""
    return not folder.is_symlink() and (read_json(folder / MARKER) or {}).get("kind") == "work"


def remove_owned(folder: Path) -> None:
    """Remove a folder that carries the mark, with all that is in it; another stays."""
    if is_owned(folder):
        shutil.rmtree(folder, ignore_errors=True)


def _is_free(folder: Path) -> bool:
    """Whether nothing is there, or nothing but an empty folder, as after a kill before it was marked."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return False
    with contextlib.suppress(OSError):
        return not any(folder.iterdir())
    return True
