"""The third network as files of a bundle: backbone and neck in half precision, and what describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor, nn

from anomalyclip_monai import resources
from anomalyclip_monai.networks.checkpoints import IMAGE_SIDE
from anomalyclip_monai.weights.bundle import OTHER_ENCODER
from anomalyclip_monai.weights.bundle import TRUNK as FROZEN
from recipes.tiny.organs.features import IMAGENET_MEAN, IMAGENET_STD, TRUNK
from recipes.tiny.organs.learning import Reduction
from recipes.tiny.start import described

DESCRIPTION = "open_clip_config.json"

FOLDER = "models/dino"
"""Of the third network, below a bundle."""


def write_network(
    folder: Path,
    trunk: Mapping[str, Tensor],
    reduction: Reduction,
    members: Sequence[nn.Module],
    *,
    hidden: int,
    layers: Sequence[int],
    size: int,
) -> None:
    """Write ``trunk.safetensors``, ``image_encoder.safetensors`` with the neck, and ``open_clip_config.json``.

    The trunk is the same for every neck, to the last bit.

    Args:
        folder: of the network, below a bundle's ``models``.
        trunk: timm's tensors of the backbone.
        reduction: of its tokens.
        members: of the neck.
        hidden: channels of a member.
        layers: blocks, counted from 1, whose tokens are joined.
        size: side of the squares in pixels.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / FROZEN, {f"{IMAGE_SIDE}trunk.{name}": value for name, value in trunk.items()})
    tensors = {f"{IMAGE_SIDE}neck.reduce.weight": reduction.weight, f"{IMAGE_SIDE}neck.reduce.bias": reduction.bias}
    for number, member in enumerate(members):
        for name, value in member.state_dict().items():
            tensors[f"{IMAGE_SIDE}neck.members.{number}.{name}"] = value
    _write(folder / OTHER_ENCODER, tensors)
    description = _description(len(layers), len(reduction.bias), hidden, len(members), size)
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def _write(file: Path, tensors: Mapping[str, Tensor]) -> None:
    half = {name: value.detach().half().contiguous() for name, value in tensors.items()}
    safetensors.torch.save_file(half, file, metadata={"format": "pt"})


def _description(layers: int, components: int, hidden: int, members: int, size: int) -> dict[str, Any]:
    """The text side is that of the bundle's first network."""
    model = described(resources.bundle_root(resources.DEFAULT_BUNDLE))["model_cfg"]
    vision = {"image_size": size, "timm_model_name": TRUNK, "timm_pool": "token", "timm_proj": "none"}
    return {
        "model_cfg": {**model, "vision_cfg": vision},
        "neck": {"layers": layers, "components": components, "hidden": hidden, "members": members},
        "preprocess_cfg": {
            "size": [size, size],
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }
