"""Without MONAI Label one line says what to install; the page on it and the package say the same."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path

from anomalyclip_monai import label
from anomalyclip_monai.cli import main
from anomalyclip_monai.label import compat

ROOT = Path(__file__).resolve().parents[2]


def test_missing_packages_are_one_line_with_what_installs_them(tmp_path, monkeypatch, capsys):
    find = importlib.util.find_spec
    missing = ("monailabel", "nrrd")
    monkeypatch.setattr(label, "_NEEDED", ("numpy", *missing))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name in missing else find(name))
    assert main(["serve", str(tmp_path)]) == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors == (
        "E_EXTRA: packages that serving needs are not installed: monailabel, nrrd - "
        'pip install "anomalyclip-monai[label]" && pip install --no-deps monailabel==0.8.5 pydicom-seg==0.4.1\n'
    )


def test_the_page_has_the_same_lines():
    assert "```sh\n" + "\n".join(label.INSTALL) + "\n```" in (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")


def test_the_extra_never_names_what_must_come_alone():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    names = {re.split(r"[<>=\[; ]", line)[0].lower() for line in extras["label"]}
    assert not {"monailabel", "pydicom-seg", "numpy"} & names


def test_the_shim_gives_pydicom_seg_its_name_and_replaces_nothing(monkeypatch):
    moved = "pydicom._storage_sopclass_uids"
    monkeypatch.delitem(sys.modules, moved, raising=False)
    compat.apply()
    shim = sys.modules[moved]
    assert shim.SegmentationStorage == "1.2.840.10008.5.1.4.1.1.66.4"
    compat.apply()
    assert sys.modules[moved] is shim
    monkeypatch.delitem(sys.modules, moved)
