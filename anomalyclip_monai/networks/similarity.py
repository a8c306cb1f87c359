"""From features to probabilities and anomaly maps (AnomalyCLIP, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def state_logits(features: Tensor, text_features: Tensor, temperature: float = 0.07) -> Tensor:
    """(..., D) and (2, D) -> (..., 2): cosines of the two states over the temperature, in float32."""
    return F.normalize(features.float(), dim=-1) @ text_features.float().T / temperature


def state_probabilities(features: Tensor, text_features: Tensor, temperature: float = 0.07) -> Tensor:
    """(..., D) and (2, D) -> (..., 2): softmax of :func:`state_logits` over the two states."""
    return state_logits(features, text_features, temperature).softmax(dim=-1)


def patches_to_map(probabilities: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """(B, N, C) of a rows x columns grid -> (B, C, *size), bilinear between patch centres."""
    batch, _, channels = probabilities.shape
    return resize_map(probabilities.mT.reshape(batch, channels, *grid), size)


def resize_map(maps: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), bilinear."""
    rows, columns = size
    return F.interpolate(maps, (int(rows), int(columns)), mode="bilinear", align_corners=False)


def gaussian_smooth(maps: Tensor, sigma: float) -> Tensor:
    """(B, C, H, W) -> the same, equal to ``scipy.ndimage.gaussian_filter(mode="reflect", truncate=4)``.

    Args:
        maps: floating point maps.
        sigma: standard deviation in pixels; 0 returns the maps as they are.
    """
    if sigma <= 0:
        return maps
    return smooth_last_axis(smooth_last_axis(maps, sigma).mT, sigma).mT


def gaussian_kernel(sigma: float) -> Tensor:
    """-> (2 * radius + 1,) weights that sum to 1, radius = 4 sigma rounded."""
    radius = int(4.0 * sigma + 0.5)
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (x / sigma) ** 2)
    return weights / weights.sum()


def smooth_last_axis(maps: Tensor, sigma: float) -> Tensor:
    """Smooth along the last axis with a :func:`gaussian_kernel`."""
    return convolve_last_axis(maps, gaussian_kernel(sigma))


def convolve_last_axis(maps: Tensor, kernel: Tensor) -> Tensor:
    """Convolve along the last axis, mirrored at the borders with the border pixel repeated (``d c b a | a b``).

    Args:
        maps: (..., W).
        kernel: (2 * radius + 1,), symmetric.
    """
    kernel = kernel.to(maps)
    radius, count = len(kernel) // 2, maps.shape[-1]
    index = torch.arange(-radius, count + radius, device=maps.device) % (2 * count)
    index = torch.where(index < count, index, 2 * count - 1 - index)
    rows = maps[..., index].reshape(-1, 1, count + 2 * radius)
    return F.conv1d(rows, kernel.view(1, 1, -1)).reshape(maps.shape)


def top_fraction_mean(maps: Tensor, fraction: float = 0.02) -> Tensor:
    """(B, ...) -> (B,) mean of the highest ``fraction`` of each map, of one value at least."""
    values = maps.flatten(1)
    count = max(1, round(fraction * int(values.shape[1])))
    return values.topk(count, dim=1).values.mean(dim=1)
