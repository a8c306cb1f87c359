"""The viewer that comes along is the one at npm, unchanged."""

from __future__ import annotations

import gzip
import hashlib
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from anomalyclip_monai.outputs.report import niivue

ROOT = Path(__file__).parents[2]


def test_it_is_the_chosen_one() -> None:
    assert hashlib.sha256(gzip.decompress(niivue.packed_niivue())).hexdigest() == niivue.SHA256


def test_its_licence_names_its_version() -> None:
    text = Path(niivue.__file__).with_name(niivue.LICENCE).read_text()
    name, version = niivue.PACKAGE.rsplit("@", 1)
    assert (name in text, f"version {version}" in text) == (True, True)
    assert "BSD 2-Clause License" in text
    assert f'"anomalyclip_monai/outputs/report/{niivue.LICENCE}"' in (ROOT / "pyproject.toml").read_text()


@pytest.mark.slow
def test_npm_gives_the_same(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    monkeypatch.setattr(sys, "argv", ["vendor_niivue.py", "--check"])
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "tools" / "vendor_niivue.py"), run_name="__main__")
    except subprocess.CalledProcessError:
        pytest.skip("npm's registry cannot be reached")
    assert (ended.value.code, capsys.readouterr().out) == (0, "")
