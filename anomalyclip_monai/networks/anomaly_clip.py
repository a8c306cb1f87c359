"""AnomalyCLIP: object-agnostic prompts on a frozen CLIP (Zhou et al., ICLR 2024, figure 2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.networks.dual_path import LocalAttention
from anomalyclip_monai.networks.matching import describe_mismatch
from anomalyclip_monai.networks.prompts import as_constant, encode_prompts, text_tower, tokenize_prompts
from anomalyclip_monai.networks.two_states import CLIP_MEAN, CLIP_STD, ScoreKind, TwoStateCLIP, check_range


class AnomalyCLIP(TwoStateCLIP):
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
        super().__init__(
            clip,
            image_size=image_size,
            feature_layers=feature_layers,
            dpam_layer=dpam_layer,
            local_attention=local_attention,
            temperature=temperature,
            sigma=sigma,
            image_score=image_score,
            mean=mean,
            std=std,
        )
        tower = text_tower(clip)
        check_range("depth", depth, 1, len(tower.blocks))
        check_range("n_ctx", n_ctx, 1, tower.context_length - 5)
        tokens = tokenize_prompts(tower.context_length, n_ctx, object_name)
        check_range("t_n_ctx", t_n_ctx, 1, int(tokens.argmax(dim=-1).min()) - 1)  # all before the end token

        self.fp16_prompts = fp16_prompts
        self.ctx = nn.Parameter(0.02 * torch.randn(2, n_ctx, tower.width))
        self.deep = nn.ParameterList(0.02 * torch.randn(t_n_ctx, tower.width) for _ in range(depth - 1))
        for name, value in (("tokens", tokens), ("_features", None), ("_features_of", None)):
            self.register_buffer(name, value, persistent=False)

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
