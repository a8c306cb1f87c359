"""An ensemble says the mean of what its networks say."""

import copy
import io

import pytest
import torch

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.networks import AnomalyCLIP, AnomalyCLIPEnsemble, HandWrittenCLIP

OPTIONS = {"feature_layers": (3, 4), "dpam_layer": 3, "n_ctx": 4, "depth": 3, "t_n_ctx": 2, "sigma": 2.0}


@pytest.fixture
def first(tiny_clip):
    return AnomalyCLIP(copy.deepcopy(tiny_clip), image_size=56, **OPTIONS)


@pytest.fixture
def second(tiny_clip):
    """Another image side on squares of another size."""
    clip = copy.deepcopy(tiny_clip)
    torch.manual_seed(2)
    with torch.no_grad():
        for value in clip.visual.parameters():
            value += 0.05 * torch.randn_like(value)
    return AnomalyCLIP(clip, image_size=84, image_score="map_top2", **OPTIONS)


@pytest.fixture
def ensemble(first, second):
    torch.manual_seed(3)
    network = AnomalyCLIPEnsemble([first, second])
    network.load_state_dict(network.state_dict())
    return network.eval()


@pytest.fixture
def images():
    torch.manual_seed(4)
    return torch.rand(2, 1, 40, 48)


@pytest.mark.parametrize("mirror", [False, True])
def test_maps_and_scores_are_means(ensemble, first, second, images, mirror):
    with torch.no_grad():
        score, anomaly_map = ensemble.score_and_map(images, mirror=mirror)
        one, other = (network.score_and_map(images, mirror=mirror) for network in (first, second))
    assert anomaly_map.shape == (2, 1, 40, 48)
    torch.testing.assert_close(anomaly_map, (one[1] + other[1]) / 2)
    torch.testing.assert_close(score, (one[0] + other[0]) / 2)
    assert not torch.allclose(one[1], other[1], atol=1e-3)


def test_probabilities_are_means_and_add_up(ensemble, first, second, images):
    with torch.no_grad():
        found = ensemble(images)
        torch.testing.assert_close(found, (first(images) + second(images)) / 2)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(2, 40, 48))


def test_prompts_are_those_of_all(ensemble, second):
    state = ensemble.state_dict()
    assert set(state) == {"ctx", "deep.0", "deep.1"}
    other = {key: value + 1 for key, value in state.items()}
    ensemble.load_state_dict(other)
    for key, value in second.state_dict().items():
        assert torch.equal(value, other[key])
    before = ensemble.text_features()
    with pytest.raises(WeightsError, match="not the learned prompts"):
        ensemble.load_state_dict({"ctx": state["ctx"]}, strict=False)
    assert torch.equal(ensemble.text_features(), before)


def test_alone_it_is_its_first_network(first, images):
    alone = AnomalyCLIPEnsemble([first]).eval()
    with torch.no_grad():
        assert torch.equal(alone(images), first(images))
        assert all(map(torch.equal, alone.score_and_map(images), first.score_and_map(images)))


def test_what_only_one_can_give_is_of_the_first(ensemble, first):
    assert ensemble.first is first
    assert ensemble.settings is first.settings
    assert ensemble.clip is first.clip
    with torch.no_grad():
        assert ensemble.text_features() is first.text_features()
    with pytest.raises(ValueError, match="an ensemble of no networks"):
        AnomalyCLIPEnsemble([])


def test_hand_written_sentences_stand_beside_the_first(ensemble, first, images):
    beside, alone = (HandWrittenCLIP(network, method="fixed_pair") for network in (ensemble, first))
    assert beside.settings == first.settings
    with torch.no_grad():
        assert torch.equal(beside(images), alone(images))


def test_modes_and_copies_reach_all(ensemble, second, images):
    assert all(network.clip in list(ensemble.modules()) for network in (ensemble, second))
    assert not any(parameter.requires_grad for parameter in second.clip.parameters())
    ensemble.train()
    assert not second.clip.training
    ensemble.eval()
    file = io.BytesIO()
    torch.save(copy.deepcopy(ensemble), file)
    file.seek(0)
    with torch.no_grad():
        assert torch.equal(torch.load(file, weights_only=False)(images), ensemble(images))


def test_maps_are_summed_in_place_only_where_nothing_is_learned(ensemble, images):
    with torch.no_grad():
        expected = ensemble.score_and_map(images)
    found = ensemble.score_and_map(images)
    assert found[1].requires_grad
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.detach(), other)


@pytest.mark.parametrize("shape", [(1, 3, 70, 90), (3, 1, 40, 30)])
def test_mirrored_channel_by_channel(first, shape):
    images = torch.rand(shape).mT  # as slices of a volume come, not contiguous
    assert torch.equal(first.preprocess(images, mirror=True), first.preprocess(images.flip(-1)))
