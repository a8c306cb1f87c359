"""Where bundles, presets and weights are: in the package, else in the checkout, else in ``ANOMALYCLIP_HOME``."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import yaml

from anomalyclip_monai.exceptions import UsageError, WeightsError
from anomalyclip_monai.types import PathLike

_PACKAGE = Path(__file__).resolve().parent

BUNDLE_PREFIX = "anomalyclip_"


def home() -> Path:
    """Folder for what a user adds: ``ANOMALYCLIP_HOME``, by default ``~/.cache/anomalyclip``."""
    return Path(os.environ.get("ANOMALYCLIP_HOME") or Path.home() / ".cache" / "anomalyclip")


def installed_version(distribution: str) -> str:
    """Version of an installed distribution, or ``not installed``, as for a checkout on the path."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def bundle_folders() -> list[Path]:
    """Folders that hold bundles, in the order in which they are searched."""
    return [_PACKAGE / "bundles", _PACKAGE.parent / "bundles", home() / "bundles"]


def bundles() -> list[str]:
    """Names of the bundles that are there."""
    found = {path.parent.parent.name for folder in bundle_folders() for path in folder.glob("*/configs/inference.json")}
    return sorted(found)


def bundle_root(name: PathLike) -> Path:
    """Folder of a bundle.

    Args:
        name: ``tiny``, ``anomalyclip_tiny``, or the path of a bundle's folder.

    Raises:
        UsageError: there is no such bundle (``E_MODEL``).
    """
    given = Path(name)
    if (given / "configs" / "inference.json").is_file():
        return given.resolve()
    text = os.fspath(name)
    for folder in bundle_folders():
        for candidate in (folder / text, folder / f"{BUNDLE_PREFIX}{text}"):
            if text and (candidate / "configs" / "inference.json").is_file():
                return candidate
    known = ", ".join(bundle.removeprefix(BUNDLE_PREFIX) for bundle in bundles()) or "none"
    raise UsageError("E_MODEL", f"no model {text!r}", None, f"choose from: {known}, or give the folder of a bundle")


def inference_config(root: Path) -> Path:
    """The bundle's ``configs/inference.json``."""
    return root / "configs" / "inference.json"


def prompts_file(root: Path) -> Path:
    """The bundle's learned prompts.

    Raises:
        WeightsError: they are not there (``E_WEIGHTS``).
    """
    path = root / "models" / "model.pt"
    if not path.is_file():
        raise WeightsError("E_WEIGHTS", "the learned prompts are missing", path, "reinstall the bundle")
    return path


def preset_folder() -> Path:
    """Folder of the presets."""
    installed = _PACKAGE / "presets"
    return installed if installed.is_dir() else _PACKAGE.parent / "transforms"


def presets() -> list[str]:
    """Names of the presets."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def preset_overlay(name: str) -> Path:
    """The YAML file of a preset, by name or path: an overlay on a bundle's configuration.

    Raises:
        UsageError: there is no such preset (``E_PRESET``).
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else preset_folder() / f"{name}.yaml"
    if not path.is_file():
        raise UsageError("E_PRESET", f"no preset {name!r}", None, f"choose from: auto, {', '.join(presets())}")
    return path


def read_overlay(path: Path) -> dict[str, Any]:
    """Content of a preset's YAML file.

    Raises:
        UsageError: it is not a preset (``E_PRESET``).
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError("E_PRESET", "not a YAML file", path, "give a preset") from error
    if not isinstance(content, dict) or not isinstance(content.get("preset_table"), dict):
        raise UsageError("E_PRESET", "the file has no preset_table", path, "copy an installed preset and change it")
    return content


def preset_table(name: str) -> dict[str, Any]:
    """The table of a preset, by name."""
    return dict(read_overlay(preset_overlay(name))["preset_table"])


@functools.lru_cache(maxsize=32)
def _sha256(path: Path, _size: int, _modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(root: Path) -> dict[str, str]:
    """``{"bundle", "weights_sha256", "prompts_sha256"}`` of a bundle's files; what is absent is left out."""
    found = {"bundle": root.name}
    backbone = sorted((root / "models").glob("*.safetensors"))
    for key, path in (
        ("weights_sha256", backbone[0] if backbone else None),
        ("prompts_sha256", root / "models/model.pt"),
    ):
        if path is not None and path.is_file():
            stat = path.stat()
            found[key] = _sha256(path, stat.st_size, stat.st_mtime_ns)
    return found
