"""Samples for the trainer: images that are encoded at every step, or features that were computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.transforms import Compose, RandAdjustContrastd, RandAffined, RandFlipd, RandGaussianNoised
from torch import Tensor
from torch.utils.data import Dataset

from anomalyclip_monai.data.benchmarks import squash_mask
from anomalyclip_monai.engines.prompts.features import FeatureMaps, Precision
from anomalyclip_monai.engines.prompts.items import PhotoItem, SliceItem, TrainingData, Upright
from anomalyclip_monai.engines.prompts.prediction import FrozenFeatures
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.losses import PromptTarget
from anomalyclip_monai.networks import AnomalyCLIP
from anomalyclip_monai.types import PathLike

FeaturesOption = Literal["fp32", "fp16", "bf16", "none"]
"""Precision of features on disk; ``none`` encodes images at every step."""

Sample = dict[str, Any]


def augmentation() -> Compose:
    """Mild changes that leave a lesion a lesion, of ``image`` (C, H, W) in [0, 1] and ``mask`` (1, H, W).

    Mirrored left to right (probability .5); turned by up to 10 degrees and scaled by up to 10 %, borders repeated
    (.5); gamma from .8 to 1.25 (.5); Gaussian noise of up to .02 (.25).
    """
    both = ("image", "mask")
    return Compose(
        [
            RandFlipd(both, prob=0.5, spatial_axis=1),
            RandAffined(
                both,
                prob=0.5,
                rotate_range=torch.pi / 18,
                scale_range=(0.1, 0.1),
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandAdjustContrastd("image", prob=0.5, gamma=(0.8, 1.25)),
            RandGaussianNoised("image", prob=0.25, std=0.02),
        ]
    )


class ImageDataset(Dataset[Sample]):
    """Preprocessed images, read anew at every step.

    A sample is ``image`` (3, H, W) as the network's image side takes it, ``label`` () and ``mask`` (1, H, W) at the
    network's size.

    Args:
        data: the items.
        network: gives size and normalisation.
        augment: change images by :func:`augmentation`, each epoch in another way.
        seed: of the changes.
    """

    def __init__(
        self, data: Sequence[PhotoItem | SliceItem], network: AnomalyCLIP, *, augment: bool = False, seed: int = 111
    ) -> None:
        height, width = network.settings.size
        if height != width:
            raise ValueError(f"the network's size ({height}, {width}) must be square")
        self.data = data
        self.network = network
        self.transform = augmentation() if augment else None
        self.seed = seed
        self.epoch = 1

    def set_epoch(self, epoch: int) -> None:
        """Change images as in this epoch, counted from 1."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        image, mask, label = self.data[index].read()
        if self.transform is not None:
            # Seeded by epoch and sample: the same after a resume and on any number of processes.
            seed = np.random.SeedSequence((self.seed, self.epoch, index)).generate_state(1)
            self.transform.set_random_state(int(seed[0]))
            changed = self.transform({"image": image, "mask": mask[None].float()})
            image, mask = changed["image"].as_tensor().clamp(0, 1), changed["mask"].as_tensor()[0] > 0.5
        return self.prepare(Upright(image, mask, label))

    def prepare(self, item: Upright) -> Sample:
        """Squash and normalise one image, squash its mask."""
        device = self.network.mean.device
        with torch.no_grad():
            image = self.network.preprocess(item.image[None].to(device))[0]
        return {
            "image": image,
            "label": torch.tensor(item.label),
            "mask": squashed(item.mask, self.network.settings.size).float(),
        }


class FeatureDataset(Dataset[Sample]):
    """Features of all images, computed when the first one is asked for.

    A sample is ``features`` (D,), ``patches`` (L, N, D), ``label`` () and ``mask`` (1, H, W).

    Args:
        images: where images come from.
        folder: of the memory maps.
        data_key: says which images these are: the features of another key are not used again.
        precision: of the features on disk.
        batch_size: images encoded at a time.

    Attributes:
        progress: called with (images encoded, images in all) while features are computed.
    """

    def __init__(
        self, images: ImageDataset, folder: PathLike, data_key: str, precision: Precision, batch_size: int
    ) -> None:
        self.data = images.data
        self.images = images
        self.folder = folder
        self.data_key = data_key
        self.precision = precision
        self.batch_size = batch_size
        self.progress: Callable[[int, int], None] | None = None
        self._maps: FeatureMaps | None = None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        return self.maps()[index]

    def maps(self) -> FeatureMaps:
        """The memory maps, computed now unless they are there."""
        if self._maps is None:
            self._maps = FeatureMaps.compute(
                self.images,
                self.images.network,
                self.folder,
                self.data_key,
                self.precision,
                batch_size=self.batch_size,
                progress=self.progress,
            )
        return self._maps


def training_dataset(
    data: TrainingData,
    network: AnomalyCLIP,
    *,
    folder: PathLike,
    features: FeaturesOption = "fp16",
    augment: bool = False,
    batch_size: int = 8,
    preset: str = "auto",
    seed: int = 111,
) -> ImageDataset | FeatureDataset:
    """The data set for the trainer.

    Args:
        data: the items.
        network: the frozen image side that encodes them.
        folder: of the memory maps.
        features: precision of features on disk; ``none`` encodes images at every step, as ``augment`` does.
        augment: change images, see :func:`augmentation`.
        batch_size: images encoded at a time.
        preset: part of what tells features of the same images apart.
        seed: of the changes.

    Raises:
        UsageError: ``features`` is unknown (``E_OPTION``).
    """
    images = ImageDataset(data, network, augment=augment, seed=seed)
    if augment or features == "none":
        return images
    if features not in ("fp32", "fp16", "bf16"):
        raise UsageError("E_OPTION", f"no features {features!r}", None, "use fp32, fp16, bf16 or none")
    return FeatureDataset(images, folder, f"{data.sha256} {preset}", features, batch_size)


def prepare_batch(
    batch: Sample, device: torch.device, non_blocking: bool = False, **_: Any
) -> tuple[Tensor | FrozenFeatures, PromptTarget]:
    """A collated batch -> what the inferer and what the loss takes, on ``device``."""
    moved = {key: value.to(device, non_blocking=non_blocking) for key, value in batch.items()}
    target = PromptTarget(moved["label"], moved["mask"])
    if "image" in moved:
        return moved["image"], target
    return FrozenFeatures(moved["features"], moved["patches"]), target


def squashed(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) bool -> (1, *size) bool, as the published protocol does it."""
    # squash_mask takes what read_mask gives, (X, Y, 1) with X = columns, and one side
    side = torch.from_numpy(squash_mask(mask.T.unsqueeze(-1).numpy(), size[0]))
    return side.squeeze(-1).T.unsqueeze(0)
