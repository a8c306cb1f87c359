"""Images against two texts: what every network on a frozen CLIP shares, whoever writes its prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomalyclip_monai.networks.dual_path import (
    ImageFeatures,
    LocalAttention,
    check_local_attention,
    encode_image,
)
from anomalyclip_monai.networks.prompts import ABNORMAL
from anomalyclip_monai.networks.similarity import (
    gaussian_smooth,
    patches_to_map,
    state_probabilities,
    top_fraction_mean,
)
from anomalyclip_monai.networks.towers import vision_tower

ScoreKind = Literal["class_token", "map_top2"]
"""Where the score of an image comes from: its class token, or the mean of the top 2 % of its map."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Channel mean and standard deviation of OpenAI's CLIP, for images in [0, 1]."""


class TwoStateCLIP(nn.Module):
    """Scores and anomaly maps: cosines of image features with a normal and an abnormal text feature.

    A subclass is a text side: it says in :meth:`text_features` where the two come from.

    Args:
        clip: an open_clip ``CLIP`` with a vision transformer. Kept in evaluation mode and frozen.
        image_size: the side in pixels, or (rows, columns), to which images are squashed.
        feature_layers: vision blocks, counted from 1, whose maps are averaged.
        dpam_layer: counts as in the published code: the local path runs beside the last ``dpam_layer - 1`` blocks.
        local_attention: kind of attention on the local path.
        temperature: divides the cosines.
        sigma: smoothing of the map in pixels at ``image_size``.
        image_score: where the score of an image comes from.
        mean: channel mean for images in [0, 1].
        std: channel standard deviation.

    Raises:
        WeightsError: the backbone does not fit the dual path (``E_BACKBONE``).
        ValueError: an option is out of range.
    """

    FROZEN: ClassVar[tuple[str, ...]] = ("clip",)
    """Modules that ``state_dict()`` leaves out."""

    clip: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        clip: nn.Module,
        *,
        image_size: int | Sequence[int],
        feature_layers: Iterable[int],
        dpam_layer: int,
        local_attention: LocalAttention,
        temperature: float,
        sigma: float,
        image_score: ScoreKind,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        visual: Any = clip.visual
        tower = vision_tower(visual)
        check_local_attention(local_attention)
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        layers = sorted(set(feature_layers))
        blocks = len(tower.blocks)
        check_range("dpam_layer", dpam_layer, 1, blocks + 1)
        if not layers:
            raise ValueError("feature_layers is empty, name at least one block")
        for layer in layers:
            check_range("feature_layers", layer, 1, blocks)
        if image_score not in ("class_token", "map_top2"):
            raise ValueError(f"image_score ({image_score!r}) must be class_token or map_top2")

        self.clip = clip.eval().requires_grad_(False)
        self.image_size = (int(size[0]), int(size[1]))
        self.feature_layers = tuple(layers)
        self.local_blocks = dpam_layer - 1
        self.local_attention = local_attention
        self.temperature = temperature
        self.sigma = sigma
        self.image_score = image_score
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1|3, H, W) in [0, 1] -> (B, 2, H, W) probabilities of normal and abnormal at the same H, W."""
        abnormal = self._to_size(self.anomaly_map(self.encode_image(self.preprocess(images))), images)
        return torch.cat([1 - abnormal, abnormal], dim=1)

    def score_and_map(self, images: Tensor, *, mirror: bool = False) -> tuple[Tensor, Tensor]:
        """(B, 1|3, H, W) in [0, 1] -> scores (B,) and anomaly maps (B, 1, H, W), both in [0, 1].

        Args:
            images: the slices.
            mirror: encode them mirrored left to right as well, and take the mean: what the network sees on one of both
                only is mostly a false alarm. Twice the time.
        """
        views = [self.encode_image(self.preprocess(images))]
        maps = [self.anomaly_map(views[0])]
        if mirror:
            views.append(self.encode_image(self.preprocess(images, mirror=True)))
            maps.append(self.anomaly_map(views[1]).flip(-1))
        anomaly_map = torch.stack(maps).mean(dim=0)
        if self.image_score == "class_token":
            score = torch.stack([self.image_probabilities(view)[:, ABNORMAL] for view in views]).mean(dim=0)
        else:
            score = top_fraction_mean(anomaly_map)
        return score, self._to_size(anomaly_map, images)

    def preprocess(self, images: Tensor, *, mirror: bool = False) -> Tensor:
        """(B, 1|3, H, W) in [0, 1] -> (B, 3, *image_size), squashed (bicubic, antialias) and normalised.

        Args:
            images: the slices.
            mirror: left to right, channel by channel, so that no second copy of a large photo is made.
        """
        if images.shape[1] not in (1, 3):
            raise ValueError(f"images have {images.shape[1]} channels, grey (1) or colour (3) is needed")
        if mirror:
            resized = torch.cat([self._resized(channel.flip(-1)) for channel in images.split(1, dim=1)], dim=1)
        else:
            resized = self._resized(images)
        return (resized.clamp(0, 1) - self.mean.float()) / self.std.float()

    def _resized(self, images: Tensor) -> Tensor:
        return F.interpolate(images.float(), self.image_size, mode="bicubic", align_corners=False, antialias=True)

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """(B, 3, H, W) preprocessed -> features of the global path and, per feature layer, of the local path."""
        return encode_image(
            vision_tower(self.clip.visual),
            images,
            local_blocks=self.local_blocks,
            feature_layers=self.feature_layers,
            local_attention=self.local_attention,
        )

    def text_features(self) -> Tensor:
        """-> (2, D) normalised features of the normal and the abnormal text."""
        raise NotImplementedError(f"{type(self).__name__} has no text side")

    def image_probabilities(self, features: ImageFeatures) -> Tensor:
        """-> (B, 2) probabilities of the two states for whole images, from the class token."""
        return state_probabilities(features.image, self.text_features(), self.temperature)

    def anomaly_map(self, features: ImageFeatures, sigma: float | None = None) -> Tensor:
        """-> (B, 1, *image_size) in [0, 1], mean over the feature layers, smoothed.

        The published code sums the layers: its map is this one times ``len(feature_layers)``.

        Args:
            features: from :meth:`encode_image`.
            sigma: smoothing in pixels in place of the network's own.
        """
        text = self.text_features()
        layers = [
            state_probabilities(tokens[:, 1:], text, self.temperature)[..., ABNORMAL]
            for tokens in features.patches.values()
        ]
        anomaly_map = patches_to_map(torch.stack(layers).mean(dim=0), features.grid, self.image_size)
        return gaussian_smooth(anomaly_map, self.sigma if sigma is None else sigma)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the text side; the frozen CLIP stays in evaluation mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override] # torch's overloads
        """What the text side learned; never :attr:`FROZEN`, which comes from files of its own."""
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        frozen = tuple(f"{prefix}{name}." for name in self.FROZEN)
        for key in [key for key in state if key.startswith(frozen)]:
            del state[key]
        return state

    @staticmethod
    def _to_size(maps: Tensor, images: Tensor) -> Tensor:
        size = (int(images.shape[-2]), int(images.shape[-1]))
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def check_range(name: str, value: int, low: int, high: int) -> None:
    """Raise ``ValueError`` if an option is not from ``low`` to ``high``."""
    if not low <= value <= high:
        raise ValueError(f"{name} ({value}) must be from {low} to {high}")
