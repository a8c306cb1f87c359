"""CLIP with hand-written sentences: what learned prompts have to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.networks.anomaly_clip import TwoStateCLIP
from anomalyclip_monai.networks.dual_path import ImageFeatures
from anomalyclip_monai.networks.matching import describe_mismatch
from anomalyclip_monai.networks.prompts import TextTower, as_constant, encode_prompts, text_tower, tokenize_sentences
from anomalyclip_monai.networks.sentences import ENSEMBLE, FIXED, PLAIN, Sentences
from anomalyclip_monai.networks.settings import NetworkSettings
from anomalyclip_monai.networks.towers import vision_tower

Method = Literal["clip", "clip_ac", "hand_written", "fixed_pair"]
"""Name of a baseline with hand-written sentences."""


class Baseline(NamedTuple):
    """A text side and the image side that it is compared with.

    Attributes:
        title: for the head of a table.
        sentences: what is said of the two states.
        plain_clip: features and temperature of CLIP as it is, not of AnomalyCLIP's local path.
    """

    title: str
    sentences: Sentences
    plain_clip: bool


BASELINES: Mapping[Method, Baseline] = {
    "clip": Baseline("CLIP", PLAIN, plain_clip=True),
    "clip_ac": Baseline("CLIP-AC", ENSEMBLE, plain_clip=True),
    "hand_written": Baseline("hand-written ensemble", ENSEMBLE, plain_clip=False),
    "fixed_pair": Baseline("fixed pair", FIXED, plain_clip=False),
}
"""``clip`` and ``clip_ac`` are rows of the paper's tables; the two others differ from AnomalyCLIP by the text alone."""

BATCH = 256
"""Sentences that go through the text tower at once."""


class HandWrittenCLIP(TwoStateCLIP):
    """Zero-shot anomaly localisation with sentences that nobody learned, for comparison.

    Shares the backbone of another network, and with it size, smoothing, kind of image score and normalisation.
    ``hand_written`` and ``fixed_pair`` also take its feature layers, local path and temperature; ``clip`` and
    ``clip_ac`` are CLIP as it is: patch tokens of the last block, the class token as CLIP itself projects it, and the
    temperature that the backbone learned. The sentences are encoded when the network is made.

    ``state_dict()`` is empty.

    Args:
        like: the network to stand beside. To move one of the two to another device moves the backbone of both.
        method: which sentences, on which image features: a key of :data:`BASELINES`.
        object_name: the noun in the sentences, such as one of :data:`~anomalyclip_monai.networks.sentences.NOUNS`.

    Raises:
        WeightsError: the text tower cannot be used (``E_BACKBONE``).
        ValueError: the method is unknown, or the noun is empty or too long.
    """

    features: Tensor

    def __init__(self, like: TwoStateCLIP, *, method: Method = "clip", object_name: str = "object") -> None:
        if method not in BASELINES:
            raise ValueError(f"method ({method!r}) must be one of {', '.join(get_args(Method))}")
        if not object_name.strip():
            raise ValueError("object_name is empty, name what the images show, or say object")
        baseline = BASELINES[method]
        settings: NetworkSettings = like.settings
        if baseline.plain_clip:
            settings = settings.changed(
                feature_layers=[len(vision_tower(like.clip.visual).blocks)],
                local_attention="none",
                temperature=float(torch.exp(-like.clip.logit_scale)),
            )
        super().__init__(like.clip, settings)
        self.method = method
        self.sentences = baseline.sentences.about(object_name)
        device = self.clip.logit_scale.device
        self.to(device)
        with as_constant(device):
            features = encode_sentences(text_tower(self.clip), self.sentences)
        self.register_buffer("features", features, persistent=False)

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """(B, 3, H, W) preprocessed -> features of whole images and of patches."""
        features = super().encode_image(images)
        if not BASELINES[self.method].plain_clip:
            return features
        (tokens,) = features.patches.values()
        return features._replace(image=tokens[:, 0])  # CLIP's own has passed ln_post, AnomalyCLIP's has not

    def text_features(self) -> Tensor:
        """-> (2, D) normalised features of the normal and of the abnormal sentences."""
        return self.features

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take nothing, since nothing is learned.

        Raises:
            WeightsError: something is given (``E_PROMPTS``).
        """
        if state_dict:
            raise WeightsError(
                "E_PROMPTS",
                f"{BASELINES[self.method].title} has hand-written sentences and takes no learned prompts: "
                f"{describe_mismatch({}, state_dict)}",
                None,
                "leave the prompts out",
            )
        return super().load_state_dict({}, strict=False, assign=assign)


def encode_sentences(tower: TextTower, sentences: Sentences) -> Tensor:
    """-> (2, D): for each state the mean of its sentences' normalised features, normalised again."""
    embedding = tower.token_embedding.weight
    tokens = tokenize_sentences([*sentences.normal, *sentences.abnormal], tower.context_length).to(embedding.device)
    features = torch.cat(
        [
            encode_prompts(tower, batch, embedding.new_empty(len(batch), 0, tower.width), [])
            for batch in tokens.split(BATCH)
        ]
    )
    states = features.split([len(sentences.normal), len(sentences.abnormal)])
    return F.normalize(torch.stack([state.mean(dim=0) for state in states]), dim=-1)
