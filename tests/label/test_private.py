"""The folder of temporary files: private, gone at the end, and those of killed servers as well."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from anomalyclip_monai.label.private import private_folder


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_temporary_files_lie_in_a_private_folder_that_goes(temporary):
    with private_folder() as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert Path(tempfile.mkdtemp()).parent == folder
        assert os.environ["TMPDIR"] == str(folder)
    assert list(temporary.iterdir()) == []
    assert (tempfile.gettempdir(), os.environ["TMPDIR"]) == (str(temporary), str(temporary))


def test_it_goes_after_an_interrupt(temporary):
    def interrupted() -> None:
        with private_folder() as folder:
            (folder / "image.nii.gz").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_server_left_is_removed_and_what_runs_stays(temporary):
    (temporary / "anomalyclip-serve-of-others").mkdir()  # without our lock
    code = """
import os
from anomalyclip_monai.label.private import private_folder
with private_folder() as folder:
    (folder / "image.nii.gz").touch()
    os._exit(9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    left = {path for path in temporary.iterdir() if (path / "image.nii.gz").exists()}
    assert len(left) == 1
    with private_folder() as first, private_folder() as second:
        assert not left & set(temporary.iterdir())
        assert first.exists() and second.exists()  # noqa: PT018
    assert [path.name for path in temporary.iterdir()] == ["anomalyclip-serve-of-others"]
