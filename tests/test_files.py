"""A file is there whole, or it is not there; so are the files of a case."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anomalyclip_monai.exceptions import OutputError
from anomalyclip_monai.files import read_json, whole_file, whole_set, write_json, write_text


def test_file_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.nii.gz"
    with whole_file(path) as temporary:
        assert temporary.parent == path.parent  # a rename within one file system
        assert temporary.name.endswith(".nii.gz")  # writers go by the suffix
        temporary.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert os.listdir(path.parent) == ["a.nii.gz"]


def _fail(path: Path, error: BaseException) -> None:
    with whole_file(path) as temporary:
        temporary.write_text("half of it")
        raise error


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), OSError()])
def test_nothing_is_left_of_a_failure(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        _fail(tmp_path / "a.png", error)
    assert os.listdir(tmp_path) == []


def test_a_failure_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("older")
    with pytest.raises(ValueError, match="in the middle"):
        _fail(path, ValueError("in the middle"))
    assert path.read_text() == "older"
    with whole_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("name", ["file/a.png", "file/case/a.png"])
def test_unwritable_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")  # below a file not even root can write
    with pytest.raises(OutputError) as caught, whole_file(tmp_path / name):
        pass
    assert caught.value.code == "E_WRITE"
    what = f"E_WRITE: cannot write: a file is where a folder should be ({tmp_path / name})"
    assert str(caught.value) == f"{what} - choose a folder you can write to"


def test_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left on device"):
        _fail(tmp_path / "a.png", OSError(28, os.strerror(28)))


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with whole_file(tmp_path / "a.png") as temporary:
        temporary.write_text("")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_texts_and_objects(tmp_path: Path) -> None:
    assert write_text(tmp_path / "new" / "a.md", "ü").read_bytes() == "ü".encode()
    path = write_json(tmp_path / "a.json", {"a": [1, None]})
    assert path.read_text() == '{\n  "a": [\n    1,\n    null\n  ]\n}\n'
    assert read_json(path) == {"a": [1, None]}


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1', "[" * 20000, "\0"])
def test_what_is_no_json_object_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    assert read_json(path) is None
    path.write_text(content)
    assert read_json(path) is None
    os.mkfifo(tmp_path / "pipe.json")
    assert read_json(tmp_path / "pipe.json") is None


# --- the files of a case


def _fail_set(folder: Path, error: BaseException) -> None:
    with whole_set(folder) as staging:
        (staging / "a.json").write_text("new")
        with whole_file(staging / "b.nii.gz") as temporary:
            temporary.write_text("half of it")
            raise error


def test_set_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    folder = tmp_path / "sub" / "case"
    with whole_set(folder) as staging:
        (staging / "a.json").write_text("content")
        (staging / "b.png").write_text("more")
        assert not (folder / "a.json").exists()
    assert sorted(os.listdir(folder)) == ["a.json", "b.png"]


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), OSError(28, os.strerror(28))])
def test_nothing_is_left_of_a_set_that_failed(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)) as caught:
        _fail_set(tmp_path / "case", error)
    assert os.listdir(tmp_path) == []
    if isinstance(error, OSError):  # the user knows nothing of a temporary folder
        assert caught.value.path == tmp_path / "case" / "b.nii.gz"


def test_a_set_that_failed_leaves_the_older_one(tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    (folder / "a.json").write_text("older")
    with pytest.raises(ValueError, match="in the middle"):
        _fail_set(folder, ValueError("in the middle"))
    assert (folder / "a.json").read_text() == "older"
    assert os.listdir(folder) == ["a.json"]


@pytest.mark.parametrize("name", ["file", "file/case"])
def test_a_file_in_the_way_of_a_set(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="a file is where a folder should be"), whole_set(tmp_path / name):
        pass
    assert (tmp_path / "file").is_file()
