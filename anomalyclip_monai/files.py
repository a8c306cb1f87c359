"""Write files whole or not at all, and read JSON that others may have made."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from anomalyclip_monai.exceptions import NoInputError, OutputError
from anomalyclip_monai.types import PathLike

_MAX_JSON = 2**26
"""Bytes; a larger file is none of ours."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it at the end of the block and removed if the block fails.

    Raises:
        OutputError: the folder cannot be written (``E_WRITE``).
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        suffix = "".join(path.suffixes[-2:])
        handle, name = tempfile.mkstemp(prefix=".partial-", suffix=suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text file, UTF-8, whole or not at all; -> its path.

    Raises:
        OutputError: the folder cannot be written (``E_WRITE``).
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """:func:`write_text` of a JSON object."""
    return write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file that others may have made; None where there is none, whatever is there instead."""
    try:
        if not stat.S_ISREG(path.stat().st_mode) or path.stat().st_size > _MAX_JSON:
            return None
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


@contextlib.contextmanager
def whole_set(folder: Path) -> Iterator[Path]:
    """A temporary folder inside ``folder`` whose files move up at the end of the block: all of them or none.

    Raises:
        OutputError: the folder cannot be written (``E_WRITE``).
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as name:
            yield Path(name)
            for file in sorted(Path(name).iterdir()):
                file.replace(folder / file.name)
            made = False
    except OutputError as error:
        path = Path(error.path or folder)
        inside = path.parent.parent == folder  # the user knows nothing of the temporary folder
        raise OutputError(error.code, error.what, folder / path.name if inside else path, error.todo) from error
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put SIGINT and SIGTERM off to the end of the block, as for moves of files that belong together.

    A second one is not put off. Only the main thread of Python takes signals; in others nothing has to be done.
    """
    waiting: list[int] = []
    before: dict[int, Any] = {}

    def put_off(number: int, frame: FrameType | None) -> None:
        if waiting and callable(before[number]):
            before[number](number, frame)
        waiting.append(number)

    if threading.current_thread() is threading.main_thread():
        for known in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(known)
            if handler is not None and handler is not signal.SIG_IGN:
                before[known] = handler
                signal.signal(known, put_off)
    try:
        yield
    finally:
        for put_back, handler in before.items():
            signal.signal(put_back, handler)
        for waited in dict.fromkeys(waiting):
            signal.raise_signal(waited)


def given_path(path: PathLike) -> Path:
    """A path as a user gave it; ``~`` is the home folder unless something there has that name, or there is no home.

    Raises:
        NoInputError: it is empty, which would stand for the working folder (``E_NOT_FOUND``).
    """
    text = os.fspath(path)
    if not text:
        raise NoInputError("E_NOT_FOUND", "a path is empty", None, "give a file or folder")
    return Path(text if os.path.lexists(text) else os.path.expanduser(text))


def absolute(path: PathLike) -> Path:
    """:func:`given_path`, absolute and without ``..``, whatever folder the process is in later on."""
    return Path(os.path.abspath(given_path(path)))


def read_text(path: Path) -> str:
    """Content of a small file that a user named, in UTF-8.

    Raises:
        OSError: it cannot be read, or is no file: to open a pipe is to wait for its writer.
        ValueError: it is no UTF-8.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "this is no file", str(path))
    return path.read_text(encoding="utf-8")


def cannot_write(path: Path, error: OSError) -> OutputError:
    """What the operating system refused, as an error of ours."""
    in_the_way = isinstance(error, (FileExistsError, NotADirectoryError))
    reason = "a file is where a folder should be" if in_the_way else error.strerror or type(error).__name__
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    todo = "make room, or choose another folder" if full else "choose a folder you can write to"
    return OutputError("E_WRITE", f"cannot write: {reason}", path, todo)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
