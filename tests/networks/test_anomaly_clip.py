from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from monai.inferers import SliceInferer
from torch import nn

from anomalyclip_monai.exceptions import AnomalyCLIPError, WeightsError
from anomalyclip_monai.networks import AnomalyCLIP, anomaly_clip
from anomalyclip_monai.networks.similarity import top_fraction_mean

pytestmark = pytest.mark.usefixtures("one_thread")

OPTIONS: dict[str, Any] = {
    "image_size": 56,
    "feature_layers": [4],
    "dpam_layer": 3,
    "n_ctx": 4,
    "depth": 3,
    "t_n_ctx": 2,
}


@pytest.fixture
def images() -> torch.Tensor:
    """Two grey images of 37 rows and 61 columns."""
    return torch.rand(2, 1, 37, 61, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def text_encoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mock]:
    """Counts how often prompts go through the text tower."""
    counter = Mock(side_effect=anomaly_clip.encode_prompts)
    monkeypatch.setattr(anomaly_clip, "encode_prompts", counter)
    return counter


# --- what goes in and comes out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(37, 61), (61, 37), (84, 84), (200, 3), (1, 1)])
@torch.no_grad()
def test_probabilities_at_the_size_of_the_image(
    tiny_network: AnomalyCLIP, channels: int, size: tuple[int, int]
) -> None:
    images = torch.rand(2, channels, *size)
    pred = tiny_network(images)
    assert pred.shape == (2, 2, *size)
    assert pred.dtype == torch.float32
    assert (pred >= 0).all()
    assert (pred <= 1).all()
    torch.testing.assert_close(pred.sum(dim=1), torch.ones(2, *size))
    score, anomaly_map = tiny_network.score_and_map(images)
    assert score.shape == (2,)
    torch.testing.assert_close(anomaly_map, pred[:, 1:])


@torch.no_grad()
def test_grey_is_three_equal_channels_and_batches_do_not_mix(tiny_network: AnomalyCLIP, images: torch.Tensor) -> None:
    pred = tiny_network(images)
    torch.testing.assert_close(tiny_network(images.expand(-1, 3, -1, -1)), pred)
    torch.testing.assert_close(tiny_network(images[1:]), pred[1:], atol=1e-5, rtol=0)


def test_two_channels_are_refused(tiny_network: AnomalyCLIP) -> None:
    with pytest.raises(ValueError, match=r"2 channels, grey \(1\) or colour \(3\) is needed"):
        tiny_network(torch.zeros(1, 2, 5, 5))


def test_preprocessing_by_hand(tiny_clip: nn.Module) -> None:
    network = AnomalyCLIP(tiny_clip, **{**OPTIONS, "image_size": (28, 42)}, mean=[0.5, 0.25, 0], std=[0.5, 0.25, 1])
    prepared = network.preprocess(torch.full((1, 1, 9, 5), 0.75))
    assert prepared.shape == (1, 3, 28, 42)
    torch.testing.assert_close(prepared.amax(dim=(2, 3))[0], torch.tensor([0.5, 2.0, 0.75]))
    # a bicubic edge overshoots; the network sees [0, 1] only
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., 4:] = 1
    prepared = network.preprocess(edge)[0, 2]
    assert (prepared.min(), prepared.max()) == (0, 1)
    # stripes finer than the network's pixels become grey, not coarser stripes
    stripes = torch.zeros(1, 1, 112, 168)
    stripes[..., ::2] = 1
    assert (network.preprocess(stripes)[0, 2, 2:-2, 2:-2] - 0.5).abs().max() < 0.02


@torch.no_grad()
def test_map_is_the_mean_over_feature_layers(tiny_clip: nn.Module, images: torch.Tensor) -> None:
    maps = {}
    for layers in ([1], [4], [4, 1, 1]):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            network = AnomalyCLIP(tiny_clip, **{**OPTIONS, "feature_layers": layers})
        maps[len(layers), layers[0]] = network(images)
    torch.testing.assert_close(maps[3, 4], (maps[1, 1] + maps[1, 4]) / 2, atol=1e-6, rtol=0)
    assert (maps[1, 1] - maps[1, 4]).abs().max() > 1e-3


