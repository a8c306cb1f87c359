"""The weights of a bundle: where they are, and their hashes."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.files import read_text
from anomalyclip_monai.types import PathLike

BACKBONES = ("backbone.safetensors", "open_clip_model.safetensors", "ViT-L-14-336px.pt")
"""Names under which the weights of a backbone are looked for, the preferred one first."""

OTHER_ENCODER = "image_encoder.safetensors"
"""Name of the image side of a further network of an ensemble."""

TRUNK = "trunk.safetensors"
"""Name of the frozen part of an image side, where it is a file of its own."""

DEFAULT_PROMPTS = "visa"
"""Of the published prompts: re-runs by others found them stronger on most medical sets."""


def weights_folder(model: str) -> Path:
    """Folder in ``ANOMALYCLIP_HOME`` for what is downloaded of a model, whether or not it is there."""
    return resources.home() / "weights" / model


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
    return weights_folder(root.resolve().name.removeprefix(resources.BUNDLE_PREFIX))


def _downloaded(root: Path) -> str:
    names = sorted(path.stem.removeprefix("prompts_") for path in _downloads(root).glob("prompts_*.pt"))
    return ", ".join(names) or "none was downloaded"


def _missing(what: str, root: Path, own: str, downloaded: str | None = None) -> WeightsError:
    """What is said of an absent file depends on whether the bundle came with it: ``large_files.yml`` lists others."""
    if not (root / "large_files.yml").is_file():
        return WeightsError("E_WEIGHTS", what, root / "models" / own, "reinstall the bundle")
    model = root.resolve().name.removeprefix(resources.BUNDLE_PREFIX)
    return WeightsError("E_WEIGHTS", what, _downloads(root) / (downloaded or own), f"run: anomalyclip download {model}")


def fingerprint(
    bundle: PathLike, prompts: PathLike | None = None, weights: PathLike | None = None, *, fast: bool = False
) -> dict[str, str]:
    """``{"bundle", "weights_sha256"}`` and :func:`prompts_fingerprint` of a bundle's files; what is absent is left out.

    Further networks of an ensemble are named by their folder, as in ``weights_320_sha256``, with ``_trunk`` where their
    frozen part is a file of its own.

    Args:
        bundle: the bundle's folder.
        prompts: see :func:`prompts_file`.
        weights: of another backbone, in the place of the bundle's.
        fast: whether the first network of an ensemble runs alone.
    """
    root = Path(bundle)
    found = {"bundle": root.name}
    with contextlib.suppress(WeightsError, FileNotFoundError):
        found["weights_sha256"] = resources.sha256(Path(weights) if weights else backbone_file(root))
    if not fast:
        for path in other_encoders(root):
            found[f"weights_{path.parent.name}_sha256"] = resources.sha256(path)
            if (trunk := path.with_name(TRUNK)).is_file():
                found[f"weights_{path.parent.name}_trunk_sha256"] = resources.sha256(trunk)
    with contextlib.suppress(WeightsError, FileNotFoundError):
        found |= prompts_fingerprint(prompts_file(root, prompts))
    return found


def prompts_fingerprint(path: Path) -> dict[str, str]:
    """``{"prompts_sha256", "prompts_blob_id"}`` of a file of prompts.

    The second, git's id of the checkpoint that they were converted from, is the same for all users, which the hash of
    a converted file is not. It is left out where the file beside the prompts does not say it of just these.
    """
    found = {"prompts_sha256": resources.sha256(path)}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        origin = json.loads(read_text(path.with_suffix(".json")))
        if origin["prompts_sha256"] == found["prompts_sha256"]:
            found["prompts_blob_id"] = str(origin["checkpoint_blob_id"])
    return found
