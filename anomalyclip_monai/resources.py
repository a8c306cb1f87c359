"""Where bundles and presets are: in the package, else in the checkout, else in ``ANOMALYCLIP_HOME``."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import re
from pathlib import Path
from typing import Any

from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.types import PathLike
from anomalyclip_monai.yaml_data import read_yaml

_PACKAGE = Path(__file__).resolve().parent

BUNDLE_PREFIX = "anomalyclip_"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
"""The name of a bundle; anything else is no name, and with a separator a path."""

_SCALINGS = ("preset", "preset_table")
"""Entries of a preset's file."""

MAX_PRESET_NAME = 80
"""Most characters of the name in a preset's file, which stands in results and on the terminal."""

DEFAULT_BUNDLE = "tiny"
"""The bundle of every command and function that is not told another."""


def home() -> Path:
    """Folder for what a user adds: ``ANOMALYCLIP_HOME``, by default ``~/.cache/anomalyclip``, absolute.

    Raises:
        UsageError: nothing says where the user's home is (``E_HOME``).
    """
    try:
        named = os.environ.get("ANOMALYCLIP_HOME")
        return Path(os.path.abspath(named) if named else Path.home() / ".cache" / "anomalyclip")
    except RuntimeError as error:  # no HOME, and no entry of this user in the password database
        raise UsageError("E_HOME", "this user has no home folder", None, "set ANOMALYCLIP_HOME to a folder") from error


def installed_version(distribution: str) -> str:
    """Version of an installed distribution, or ``not installed``, as for a checkout on the path."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def bundle_folders() -> list[Path]:
    """Folders that hold bundles, in the order in which they are searched."""
    folders = own_bundle_folders()
    with contextlib.suppress(UsageError):  # what comes with the package needs no home
        folders.append(home() / "bundles")
    return folders


def own_bundle_folders() -> list[Path]:
    """Folders of the bundles that come with the package, installed or in its checkout."""
    checkout = [_PACKAGE.parent / "bundles"] if (_PACKAGE.parent / "pyproject.toml").is_file() else []
    return [_PACKAGE / "bundles", *checkout]


def comes_with_the_package(root: Path) -> bool:
    """Whether a bundle, whose configuration is code, is one of the package's own."""
    return any(root.resolve().parent == folder.resolve() for folder in own_bundle_folders())


def bundles() -> list[str]:
    """Names of the bundles that are there; a folder whose name is none of a bundle's can be given as a path only."""
    found = {path.parent.parent.name for folder in bundle_folders() for path in folder.glob("*/configs/inference.json")}
    return sorted(name for name in found if _NAME.fullmatch(name))


def bundle_root(name: PathLike) -> Path:
    """Folder of a bundle.

    Args:
        name: ``tiny`` or ``anomalyclip_tiny``: a bundle of the package or of ``ANOMALYCLIP_HOME``, wherever this
            runs. With a separator, as ``./mine``, or as a ``Path``: a bundle's folder, whose configuration is code.

    Raises:
        UsageError: there is no such bundle (``E_MODEL``).
    """
    text = os.fspath(name)
    if isinstance(name, os.PathLike) or os.sep in text or (os.altsep or os.sep) in text:
        if "\0" not in text and inference_config(Path(text)).is_file():
            return Path(text).resolve()
        raise UsageError("E_MODEL", "no bundle is there", text, "give a folder with configs/inference.json")
    if _NAME.fullmatch(text):
        for folder in bundle_folders():
            for candidate in (folder / text, folder / f"{BUNDLE_PREFIX}{text}"):
                if inference_config(candidate).is_file():
                    return candidate
    known = ", ".join(bundle.removeprefix(BUNDLE_PREFIX) for bundle in bundles()) or "none"
    todo = f"choose from: {known}, or give the path of a bundle with a separator, as in ./folder"
    raise UsageError("E_MODEL", f"no model {text!r}", None, todo)


def inference_config(root: Path) -> Path:
    """The bundle's ``configs/inference.json``."""
    return root / "configs" / "inference.json"


def preset_folder() -> Path:
    """Folder of the presets."""
    installed = _PACKAGE / "presets"
    return installed if installed.is_dir() else _PACKAGE.parent / "transforms"


def presets() -> list[str]:
    """Names of the presets."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def is_preset_file(name: str) -> bool:
    """Whether this is the path of a preset's file, and no name."""
    return name.endswith((".yaml", ".yml"))


def preset_overlay(name: str) -> Path:
    """The YAML file of a preset, by name or path: an overlay on a bundle's configuration.

    Raises:
        UsageError: there is no such preset (``E_PRESET``).
    """
    if is_preset_file(name):
        path = Path(os.path.abspath(name))
    else:
        path = preset_folder() / f"{name if _NAME.fullmatch(name) else '-'}.yaml"
    if not path.is_file():
        raise UsageError("E_PRESET", f"no preset {name!r}", None, f"choose from: auto, {', '.join(presets())}")
    return path


def read_overlay(path: Path) -> dict[str, Any]:
    """Content of a preset's YAML file: ``preset``, its name, and ``preset_table``. Data, of which nothing runs.

    Raises:
        UsageError: it is not a preset, or larger or deeper than one (``E_PRESET``).
    """
    content = read_yaml(path, "E_PRESET")
    if not isinstance(content, dict) or not isinstance(content.get("preset_table"), dict):
        raise UsageError("E_PRESET", "the file has no preset_table", path, "copy an installed preset and change it")
    if unknown := sorted(str(key) for key in content if key not in _SCALINGS):
        what = f"a preset has no {', '.join(unknown)}"
        raise UsageError("E_PRESET", what, path, f"keep {' and '.join(_SCALINGS)} only")
    name = content.setdefault("preset", path.stem)
    if not isinstance(name, str):
        raise UsageError("E_PRESET", "the preset's name is no text", path, "give it a name")
    if not name.strip() or name == "auto" or len(name) > MAX_PRESET_NAME:
        raise UsageError("E_PRESET", f"a preset cannot be called {name[:MAX_PRESET_NAME]!r}", path, "give it a name")
    return content


def preset_values(preset: str) -> dict[str, Any]:
    """Entries of a bundle's configuration that stand for a preset, by name or by the path of its file.

    Raises:
        UsageError: the file is no preset (``E_PRESET``).
    """
    return read_overlay(preset_overlay(preset)) if is_preset_file(preset) else {"preset": preset}


def preset_table(name: str) -> dict[str, Any]:
    """The table of a preset, by name."""
    return dict(read_overlay(preset_overlay(name))["preset_table"])


def sha256(path: Path) -> str:
    """Hash of a file's content, computed once as long as size and time of the file stay."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _sha256(path: Path, _size: int, _modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
