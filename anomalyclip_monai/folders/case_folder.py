"""The files of a case are the old ones, the new ones or none: never half of a run and never of two runs.

What is written carries a marker, a JSON file that lists the files beside it which are ours. Nothing else in the folder
is ever touched, neither subfolders nor files of others. The new files are made in a hidden staging folder beside the
case's folder (one file system, so that a rename is all it takes to move them)::

    OUT/.anomalyclip-<16 hex digits>/   named by a hash of the case's folder, so that the next run finds it
        .anomalyclip.json               its marker, and the lock of the case
        new/                            the files in the making
        journal.json                    they are complete; from here on the swap only goes forward
        old/                            our files of an earlier run, moved aside

A process that is killed before the journal leaves the old case, one killed after it the new case once :func:`recover`,
or the next who takes the case, has finished the moves. The lock (``flock``) goes with the process that holds it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from anomalyclip_monai.exceptions import OutputError
from anomalyclip_monai.files import cannot_write, read_json, undisturbed
from anomalyclip_monai.folders.locks import lock_file
from anomalyclip_monai.folders.marker import FORM, MARKER, is_folder, is_plain_name, keep_others, note_of, own_files

_STAGING = re.compile(r"\.anomalyclip-[0-9a-f]{16}")
_TRIES = 50
"""To make a folder whose parent others remove; waits a hundredth of a second in between."""

BUSY = "E_BUSY"
"""Code of the error of a case that another process holds."""


class CaseFolder:
    """The folder of one case, held by this process; made by :func:`hold`.

    Attributes:
        folder: where the files of the case are.
        replaces: whether files of an earlier run are there.
    """

    def __init__(self, folder: Path, staging: Path) -> None:
        self.folder = folder
        self._staging = staging
        self.replaces = bool(own_files(folder))

    def check(self, names: Iterable[str]) -> None:
        """Refuse to write files where others lie that are not ours.

        Raises:
            OutputError: one does (``E_WRITE``).
        """
        own = own_files(self.folder)
        keep_others(self.folder, sorted({*names, MARKER} - own), ours=False)

    @contextlib.contextmanager
    def replace(self, **note: Any) -> Iterator[Path]:
        """A folder for the new files, which take the place of the old ones at the end of the block.

        Args:
            **note: JSON values that the marker keeps beside the list of files.

        Raises:
            OutputError: they cannot be written, or files of others are in their place (``E_WRITE``).
        """
        new = self._staging / "new"
        with _errors_of(self.folder, new):
            new.mkdir()
            yield new
            names = sorted(entry.name for entry in new.iterdir())
            self.check(names)
            marker = {"anomalyclip": FORM, "kind": "case", "files": names, **note}
            (new / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")
            # The marker is the last to go and the first to come: what is there is always listed.
            old = sorted(own_files(self.folder), key=lambda name: name == MARKER)
            journal = {"folder": self.folder.name, "old": old, "new": [MARKER, *names]}
            (self._staging / "journal.tmp").write_text(json.dumps(journal), encoding="utf-8")
            with undisturbed():
                (self._staging / "journal.tmp").replace(self._staging / "journal.json")
                _finish(self._staging)

    @contextlib.contextmanager
    def extend(self) -> Iterator[Path]:
        """A folder for more files of the case that is there; its other files and its note stay as they are.

        Raises:
            OutputError: they cannot be written, or files of others are in their place (``E_WRITE``).
        """
        known = note_of(self.folder)
        note = {name: value for name, value in known.items() if name not in ("anomalyclip", "kind", "files")}
        with self.replace(**note) as new:
            for name in own_files(self.folder) - {MARKER}:
                shutil.copy2(self.folder / name, new / name)
            yield new


@contextlib.contextmanager
def hold(folder: Path, *, wait: float = 0.0) -> Iterator[CaseFolder]:
    """Take a case for this process, finish or undo what a killed one left of it, and let it go at the end.

    Args:
        folder: of the case; made when its files come.
        wait: seconds to wait for another process that holds it.

    Raises:
        OutputError: another process holds it (``E_BUSY``), or the place cannot be written (``E_WRITE``).
    """
    made: list[Path] = []
    staging = staging_of(folder)
    lock, until = None, time.monotonic() + wait
    try:
        with _errors_of(folder, staging):
            _check_place(folder)
            while True:
                with undisturbed():
                    lock = _take(staging, made)
                if lock is not None or time.monotonic() >= until:
                    break
                time.sleep(0.05)
            if lock is None:
                raise OutputError(BUSY, "another run is at this case", folder, "wait until it has ended")
            _tidy(staging)
        yield CaseFolder(folder, staging)
    finally:
        with undisturbed():
            if lock is not None:
                with contextlib.suppress(OSError):
                    if not (staging / "journal.json").exists():  # else the next run finishes the moves
                        _tidy(staging)
                        _remove(staging)
                os.close(lock)
            for parent in reversed(made):
                with contextlib.suppress(OSError):
                    parent.rmdir()  # unless something came into it


def recover(out: Path) -> None:
    """Finish or undo what killed processes left below a folder; what a living one holds stays."""
    for parent, folders, _ in os.walk(out):
        for name in [name for name in folders if _STAGING.fullmatch(name)]:
            folders.remove(name)
            with contextlib.suppress(OSError):
                _recover_one(Path(parent) / name)


def staging_of(folder: Path) -> Path:
    """The staging folder of a case, beside it."""
    digest = hashlib.sha256(os.fsencode(folder.name)).hexdigest()
    return folder.parent / f".anomalyclip-{digest[:16]}"


def _check_place(folder: Path) -> None:
    """Refuse a place where a rename would not do, or would leave the output folder."""
    if folder.is_symlink():
        raise OutputError("E_WRITE", "a link is where the case's folder should be", folder, "move it away")
    if folder.is_dir() and folder.stat().st_dev != folder.parent.stat().st_dev:
        raise OutputError("E_WRITE", "the case's folder is a file system of its own", folder, "choose another")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError


def _take(staging: Path, made: list[Path]) -> int | None:
    """Make the staging folder and lock it, None where another process has it; folders made above it go to ``made``."""
    for tries in range(_TRIES, 0, -1):
        try:
            for parent in reversed([parent for parent in staging.parents if not parent.exists()]):
                try:
                    parent.mkdir()
                    made.append(parent)
                except FileExistsError:
                    if not parent.is_dir():  # a link that leads nowhere
                        raise
            return _lock(staging)
        except FileNotFoundError:  # who had it has just removed it, and perhaps the folder above
            if tries == 1:  # or this is no place where folders can be made, as in /proc
                raise
            time.sleep(0.01)
    return None


def _lock(staging: Path) -> int | None:
    """Lock a staging folder, made if it is not there."""
    with contextlib.suppress(FileExistsError):
        staging.mkdir()
    if not _is_ours(staging):
        raise OutputError("E_WRITE", "this name is needed for the files in the making", staging, "move it away")
    lock = None
    try:
        if (lock := lock_file(staging / MARKER)) is not None:
            os.write(lock, json.dumps({"anomalyclip": FORM, "kind": "staging"}).encode())
        return lock
    except OSError:  # there is no room for the marker
        with contextlib.suppress(OSError):
            if lock is not None:
                os.close(lock)
                (staging / MARKER).unlink()
            staging.rmdir()
        raise


def _recover_one(staging: Path) -> None:
    if not _is_ours(staging) or (lock := lock_file(staging / MARKER)) is None:
        return
    try:
        _tidy(staging)
        _remove(staging)
    finally:
        os.close(lock)


def _tidy(staging: Path) -> None:
    """Bring a staging folder back to its marker alone, forward where the new files were complete."""
    if (staging / "journal.json").exists():
        _finish(staging)
    (staging / "journal.tmp").unlink(missing_ok=True)
    for name in ("new", "old"):
        if os.path.lexists(staging / name):
            shutil.rmtree(staging / name)


def _remove(staging: Path) -> None:
    """Remove a staging folder that is tidy: the marker last, without which nobody would take it for ours."""
    (staging / MARKER).unlink()
    staging.rmdir()


def _finish(staging: Path) -> None:
    """Move the old files aside and the new ones in, as far as that has not been done."""
    journal = read_json(staging / "journal.json") or {}
    names = [name for part in ("old", "new") for name in journal.get(part, [])]
    if not all(is_plain_name(name) for name in (journal.get("folder"), *names)):
        raise OSError(errno.EIO, "the journal of a case is damaged", str(staging))
    folder, new, old = staging.parent / journal["folder"], staging / "new", staging / "old"
    folder.mkdir(exist_ok=True)
    old.mkdir(exist_ok=True)
    for name in journal["old"]:
        came = name in journal["new"] and not os.path.lexists(new / name)  # what is in the folder is the new one
        if not came and os.path.lexists(folder / name) and not is_folder(folder / name):
            _move(folder / name, old / name)
    for name in journal["new"]:
        if os.path.lexists(new / name):
            _move(new / name, folder / name)
    (staging / "journal.json").unlink()
    shutil.rmtree(old)
    shutil.rmtree(new)


def _move(source: Path, target: Path) -> None:
    """One step of the swap."""
    os.rename(source, target)


def _is_ours(staging: Path) -> bool:
    """Whether a folder with the name of a staging folder is one: it has the marker, or nothing yet.

    Raises:
        FileNotFoundError: it has gone.
    """
    return stat.S_ISDIR(staging.lstat().st_mode) and (os.path.lexists(staging / MARKER) or not any(staging.iterdir()))


@contextlib.contextmanager
def _errors_of(folder: Path, hidden: Path) -> Iterator[None]:
    """Errors in the words of a user, who knows the case's folder and nothing of the hidden one."""
    try:
        yield
    except OutputError as error:
        path = Path(error.path or folder)
        shown = folder / path.name if path.parent == hidden else path
        raise OutputError(error.code, error.what, shown, error.todo) from error
    except OSError as error:
        raise cannot_write(folder, error) from error
