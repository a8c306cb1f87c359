"""The files below a folder that may be input, and a count of what is left out."""

from __future__ import annotations

import logging
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from anomalyclip_monai.data.nifti import header_file, is_foreign
from anomalyclip_monai.folders.cohort_table import COHORT, is_cohort
from anomalyclip_monai.folders.marker import own_files
from anomalyclip_monai.text import printable

logger = logging.getLogger(__name__)

UNREADABLE = "folder that cannot be read"
RESULTS = "folder with earlier results"
_LINK, _BROKEN, _SPECIAL = "link to a folder", "broken link", "pipe, socket or device"

_LEFTOVERS = {"thumbs.db", "desktop.ini", "__macosx"}
"""What Windows and macOS leave in folders, as well as everything whose name begins with a dot: not even counted."""

_KINDS = 8
"""Kinds that a line names before it stops."""

_PLURALS = {
    _LINK: "links to folders",
    UNREADABLE: "folders that cannot be read",
    RESULTS: "folders with earlier results",
    _SPECIAL: "pipes, sockets or devices",
}


def is_leftover(name: str) -> bool:
    """Whether a name is hidden, or that of what systems leave behind."""
    return name.startswith(".") or name.lower() in _LEFTOVERS


def files_below(folder: Path, left_out: Counter[str], own: set[Path] | None = None) -> Iterator[Path]:
    """Regular files below a folder, folder by folder, by name; links to files as well.

    Hidden ones are not given, nor are links to folders followed, nor our own results taken for input.

    Args:
        folder: where to look.
        left_out: counts what is not given, by its kind; hidden ones do not count.
        own: gets the files of our own results.
    """

    def unreadable(_: OSError) -> None:
        left_out[UNREADABLE] += 1

    for parent, folders, names in os.walk(folder, onerror=unreadable, followlinks=False):
        folders[:] = sorted(name for name in folders if not is_leftover(name))
        for name in [name for name in folders if os.path.islink(os.path.join(parent, name))]:
            folders.remove(name)
            left_out[_LINK] += 1
        results = own_files(Path(parent))
        left_out[RESULTS] += bool(results)
        if own is not None:
            own.update(Path(parent, name) for name in results)
        for name in sorted(names):
            path = Path(parent, name)
            if name in results or is_leftover(name) or (name == COHORT and is_cohort(path)):
                continue
            if (kind := special_kind(path)) is not None:
                left_out[kind] += 1
            elif is_foreign(path):
                left_out[kind_of(path)] += 1
            elif header_file(path) == path:  # an .img goes with its .hdr
                yield path


def special_kind(path: Path) -> str | None:
    """What stands in the place of a file, None for a file; nothing is opened."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return _BROKEN
    return None if stat.S_ISREG(mode) else _SPECIAL


def kind_of(path: Path) -> str:
    """How a file that is not read is counted: ``file .txt``."""
    if not os.access(path, os.R_OK):
        return "file that cannot be read"
    return f"file {printable(path.suffix.lower())[:12]}" if path.suffix else "file without suffix"


def counted(left_out: Counter[str]) -> str:
    """A count in words, the most frequent first: ``3 files .txt, 1 link to a folder``; empty for none."""
    kinds = (+left_out).most_common()
    shown = [f"{count} {_plural(kind) if count > 1 else kind}" for kind, count in kinds[:_KINDS]]
    if rest := sum(count for _, count in kinds[_KINDS:]):
        shown.append(f"{rest} of other kinds")
    return ", ".join(shown)


def tell(left_out: Counter[str]) -> None:
    """Say what was left out, in one line."""
    if words := counted(left_out):
        logger.warning("left out: %s", words)


def _plural(kind: str) -> str:
    if kind in _PLURALS:
        return _PLURALS[kind]
    if kind.startswith("file "):
        return f"files {kind.removeprefix('file ')}"
    return f"{kind}s" if kind == _BROKEN else kind
