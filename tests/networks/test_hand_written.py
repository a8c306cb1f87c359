from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args
from unittest.mock import Mock

import open_clip
import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn
from torch.nn import functional as F

import anomalyclip_monai as ac
from anomalyclip_monai import resources
from anomalyclip_monai.data.photo import read_photo
from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.metrics import auroc
from anomalyclip_monai.networks import AnomalyCLIP, HandWrittenCLIP, hand_written
from anomalyclip_monai.networks.hand_written import BASELINES, Method, encode_sentences
from anomalyclip_monai.networks.prompts import text_tower
from anomalyclip_monai.networks.sentences import (
    ABNORMAL_STATES,
    ENSEMBLE,
    FIXED,
    NORMAL_STATES,
    NOUNS,
    TEMPLATES,
    Sentences,
)

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS: tuple[Method, ...] = get_args(Method)


@pytest.fixture
def images() -> torch.Tensor:
    """Two grey images of 37 rows and 61 columns."""
    return torch.rand(2, 1, 37, 61, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def text_encoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mock]:
    """Counts the batches that go through the text tower."""
    counter = Mock(side_effect=hand_written.encode_prompts)
    monkeypatch.setattr(hand_written, "encode_prompts", counter)
    return counter


@torch.no_grad()
def own_features(clip: Any, *sentences: str) -> torch.Tensor:
    """(N, D) normalised, by open_clip's own tokenizer and text encoder."""
    return F.normalize(clip.encode_text(open_clip.tokenize(list(sentences))), dim=-1)


# --- sentences


def test_the_noun_stands_in_every_sentence() -> None:
    for baseline in BASELINES.values():
        for sentences in (baseline.sentences, baseline.sentences.about("spleen")):
            for sentence in (*sentences.normal, *sentences.abnormal):
                assert sentence.count("{object}") + sentence.count("spleen") == 1
    assert FIXED.about("brain") == (("brain.",), ("damaged brain.",))


def test_the_ensemble_is_every_template_around_every_state() -> None:
    assert len(ENSEMBLE.normal) == len(NORMAL_STATES) * len(TEMPLATES) == 80
    assert len(ENSEMBLE.abnormal) == len(ABNORMAL_STATES) * len(TEMPLATES) == 80
    assert len({*ENSEMBLE.normal, *ENSEMBLE.abnormal}) == 160
    assert "one slice through the lung with a lesion." in ENSEMBLE.about("lung").abnormal


def test_every_preset_has_a_noun() -> None:
    assert sorted(NOUNS) == sorted(resources.presets())


# --- text features


def test_a_pair_is_what_open_clip_encodes(tiny_network: AnomalyCLIP) -> None:
    network = HandWrittenCLIP(tiny_network, method="clip", object_name="brain")
    assert network.sentences == (("a photo of a normal brain.",), ("a photo of an anomalous brain.",))
    expected = own_features(tiny_network.clip, "a photo of a normal brain.", "a photo of an anomalous brain.")
    torch.testing.assert_close(network.text_features(), expected, atol=1e-6, rtol=0)
    fixed = HandWrittenCLIP(tiny_network, method="fixed_pair")
    expected = own_features(tiny_network.clip, "object.", "damaged object.")
    torch.testing.assert_close(fixed.text_features(), expected, atol=1e-6, rtol=0)


