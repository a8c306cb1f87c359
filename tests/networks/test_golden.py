"""The published code and this package compute the same numbers from the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_network import Golden, rebuild
from scipy.ndimage import gaussian_filter

from anomalyclip_monai.networks.dual_path import ImageFeatures

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def case(golden: Path) -> Golden:
    case = rebuild(golden)
    with torch.no_grad():
        case.network.text_features()
    return case


@pytest.fixture(scope="module")
def features(case: Golden) -> ImageFeatures:
    with torch.no_grad():
        return case.network.encode_image(case.images)


def test_prompts_are_tokenised_as_published(case: Golden) -> None:
    np.testing.assert_array_equal(case.network.tokens.numpy(), case.expected["tokenized"])


def test_image_and_text_features(case: Golden, features: ImageFeatures) -> None:
    case.assert_equal("image_features", features.image)
    with torch.no_grad():
        case.assert_equal("text_features", case.network.text_features())


def test_patch_features_of_every_layer(case: Golden, features: ImageFeatures) -> None:
    assert list(features.patches) == case.layers
    for layer in case.layers:
        case.assert_equal(f"patch_features_{layer}", features.patches[layer])


@torch.no_grad()
def test_logits_and_score(case: Golden, features: ImageFeatures) -> None:
    image = torch.nn.functional.normalize(features.image, dim=-1)
    case.assert_equal("logits", image @ case.network.text_features().T / 0.07)
    case.assert_equal("score", case.network.image_probabilities(features)[:, 1])


@torch.no_grad()
def test_map_is_the_published_sum_divided_by_the_layers(case: Golden, features: ImageFeatures) -> None:
    mean = case.network.anomaly_map(features, sigma=0)
    case.assert_equal("anomaly_map", mean[:, 0] * len(case.layers))
    smoothed = case.network.anomaly_map(features)  # sigma 4 is the default
    # sums of 33 values twice in fp32, in an order that depends on the processor: 2.3e-6 on one with AMX
    case.assert_equal("anomaly_map_sigma4", smoothed[:, 0] * len(case.layers), tolerance=4e-6)


@torch.no_grad()
def test_own_smoothing_is_scipys(case: Golden, features: ImageFeatures) -> None:
    mean = case.network.anomaly_map(features, sigma=0)[0, 0].numpy()
    smoothed = case.network.anomaly_map(features, sigma=2.5)[0, 0].numpy()
    np.testing.assert_allclose(smoothed, gaussian_filter(mean, 2.5), atol=1e-6)
