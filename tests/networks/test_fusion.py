"""Maps of several networks become one by a weighted sum of their logits."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from anomalyclip_monai.networks import AnomalyCLIP, AnomalyCLIPEnsemble, Fusion, NetworkSettings
from anomalyclip_monai.networks.centre import own_centre
from anomalyclip_monai.networks.similarity import resize_map, top_fraction_mean

pytestmark = pytest.mark.usefixtures("one_thread")

SETTINGS = NetworkSettings(
    image_size=56,
    feature_layers=(3, 4),
    dpam_layer=3,
    n_ctx=4,
    depth=3,
    t_n_ctx=2,
    sigma=2.0,
    image_score="map_top2",
)


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@pytest.fixture
def networks(tiny_clip: nn.Module) -> list[AnomalyCLIP]:
    """Two with the same prompts, on squares of other sizes and with other weights."""
    other = copy.deepcopy(tiny_clip)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(5)
        for value in other.visual.parameters():
            value += 0.05 * torch.randn_like(value)
        first = AnomalyCLIP(tiny_clip, SETTINGS).eval()
    second = AnomalyCLIP(other, SETTINGS, image_size=(84, 70), mirrors=False).eval()
    second.load_state_dict(first.state_dict())
    return [first, second]


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(4))


def test_logits_by_hand() -> None:
    maps = [torch.tensor([[[[0.5, 0.2]]]]), torch.tensor([[[[0.8, 0.0]]]])]
    found = Fusion(weights=[2, 0.5], bias=-1).fuse(maps, torch.zeros(1, 1, 1, 2))
    # logit(.5) = 0, logit(.2) = -log 4, logit(.8) = log 4, and 0 counts as .0001
    expected = [sigmoid(-1 + 0.5 * math.log(4)), sigmoid(-1 - 2 * math.log(4) - 0.5 * math.log(9999))]
    assert found.flatten().tolist() == pytest.approx(expected)


def test_a_map_alone_stays_what_it_is() -> None:
    own = torch.rand(2, 1, 3, 5)
    torch.testing.assert_close(Fusion([1], 0).fuse([own], torch.zeros(2, 1, 9, 9)), own, atol=1e-4, rtol=0)


def test_the_own_centre_counts_with_its_logarithm_and_one_hundredth_at_least() -> None:
    images = torch.zeros(1, 3, 100, 120)
    images[..., 10:40, 20:60] = 0.7
    even = torch.full((1, 1, 64, 48), 0.5)
    centre = resize_map(own_centre(images), (64, 48))
    found = Fusion([1], bias=0, prior=0.5).fuse([even], images)
    # logit = .5 log(centre): odds are the root of the centre
    odds = centre.clamp(min=0.01).sqrt()
    torch.testing.assert_close(found, odds / (1 + odds))
    assert found[0, 0, 63, 47].item() == pytest.approx(0.1 / 1.1)  # far away


@pytest.mark.parametrize("mirror", [False, True])
@torch.no_grad()
def test_maps_are_fused_at_the_size_of_the_first(
    networks: list[AnomalyCLIP], images: torch.Tensor, mirror: bool
) -> None:
    fusion = Fusion([0.7, 0.4], bias=0.2, prior=0.3)
    ensemble = AnomalyCLIPEnsemble(networks, fusion).eval()
    score, anomaly_map = ensemble.score_and_map(images, mirror=mirror)
    first, second = (network.look(images, mirror=mirror)[1] for network in networks)
    assert (first.shape[-2:], second.shape[-2:]) == ((56, 56), (84, 70))
    fused = fusion.fuse([first, resize_map(second, (56, 56))], images)
    torch.testing.assert_close(score, top_fraction_mean(fused))
    torch.testing.assert_close(anomaly_map, resize_map(fused, (40, 48)))
    if not mirror:
        torch.testing.assert_close(ensemble(images)[:, 1:], anomaly_map)
        torch.testing.assert_close(ensemble(images).sum(dim=1), torch.ones(2, 40, 48))


@torch.no_grad()
def test_images_of_a_batch_are_fused_each_on_its_own(networks: list[AnomalyCLIP], images: torch.Tensor) -> None:
    ensemble = AnomalyCLIPEnsemble(networks, Fusion([0.7, 0.4], bias=0.2, prior=0.3)).eval()
    batch = ensemble.score_and_map(images)
    alone = [ensemble.score_and_map(image[None]) for image in images]
    for index, together in enumerate(batch):
        one_by_one = torch.cat([found[index] for found in alone])
        torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=0)


@torch.no_grad()
def test_class_tokens_know_nothing_of_the_fused_map(networks: list[AnomalyCLIP], images: torch.Tensor) -> None:
    for network in networks:
        network.settings = replace(network.settings, image_score="class_token")
    score, _ = AnomalyCLIPEnsemble(networks, Fusion([1, 1], bias=0)).score_and_map(images)
    scores = [network.score_and_map(images)[0] for network in networks]
    torch.testing.assert_close(score, (scores[0] + scores[1]) / 2)


@torch.no_grad()
def test_a_network_that_never_mirrors_sees_the_image_once(networks: list[AnomalyCLIP], images: torch.Tensor) -> None:
    first, second = networks
    assert not torch.allclose(first.look(images, mirror=True)[1], first.look(images)[1])
    assert torch.equal(second.look(images, mirror=True)[1], second.look(images)[1])


@torch.no_grad()
# torch says of every branch on a size that a trace keeps it, and of TorchScript that it is on its way out.
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_it_can_be_traced(networks: list[AnomalyCLIP], images: torch.Tensor) -> None:
    ensemble = AnomalyCLIPEnsemble(networks, Fusion([0.7, 0.4], bias=0.2, prior=0.3)).eval()
    ensemble.text_features()
    traced = torch.jit.trace(ensemble, images, check_trace=False)
    others = torch.rand(2, 1, 40, 48)
    torch.testing.assert_close(traced(others), ensemble(others), atol=1e-5, rtol=0)


def test_wrong_numbers_are_refused(networks: list[AnomalyCLIP]) -> None:
    for weights, bias in (([], 0.0), ([1.0, math.nan], 0.0), ([1.0], math.inf)):
        with pytest.raises(ValueError, match="a weight for each network, and finite numbers"):
            Fusion(weights, bias)
    with pytest.raises(ValueError, match="3 weights for 2 networks, give one for each"):
        AnomalyCLIPEnsemble(networks, Fusion([1, 1, 1], bias=0))
