"""The network of the golden outputs, rebuilt: its weights are made up from the names of their keys."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from anomalyclip_monai.networks import AnomalyCLIP, clip_from_state_dict, prompts_from_authors

NORMS = ("ln_1.weight", "ln_2.weight", "ln_pre.weight", "ln_post.weight", "ln_final.weight")


@dataclass
class Golden:
    """A network with made-up weights, the images it is shown, and what the published code computes for both."""

    network: AnomalyCLIP
    images: torch.Tensor
    expected: Any
    layers: list[int]

    def assert_equal(self, name: str, found: torch.Tensor, tolerance: float = 2e-6) -> None:
        """By the largest difference over the largest value."""
        expected = self.expected[name]
        assert tuple(found.shape) == expected.shape
        difference = np.abs(found.detach().numpy() - expected).max() / np.abs(expected).max()
        assert difference <= tolerance


def rebuild(folder: Path) -> Golden:
    """The case ``tiny_a`` of a folder of golden outputs."""
    sizes = json.loads((folder / "tiny_a.json").read_text())
    config = {
        "embed_dim": sizes["embed_dim"],
        "quick_gelu": True,
        "vision_cfg": {**sizes["vision"], "head_width": 64},
        "text_cfg": {**sizes["text"], "heads": sizes["text"]["width"] // 64},
    }
    with torch.device("meta"):  # only names and shapes of the weights are needed
        empty = open_clip.model.CLIP(
            config["embed_dim"],
            open_clip.CLIPVisionCfg(**config["vision_cfg"]),
            open_clip.CLIPTextCfg(**config["text_cfg"]),
            quick_gelu=True,
        )
    weights = {key: _weight(key, tuple(value.shape)) for key, value in empty.state_dict().items()}
    width = sizes["text"]["width"]
    prompts = {key: _prompt(key, (1, 1, sizes["n_ctx"], width)) for key in ("ctx_pos", "ctx_neg")}
    for index in range(sizes["depth"] - 1):
        key = f"compound_prompts_text.{index}"
        prompts[key] = _prompt(key, (sizes["t_n_ctx"], width))

    network = AnomalyCLIP(
        clip_from_state_dict(weights, config),
        image_size=sizes["size"],
        feature_layers=sizes["features"],
        dpam_layer=sizes["dpam_layer"],
        n_ctx=sizes["n_ctx"],
        depth=sizes["depth"],
        t_n_ctx=sizes["t_n_ctx"],
        fp16_prompts=True,
    )
    network.load_state_dict(prompts_from_authors({"prompt_learner": prompts}))
    images = _images(sizes["batch"], sizes["size"], seed=0)
    with np.load(folder / "tiny_a_0.npz") as expected:
        return Golden(network, images, dict(expected), sizes["features"])


def _normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


def _weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    x = _normal(key, shape).astype(np.float32)
    if key.endswith(NORMS):
        x = 1 + 0.1 * x
    elif key.endswith("bias"):
        x = 0.02 * x
    elif key in ("positional_embedding", "visual.positional_embedding", "visual.class_embedding"):
        x = 0.1 * x
    elif key == "token_embedding.weight":
        x = 0.05 * x
    elif key == "logit_scale":
        x = np.log(1 / 0.07)
    elif key == "visual.conv1.weight":
        x = x * np.prod(shape[1:]) ** -0.5
    elif key in ("visual.proj", "text_projection"):
        x = x * shape[0] ** -0.5
    else:
        x = x * shape[-1] ** -0.5
    return torch.tensor(np.asarray(x, dtype=np.float32))


def _prompt(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    rounded = (0.05 * _normal(f"prompt.{key}", shape)).astype(np.float16)
    return torch.tensor(rounded.astype(np.float32))


def _images(count: int, size: int, seed: int) -> torch.Tensor:
    base = np.random.RandomState(seed).standard_normal((count, 3, size, size)).astype(np.float32)
    yy, xx = np.mgrid[0:size, 0:size].astype(np.float32) / size
    smooth = [[np.sin(6 * xx + i) + np.cos(5 * yy * (c + 1) + i) for c in range(3)] for i in range(count)]
    return torch.tensor((0.4 * base + np.array(smooth)).astype(np.float32))
