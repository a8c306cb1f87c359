"""Training squares of many organs, and the frozen vision transformer that they are shown to."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from anomalyclip_monai.inferers.body import body_window
from anomalyclip_monai.networks.towers import vision_tower
from recipes.tiny.crops import UNKNOWN, Crops
from recipes.tiny.framing import squash
from recipes.tiny.organs import draw
from recipes.tiny.organs.sets import OrganSet, read
from recipes.tiny.sources import Subject

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRUNK = "vit_small_patch14_dinov2"
"""timm's name of the frozen vision transformer."""

PATCH = 14
"""Its patches in pixels."""

MOST_FRAMES, MOST_SLICES = 40, 30
"""Held-out pictures of a domain, and slices of a held-out volume, about."""


class Square(NamedTuple):
    """A training square.

    Attributes:
        image: (3, S, S) uint8.
        label: (S, S) uint8 of 1, 0 and UNKNOWN.
        of: the set, or the domain of :mod:`recipes.tiny.sources`.
        kind: ``whole``, ``held_out`` (whole, never trained on) or ``drawn``.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    of: str
    kind: str


@dataclass(frozen=True, slots=True)
class Amount:
    """How many squares are drawn.

    Attributes:
        per_set: a set of n pictures gives ``per_set * sqrt(n)`` squares, ``most`` at most.
        most: see there.
        crops: squares of the volumes and of colonoscopy.
    """

    per_set: float = 25.0
    most: int = 400
    crops: int = 1800


def squares_of_set(root: Path, one: OrganSet, size: int, amount: Amount, seed: int = 0) -> Iterator[Square]:
    """Whole pictures of a set, then drawn ones; held-out pictures are whole only."""
    found = list(read(root, one))
    taught = [picture for file, picture in found if not one.validates(file)]
    for file, picture in found:
        if picture.lesion.min() < 2 and not one.centred:
            kind = "held_out" if one.validates(file) else "whole"
            yield Square(*draw.whole(picture, size), one.name, kind)
    wanted = min(amount.most, round(amount.per_set * math.sqrt(len(taught))))
    for number in range(wanted):
        rng = np.random.default_rng([seed, sum(map(ord, one.name)), number])
        picture = taught[number % len(taught)]
        donors = [taught[int(rng.integers(len(taught)))]] if rng.random() < 0.5 else []
        made = draw.MADE_BESIDE_REAL if one.lesions else draw.MADE_IN_HEALTHY
        zoom = (1.15, 2.2) if one.centred else (0.75, 1.5)
        yield Square(*draw.drawn(picture, size, rng, made=made, donors=donors, zoom=zoom), one.name, "drawn")


def squares_of_subjects(subjects: Sequence[Subject], size: int, amount: Amount, seed: int = 0) -> Iterator[Square]:
    """Crops as the first networks had them, and whole slices of the held-out subjects."""
    crops = Crops([subject for subject in subjects if not subject.validates], seed=1000 + seed, size=size)
    for number in range(amount.crops):
        crop = crops[number]
        yield Square(crop.image.numpy(), crop.label.numpy(), crop.domain, "drawn")
    photos: dict[str, int] = {}
    for subject in subjects:
        if not subject.validates:
            continue
        axis = subject.axes[-1]
        count = subject.image.shape[axis]
        pictures = [subject.cut(axis, index) for index in range(count)]
        if count == 1:
            photos[subject.domain] = photos.get(subject.domain, 0) + 1
            if photos[subject.domain] > MOST_FRAMES:
                continue
        window = (slice(None), slice(None))
        if count > 1:
            slices = torch.from_numpy(np.stack([picture.image for picture in pictures])).movedim(-1, 1)
            across, down = (step for other, step in enumerate(subject.spacing) if other != axis)
            window = body_window(slices / 255, (down, across))
        for picture in pictures[:: max(1, count // MOST_SLICES)]:
            if picture.empty:
                continue
            framed = squash(picture, size, window)
            label = np.where(framed.unknown, UNKNOWN, framed.lesion > 0.5).astype(np.uint8)
            yield Square(draw.pixels(framed.image), label, f"{subject.domain}:{subject.name}", "held_out")


class Trunk:
    """The frozen vision transformer as the product runs it.

    Args:
        weights: timm's tensors by name.
        layers: blocks, counted from 1.
        precision: floating point type of its weights.
    """

    def __init__(
        self, weights: dict[str, Tensor], layers: Sequence[int], precision: torch.dtype = torch.bfloat16
    ) -> None:
        visual: Any = TimmModel(TRUNK, embed_dim=0, pool="token", proj="none", pretrained=False)
        visual.trunk.load_state_dict(weights)
        self.visual: nn.Module = visual.eval().to(precision)
        self.layers = tuple(layers)
        self.mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        self.std = torch.tensor(IMAGENET_STD).view(3, 1, 1)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """(B, 3, S, S) -> (B, 1 + N, layers * width) normalised tokens, the class token first."""
        tower = vision_tower(self.visual)
        shown = (torch.from_numpy(images).float() / 255 - self.mean) / self.std
        embedded = tower.embed(shown)
        tokens, kept = embedded.tokens, []
        for number, block in enumerate(tower.blocks[: max(self.layers)], start=1):
            query, key, value = tower.heads(block, embedded, tokens)
            attended = nn.functional.scaled_dot_product_attention(query, key, value)
            tokens = tokens + tower.merge(block, attended)
            tokens = tokens + tower.mlp(block, tokens)
            if number in self.layers:
                kept.append(tower.normalize(tokens).float())
        return torch.cat(kept, dim=-1)
