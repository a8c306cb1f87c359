"""A folder for this process alone: images of patients lie nowhere else, and are gone when it ends."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from anomalyclip_monai.folders.locks import lock_file

_PREFIX = "anomalyclip-serve-"
_LOCK = ".lock"


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """The place of all temporary files of the block and of what it starts; mode 0700, removed at the end.

    Those that a killed process of this user left behind are removed first.
    """
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{_PREFIX}*"):
        _remove_unused(left)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    lock = lock_file(folder / _LOCK)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    variable = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        os.environ.pop("TMPDIR")
        if variable is not None:
            os.environ["TMPDIR"] = variable
        if lock is not None:
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unused(folder: Path) -> None:
    """Remove a folder of an earlier process, unless it still runs or is another user's."""
    with contextlib.suppress(OSError):
        mine = not folder.is_symlink() and folder.stat().st_uid == os.getuid()
        if mine and (folder / _LOCK).is_file() and (lock := lock_file(folder / _LOCK)) is not None:
            os.close(lock)
            shutil.rmtree(folder, ignore_errors=True)
