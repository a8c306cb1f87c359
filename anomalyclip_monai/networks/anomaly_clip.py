"""AnomalyCLIP: object-agnostic prompts on a frozen CLIP (Zhou et al., ICLR 2024, figure 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.networks.dual_path import (
    ImageFeatures,
    LocalAttention,
    check_local_attention,
    check_visual_tower,
    encode_image,
)
from anomalyclip_monai.networks.matching import describe_mismatch
from anomalyclip_monai.networks.prompts import ABNORMAL, encode_prompts, text_tower, tokenize_prompts
from anomalyclip_monai.networks.similarity import (
    gaussian_smooth,
    patches_to_map,
    state_probabilities,
    top_fraction_mean,
)

ScoreKind = Literal["class_token", "map_top2"]
"""Where the score of an image comes from: its class token, or the mean of the top 2 % of its map."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Channel mean and standard deviation of OpenAI's CLIP, for images in [0, 1]."""


class AnomalyCLIP(nn.Module):
    """Zero-shot anomaly localisation in 2D images.

    The defaults are the published configuration for ViT-L/14@336. Everything that the paper ablates is an option.
    ``state_dict()`` holds the learned prompts only (``ctx``, ``deep.0`` ...): the backbone is frozen and comes from
    its own file.

    Args:
        clip: an open_clip ``CLIP`` with a vision transformer. Kept in evaluation mode and frozen.
        image_size: the side in pixels, or (rows, columns), to which images are squashed.
        feature_layers: vision blocks, counted from 1, whose maps are averaged.
        dpam_layer: counts as in the published code: the local path runs beside the last ``dpam_layer - 1`` blocks.
        local_attention: kind of attention on the local path.
        object_name: ``object`` for the object-agnostic prompt; any other name for the ablation.
        n_ctx: learned context vectors per prompt.
        depth: text blocks that see learned vectors: the first the context, the ``depth - 1`` others deep prompts.
        t_n_ctx: tokens of a deep prompt.
        fp16_prompts: round deep prompts to half precision as the published code does.
        temperature: divides the cosines.
        sigma: smoothing of the map in pixels at ``image_size``.
        image_score: where the score of an image comes from.
        mean: channel mean for images in [0, 1].
        std: channel standard deviation.

    Raises:
        WeightsError: the backbone does not fit the dual path or the prompts (``E_BACKBONE``).
        ValueError: an option is out of range.
    """

    mean: Tensor
    std: Tensor
    tokens: Tensor
    _features: Tensor | None
    _features_of: Tensor | None

    def __init__(
        self,
        clip: nn.Module,
        *,
        image_size: int | Sequence[int] = 518,
        feature_layers: Iterable[int] = (24,),
        dpam_layer: int = 20,
        local_attention: LocalAttention = "v-v",
        object_name: str = "object",
        n_ctx: int = 12,
        depth: int = 9,
        t_n_ctx: int = 4,
        fp16_prompts: bool = False,
        temperature: float = 0.07,
        sigma: float = 4.0,
        image_score: ScoreKind = "class_token",
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__()
        visual: Any = clip.visual
        check_visual_tower(visual)
        check_local_attention(local_attention)
        tower = text_tower(clip)
        size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
        layers = sorted(set(feature_layers))
        blocks = len(visual.transformer.resblocks)
        _check_range("dpam_layer", dpam_layer, 1, blocks + 1)
        _check_range("depth", depth, 1, len(tower.blocks))
        _check_range("n_ctx", n_ctx, 1, tower.context_length - 5)
        tokens = tokenize_prompts(tower.context_length, n_ctx, object_name)
        _check_range("t_n_ctx", t_n_ctx, 1, int(tokens.argmax(dim=-1).min()) - 1)  # all before the end token
        if not layers:
            raise ValueError("feature_layers is empty, name at least one block")
        for layer in layers:
            _check_range("feature_layers", layer, 1, blocks)
        if image_score not in ("class_token", "map_top2"):
            raise ValueError(f"image_score ({image_score!r}) must be class_token or map_top2")

        self.clip = clip.eval().requires_grad_(False)
        self.image_size = (int(size[0]), int(size[1]))
        self.feature_layers = tuple(layers)
        self.local_blocks = dpam_layer - 1
        self.local_attention = local_attention
        self.fp16_prompts = fp16_prompts
        self.temperature = temperature
        self.sigma = sigma
        self.image_score = image_score
        self.ctx = nn.Parameter(0.02 * torch.randn(2, n_ctx, tower.width))
        self.deep = nn.ParameterList(0.02 * torch.randn(t_n_ctx, tower.width) for _ in range(depth - 1))
        for name, value in (
            ("mean", torch.tensor(mean).view(3, 1, 1)),
            ("std", torch.tensor(std).view(3, 1, 1)),
            ("tokens", tokens),
            ("_features", None),
            ("_features_of", None),
        ):
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1|3, H, W) in [0, 1] -> (B, 2, H, W) probabilities of normal and abnormal at the same H, W."""
        abnormal = self._to_size(self.anomaly_map(self.encode_image(self.preprocess(images))), images)
        return torch.cat([1 - abnormal, abnormal], dim=1)

    def score_and_map(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1|3, H, W) in [0, 1] -> scores (B,) and anomaly maps (B, 1, H, W), both in [0, 1]."""
        features = self.encode_image(self.preprocess(images))
        anomaly_map = self.anomaly_map(features)
        if self.image_score == "class_token":
            score = self.image_probabilities(features)[:, ABNORMAL]
        else:
            score = top_fraction_mean(anomaly_map)
        return score, self._to_size(anomaly_map, images)

    def preprocess(self, images: Tensor) -> Tensor:
        """(B, 1|3, H, W) in [0, 1] -> (B, 3, *image_size), squashed (bicubic, antialias) and normalised."""
        if images.shape[1] not in (1, 3):
            raise ValueError(f"images have {images.shape[1]} channels, grey (1) or colour (3) is needed")
        resized = F.interpolate(images.float(), self.image_size, mode="bicubic", align_corners=False, antialias=True)
        return (resized.clamp(0, 1) - self.mean.float()) / self.std.float()

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """(B, 3, H, W) preprocessed -> features of the global path and, per feature layer, of the local path."""
        return encode_image(
            self.clip.visual,
            images,
            local_blocks=self.local_blocks,
            feature_layers=self.feature_layers,
            local_attention=self.local_attention,
        )

    def encode_text(self) -> Tensor:
        """-> (2, D) normalised features of the normal and the abnormal prompt, computed now."""
        return encode_prompts(
            text_tower(self.clip), self.tokens, self.ctx, list(self.deep), fp16_prompts=self.fp16_prompts
        )

    def text_features(self) -> Tensor:
        """-> (2, D), computed once for the present prompts and kept; with a graph while prompts are learned."""
        prompts = [self.ctx, *self.deep]
        if torch.is_grad_enabled() and any(prompt.requires_grad for prompt in prompts):
            return self.encode_text()
        # Compared by value, so that the cache stays right through deepcopy, moves, pickling and optimiser steps.
        now = torch.cat([prompt.detach().flatten() for prompt in prompts])
        kept = self._features_of
        if self._features is None or kept is None or kept.dtype != now.dtype or not torch.equal(kept, now):
            with (
                torch.inference_mode(False),
                torch.no_grad(),
                torch.autocast(now.device.type, enabled=False),
            ):
                self._features, self._features_of = self.encode_text(), now.clone()
        return self._features

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

    def train(self, mode: bool = True) -> AnomalyCLIP:
        """Set the mode of the prompts; the frozen CLIP stays in evaluation mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override] # torch's overloads
        """The learned prompts: ``ctx`` (2, n_ctx, width) and ``deep.i`` (t_n_ctx, width)."""
        prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        for key in [key for key in state if key.startswith(f"{prefix}clip.")]:
            del state[key]
        return state

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

    @staticmethod
    def _to_size(maps: Tensor, images: Tensor) -> Tensor:
        size = (int(images.shape[-2]), int(images.shape[-1]))
        return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} ({value}) must be from {low} to {high}")
