"""Tell published files by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from anomalyclip_monai import resources
from anomalyclip_monai.weights.published import PublishedFile


def blob_id(path: Path) -> str:
    """Git's id of a file's content: SHA-1 of ``blob <size>``, a zero byte, and the content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(b"blob %d\0" % path.stat().st_size)).hexdigest()


def matches(path: Path, file: PublishedFile) -> bool:
    """Whether a file on disk is the published one, bit for bit."""
    if file.sha256 is not None:
        return resources.sha256(path) == file.sha256
    return blob_id(path) == file.blob_id
