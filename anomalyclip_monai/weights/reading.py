"""Tensors and descriptions out of files, never executing code from them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.types import PathLike


def read_description(config_path: Path) -> dict[str, Any]:
    """open_clip's description of a backbone, from the JSON file beside its weights.

    Raises:
        WeightsError: it is missing or no JSON (``E_WEIGHTS``).
    """
    if not config_path.is_file():
        raise WeightsError(
            "E_WEIGHTS", "the description of the backbone is missing", config_path, "reinstall the bundle"
        )
    try:
        description: dict[str, Any] = json.loads(config_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError("E_WEIGHTS", "is not JSON", config_path, "reinstall the bundle") from error
    return description


def read_state_dict(path: PathLike) -> dict[str, Tensor]:
    """Tensors by name from a ``.safetensors`` or ``torch.save`` file, never executing code from it.

    Raises:
        WeightsError: the file is missing, damaged or holds something else (``E_WEIGHTS``).
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError("E_WEIGHTS", "weights are missing", path, "reinstall the bundle or download its weights")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # parsers of damaged files raise whatever they meet
        message = f"weights cannot be read ({type(error).__name__}), the file is damaged or of another kind"
        raise WeightsError("E_WEIGHTS", message, path, "get the file again") from error
    while isinstance(content, Mapping) and len(nested := [k for k in ("state_dict", "model") if k in content]):
        content = content[nested[0]]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError("E_WEIGHTS", "holds no table of named tensors", path, "give a state dict")
    return dict(content)
