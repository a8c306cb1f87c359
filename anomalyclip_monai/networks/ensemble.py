"""Several AnomalyCLIP networks that look at the same image and say one thing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from anomalyclip_monai.networks.anomaly_clip import AnomalyCLIP


class AnomalyCLIPEnsemble(AnomalyCLIP):
    """AnomalyCLIP whose maps and scores are the mean over itself and others, such as on squares of another size.

    Networks that were trained apart from each other err in different places: a false alarm of one alone is halved,
    what both see stays. All of them take the same learned prompts. Whatever else an :class:`AnomalyCLIP` has, such as
    its features, is of the first one.

    Args:
        clip: of the first one.
        others: networks beside it; none is allowed.
        **options: of the first one, as for :class:`AnomalyCLIP`.

    Raises:
        WeightsError: see :class:`AnomalyCLIP`.
        ValueError: an option is out of range.
    """

    FROZEN = (*AnomalyCLIP.FROZEN, "others")

    def __init__(self, clip: nn.Module, *, others: Iterable[AnomalyCLIP] = (), **options: Any) -> None:
        super().__init__(clip, **options)
        self.others = nn.ModuleList(others)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1|3, H, W) in [0, 1] -> (B, 2, H, W) probabilities of normal and abnormal at the same H, W."""
        return torch.stack([super().forward(images), *(other(images) for other in self.others)]).mean(dim=0)

    def score_and_map(self, images: Tensor, *, mirror: bool = False) -> tuple[Tensor, Tensor]:
        """(B, 1|3, H, W) in [0, 1] -> scores (B,) and anomaly maps (B, 1, H, W), both in [0, 1]."""
        score, anomaly_map = super().score_and_map(images, mirror=mirror)
        scores = [score]
        for other in self.others:
            score, another = cast(AnomalyCLIP, other).score_and_map(images, mirror=mirror)
            scores.append(score)
            # Of a large photo no more than two maps are held at a time.
            anomaly_map = anomaly_map + another if torch.is_grad_enabled() else anomaly_map.add_(another)
            del another
        anomaly_map = anomaly_map / len(scores) if torch.is_grad_enabled() else anomaly_map.div_(len(scores))
        return torch.stack(scores).mean(dim=0), anomaly_map

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take learned prompts, and give them to the others.

        Raises:
            WeightsError: see :meth:`AnomalyCLIP.load_state_dict`.
        """
        result = super().load_state_dict(state_dict, strict, assign)
        for other in self.others:
            other.load_state_dict(state_dict, strict, assign)
        return result
