"""Results of made-up cases, as the bundle's post-processing leaves them: lesions where a test wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from anomalyclip_monai.data import Source
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.transforms import FindLesionsd

MODEL = {"bundle": "anomalyclip_tiny", "weights_sha256": "ab" * 32, "prompts_sha256": "cd" * 32}

PHOTO = Source("photo", has_physical_size=False)


def blob(shape: Sequence[int], centre: Sequence[float], peak: float, sigma: float) -> np.ndarray:
    """(X, Y, Z) float32: a Gaussian in voxels."""
    squares = (((np.arange(size) - at) / sigma) ** 2 for size, at in zip(shape, centre, strict=True))
    x, y, z = np.meshgrid(*squares, indexing="ij")
    return (peak * np.exp(-(x + y + z) / 2)).astype(np.float32)


def made_result(
    heatmap: np.ndarray,
    affine: np.ndarray,
    *,
    case: str = "sub/case 1",
    image: np.ndarray | None = None,
    source: Source | None = None,
    axis: int = 2,
    min_volume: float = 0,
    roi: np.ndarray | None = None,
    **preset: Any,
) -> Result:
    """A result with this heatmap (X, Y, Z), lesions at .55 with outlines from .35, and the heatmap as image."""
    data = heatmap[np.newaxis] if image is None else image
    scores = torch.from_numpy(np.moveaxis(heatmap, axis, 0).max(axis=(1, 2)))
    meta = {"axes": torch.tensor([[axis, -1, -1]]), "slice_scores": scores[None], "batch_halvings": torch.tensor([0])}
    place = torch.from_numpy(affine)
    known = {"name": "mr_brain", "scaling": "percentile", "chosen": "asked for", "evidence": "seen on 13 volumes"}
    record = {
        "case": case,
        "image": MetaTensor(torch.from_numpy(data.astype(np.float32)), affine=place),
        "pred": MetaTensor(torch.from_numpy(heatmap)[None], affine=place, meta=meta),
        "source": source or Source("nifti"),
        "preset": {**known, **preset},
        "notes": [],
        "started": 0.0,
    }
    if roi is not None:
        record["roi"] = torch.from_numpy(roi)[None]
    step = FindLesionsd(threshold=0.55, threshold_low=0.35, min_volume=min_volume)
    return Result.from_record(step(record), model=MODEL, device="cpu")
