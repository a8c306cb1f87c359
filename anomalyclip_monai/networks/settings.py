"""What a network is told: sizes, blocks, prompts and score, with the published configuration as the default."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

from anomalyclip_monai.networks.dual_path import LocalAttention

ScoreKind = Literal["class_token", "map_top2"]
"""Where the score of an image comes from: its class token, or the mean of the top 2 % of its map."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Channel mean and standard deviation of OpenAI's CLIP, for images in [0, 1]."""


@dataclass(frozen=True)
class NetworkSettings:
    """Everything that the paper sets or ablates. The defaults are the published configuration for ViT-L/14@336.

    Attributes:
        image_size: the side in pixels, or (rows, columns), to which images are squashed.
        feature_layers: vision blocks, counted from 1, whose maps are averaged; kept in order, each once.
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
        mirrors: whether a mirrored view is encoded as well where one is asked for; False saves its time.

    Raises:
        ValueError: a value is out of range. What depends on a backbone's size is checked by the network.
    """

    image_size: int | Sequence[int] = 518
    feature_layers: Sequence[int] = (24,)
    dpam_layer: int = 20
    local_attention: LocalAttention = "v-v"
    object_name: str = "object"
    n_ctx: int = 12
    depth: int = 9
    t_n_ctx: int = 4
    fp16_prompts: bool = False
    temperature: float = 0.07
    sigma: float = 4.0
    image_score: ScoreKind = "class_token"
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD
    mirrors: bool = True

    def __post_init__(self) -> None:
        """Put lists, as JSON has them, into the one form in which settings are compared, and check."""
        if not isinstance(self.image_size, int):
            object.__setattr__(self, "image_size", tuple(self.image_size))
        object.__setattr__(self, "feature_layers", tuple(sorted(set(self.feature_layers))))
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check()

    def changed(self, **changes: Any) -> Self:
        """These settings but for some, by name: for a bundle's configuration, where ``dataclasses`` may be unknown.

        Raises:
            ValueError: a value is out of range.
        """
        return replace(self, **changes)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns to which images are squashed."""
        rows, columns = (self.image_size,) * 2 if isinstance(self.image_size, int) else self.image_size
        return int(rows), int(columns)

    @property
    def local_blocks(self) -> int:
        """Last blocks beside which the local path runs."""
        return self.dpam_layer - 1

    def _check(self) -> None:
        if not isinstance(self.image_size, int) and len(self.image_size) != 2:
            raise ValueError(f"image_size ({self.image_size}) must be one side, or rows and columns")
        if not self.feature_layers:
            raise ValueError("feature_layers is empty, name at least one block")
        check_range("image_size", min(self.size), 1)
        check_range("feature_layers", self.feature_layers[0], 1)
        for name in ("dpam_layer", "n_ctx", "depth", "t_n_ctx"):
            check_range(name, getattr(self, name), 1)
        for name, value, kinds in (
            ("local_attention", self.local_attention, get_args(LocalAttention)),
            ("image_score", self.image_score, get_args(ScoreKind)),
        ):
            if value not in kinds:
                raise ValueError(f"{name} ({value!r}) must be one of {', '.join(kinds)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature ({self.temperature}) must be above 0")
        if not 0 <= self.sigma < math.inf:
            raise ValueError(f"sigma ({self.sigma}) must be at least 0")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ValueError(f"mean {self.mean} and std {self.std} must have three channels, std above 0")


def check_range(name: str, value: int, low: int, high: int | None = None) -> None:
    """Raise ``ValueError`` if an option is not from ``low`` to ``high``."""
    if high is None and value < low:
        raise ValueError(f"{name} ({value}) must be at least {low}")
    if high is not None and not low <= value <= high:
        raise ValueError(f"{name} ({value}) must be from {low} to {high}")
