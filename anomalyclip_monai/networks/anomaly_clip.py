"""AnomalyCLIP: object-agnostic prompts on a frozen CLIP (Zhou et al., ICLR 2024, figure 2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.networks.dual_path import ImageFeatures, encode_image
from anomalyclip_monai.networks.matching import describe_mismatch
from anomalyclip_monai.networks.neck import TokenNeck
from anomalyclip_monai.networks.prompts import ABNORMAL, as_constant, encode_prompts, text_tower, tokenize_prompts
from anomalyclip_monai.networks.settings import NetworkSettings, check_range
from anomalyclip_monai.networks.similarity import (
    gaussian_smooth,
    patches_to_map,
    resize_map,
    state_probabilities,
    top_fraction_mean,
)
from anomalyclip_monai.networks.towers import vision_tower


class TwoStateCLIP(nn.Module):
    """Scores and anomaly maps: cosines of image features with a normal and an abnormal text feature.

    A subclass is a text side: it says in :meth:`text_features` where the two come from.

    Args:
        clip: an open_clip ``CLIP`` with a vision transformer. Kept in evaluation mode and frozen.
        settings: of size, image side, map and score.

    Raises:
        WeightsError: the backbone does not fit the dual path (``E_BACKBONE``).
        ValueError: a setting is out of the backbone's range.
    """

    FROZEN: ClassVar[tuple[str, ...]] = ("clip",)
    """Modules that ``state_dict()`` leaves out."""

    clip: Any
    settings: NetworkSettings
    mean: Tensor
    std: Tensor

    def __init__(self, clip: nn.Module, settings: NetworkSettings) -> None:
        super().__init__()
        visual: Any = clip.visual
        blocks, neck = len(vision_tower(visual).blocks), _neck(clip)
        check_range("dpam_layer", settings.dpam_layer, 1, blocks + 1)
        for layer in settings.feature_layers:
            check_range("feature_layers", layer, 1, blocks)
        if neck is not None and (neck.layers, "none") != (len(settings.feature_layers), settings.local_attention):
            raise ValueError(f"the neck of this CLIP needs {neck.layers} feature_layers and local_attention none")

        self.clip = clip.eval().requires_grad_(False)
        self.settings = settings
        for name in ("mean", "std"):
            value = torch.tensor(getattr(settings, name)).view(3, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1|3, H, W) in [0, 1] -> (B, 2, H, W) probabilities of normal and abnormal at the same H, W."""
        abnormal = resize_map(self.anomaly_map(self.encode_image(self.preprocess(images))), images.shape[-2:])
        return torch.cat([1 - abnormal, abnormal], dim=1)

    def score_and_map(self, images: Tensor, *, mirror: bool = False) -> tuple[Tensor, Tensor]:
        """(B, 1|3, H, W) in [0, 1] -> scores (B,) and anomaly maps (B, 1, H, W), both in [0, 1].

        Args:
            images: the slices.
            mirror: encode them mirrored left to right as well, and take the mean: what the network sees on one of both
                only is mostly a false alarm. Twice the time, except where the settings say that it never ``mirrors``.
        """
        score, anomaly_map = self.look(images, mirror=mirror)
        return score, resize_map(anomaly_map, images.shape[-2:])

    def look(self, images: Tensor, *, mirror: bool = False) -> tuple[Tensor, Tensor]:
        """As :meth:`score_and_map`, with the maps (B, 1, rows, columns) as large as the network sees the images."""
        views = [self.encode_image(self.preprocess(images))]
        maps = [self.anomaly_map(views[0])]
        if mirror and self.settings.mirrors:
            views.append(self.encode_image(self.preprocess(images, mirror=True)))
            maps.append(self.anomaly_map(views[1]).flip(-1))
        anomaly_map = torch.stack(maps).mean(dim=0)
        if self.settings.image_score == "class_token":
            score = torch.stack([self.image_probabilities(view)[:, ABNORMAL] for view in views]).mean(dim=0)
        else:
            score = top_fraction_mean(anomaly_map)
        return score, anomaly_map

    def preprocess(self, images: Tensor, *, mirror: bool = False) -> Tensor:
        """(B, 1|3, H, W) in [0, 1] -> (B, 3, rows, columns), squashed (bicubic, antialias) and normalised.

        Args:
            images: the slices.
            mirror: left to right, channel by channel, so that no second copy of a large photo is made.
        """
        if images.shape[1] not in (1, 3):
            raise ValueError(f"images have {images.shape[1]} channels, grey (1) or colour (3) is needed")
        if mirror:
            resized = torch.cat([self._squashed(channel.flip(-1)) for channel in images.split(1, dim=1)], dim=1)
        else:
            resized = self._squashed(images)
        return (resized.clamp(0, 1) - self.mean.float()) / self.std.float()

    def _squashed(self, images: Tensor) -> Tensor:
        return F.interpolate(images.float(), self.settings.size, mode="bicubic", align_corners=False, antialias=True)

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """(B, 3, rows, columns) preprocessed -> features of the global path and, per layer, of the local one."""
        return encode_image(
            vision_tower(self.clip.visual),
            images,
            local_blocks=self.settings.local_blocks,
            feature_layers=self.settings.feature_layers,
            local_attention=self.settings.local_attention,
            neck=_neck(self.clip),
        )

    def text_features(self) -> Tensor:
        """-> (2, D) normalised features of the normal and the abnormal text."""
        raise NotImplementedError(f"{type(self).__name__} has no text side")

    def image_probabilities(self, features: ImageFeatures) -> Tensor:
        """-> (B, 2) probabilities of the two states for whole images, from the class token."""
        return state_probabilities(features.image, self.text_features(), self.settings.temperature)

    def anomaly_map(self, features: ImageFeatures, sigma: float | None = None) -> Tensor:
        """-> (B, 1, rows, columns) in [0, 1], mean over the feature layers, smoothed.

        The published code sums the layers: its map is this one times ``len(feature_layers)``.

        Args:
            features: from :meth:`encode_image`.
            sigma: smoothing in pixels in place of the network's own.
        """
        text, temperature = self.text_features(), self.settings.temperature
        layers = [state_probabilities(tokens[:, 1:], text, temperature) for tokens in features.patches.values()]
        abnormal = torch.stack([layer[..., ABNORMAL:] for layer in layers]).mean(dim=0)
        anomaly_map = patches_to_map(abnormal, features.grid, self.settings.size)
        return gaussian_smooth(anomaly_map, self.settings.sigma if sigma is None else sigma)

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


