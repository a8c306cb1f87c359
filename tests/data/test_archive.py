"""Zip archives: unpacked within limits, or refused in one line before anything large is inflated."""

from __future__ import annotations

import os
import stat
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from anomalyclip_monai.data import archive
from anomalyclip_monai.data.archive import open_archive
from anomalyclip_monai.exceptions import CaseError


def refusal(path: Path) -> CaseError:
    with pytest.raises(CaseError, match="E_ARCHIVE") as caught, open_archive(path):
        pass
    assert "\n" not in str(caught.value)
    return caught.value


def archive_with(path: Path, *names: str, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in names:
            packed.writestr(name, content)
    return path


def test_archive_is_unpacked_and_removed(tmp_path: Path) -> None:
    with open_archive(archive_with(tmp_path / "a.zip", "one/two.txt", "three")) as folder:
        assert (folder / "one" / "two.txt").read_bytes() == b"x"
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "c:\\out", "a\\..\\..\\out"])
def test_archive_that_leaves_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    refusal(archive_with(tmp_path / "a.zip", name))
    assert not (tmp_path / "out").exists()


def test_archive_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = archive_with(tmp_path / "bomb.zip", "zeros", content=b"\0" * 2**23)
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as packed:
        packed.writestr(link, "/etc/passwd")
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 no zip")
    many = archive_with(tmp_path / "many.zip", *map(str, range(20)))
    monkeypatch.setattr(archive, "MAX_ENTRIES", 10)
    for path in (bomb, tmp_path / "link.zip", tmp_path / "no.zip", many):
        refusal(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_inflates_without_limit_is_refused_before_it_does(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr("small.txt", b"x")
        packed.writestr("zeros", b"\0" * 2**25, compress_type=method)
    tracemalloc.start()
    error = refusal(tmp_path / "a.zip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "not with deflate" in error.what
    assert peak < 2**22


def test_what_an_archive_claims_is_held_against_limit_and_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive_with(tmp_path / "a.zip", "one", "two", content=b"x" * 600)
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 1000)
    assert refusal(path).what == "1,200 bytes unpacked, more than 1,000"
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 2000)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1100}))
    assert refusal(path).what == "1,200 bytes unpacked, and 1,100 are free"


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_special_entries_are_refused(tmp_path: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("x.dcm")
    entry.external_attr = (kind | 0o644) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed:
        packed.writestr(entry, b"")
    refusal(tmp_path / "a.zip")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    refusal(archive_with(tmp_path / "a.zip", "one.dcm", "one.dcm"))


def test_a_fifo_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.zip")
    assert refusal(tmp_path / "a.zip").what == "this is no file"