@torch.no_grad()
def test_score_kinds(tiny_network: AnomalyCLIP, images: torch.Tensor) -> None:
    features = tiny_network.encode_image(tiny_network.preprocess(images))
    by_class = tiny_network.image_probabilities(features)[:, 1]
    torch.testing.assert_close(tiny_network.score_and_map(images)[0], by_class)
    tiny_network.settings = replace(tiny_network.settings, image_score="map_top2")
    # of the smoothed map at model size, not of the one that was resized to the image
    by_map = top_fraction_mean(tiny_network.anomaly_map(features))
    torch.testing.assert_close(tiny_network.score_and_map(images)[0], by_map)
    assert (by_class - by_map).abs().max() > 1e-4


@pytest.mark.parametrize("kind", ["class_token", "map_top2"])
def test_mirrored_images_have_mirrored_maps_and_equal_scores(tiny_network: AnomalyCLIP, kind: str) -> None:
    tiny_network.settings = replace(tiny_network.settings, image_score=kind)
    images = torch.rand(2, 3, 60, 70, generator=torch.Generator().manual_seed(3))
    score, anomaly_map = tiny_network.score_and_map(images, mirror=True)
    other_score, other_map = tiny_network.score_and_map(images.flip(-1), mirror=True)
    torch.testing.assert_close(other_map.flip(-1), anomaly_map)
    torch.testing.assert_close(other_score, score)
    plain = [tiny_network.score_and_map(view)[1] for view in (images, images.flip(-1))]
    torch.testing.assert_close(anomaly_map, (plain[0] + plain[1].flip(-1)) / 2)
    assert not torch.allclose(anomaly_map, plain[0])


def test_stock_slice_inferer_works(tiny_network: AnomalyCLIP) -> None:
    volume = torch.rand(1, 1, 20, 17, 3)
    inferer = SliceInferer(roi_size=(-1, -1), spatial_dim=2, progress=False)
    with torch.no_grad():
        pred = inferer(volume, tiny_network)
        expected = torch.stack([tiny_network(volume[..., k]) for k in range(3)], dim=-1)
    assert pred.shape == (1, 2, 20, 17, 3)
    torch.testing.assert_close(pred, expected, atol=1e-5, rtol=0)


# --- learned prompts are the state


def test_state_is_the_prompts(tiny_network: AnomalyCLIP) -> None:
    shapes = {key: tuple(value.shape) for key, value in tiny_network.state_dict().items()}
    assert shapes == {"ctx": (2, 4, 32), "deep.0": (2, 32), "deep.1": (2, 32)}


def test_state_inside_another_module(tiny_network: AnomalyCLIP) -> None:
    around = nn.ModuleDict({"network": tiny_network})
    assert list(around.state_dict()) == ["network.ctx", "network.deep.0", "network.deep.1"]


def test_state_goes_round(tiny_network: AnomalyCLIP, tiny_clip: nn.Module, images: torch.Tensor) -> None:
    other = AnomalyCLIP(tiny_clip, **{**OPTIONS, "image_size": 84, "feature_layers": (3, 4)}, sigma=2.0)
    with torch.no_grad():
        assert not torch.equal(other(images), tiny_network(images))
        other.load_state_dict(tiny_network.state_dict())
        assert torch.equal(other(images), tiny_network(images))