def test_an_ensemble_is_the_normalised_mean_of_normalised_features(
    tiny_clip: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = {"a": [1.0, 0.0], "b": [0.6, 0.8], "c": [0.0, -1.0]}

    def encode(tower: Any, tokens: torch.Tensor, *_: Any) -> torch.Tensor:
        return torch.tensor([by_hand[open_clip.tokenizer.decode(row[1:2]).strip()] for row in tokens])

    monkeypatch.setattr(hand_written, "encode_prompts", encode)
    found = encode_sentences(text_tower(tiny_clip), Sentences(("a", "b"), ("c",)))
    # (1, 0) + (0.6, 0.8) = (1.6, 0.8), of length 0.8 * sqrt(5)
    torch.testing.assert_close(found, torch.tensor([[2 / 5**0.5, 1 / 5**0.5], [0.0, -1.0]]))


@torch.no_grad()
def test_an_ensemble_of_two_real_features(tiny_clip: nn.Module) -> None:
    first, second, other = own_features(tiny_clip, "a lung.", "one slice through the lung of a man.", "a lesion.")
    sentences = Sentences(("a lung.", "one slice through the lung of a man."), ("a lesion.",))
    found = encode_sentences(text_tower(tiny_clip), sentences)
    # both have length 1, so their sum halves the angle between them
    torch.testing.assert_close(found[0], (first + second) / (first + second).norm(), atol=1e-6, rtol=0)
    assert float(found[0] @ first) == pytest.approx(float(found[0] @ second), abs=1e-6)
    torch.testing.assert_close(found[1], other, atol=1e-6, rtol=0)


@torch.no_grad()
def test_order_of_the_sentences_does_not_matter(tiny_clip: nn.Module) -> None:
    tower = text_tower(tiny_clip)
    ensemble = ENSEMBLE.about("colon")
    turned = Sentences(ensemble.normal[::-1], ensemble.abnormal[7:] + ensemble.abnormal[:7])
    torch.testing.assert_close(encode_sentences(tower, turned), encode_sentences(tower, ensemble), atol=1e-6, rtol=0)
    swapped = encode_sentences(tower, Sentences(ensemble.abnormal, ensemble.normal))
    torch.testing.assert_close(swapped.flip(0), encode_sentences(tower, ensemble), atol=1e-6, rtol=0)


@torch.no_grad()
def test_batches_do_not_change_the_features(tiny_clip: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = encode_sentences(text_tower(tiny_clip), ENSEMBLE)
    monkeypatch.setattr(hand_written, "BATCH", 7)
    torch.testing.assert_close(encode_sentences(text_tower(tiny_clip), ENSEMBLE), expected, atol=1e-6, rtol=0)


def test_the_tower_runs_once_and_for_all_sentences_together(
    tiny_network: AnomalyCLIP, images: torch.Tensor, text_encoder: Mock
) -> None:
    network = HandWrittenCLIP(tiny_network, method="clip_ac")
    assert text_encoder.call_count == 1
    network(images)
    copy.deepcopy(network).double().score_and_map(images)
    assert text_encoder.call_count == 1


def test_the_noun_changes_the_features(tiny_network: AnomalyCLIP) -> None:
    features = {noun: HandWrittenCLIP(tiny_network, object_name=noun).text_features() for noun in ("object", "skin")}
    assert (features["object"] - features["skin"]).abs().max() > 1e-3


# --- image features


@torch.no_grad()
def test_plain_clip_uses_the_image_feature_of_open_clip(tiny_network: AnomalyCLIP) -> None:
    prepared = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))  # the tower's own grid
    own = tiny_network.clip.encode_image(prepared)
    for method in ("clip", "clip_ac"):
        found = HandWrittenCLIP(tiny_network, method=method).encode_image(prepared)
        torch.testing.assert_close(found.image, own, atol=1e-5, rtol=0)
    assert (tiny_network.encode_image(prepared).image - own).abs().max() > 1e-2


@torch.no_grad()
def test_plain_clip_uses_the_patch_tokens_of_the_last_block(tiny_network: AnomalyCLIP) -> None:
    prepared = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    visual = tiny_network.clip.visual
    visual.output_tokens = True
    tokens = visual(prepared)[1] @ visual.proj  # open_clip gives them after ln_post
    visual.output_tokens = False
    found = HandWrittenCLIP(tiny_network, method="clip").encode_image(prepared)
    assert list(found.patches) == [4]
    torch.testing.assert_close(found.patches[4][:, 1:], tokens, atol=1e-5, rtol=0)


