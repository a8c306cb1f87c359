"""Features of the images that are measured, computed once for all rows with the same image side."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor, nn

from anomalyclip_monai.engines.prompts.features import image_side_sha256
from anomalyclip_monai.files import whole_file
from anomalyclip_monai.networks import AnomalyCLIP, NetworkSettings
from anomalyclip_monai.networks.dual_path import ImageFeatures
from anomalyclip_monai.types import PathLike


class RememberingCLIP(AnomalyCLIP):
    """An :class:`AnomalyCLIP` that keeps what its image side says of a batch, in a file, and never computes it twice.

    Features are kept as they are, so that scores and maps are the same bit for bit. The files of different image
    sides do not meet.

    Args:
        clip: see :class:`AnomalyCLIP`.
        settings: see :class:`AnomalyCLIP`.
        folder: of the files.
    """

    def __init__(self, clip: nn.Module, settings: NetworkSettings, *, folder: PathLike) -> None:
        super().__init__(clip, settings)
        self._folder = Path(folder)
        self._image_side = image_side_sha256(self)

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """See :meth:`AnomalyCLIP.encode_image`."""
        digest = hashlib.sha256(f"{self._image_side} {tuple(images.shape)}".encode())
        digest.update(images.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
        path = self._folder / f"{digest.hexdigest()}.pt"
        if path.is_file():
            return ImageFeatures(**torch.load(path, map_location=images.device, weights_only=True))
        features = super().encode_image(images)
        with whole_file(path) as temporary:
            torch.save(features._asdict(), temporary)
        return features
