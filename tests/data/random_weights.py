"""Weights of full size without a download: random numbers under the names and in the sizes of a published CLIP."""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torch

from anomalyclip_monai.networks.checkpoints import empty_clip, floating_type, named_config


def write_backbone(path: Path, name: str, precision: str = "fp32") -> Path:
    """All weights of open_clip's model ``name``: norms 1, everything else small, from one block of numbers repeated."""
    dtype = floating_type(precision)
    numbers = 0.02 * torch.randn(2**20, generator=torch.Generator().manual_seed(0)).to(dtype)
    state = {}
    for key, value in empty_clip(named_config(name)).state_dict().items():
        if value.ndim == 1 and key.endswith("weight"):
            state[key] = torch.ones(value.shape, dtype=dtype)
        else:
            repeats = -(-value.numel() // len(numbers))
            state[key] = numbers.repeat(repeats)[: value.numel()].reshape(value.shape).clone()
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(state, path)
    return path


def write_prompts(path: Path, width: int = 768, depth: int = 9) -> Path:
    """Prompts in the published lengths: 12 tokens of context, deep prompts of 4."""
    generator = torch.Generator().manual_seed(1)

    def random(*shape: int) -> torch.Tensor:
        return 0.02 * torch.randn(shape, generator=generator)

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"ctx": random(2, 12, width), **{f"deep.{i}": random(4, width) for i in range(depth - 1)}}, path)
    return path


if __name__ == "__main__":
    write_backbone(Path(sys.argv[1]), *sys.argv[2:])