@torch.no_grad()
def test_score_of_plain_clip_by_hand(tiny_network: AnomalyCLIP) -> None:
    images = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(2))
    tiny_network.settings = replace(tiny_network.settings, image_size=56)
    network = HandWrittenCLIP(tiny_network, method="clip")
    image = F.normalize(tiny_network.clip.encode_image(network.preprocess(images)), dim=-1)
    text = own_features(tiny_network.clip, "a photo of a normal object.", "a photo of an anomalous object.")
    expected = (tiny_network.clip.logit_scale.exp() * image @ text.T).softmax(dim=-1)[:, 1]
    torch.testing.assert_close(network.score_and_map(images)[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", ["hand_written", "fixed_pair"])
@torch.no_grad()
def test_on_the_local_path_only_the_text_differs(
    tiny_network: AnomalyCLIP, images: torch.Tensor, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_network.settings = replace(tiny_network.settings, image_score="map_top2")
    network = HandWrittenCLIP(tiny_network, method=method)
    assert not torch.allclose(network(images), tiny_network(images), atol=1e-4)
    monkeypatch.setattr(network, "features", tiny_network.text_features())
    assert torch.equal(network(images), tiny_network(images))
    for found, expected in zip(network.score_and_map(images), tiny_network.score_and_map(images), strict=True):
        assert torch.equal(found, expected)


@torch.no_grad()
def test_settings_follow_the_network_beside(tiny_clip: nn.Module) -> None:
    like = AnomalyCLIP(
        tiny_clip,
        image_size=(28, 42),
        feature_layers=(2, 3),
        dpam_layer=3,
        local_attention="k-k",
        n_ctx=4,
        depth=1,
        temperature=0.2,
        sigma=1.5,
        image_score="map_top2",
        mean=[0.5, 0.25, 0],
        std=[0.5, 0.25, 1],
    )
    for method in METHODS:
        network = HandWrittenCLIP(like, method=method)
        assert network.clip is tiny_clip
        expected = like.settings
        if BASELINES[method].plain_clip:
            temperature = pytest.approx(0.07)  # open_clip's towers start with it
            expected = replace(expected, feature_layers=[4], local_attention="none")
            assert network.settings.temperature == temperature
            expected = replace(expected, temperature=network.settings.temperature)
        assert network.settings == expected


# --- a network like the other


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("channels", "size"), [(1, (37, 61)), (3, (200, 3))])
@torch.no_grad()
def test_probabilities_at_the_size_of_the_image(
    tiny_network: AnomalyCLIP, method: Method, channels: int, size: tuple[int, int]
) -> None:
    network = HandWrittenCLIP(tiny_network, method=method)
    images = torch.rand(2, channels, *size)
    pred = network(images)
    assert pred.shape == (2, 2, *size)
    assert pred.dtype == torch.float32
    assert pred.min() >= 0
    torch.testing.assert_close(pred.sum(dim=1), torch.ones(2, *size))
    score, anomaly_map = network.score_and_map(images)
    assert score.shape == (2,)
    torch.testing.assert_close(anomaly_map, pred[:, 1:])


@pytest.mark.parametrize("strict", [True, False])
def test_nothing_is_loaded(tiny_network: AnomalyCLIP, strict: bool) -> None:
    network = HandWrittenCLIP(tiny_network, method="clip_ac")
    assert network.state_dict() == {}
    assert list(nn.ModuleDict({"network": network}).state_dict()) == []
    network.load_state_dict({}, strict=strict)
    with pytest.raises(WeightsError) as caught:
        network.load_state_dict(tiny_network.state_dict(), strict=strict)
    assert str(caught.value) == (
        "E_PROMPTS: CLIP-AC has hand-written sentences and takes no learned prompts: ctx is unknown, deep.0 is "
        "unknown, deep.1 is unknown - leave the prompts out"
    )


def test_nothing_learns_and_clip_stays_in_evaluation_mode(tiny_network: AnomalyCLIP) -> None:
    network = HandWrittenCLIP(tiny_network).train()
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.clip.modules())
    assert all(parameter.requires_grad for parameter in (tiny_network.ctx, *tiny_network.deep))


@torch.no_grad()
def test_copies_and_files(tiny_network: AnomalyCLIP, images: torch.Tensor, tmp_path: Path) -> None:
    network = HandWrittenCLIP(tiny_network, method="clip_ac", object_name="lung")
    torch.save(network, tmp_path / "network.pt")
    expected = network(images)
    for same in (
        copy.deepcopy(network),
        pickle.loads(pickle.dumps(network)),
        torch.load(tmp_path / "network.pt", weights_only=False),
    ):
        assert torch.equal(same(images), expected)
        assert same.sentences == network.sentences
    assert (copy.deepcopy(network).to(torch.float64)(images) - expected).abs().max() < 1e-4


def test_export(tiny_network: AnomalyCLIP, images: torch.Tensor) -> None:
    network = HandWrittenCLIP(tiny_network, method="clip_ac").eval()
    program = torch.export.export(network, (images,), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(images), network(images), atol=1e-6, rtol=0)


def test_features_do_not_depend_on_the_mode_around(tiny_network: AnomalyCLIP) -> None:
    expected = HandWrittenCLIP(tiny_network).text_features()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = HandWrittenCLIP(tiny_network).text_features()
    assert torch.equal(found, expected)
    assert not found.is_inference()


def test_gradients_reach_the_image(tiny_network: AnomalyCLIP, images: torch.Tensor) -> None:
    HandWrittenCLIP(tiny_network, method="clip_ac")(images.requires_grad_())[:, 1].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"method": "winner"}, r"method \('winner'\) must be one of clip, clip_ac, hand_written, fixed_pair"),
        ({"object_name": " "}, "object_name is empty"),
        (
            {"object_name": "word " * 80},
            r"the longest sentence, 'a photo of an anomalous word .* needs \d+ of 77 positions",
        ),
    ],
)
def test_options_out_of_range(tiny_network: AnomalyCLIP, option: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HandWrittenCLIP(tiny_network, **option)


# --- beside the embedded model


@torch.no_grad()
def test_from_the_configuration_of_a_bundle() -> None:
    root = resources.bundle_root("tiny")
    parser = ConfigParser()
    parser.read_config(resources.inference_config(root))
    parser.update({"bundle_root": str(root)})
    parser["baseline"] = {
        "_target_": "anomalyclip_monai.networks.HandWrittenCLIP",
        "like": "@network_def",
        "method": "clip_ac",
        "object_name": "brain",
    }
    network = parser.get_parsed_content("baseline")
    assert network.clip is parser.get_parsed_content("network_def").clip
    assert network.settings.temperature == pytest.approx(0.07, abs=1e-3)
    assert network(torch.rand(1, 1, 37, 61)).isfinite().all()


@torch.no_grad()
def test_polyps_beside_the_embedded_model(test_data: Path) -> None:
    model = ac.load_model("tiny")
    networks = {"learned": model, **{method: HandWrittenCLIP(model, method=method) for method in METHODS}}
    folder = test_data / "dev" / "colondb_first60"
    scores: dict[str, list[torch.Tensor]] = {name: [] for name in networks}
    truth = []
    for name in ("5", "20", "35", "50"):
        frame, mask = (
            torch.as_tensor(read_photo(next((folder / kind).glob(f"{name}.*"))).data)[..., 0]
            for kind in ("images", "masks")
        )
        truth.append(mask[0].flatten() > 127)
        for method, network in networks.items():
            scores[method].append(network(frame[None].float() / 255)[0, 1].flatten())
    found = {method: auroc(torch.cat(truth).numpy(), torch.cat(maps).numpy()) for method, maps in scores.items()}
    assert found["learned"] > 0.9
    assert found["learned"] > found["clip"]
    assert found["learned"] > found["clip_ac"]
