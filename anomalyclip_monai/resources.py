"""Where bundles, presets and weights are: in the package, else in the checkout, else in ``ANOMALYCLIP_HOME``."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
from pathlib import Path
from typing import Any

import yaml

from anomalyclip_monai.exceptions import UsageError, WeightsError
from anomalyclip_monai.types import PathLike

_PACKAGE = Path(__file__).resolve().parent

BUNDLE_PREFIX = "anomalyclip_"

DEFAULT_BUNDLE = "tiny"
"""The bundle of every command and function that is not told another."""

BACKBONES = ("backbone.safetensors", "open_clip_model.safetensors", "ViT-L-14-336px.pt")
"""Names under which the weights of a backbone are looked for, the preferred one first."""

OTHER_ENCODER = "image_encoder.safetensors"
"""Name of the image side of a further network of an ensemble."""

DEFAULT_PROMPTS = "visa"
"""Of the published prompts: re-runs by others found them stronger on most medical sets."""


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


def read_definition(root: Path) -> dict[str, Any]:
    """Content of the bundle's ``configs/inference.json``, nothing of it resolved."""
    definition: dict[str, Any] = json.loads(inference_config(root).read_text(encoding="utf-8"))
    return definition


def weights_folder(model: str) -> Path:
    """Folder in ``ANOMALYCLIP_HOME`` for what is downloaded of a model, whether or not it is there."""
    return home() / "weights" / model


def find_backbone(folder: Path) -> Path | None:
    """The weights of a backbone in a folder; None if there are none."""
    return next((path for name in BACKBONES if (path := folder / name).is_file()), None)


def backbone_file(bundle: PathLike) -> Path:
    """Weights of a bundle's backbone: from its folder ``models``, else what was downloaded for it.

    Args:
        bundle: the bundle's folder.

    Raises:
        WeightsError: they are not there (``E_WEIGHTS``).
    """
    root = Path(bundle)
    found = find_backbone(root / "models") or find_backbone(_downloads(root))
    if found is None:
        raise _missing("the backbone is missing", root, BACKBONES[0])
    return found


def other_encoders(bundle: PathLike) -> list[Path]:
    """Image sides of the further networks of a bundle's ensemble, one in each folder below ``models``."""
    return sorted((Path(bundle) / "models").glob(f"*/{OTHER_ENCODER}"))


def prompts_file(bundle: PathLike, prompts: PathLike | None = None) -> Path:
    """Learned prompts for a bundle.

    Args:
        bundle: the bundle's folder.
        prompts: a file, or the name of published prompts that were downloaded (``visa``, ``mvtec``). By default the
            bundle's own ``models/model.pt``, else :data:`DEFAULT_PROMPTS`.

    Raises:
        WeightsError: they are not there (``E_WEIGHTS``).
    """
    root = Path(bundle)
    own = root / "models" / "model.pt"
    if prompts is None and own.is_file():
        return own
    name = os.fspath(prompts or DEFAULT_PROMPTS)
    for path in (_downloads(root) / f"prompts_{name}.pt", Path(name)):
        if path.is_file():
            return path
    if prompts is None:
        raise _missing("the learned prompts are missing", root, own.name, f"prompts_{name}.pt")
    raise WeightsError("E_WEIGHTS", f"no prompts {name!r}", None, f"give a file, or one of: {_downloaded(root)}")


def _downloads(root: Path) -> Path:
    return weights_folder(root.resolve().name.removeprefix(BUNDLE_PREFIX))


def _downloaded(root: Path) -> str:
    names = sorted(path.stem.removeprefix("prompts_") for path in _downloads(root).glob("prompts_*.pt"))
    return ", ".join(names) or "none was downloaded"


def _missing(what: str, root: Path, own: str, downloaded: str | None = None) -> WeightsError:
    """What is said of an absent file depends on whether the bundle came with it: ``large_files.yml`` lists others."""
    if not (root / "large_files.yml").is_file():
        return WeightsError("E_WEIGHTS", what, root / "models" / own, "reinstall the bundle")
    model = root.resolve().name.removeprefix(BUNDLE_PREFIX)
    return WeightsError("E_WEIGHTS", what, _downloads(root) / (downloaded or own), f"run: anomalyclip download {model}")


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


def sha256(path: Path) -> str:
    """Hash of a file's content, computed once as long as size and time of the file stay."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _sha256(path: Path, _size: int, _modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(
    bundle: PathLike, prompts: PathLike | None = None, weights: PathLike | None = None, *, fast: bool = False
) -> dict[str, str]:
    """``{"bundle", "weights_sha256"}`` and :func:`prompts_fingerprint` of a bundle's files; what is absent is left out.

    Further networks of an ensemble are named by their folder, as in ``weights_320_sha256``.

    Args:
        bundle: the bundle's folder.
        prompts: see :func:`prompts_file`.
        weights: of another backbone, in the place of the bundle's.
        fast: whether the first network of an ensemble runs alone.
    """
    root = Path(bundle)
    found = {"bundle": root.name}
    with contextlib.suppress(WeightsError, FileNotFoundError):
        found["weights_sha256"] = sha256(Path(weights) if weights else backbone_file(root))
    if not fast:
        found |= {f"weights_{path.parent.name}_sha256": sha256(path) for path in other_encoders(root)}
    with contextlib.suppress(WeightsError, FileNotFoundError):
        found |= prompts_fingerprint(prompts_file(root, prompts))
    return found


def prompts_fingerprint(path: Path) -> dict[str, str]:
    """``{"prompts_sha256", "prompts_blob_id"}`` of a file of prompts.

    The second, git's id of the checkpoint that they were converted from, is the same for all users, which the hash of
    a converted file is not. It is left out where the file beside the prompts does not say it of just these.
    """
    found = {"prompts_sha256": sha256(path)}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        origin = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if origin["prompts_sha256"] == found["prompts_sha256"]:
            found["prompts_blob_id"] = str(origin["checkpoint_blob_id"])
    return found
