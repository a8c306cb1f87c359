from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from anomalyclip_monai.networks.similarity import (
    gaussian_kernel,
    gaussian_smooth,
    patches_to_map,
    smooth_last_axis,
    state_probabilities,
    top_fraction_mean,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
"""Features of the normal and of the abnormal prompt, at right angles."""


def test_probabilities_by_hand() -> None:
    # cosines of (3, 4) with the axes: .6 and .8; softmax of (.6, .8) / .1 is the logistic of 2
    probabilities = state_probabilities(torch.tensor([3.0, 4.0]), TEXT, temperature=0.1)
    assert probabilities[1].item() == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
    assert probabilities.sum().item() == pytest.approx(1)


def test_length_of_features_does_not_matter_and_half_precision_is_widened() -> None:
    features = torch.tensor([[[30.0, 40.0], [1.0, 1.0]]], dtype=torch.float16)
    probabilities = state_probabilities(features, TEXT.half(), temperature=0.1)
    assert probabilities.shape == (1, 2, 2)
    assert probabilities.dtype == torch.float32
    np.testing.assert_allclose(probabilities[0, :, 1], [1 / (1 + math.exp(-2)), 0.5], atol=1e-6)


def test_map_keeps_rows_and_columns_apart() -> None:
    # 1 x 2 patches, 0 and 1, on 3 x 4 pixels: columns at 0, .25, .75, 1 between the patch centres
    anomaly_map = patches_to_map(torch.tensor([[[0.0], [1.0]]]), (1, 2), (3, 4))
    expected = np.tile([0, 0.25, 0.75, 1], (3, 1))
    np.testing.assert_allclose(anomaly_map[0, 0], expected, atol=1e-6)


def test_top_fraction_by_hand() -> None:
    maps = torch.arange(100.0).reshape(1, 1, 20, 5)
    assert top_fraction_mean(maps).tolist() == [98.5]  # the two highest of a hundred
    assert top_fraction_mean(maps[..., :2, :2]).tolist() == [6.0]  # one value at least
    assert top_fraction_mean(torch.stack([maps[0], -maps[0]]), 0.5).tolist() == [74.5, -24.5]


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 4.0, 9.0])
@pytest.mark.parametrize("shape", [(23, 41), (3, 1), (1, 1), (7, 4)])
def test_smoothing_is_scipys_even_where_the_kernel_is_longer_than_the_image(
    sigma: float, shape: tuple[int, int]
) -> None:
    maps = torch.tensor(np.random.default_rng(0).random((2, 3, *shape)), dtype=torch.float64)
    expected = gaussian_filter(maps.numpy(), sigma, axes=(-2, -1), mode="reflect", truncate=4)
    np.testing.assert_allclose(gaussian_smooth(maps, sigma), expected, atol=1e-12)


def test_no_smoothing_returns_the_map_itself() -> None:
    maps = torch.rand(1, 1, 3, 4)
    assert gaussian_smooth(maps, 0) is maps


def test_kernel_by_hand() -> None:
    side = math.exp(-0.5)  # of sigma 1 at distance 1
    kernel = gaussian_kernel(1.0)
    assert len(kernel) == 9  # radius 4
    assert kernel.sum().item() == pytest.approx(1)
    assert (kernel[3] / kernel[4]).item() == pytest.approx(side)


def test_last_axis_only_and_any_number_of_axes() -> None:
    volume = np.random.default_rng(1).random((1, 4, 5, 6)).astype(np.float32)
    smoothed = smooth_last_axis(torch.from_numpy(volume), 1.7)
    np.testing.assert_allclose(smoothed, gaussian_filter1d(volume, 1.7), atol=1e-6)
