"""Folders for work in progress: ours are marked, and none of a user's is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from anomalyclip_monai.exceptions import OutputError
from anomalyclip_monai.folders.marker import MARKER
from anomalyclip_monai.folders.work_folder import is_owned, owned_folder, owned_place, remove_owned
from anomalyclip_monai.outputs.report.write import check_report_folder


def test_a_folder_is_made_marked_and_found_again(tmp_path: Path) -> None:
    work = owned_folder(tmp_path / "out" / "work")
    assert work == tmp_path / "out" / "work"
    assert (work / MARKER).is_file()
    (work / "features").mkdir()
    assert owned_folder(tmp_path / "out" / "work") == work
    remove_owned(work)
    assert not work.exists()


def test_a_folder_of_others_stays(tmp_path: Path) -> None:
    theirs = tmp_path / "work"
    theirs.mkdir()
    (theirs / "notes.txt").write_text("of others")
    ours = owned_folder(theirs)
    assert ours == owned_place(theirs) == tmp_path / "work-2"
    remove_owned(theirs)
    remove_owned(ours)
    assert [path.name for path in tmp_path.rglob("*")] == ["work", "notes.txt"]


def test_neither_files_nor_links_are_taken(tmp_path: Path) -> None:
    target = owned_folder(tmp_path / "target")
    (tmp_path / "work").symlink_to(target)
    (tmp_path / "work-2").write_text("of others")
    assert not is_owned(tmp_path / "work")
    assert owned_folder(tmp_path / "work") == tmp_path / "work-3"
    remove_owned(tmp_path / "work")
    assert target.is_dir()


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()  # as after a kill before the mark was made
    assert owned_folder(tmp_path / "work") == tmp_path / "work"


def test_a_report_does_not_take_the_place_of_files_of_others(tmp_path: Path) -> None:
    check_report_folder(tmp_path)
    (tmp_path / "cases.png").write_text("of others")
    with pytest.raises(OutputError, match=r"^E_WRITE: .*cases\.png"):
        check_report_folder(tmp_path)
    (tmp_path / "report.json").write_text('{"schema": "anomalyclip-report/1"}')
    check_report_folder(tmp_path)
