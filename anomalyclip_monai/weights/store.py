"""Where downloaded weights lie, and the record of their hashes.

::

    ANOMALYCLIP_HOME/weights/<model>/
        backbone.safetensors | open_clip_model.safetensors | ViT-L-14-336px.pt
        prompts_visa.pt, prompts_visa.json, prompts_mvtec.pt, ...
        weights.json      sha256 of each file of weights at its first load
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import OutputError, WeightsError
from anomalyclip_monai.files import write_json
from anomalyclip_monai.weights import bundle
from anomalyclip_monai.weights.published import DEFAULT_PROMPTS

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "vitl14_336"

CONVERTED = "backbone.safetensors"
"""Name of a backbone that this package wrote."""


def folder(model: str = DEFAULT_MODEL) -> Path:
    """Folder of a model's weights, whether or not it is there."""
    return bundle.weights_folder(model)


def find_backbone(model: str = DEFAULT_MODEL) -> Path | None:
    """The backbone that was downloaded or put in place, ``None`` if there is none."""
    return bundle.find_backbone(folder(model))


def backbone(model: str = DEFAULT_MODEL) -> Path:
    """The backbone that was downloaded or put in place.

    Raises:
        WeightsError: there is none (``E_WEIGHTS``).
    """
    if found := find_backbone(model):
        return found
    raise WeightsError("E_WEIGHTS", "the backbone is missing", folder(model), f"run: anomalyclip download {model}")


def prompts_path(prompts: str = DEFAULT_PROMPTS, model: str = DEFAULT_MODEL) -> Path:
    """File of converted prompts, whether or not it is there."""
    return folder(model) / f"prompts_{prompts}.pt"


def prompts(prompts: str = DEFAULT_PROMPTS, model: str = DEFAULT_MODEL) -> Path:
    """File of converted prompts that is there.

    Raises:
        WeightsError: it is not there (``E_WEIGHTS``).
    """
    path = prompts_path(prompts, model)
    if path.is_file():
        return path
    todo = f"run: anomalyclip download {model} --prompts {prompts}"
    raise WeightsError("E_WEIGHTS", "the prompts are missing", path, todo)


def origin_path(prompts_file: Path) -> Path:
    """The side file that says which checkpoint prompts were converted from."""
    return prompts_file.with_suffix(".json")


def record(path: Path, source: str) -> str:
    """Note the hash of a file of weights, over an earlier one; -> its sha256.

    Args:
        path: a file in a folder of weights.
        source: where it came from, in words.

    Raises:
        OutputError: the folder cannot be written (``E_WRITE``).
    """
    noted = {**_read_record(path), path.name: {"sha256": (digest := resources.sha256(path)), "source": source}}
    write_json(_record_path(path), noted)
    return digest


def verify(path: Path) -> str:
    """Compare a file of weights with its hash at the first load, which is noted now if this is it; -> its sha256.

    Raises:
        WeightsError: the file has changed (``E_WEIGHTS_CHANGED``), it is missing, or the record is damaged
            (``E_WEIGHTS``).
    """
    if not path.is_file():
        raise WeightsError("E_WEIGHTS", "weights are missing", path, "run: anomalyclip download")
    digest = resources.sha256(path)
    known = _read_record(path).get(path.name, {}).get("sha256")
    if known is None:
        try:
            record(path, "put in place by hand")
        except OutputError as error:  # a shared folder that this user may only read
            logger.warning("the hash of %s could not be noted: %s", path.name, error.what)
    elif known != digest:
        raise WeightsError(
            "E_WEIGHTS_CHANGED",
            f"these are not the weights of the first load: sha256 {digest[:12]} instead of {known[:12]}",
            path,
            f"put the first file back, or delete {_record_path(path).name} beside it to accept this one",
        )
    return digest


def _record_path(path: Path) -> Path:
    return path.parent / "weights.json"


def _read_record(path: Path) -> dict[str, Any]:
    noted = _record_path(path)
    if not noted.is_file():
        return {}
    try:
        content = json.loads(noted.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError("E_WEIGHTS", "the record of hashes cannot be read", noted, "delete it") from error
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise WeightsError("E_WEIGHTS", "this is no record of hashes", noted, "delete it")
    return content
