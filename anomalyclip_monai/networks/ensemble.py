"""Several AnomalyCLIP networks that look at the same image and say one thing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from anomalyclip_monai.networks.anomaly_clip import AnomalyCLIP
from anomalyclip_monai.networks.fusion import Fusion
from anomalyclip_monai.networks.settings import NetworkSettings
from anomalyclip_monai.networks.similarity import resize_map, top_fraction_mean
from anomalyclip_monai.networks.stem import ConvolutionalStem
from anomalyclip_monai.networks.symmetry import Symmetry, asymmetry


class AnomalyCLIPEnsemble(nn.Module):
    """Networks whose maps and scores are averaged or fused, such as on squares of another size.

    Networks that were trained apart from each other err in different places: a false alarm of one alone is halved,
    what both see stays. All of them take the same learned prompts, which are the ensemble's ``state_dict()``.

    Args:
        networks: at least one; what only one can give, such as text features, is of the first.
        fusion: how maps become one, at the size of the first network's and with its kind of score; without it maps on
            the images' own pixels and scores are averaged.
        symmetry: how scores of slices of a head weigh what differs between left and right; see :meth:`asymmetry`. Left
            out where the first network has no convolutional stem, whose features could be compared.

    Raises:
        ValueError: there is no network, or another number of them than the fusion has weights.
    """

    def __init__(
        self, networks: Iterable[AnomalyCLIP], fusion: Fusion | None = None, symmetry: Symmetry | None = None
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.fusion = fusion
        if not self.networks:
            raise ValueError("an ensemble of no networks, give one at least")
        if fusion is not None and len(fusion.weights) != len(self.networks):
            raise ValueError(f"{len(fusion.weights)} weights for {len(self.networks)} networks, give one for each")
        self.symmetry = symmetry if self._stem is not None else None

    @property
    def members(self) -> list[AnomalyCLIP]:
        """The networks, in order."""
        return [cast(AnomalyCLIP, network) for network in self.networks]

    @property
    def first(self) -> AnomalyCLIP:
        """The network that runs where only one can."""
        return self.members[0]

    @property
    def settings(self) -> NetworkSettings:
        """Of the first network."""
        return self.first.settings

    @property
    def clip(self) -> nn.Module:
        """The backbone of the first network."""
        return cast(nn.Module, self.first.clip)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1|3, H, W) in [0, 1] -> (B, 2, H, W) probabilities of normal and abnormal at the same H, W."""
        _, abnormal = self.score_and_map(images)
        return torch.cat([1 - abnormal, abnormal], dim=1)

    def score_and_map(self, images: Tensor, *, mirror: bool = False) -> tuple[Tensor, Tensor]:
        """(B, 1|3, H, W) in [0, 1] -> scores (B,) and anomaly maps (B, 1, H, W), both in [0, 1].

        Args:
            images: the slices.
            mirror: see :meth:`AnomalyCLIP.score_and_map`.
        """
        seen = [member.look(images, mirror=mirror) for member in self.members]
        score = torch.stack([score for score, _ in seen]).mean(dim=0)
        size = images.shape[-2:]
        if self.fusion is not None:
            fused = self.fusion.fuse([resize_map(own, self.settings.size) for _, own in seen], images)
            if self.settings.image_score == "map_top2":
                score = top_fraction_mean(fused)
            return score, resize_map(fused, size)
        anomaly_map = resize_map(seen[0][1], size)
        for _, own in seen[1:]:
            # Of a large photo no more than two maps are held at a time.
            another = resize_map(own, size)
            anomaly_map = anomaly_map + another if torch.is_grad_enabled() else anomaly_map.add_(another)
            del another
        anomaly_map = anomaly_map / len(seen) if torch.is_grad_enabled() else anomaly_map.div_(len(seen))
        return score, anomaly_map

    def asymmetry(self, images: Tensor) -> Tensor:
        """(B, 1|3, H, W) in [0, 1] -> (B,) in [0, 2], see :func:`~anomalyclip_monai.networks.symmetry.asymmetry`.

        Compared are features of the first network's stem at stride 16.
        """
        stem = self._stem
        assert stem is not None, "only where there is symmetry"
        return asymmetry(lambda views: stem.features((views - self.first.mean) / self.first.std)[1], images)

    @property
    def _stem(self) -> ConvolutionalStem | None:
        stem = getattr(cast(Any, self.clip).visual, "conv1", None)
        return stem if isinstance(stem, ConvolutionalStem) else None

    def text_features(self) -> Tensor:
        """-> (2, D) normalised features of the first network's prompts; those of the others are computed as well."""
        first, *_ = [member.text_features() for member in self.members]
        return first

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override] # torch's overloads
        """The learned prompts of all."""
        return self.first.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Give learned prompts to all networks.

        Raises:
            WeightsError: see :meth:`AnomalyCLIP.load_state_dict`.
        """
        first, *_ = [member.load_state_dict(state_dict, strict, assign) for member in self.members]
        return first


Network: TypeAlias = AnomalyCLIP | AnomalyCLIPEnsemble
"""What a bundle's definition makes."""