@pytest.mark.parametrize("strict", [True, False])
def test_wrong_prompts_are_refused_strict_or_not(tiny_network: AnomalyCLIP, strict: bool) -> None:
    good = {key: torch.zeros_like(value) for key, value in tiny_network.state_dict().items()}
    bad = {
        r"deep\.1 is missing": {key: value for key, value in good.items() if key != "deep.1"},
        r"deep\.2 is unknown": {**good, "deep.2": torch.zeros(2, 32)},
        r"ctx is \(2, 12, 32\), not \(2, 4, 32\)": {**good, "ctx": torch.zeros(2, 12, 32)},
        r"ctx is missing, .* and 2 more": {f"module.{key}": value for key, value in good.items()},
        "ctx is missing": {},
    }
    before = tiny_network.ctx.clone()
    for message, state in bad.items():
        with pytest.raises(WeightsError, match=f"^E_PROMPTS: .*{message}"):
            tiny_network.load_state_dict(state, strict=strict)
    assert torch.equal(tiny_network.ctx, before)
    tiny_network.load_state_dict(good, strict=strict)
    assert tiny_network.ctx.abs().max() == 0


def test_wrong_prompts_are_also_what_torch_raises(tiny_network: AnomalyCLIP) -> None:
    with pytest.raises(RuntimeError):
        tiny_network.load_state_dict({})
    with pytest.raises(AnomalyCLIPError):
        tiny_network.load_state_dict({})


# --- the backbone is frozen


def test_only_prompts_learn(tiny_network: AnomalyCLIP, images: torch.Tensor) -> None:
    learn = [name for name, parameter in tiny_network.named_parameters() if parameter.requires_grad]
    assert learn == ["ctx", "deep.0", "deep.1"]
    tiny_network(images)[:, 1].sum().backward()
    for name, parameter in tiny_network.named_parameters():
        assert (parameter.grad is not None) == (name in learn)
    assert all(tiny_network.get_parameter(name).grad.abs().max() > 0 for name in learn)


def test_train_keeps_clip_in_evaluation_mode(tiny_network: AnomalyCLIP) -> None:
    assert tiny_network.train() is tiny_network
    assert tiny_network.training
    assert not any(module.training for module in tiny_network.clip.modules())
    assert not tiny_network.eval().training


# --- text features are computed once


def _features(network: AnomalyCLIP) -> torch.Tensor:
    with torch.no_grad():
        return network.text_features().clone()


def test_encoder_runs_once_over_several_forwards(
    tiny_network: AnomalyCLIP, images: torch.Tensor, text_encoder: Mock
) -> None:
    with torch.no_grad():
        tiny_network(images)
        tiny_network.score_and_map(images)
    with torch.inference_mode():
        tiny_network(images)
    assert text_encoder.call_count == 0  # the fixture had computed them


def test_features_made_in_inference_mode_serve_in_autograd(tiny_network: AnomalyCLIP, images: torch.Tensor) -> None:
    with torch.inference_mode():
        tiny_network.ctx.mul_(2)
        tiny_network(images)
    tiny_network.requires_grad_(False)
    images.requires_grad_()
    tiny_network(images).sum().backward()
    assert images.grad is not None


def test_features_survive_copies_and_files(
    tiny_network: AnomalyCLIP, images: torch.Tensor, text_encoder: Mock, tmp_path: Path
) -> None:
    torch.save(tiny_network, tmp_path / "network.pt")
    copies = [
        copy.deepcopy(tiny_network),
        pickle.loads(pickle.dumps(tiny_network)),
        torch.load(tmp_path / "network.pt", weights_only=False),
    ]
    with torch.no_grad():
        expected = tiny_network(images)
        for network in copies:
            assert torch.equal(network(images), expected)
    assert text_encoder.call_count == 0
    with torch.no_grad():
        copies[0].ctx.add_(1)  # and the original does not notice
        assert torch.equal(tiny_network(images), expected)
    assert text_encoder.call_count == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.float16, 2e-2), (torch.bfloat16, 0.2)])
def test_features_survive_a_change_of_precision(
    tiny_network: AnomalyCLIP, images: torch.Tensor, text_encoder: Mock, dtype: torch.dtype, tolerance: float
) -> None:
    with torch.no_grad():
        expected = tiny_network(images)
        found = tiny_network.to(dtype)(images)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= tolerance
    assert text_encoder.call_count == 0


