"""Unpack a zip archive of images into a folder that goes away again, within limits."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import PathLike

MAX_ENTRIES = 100_000
"""Most files in an archive."""

MAX_TOTAL_BYTES = 16 * 2**30
"""Most bytes that an archive may unpack to."""

MAX_RATIO = 200
"""Largest ratio of unpacked to packed bytes of an entry above 1 MiB; deflate ends at about 1030."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Ways of packing that are read. What zipfile inflates from bzip2 and lzma at once has no limit: gigabytes."""

_CHUNK = 2**20


@contextmanager
def open_archive(path: PathLike) -> Iterator[Path]:
    """Unpack a zip archive into a temporary folder and yield that folder.

    Raises:
        CaseError: ``E_ARCHIVE`` if it is no zip, is damaged, encrypted or packed in another way than
            :data:`METHODS`, leaves its folder (absolute names, ``..``, symbolic links), holds a name twice, or is
            larger than the limits of this module or the room that is left.
    """
    source = Path(path)
    if not source.is_file():  # to open a FIFO is to wait for its writer
        raise CaseError("E_ARCHIVE", "this is no file", source, "give a zip archive or a folder")
    with tempfile.TemporaryDirectory(prefix="anomalyclip-") as name:
        folder = Path(name)
        try:
            with zipfile.ZipFile(source) as archive:
                _unpack(archive, folder, source)
        except CaseError:
            raise
        except Exception as error:  # zipfile raises its own, zlib's, RuntimeError for passwords and more
            what = f"cannot be unpacked ({type(error).__name__})"
            raise CaseError("E_ARCHIVE", what, source, "unpack it yourself and give the folder") from None
        yield folder


def _unpack(archive: zipfile.ZipFile, folder: Path, source: Path) -> None:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise CaseError("E_ARCHIVE", f"{len(entries)} entries, more than {MAX_ENTRIES}", source)
    for entry in entries:
        _check_entry(entry, source)
    left = MAX_TOTAL_BYTES
    claimed = sum(entry.file_size for entry in entries)
    if claimed > left:
        raise CaseError("E_ARCHIVE", f"{claimed:,} bytes unpacked, more than {left:,}", source)
    if claimed > (free := shutil.disk_usage(folder).free):
        todo = "make room, or set TMPDIR to another disk"
        raise CaseError("E_ARCHIVE", f"{claimed:,} bytes unpacked, and {free:,} are free", source, todo)
    for entry in entries:
        target = folder / PurePosixPath(entry.filename)
        if entry.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        # Sizes in the directory can lie, so what comes out is counted.
        allowed = min(left, max(_CHUNK, MAX_RATIO * entry.compress_size))
        written = 0
        with archive.open(entry) as packed, target.open("xb") as unpacked:
            while chunk := packed.read(_CHUNK):
                written += len(chunk)
                if written > allowed:
                    raise CaseError("E_ARCHIVE", "an entry unpacks to more than is believable", source)
                unpacked.write(chunk)
        left -= written


def _check_entry(entry: zipfile.ZipInfo, source: Path) -> None:
    name = PurePosixPath(entry.filename)
    mode = entry.external_attr >> 16
    if name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename.split("/")[0]:
        raise CaseError("E_ARCHIVE", "an entry would be unpacked outside its folder", source)
    if entry.compress_type not in METHODS:
        what = f"an entry is packed with method {entry.compress_type}, not with deflate"
        raise CaseError("E_ARCHIVE", what, source, "unpack it yourself and give the folder")
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise CaseError("E_ARCHIVE", "an entry is a symbolic link or a device", source)
