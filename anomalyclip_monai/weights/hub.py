"""Other CLIPs by their name in open_clip: whether they fit, the network over them, and their weights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError
from open_clip.pretrained import download_pretrained_from_url, get_pretrained_cfg
from torch import nn

from anomalyclip_monai.exceptions import UsageError, WeightsError
from anomalyclip_monai.networks.checkpoints import empty_clip, floating_type, named_config
from anomalyclip_monai.networks.prompts import text_tower
from anomalyclip_monai.networks.settings import CLIP_MEAN, CLIP_STD
from anomalyclip_monai.networks.towers import vision_tower
from anomalyclip_monai.types import PathLike
from anomalyclip_monai.weights.offline import offline

PUBLISHED_SIZE = 518
"""Side in pixels to which the published model squashes images; others take the nearest multiple of their patch."""

PUBLISHED_LOCAL_SHARE = 19 / 24
"""Share of blocks beside which the published local path runs."""

PUBLISHED_DEPTH = 9
"""Text blocks that see learned vectors, where there are as many."""

_DEFAULT_TAG = "openai"

_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Names that open_clip gives to weights on the hub, the preferred one first."""


def network_definition(
    name: str, *, pretrained: str | None = None, weights: PathLike | None = None, precision: str = "fp32"
) -> dict[str, Any]:
    """Definition of AnomalyCLIP over a named backbone, in the published proportions, for a bundle's ``network_def``.

    Args:
        name: model name of open_clip, such as ``ViT-B-16``.
        pretrained: tag of published weights; by default ``openai``, or the only one there is.
        weights: a file in the place of published ones; ``pretrained`` then only tells the activation.
        precision: of the backbone in memory.

    Raises:
        WeightsError: there is no such model or tag, or it does not fit (``E_BACKBONE``); its weights are neither here
            nor to be had (``E_WEIGHTS``).
        UsageError: there is no such precision (``E_PRECISION``), or a tag must be chosen (``E_PRETRAINED``).
    """
    floating_type(precision)
    visual, text_blocks = check_backbone(name)
    blocks = len(vision_tower(visual).blocks)
    if weights and not pretrained:
        _check_activation(name)
    tag = pretrained if weights or pretrained else default_tag(name)
    published = _published(name, tag)
    return {
        "_target_": "anomalyclip_monai.networks.AnomalyCLIP",
        "clip": {
            "_target_": "anomalyclip_monai.weights.load_backbone",
            "weights": os.fspath(weights or pretrained_file(name, str(tag))),
            "config": name,
            "pretrained": tag,
            "precision": precision,
        },
        "settings": {
            "_target_": "anomalyclip_monai.networks.NetworkSettings",
            "image_size": image_size(visual),
            "feature_layers": [blocks],
            "dpam_layer": 1 + round(PUBLISHED_LOCAL_SHARE * blocks),
            "depth": min(PUBLISHED_DEPTH, text_blocks),
            "mean": list(published.get("mean", CLIP_MEAN)),
            "std": list(published.get("std", CLIP_STD)),
        },
    }


def check_backbone(name: str) -> tuple[nn.Module, int]:
    """Vision tower without weights, and number of text blocks, of a model that fits.

    Raises:
        WeightsError: there is no such model, or it does not fit, with the reason (``E_BACKBONE``).
    """
    if ":" in name:
        raise WeightsError("E_BACKBONE", f"{name}: models of a hub are not read", None, "give a name of open_clip")
    config = named_config(name)
    try:
        clip: Any = empty_clip(config)
        vision_tower(clip.visual)
        return clip.visual, len(text_tower(clip).blocks)
    except WeightsError as error:
        raise WeightsError(error.code, f"{name}: {error.what}", None, error.todo) from error


def image_size(visual: Any) -> int:
    """Side in pixels for a vision tower: the multiple of its patch nearest to :data:`PUBLISHED_SIZE`."""
    convolution = visual.conv1 if hasattr(visual, "conv1") else visual.trunk.patch_embed.proj
    patch = int(convolution.stride[0])
    return patch * round(PUBLISHED_SIZE / patch)


def default_tag(name: str) -> str:
    """Tag of the weights that are taken where none is named.

    Raises:
        WeightsError: open_clip knows no weights of this model (``E_WEIGHTS``).
        UsageError: there are several and none is OpenAI's (``E_PRETRAINED``).
    """
    tags = open_clip.list_pretrained_tags_by_model(name)
    if _DEFAULT_TAG in tags or len(tags) == 1:
        return _DEFAULT_TAG if _DEFAULT_TAG in tags else str(tags[0])
    if not tags:
        raise WeightsError("E_WEIGHTS", f"open_clip knows no weights of {name}", None, "give --weights FILE")
    what = f"{name} has several weights: {', '.join(tags)}"
    raise UsageError("E_PRETRAINED", what, None, "choose one with --pretrained, or give --weights FILE")


def pretrained_file(name: str, tag: str) -> Path:
    """File of published weights, downloaded into open_clip's own cache where it is not there yet.

    ``ANOMALYCLIP_OFFLINE=1`` and ``HF_HUB_OFFLINE=1`` keep to the cache.

    Raises:
        WeightsError: it is not there and cannot be downloaded (``E_WEIGHTS``).
    """
    entry = _published(name, tag)
    try:
        return Path(_fetch(entry))
    except Exception as error:  # whatever the hub, the network or the disk raise
        cause = next(iter(str(error).split(". ")), "").strip() or type(error).__name__
        what = f"the weights {tag} of {name} are not in the cache and cannot be downloaded: {cause}"
        raise WeightsError("E_WEIGHTS", what, None, "connect once, or give --weights FILE") from error


def _fetch(entry: Mapping[str, Any]) -> str:
    forbidden = offline()
    if hub := entry.get("hf_hub"):
        repository, _, filename = hub.rpartition("/")
        files = [filename] if filename else list(_HUB_FILES)
        cached = (try_to_load_from_cache(repository, file) for file in files)
        if found := next((path for path in cached if isinstance(path, str)), None):
            return found
        if not forbidden:
            return _download(repository, files)
    if forbidden:
        raise OSError(f"{forbidden} is set")
    return str(download_pretrained_from_url(entry["url"]))


def _download(repository: str, files: Sequence[str]) -> str:
    """The first of the files that the repository has."""
    huggingface_hub.logging.set_verbosity_error()  # its retries are no news: the last failure is raised
    for file in files[:-1]:
        with contextlib.suppress(RemoteEntryNotFoundError):
            return hf_hub_download(repository, file)
    return hf_hub_download(repository, files[-1])


def _check_activation(name: str) -> None:
    """Refuse a name that leaves the activation open: weights do not show it, and the wrong one runs all the same."""
    entries = [get_pretrained_cfg(name, tag) for tag in open_clip.list_pretrained_tags_by_model(name)]
    activations = {bool(entry.get("quick_gelu", False)) for entry in entries}
    if len(activations) == 2 and not named_config(name).get("quick_gelu"):
        what = f"weights called {name} are published with QuickGELU and with GELU"
        raise UsageError("E_PRETRAINED", what, None, f"say which with --pretrained TAG, or take {name}-quickgelu")


def _published(name: str, tag: str | None) -> dict[str, Any]:
    if tag is None:
        return {}
    named_config(name, tag)  # refuses a tag that is not there
    return dict(get_pretrained_cfg(name, tag))