def test_features_follow_a_change_in_place(tiny_network: AnomalyCLIP, text_encoder: Mock) -> None:
    before = _features(tiny_network)
    with torch.no_grad():
        tiny_network.deep[1][0, 0] += 1
    after = _features(tiny_network)
    assert not torch.equal(before, after)
    _features(tiny_network)
    assert text_encoder.call_count == 1


def test_features_follow_an_optimiser_step_and_loading(tiny_network: AnomalyCLIP, images: torch.Tensor) -> None:
    before, state = _features(tiny_network), copy.deepcopy(tiny_network.state_dict())
    optimiser = torch.optim.Adam([p for p in tiny_network.parameters() if p.requires_grad], lr=0.1)
    tiny_network(images)[:, 1].mean().backward()
    optimiser.step()
    assert not torch.equal(_features(tiny_network), before)
    tiny_network.load_state_dict(state)
    assert torch.equal(_features(tiny_network), before)


def test_cached_and_learning_features_are_the_same(tiny_network: AnomalyCLIP) -> None:
    learning = tiny_network.text_features()
    assert learning.requires_grad
    torch.testing.assert_close(learning.detach(), _features(tiny_network))


def test_autocast_does_not_spoil_the_cache(tiny_network: AnomalyCLIP) -> None:
    before = _features(tiny_network)
    with torch.no_grad():
        tiny_network.ctx.mul_(1.5)
        tiny_network.text_features()
        tiny_network.ctx.div_(1.5)
        with torch.autocast("cpu", torch.bfloat16):
            found = tiny_network.text_features()
    torch.testing.assert_close(found, before, atol=1e-6, rtol=0)


# --- options


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"dpam_layer": 6}, r"dpam_layer \(6\) must be from 1 to 5"),
        ({"dpam_layer": 0}, r"dpam_layer \(0\) must be at least 1"),
        ({"depth": 4}, r"depth \(4\) must be from 1 to 3"),
        ({"n_ctx": 0}, r"n_ctx \(0\) must be at least 1"),
        ({"n_ctx": 73}, r"n_ctx \(73\) must be from 1 to 72"),
        ({"t_n_ctx": 7}, r"t_n_ctx \(7\) must be from 1 to 6"),
        ({"feature_layers": [2, 5]}, r"feature_layers \(5\) must be from 1 to 4"),
        ({"feature_layers": [0]}, r"feature_layers \(0\) must be at least 1"),
        ({"feature_layers": []}, "feature_layers is empty"),
        ({"local_attention": "q-k"}, r"local_attention \('q-k'\) must be one of v-v, q-q, k-k, none"),
        ({"image_score": "max"}, r"image_score \('max'\) must be one of class_token, map_top2"),
        ({"object_name": "word " * 80}, "positions"),
        ({"image_size": [56, 56, 56]}, r"image_size \(\(56, 56, 56\)\) must be one side, or rows and columns"),
        ({"image_size": 0}, r"image_size \(0\) must be at least 1"),
        ({"temperature": 0}, r"temperature \(0\) must be above 0"),
        ({"sigma": -1}, r"sigma \(-1\) must be at least 0"),
        ({"std": [1, 1]}, "must have three channels"),
        ({"std": [1, 0, 1]}, "std above 0"),
    ],
)
def test_options_out_of_range(tiny_clip: nn.Module, option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnomalyCLIP(tiny_clip, **{**OPTIONS, **option})


@pytest.mark.parametrize(
    "option",
    [
        {"local_attention": "none"},
        {"local_attention": "q-q"},
        {"object_name": "brain"},
        {"n_ctx": 72},
        {"depth": 1},
        {"t_n_ctx": 4},
        {"fp16_prompts": True},
        {"dpam_layer": 5},
        {"dpam_layer": 1},
    ],
)
@torch.no_grad()
def test_every_option_runs(tiny_clip: nn.Module, option: dict[str, Any]) -> None:
    network = AnomalyCLIP(tiny_clip, **{**OPTIONS, **option})
    assert network(torch.rand(1, 1, 5, 9)).isfinite().all()
