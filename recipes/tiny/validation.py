"""Held-out subjects: overlap, pointing, image AUROC, and false alarms in a healthy head."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from anomalyclip_monai.inferers.body import body_window
from anomalyclip_monai.inferers.glare import fill_glare
from anomalyclip_monai.metrics import auroc, is_defined
from anomalyclip_monai.networks import AnomalyCLIP
from anomalyclip_monai.networks.similarity import top_fraction_mean
from recipes.tiny.crops import UNKNOWN, Crops
from recipes.tiny.framing import squash
from recipes.tiny.sources import Picture, Subject

SYNTHETIC_CROPS = 40
"""Crops of the held-out head with, and as many without, a synthetic lesion."""

PHOTOS = 60
"""At most this many held-out photos of a domain are measured, the first by name."""

THRESHOLDS = np.round(np.arange(0.2, 0.81, 0.05), 2)


@dataclass(frozen=True, slots=True)
class Case:
    """One held-out picture.

    Attributes:
        group: which measure it counts for.
        image: (3, S, S) uint8.
        label: (S, S) uint8 as in a crop.
        millilitres: volume of one pixel of the square; 0 where it has none.
    """

    group: str
    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    millilitres: float = 0.0


def held_out_cases(subjects: Sequence[Subject], size: int = 192, *, synthetic: int = SYNTHETIC_CROPS) -> list[Case]:
    """All slices of the held-out subjects, their reflections filled, and synthetic lesions in the held-out head."""
    cases: list[Case] = []
    for subject in subjects:
        if subject.image.shape[2] == 1 and sum(case.group == subject.domain for case in cases) >= PHOTOS:
            continue
        axis = subject.axes[-1]
        pictures = [subject.cut(axis, index) for index in range(subject.image.shape[axis])]
        volume = len(pictures) > 1
        window = _window(subject, axis, pictures) if volume else (slice(None), slice(None))
        seen = pictures[0].lesion[window].size * float(np.prod(subject.spacing)) / 1000 if volume else 0.0
        for picture in pictures:
            if picture.empty:
                continue
            framed = squash(picture, size, window)
            shown = torch.from_numpy(np.broadcast_to(framed.image, (size, size, 3)).transpose(2, 0, 1).copy())
            image = (fill_glare(shown[None])[0] * 255 + 0.5).byte().numpy()
            label = np.where(framed.unknown, UNKNOWN, framed.lesion > 0.5).astype(np.uint8)
            cases.append(Case(subject.domain, np.ascontiguousarray(image), label, seen / size**2))
    heads = [subject for subject in subjects if subject.domain == "mr_brain" and not subject.diseased]
    if heads and synthetic:
        crops = Crops(heads, seed=1, size=size)
        for index in range(2 * synthetic):
            rng = np.random.default_rng([1, index])
            crop = crops.draw(rng, "mr_brain", lesion=index % 2 == 0)
            cases.append(Case("synthetic", crop.image.numpy(), crop.label.numpy()))
    return cases


def _window(subject: Subject, axis: int, pictures: Sequence[Picture]) -> tuple[slice, slice]:
    """The rows and columns of a volume's slices that the product shows to the network."""
    slices = torch.from_numpy(np.stack([picture.image for picture in pictures])).movedim(-1, 1)
    across, down = (size for other, size in enumerate(subject.spacing) if other != axis)
    return body_window(slices / 255, (down, across))


@torch.no_grad()
def predict(network: AnomalyCLIP, cases: Sequence[Case], batch: int = 32) -> NDArray[np.float32]:
    """-> (cases, S, S) anomaly maps as the product makes them."""
    device = next(network.clip.parameters()).device
    maps = []
    for start in range(0, len(cases), batch):
        images = torch.from_numpy(np.stack([case.image for case in cases[start : start + batch]])).to(device)
        features = network.encode_image(network.preprocess(images.float() / 255))
        maps.append(network.anomaly_map(features)[:, 0].float().cpu().numpy())
    return np.concatenate(maps)


def measure(maps: NDArray[np.float32], cases: Sequence[Case], threshold: float = 0.5) -> dict[str, float]:
    """Measures by ``group.name``.

    ``dice``: mean over pictures with a lesion; over the whole volume where the group is one. ``pointing``: share of
    these whose brightest pixel lies in the lesion. ``auroc``: of image scores, where both kinds are there.
    ``false_ml``: volume of the mask in volumes without a lesion.
    """
    found: dict[str, float] = {}
    groups = defaultdict(list)
    for index, case in enumerate(cases):
        groups[case.group].append(index)
    for group, members in groups.items():
        chosen = [cases[index] for index in members]
        scores = top_fraction_mean(torch.from_numpy(maps[members])).numpy()
        ill = np.array([bool((case.label == 1).any()) for case in chosen])
        volumes = any(case.millilitres for case in chosen)
        if ill.any():
            overlaps, hits, both, total = [], [], 0, 0
            for index, case in zip(members, chosen, strict=True):
                mask, lesion = (maps[index] >= threshold) & (case.label != UNKNOWN), case.label == 1
                both += int((mask & lesion).sum())
                total += int(mask.sum() + lesion.sum())
                if lesion.any():
                    overlaps.append(overlap(lesion, mask))
                    hits.append(bool(lesion.ravel()[np.where(case.label == UNKNOWN, 0, maps[index]).argmax()]))
            found[f"{group}.dice"] = 2 * both / max(total, 1) if volumes else float(np.mean(overlaps))
            found[f"{group}.pointing"] = float(np.mean(hits))
            value = auroc(ill, scores)
            if is_defined(value):
                found[f"{group}.auroc"] = float(value)
        else:
            if volumes:
                false = [(maps[index] >= threshold).sum() * cases[index].millilitres for index in members]
                found[f"{group}.false_ml"] = float(np.sum(false))
            found[f"{group}.score"] = float(scores.mean())
    return found


def overlap(lesion: NDArray[np.bool_], mask: NDArray[np.bool_]) -> float:
    """Dice of a lesion that is not empty."""
    return float(2 * (lesion & mask).sum() / (lesion.sum() + mask.sum()))


def best_threshold(maps: NDArray[np.float32], cases: Sequence[Case], false_ml: float = 1.0) -> float:
    """The threshold with the best mean Dice over the groups among those with few false alarms in healthy heads."""

    def quality(threshold: float) -> tuple[bool, float]:
        found = measure(maps, cases, float(threshold))
        overlaps = [value for name, value in found.items() if name.endswith(".dice")]
        quiet = all(value <= false_ml for name, value in found.items() if name.endswith(".false_ml"))
        return quiet, float(np.mean(overlaps)) if overlaps else 0.0

    return float(max(THRESHOLDS, key=quality))