def _neck(clip: Any) -> TokenNeck | None:
    return getattr(clip.visual, "neck", None)


class AnomalyCLIP(TwoStateCLIP):
    """Zero-shot anomaly localisation in 2D images with learned prompts.

    ``state_dict()`` holds the learned prompts only (``ctx``, ``deep.0`` ...): the backbone is frozen and comes from
    its own file.

    Args:
        clip: an open_clip ``CLIP`` with a vision transformer. Kept in evaluation mode and frozen.
        settings: by default the published configuration.
        **changes: settings by name, over those.

    Raises:
        WeightsError: the backbone does not fit the dual path or the prompts (``E_BACKBONE``).
        ValueError: a setting is out of range.
    """

    tokens: Tensor
    _features: Tensor | None
    _features_of: Tensor | None

    def __init__(self, clip: nn.Module, settings: NetworkSettings | None = None, **changes: Any) -> None:
        settings = (settings or NetworkSettings()).changed(**changes)
        super().__init__(clip, settings)
        tower = text_tower(clip)
        check_range("depth", settings.depth, 1, len(tower.blocks))
        check_range("n_ctx", settings.n_ctx, 1, tower.context_length - 5)
        tokens = tokenize_prompts(tower.context_length, settings.n_ctx, settings.object_name)
        check_range("t_n_ctx", settings.t_n_ctx, 1, int(tokens.argmax(dim=-1).min()) - 1)  # all before the end token

        self.ctx = nn.Parameter(0.02 * torch.randn(2, settings.n_ctx, tower.width))
        deep = (0.02 * torch.randn(settings.t_n_ctx, tower.width) for _ in range(settings.depth - 1))
        self.deep = nn.ParameterList(deep)
        for name, value in (("tokens", tokens), ("_features", None), ("_features_of", None)):
            self.register_buffer(name, value, persistent=False)

    def encode_text(self) -> Tensor:
        """-> (2, D) normalised features of the normal and the abnormal prompt, computed now."""
        tower, rounded = text_tower(self.clip), self.settings.fp16_prompts
        return encode_prompts(tower, self.tokens, self.ctx, list(self.deep), fp16_prompts=rounded)

    def text_features(self) -> Tensor:
        """-> (2, D), computed once for the present prompts and kept; with a graph while prompts are learned."""
        prompts = [self.ctx, *self.deep]
        if torch.is_grad_enabled() and any(prompt.requires_grad for prompt in prompts):
            return self.encode_text()
        # Compared by value, so that the cache stays right through deepcopy, moves, pickling and optimiser steps.
        now = torch.cat([prompt.detach().flatten() for prompt in prompts])
        kept = self._features_of
        if self._features is None or kept is None or kept.dtype != now.dtype or not torch.equal(kept, now):
            with as_constant(now.device):
                self._features, self._features_of = self.encode_text(), now.clone()
        return self._features

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take learned prompts, and nothing but all of them, whatever ``strict`` says.

        Viewers load with ``strict=False`` and would otherwise run with random prompts without a word.

        Raises:
            WeightsError: keys are missing or unknown, or a size differs (``E_PROMPTS``).
        """
        mismatch = describe_mismatch(self.state_dict(), state_dict)
        if mismatch:
            raise WeightsError(
                "E_PROMPTS",
                f"not the learned prompts of this model: {mismatch}",
                None,
                "use the checkpoint of this bundle, or convert the authors' checkpoint first",
            )
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        with torch.no_grad():
            self.text_features()  # so that a traced network holds them as a constant
        return result
