"""What is measured side by side: the model, CLIP with hand-written sentences, and the trivial baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from anomalyclip_monai.exceptions import UsageError, WeightsError
from anomalyclip_monai.files import given_path
from anomalyclip_monai.metrics.baselines import (
    body_centre,
    body_field,
    box_share,
    brightness_map,
    centre_prior_volume,
)
from anomalyclip_monai.networks import HandWrittenCLIP
from anomalyclip_monai.networks.hand_written import BASELINES
from anomalyclip_monai.transforms.findings import Findings
from anomalyclip_monai.transforms.post import case_score
from anomalyclip_monai.types import FloatArray, Record
from anomalyclip_monai.weights.reading import read_state_dict

MODEL = "anomalyclip"
"""The bundle's network with learned prompts."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a method says of a record.

    Attributes:
        heatmap: (X, Y, Z); of a photo on any grid, which is brought to the one that is measured.
        slice_scores: (S,) along the slice axis.
        score: of the whole image or volume.
    """

    heatmap: FloatArray
    slice_scores: NDArray[np.float32]
    score: float


def _model(record: Record) -> Scored:
    found: Findings = record["findings"]
    return Scored(np.asarray(record["heatmap"][0]), found.slice_scores, found.score)


def _brightness(record: Record) -> Scored:
    """Brightness after the preset's scaling; the score of a slice is its mean."""
    heatmap = brightness_map(_plain(record["image"]))
    others = tuple(axis for axis in range(3) if axis != record["findings"].slice_axis)
    scores = heatmap.mean(axis=others, dtype=np.float64)
    return Scored(heatmap, scores.astype(np.float32), case_score(torch.from_numpy(scores)))


def _centre(record: Record) -> Scored:
    """The same map for every slice, hence the same score."""
    shape, axis = tuple(record["heatmap"].shape[1:]), record["findings"].slice_axis
    return Scored(centre_prior_volume(shape, axis), np.zeros(shape[axis], np.float32), 0.0)


def _body(record: Record) -> Scored:
    """The middle of the body in a photo; its score is the area in pixels, as stored, of the box around the body."""
    field = body_field(_plain(record["image"])[..., 0])
    area = box_share(field) * float(np.prod(record["stored_shape"][:2]))
    return Scored(body_centre(field)[..., np.newaxis], np.array([area], np.float32), area)


def _plain(image: torch.Tensor) -> NDArray[Any]:
    return np.asarray(image.detach().cpu())


TRIVIAL: Mapping[str, tuple[str, Callable[[Record], Scored]]] = {
    "brightness": ("brightness", _brightness),
    "centre": ("centre prior", _centre),
    "body": ("centre of the body", _body),
}
"""Baselines without a network: title and function."""

OF_PHOTOS = ("body",)
"""Those that only photos have."""

METHODS = (MODEL, *BASELINES, *TRIVIAL)
"""All names, in the order of tables."""


def default_methods(*, volumes: bool) -> tuple[str, ...]:
    """The model and the trivial baselines that there are for this kind of image."""
    return (MODEL, *(name for name in TRIVIAL if not (volumes and name in OF_PHOTOS)))


def scored(method: str, record: Record) -> Scored:
    """What a method says of a record that went through the network of the present pass."""
    return TRIVIAL[method][1](record) if method in TRIVIAL else _model(record)


@dataclass(frozen=True, slots=True)
class Pass:
    """One run over all samples with one network.

    Attributes:
        method: name of the method.
        seed: name of the prompts, ``shipped`` for the bundle's own.
        prompts: their file, None for the bundle's own.
    """

    method: str
    seed: str = "shipped"
    prompts: Path | None = None

    def network(self, shipped: nn.Module) -> nn.Module:
        """The bundle's network as this pass needs it; learned prompts are loaded in place.

        Raises:
            WeightsError: the prompts are missing or of another model.
        """
        if self.method != MODEL:
            return HandWrittenCLIP(shipped, method=self.method)  # type: ignore[arg-type]
        if self.prompts is not None:
            try:
                shipped.load_state_dict(read_state_dict(self.prompts))
            except WeightsError as error:
                raise WeightsError(error.code, error.what, self.prompts, error.todo) from error
        return shipped


def choose_methods(asked: Sequence[str] | None, *, volumes: bool = False) -> tuple[str, ...]:
    """The methods that were asked for, in the order of tables, by default the model and the trivial baselines.

    Args:
        asked: names; None or none for the default.
        volumes: whether volumes are measured, not photos.

    Raises:
        UsageError: one is unknown or not for volumes, or none has a network (``E_METHOD``).
    """
    chosen = tuple(asked or default_methods(volumes=volumes))
    if unknown := [name for name in chosen if name not in METHODS]:
        raise UsageError("E_METHOD", f"no method {', '.join(unknown)}", None, f"choose from: {', '.join(METHODS)}")
    if volumes and (of_photos := [name for name in chosen if name in OF_PHOTOS]):
        raise UsageError("E_METHOD", f"{of_photos[0]} is a baseline of photos", None, "leave it out for volumes")
    if set(chosen) <= set(TRIVIAL):
        raise UsageError("E_METHOD", "only trivial baselines", None, f"add one of: {MODEL}, {', '.join(BASELINES)}")
    return tuple(name for name in METHODS if name in chosen)


def passes_of(methods: Sequence[str], seeds: Sequence[str | Path] = ()) -> list[Pass]:
    """The runs with a network that the methods need: the model once for each prompt file, the others once.

    Raises:
        UsageError: two prompt files are the same (``E_OPTION``).
    """
    paths = [given_path(seed) for seed in seeds]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("E_OPTION", "a prompt file is named twice", None, "name each seed once")
    names = _short_names(paths)
    learned = [Pass(MODEL, name, path) for name, path in zip(names, paths, strict=True)] or [Pass(MODEL)]
    return [
        run
        for method in methods
        if method not in TRIVIAL
        for run in (learned if method == MODEL else [Pass(method, "-")])
    ]


def _short_names(paths: Sequence[Path]) -> list[str]:
    """File names without suffix; with their folder where several are the same, as ``seed_1/model.pt``."""
    stems = [path.stem for path in paths]
    return [
        stem if stems.count(stem) == 1 else f"{path.parent.name}/{path.name}"
        for stem, path in zip(stems, paths, strict=True)
    ]
