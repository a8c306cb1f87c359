"""How much the scores of slices of heads weigh what differs between left and right: fixed on training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from anomalyclip_monai.api import load_model
from anomalyclip_monai.inferers.body import body_window
from anomalyclip_monai.metrics.ranking import auroc
from anomalyclip_monai.metrics.undefined import Value
from anomalyclip_monai.networks import AnomalyCLIPEnsemble, Symmetry
from recipes.tiny import sources
from recipes.tiny.organs import sets
from recipes.tiny.sources import Subject

WEIGHTS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0)

HEADS = ("mr_brain", "ct_head")
"""Domains of subjects ..."""

HEAD_SETS = ("utsw_glioma_t2", "soop_stroke_flair", "ms_flair", "head_ct_haemorrhage")
"""... and sets that show heads."""

PER_VOLUME = 12
"""Slices of a volume, about."""

LEAST_AREA = 0.4
"""A slice shows at least this share of the volume's largest slice."""

LEAST_LESION = 0.002
"""A slice has no lesion, or one of at least this share of its pixels."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What a slice of a training head gives.

    Attributes:
        score: of the network without symmetry.
        asymmetry: of the slice.
        lesion: whether there is one.
    """

    score: float
    asymmetry: float
    lesion: bool


def look(data: Path, model: str) -> Iterator[Slice]:
    """Slices of all training heads as the model sees them."""
    network = load_model(model)
    if not isinstance(network, AnomalyCLIPEnsemble) or network.symmetry is None:
        raise ValueError(f"{model} has no symmetry to weigh")
    for image, lesion in _pictures(data):
        share = float((lesion == 1).mean())
        if (lesion == 2).any() or 0 < share < LEAST_LESION:
            continue
        with torch.no_grad():
            score, _ = network.score_and_map(image[None], mirror=True)
            yield Slice(float(score), float(network.asymmetry(image[None])), share > 0)


def table(seen: Sequence[Slice]) -> tuple[float, dict[float, Value]]:
    """-> mean asymmetry of slices without a lesion, and per weight the AUROC of the scores of all."""
    scores = torch.tensor([one.score for one in seen])
    found = torch.tensor([one.asymmetry for one in seen])
    lesion = np.array([one.lesion for one in seen])
    usual = float(found[torch.from_numpy(~lesion)].mean())
    weighed = {weight: Symmetry(weight, usual).weigh(scores, found).numpy() for weight in WEIGHTS}
    return usual, {weight: auroc(lesion, values) for weight, values in weighed.items()}


def _pictures(data: Path) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    """(C, H, W) in [0, 1] and (H, W) of 1 in a lesion, 0 outside and 2 where nobody knows."""
    for subject in sources.read_subjects(data):
        if subject.domain in HEADS:
            yield from _slices(subject)
    for one in sets.SETS:
        if one.name in HEAD_SETS:
            for _, picture in sets.read(data, one):
                yield torch.from_numpy(picture.image / np.float32(255)).movedim(-1, 0), picture.lesion


def _slices(subject: Subject) -> Iterator[tuple[torch.Tensor, np.ndarray]]:
    axis = subject.axes[-1]
    pictures = [subject.cut(axis, index) for index in range(subject.image.shape[axis])]
    stack = torch.from_numpy(np.stack([picture.image for picture in pictures]) / np.float32(255)).movedim(-1, 1)
    window = (slice(None), slice(None))
    if len(pictures) > 1:
        across, down = (step for other, step in enumerate(subject.spacing) if other != axis)
        window = body_window(stack, (down, across))
    area = (stack.mean(dim=1) > 0.1).float().mean(dim=(1, 2))
    shown = [at for at, picture in enumerate(pictures) if area[at] > LEAST_AREA * area.max() and not picture.empty]
    for at in shown[:: max(1, len(shown) // PER_VOLUME)]:
        yield stack[at][(slice(None), *window)], pictures[at].lesion[window]
