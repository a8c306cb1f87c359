"""What is published: files, sizes, addresses and digests. Facts only, nothing is read or fetched here.

Backbone: OpenAI's CLIP ViT-L/14 at 336 px, as open_clip's table of pretrained weights names it. Prompts: checkpoints
in the repository of AnomalyCLIP's authors, whose folder names mislead: ``9_12_4_multiscale`` was trained on VisA and
``9_12_4_multiscale_visa`` on MVTec AD.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anomalyclip_monai.weights import bundle

_AUTHORS = "https://raw.githubusercontent.com/zqhang/AnomalyCLIP"
_AUTHORS_COMMIT = "45ed4dd35c05797d854294b5e8d585c545920089"
_HUB_REPOSITORY = "timm/vit_large_patch14_clip_336.openai"
_HUB_REVISION = "81e38efc4637de5023b10e75a7f9bd1c6fa6b010"
_OPENAI_SHA256 = "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"


@dataclass(frozen=True)
class PublishedFile:
    """A file that others publish. Exactly one of the two digests is known.

    Attributes:
        title: what it is, in words.
        name: its path below a mirror, or below a folder into which a user put it.
        address: where its publisher serves it.
        size: bytes.
        sha256: of the content.
        blob_id: git's id of the content, which a repository's listing shows.
    """

    title: str
    name: str
    address: str
    size: int
    sha256: str | None = None
    blob_id: str | None = None


@dataclass(frozen=True)
class PublishedPrompts(PublishedFile):
    """A checkpoint of learned prompts.

    Attributes:
        trained_on: the data set whose test images it was trained on.
        commit: of the authors' repository.
    """

    trained_on: str = ""
    commit: str = ""


@dataclass(frozen=True)
class PublishedModel:
    """What makes up a published model.

    Attributes:
        name: of the model, and of its folder among the weights.
        architecture: open_clip's name with the right activation, or a description as in open_clip's model files.
        hub_repository: on the Hugging Face hub, whose cache on disk is searched.
        backbone: files that hold the same weights, the preferred one first.
        prompts: by short name.
        prompt_shapes: of the learned prompts, by key of ``AnomalyCLIP.state_dict()``.
    """

    name: str
    architecture: str | Mapping[str, Any]
    hub_repository: str
    backbone: tuple[PublishedFile, ...]
    prompts: Mapping[str, PublishedPrompts]
    prompt_shapes: Mapping[str, tuple[int, ...]] = field(repr=False)


def _authors_prompts(folder: str, trained_on: str, blob_id: str) -> PublishedPrompts:
    return PublishedPrompts(
        title=f"the authors' prompts trained on {trained_on}",
        name=f"{folder}/epoch_15.pth",
        address=f"{_AUTHORS}/{_AUTHORS_COMMIT}/checkpoints/{folder}/epoch_15.pth",
        size=22_631_975,
        blob_id=blob_id,
        trained_on=trained_on,
        commit=_AUTHORS_COMMIT,
    )


VITL14_336 = PublishedModel(
    name="vitl14_336",
    architecture="ViT-L-14-336-quickgelu",
    hub_repository=_HUB_REPOSITORY,
    backbone=(
        PublishedFile(
            title="OpenAI's CLIP ViT-L/14 at 336 px, float32",
            name="open_clip_model.safetensors",
            address=f"https://huggingface.co/{_HUB_REPOSITORY}/resolve/{_HUB_REVISION}/open_clip_model.safetensors",
            size=1_711_828_444,
            sha256="fbc415c3d0d7b79faed8f5ccfb740c32b7c4f5ffe7283b851f89c6231c01a8e0",
        ),
        PublishedFile(
            title="the same as OpenAI's own archive, mostly float16",
            name="ViT-L-14-336px.pt",
            # The hash is part of the address.
            address=f"https://openaipublic.azureedge.net/clip/models/{_OPENAI_SHA256}/ViT-L-14-336px.pt",
            size=934_088_680,
            sha256=_OPENAI_SHA256,
        ),
    ),
    prompts={
        "visa": _authors_prompts("9_12_4_multiscale", "VisA", "c90f1d9d92d158b436a8fc193f984d4cec8b1fc8"),
        "mvtec": _authors_prompts("9_12_4_multiscale_visa", "MVTec AD", "72adc786e031b49ea288ba5f815f0d38cf158708"),
    },
    prompt_shapes={"ctx": (2, 12, 768), **{f"deep.{i}": (4, 768) for i in range(8)}},
)
"""AnomalyCLIP as published."""

MODELS: Mapping[str, PublishedModel] = {VITL14_336.name: VITL14_336}
"""All of them by name."""

DEFAULT_PROMPTS = bundle.DEFAULT_PROMPTS
"""Re-runs by others found them stronger on most medical sets; the paper's medical table used ``mvtec``."""


def paper_prompts(dataset: str) -> str:
    """Short name of the prompts with which the paper measured a data set: never those that were trained on it."""
    return "visa" if dataset == "mvtec" else "mvtec"
