"""From a slice of any size to the square that the network sees: zoom, margins, rotation, bending, mirroring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from recipes.tiny.sources import Picture

Plane = NDArray[np.float32]
"""(H, W), or (H, W, C), values in [0, 1]."""


@dataclass(slots=True)
class Framed:
    """A square cut out of a picture, all (S, S) or (S, S, C).

    Attributes:
        image: display values in [0, 1].
        lesion: 1 in a lesion, 0 outside.
        unknown: where nobody knows whether it is a lesion.
        tissue: where a synthetic lesion may be put.
        classes: shares of grey and white matter, where they are known.
    """

    image: Plane
    lesion: Plane
    unknown: NDArray[np.bool_]
    tissue: NDArray[np.bool_]
    classes: Plane | None = None


def squash(picture: Picture, size: int, window: tuple[slice, slice] = (slice(None), slice(None))) -> Framed:
    """The picture, or the window of rows and columns, on a square, as the product does it."""
    return _split(_resize(_stack(picture)[:, *window], (size, size)), picture)


def frame(
    picture: Picture,
    size: int,
    rng: np.random.Generator,
    *,
    zoom: tuple[float, float] = (0.8, 1.25),
    stretch: float = 0.12,
    bend: float = 0.6,
    turn: bool = False,
    window: tuple[int, int, int, int] | None = None,
) -> Framed:
    """A random square of about the whole picture.

    Args:
        picture: what to show.
        size: side of the square.
        rng: the source of chance.
        zoom: range of the picture's side, as a share of the square.
        stretch: spread of the ratio of width to height.
        bend: probability of a rotation and a smooth deformation.
        turn: whether quarter turns and an upside-down view are natural, as in an endoscope.
        window: rows and columns (top, bottom, left, right) to which the picture is cut first.
    """
    stack = _stack(picture)
    if window:
        top, bottom, left, right = window
        stack = stack[:, top:bottom, left:right]
    scale = np.exp(rng.uniform(*np.log(zoom)))
    ratio = np.exp(rng.normal(0, stretch))
    height, width = (max(16, round(size * scale * part)) for part in (ratio**0.5, ratio**-0.5))
    stack = _place(_resize(stack, (height, width)), size, rng)
    if rng.random() < bend:
        stack = _bend(stack, rng)
    if rng.random() < 0.5:
        stack = stack.flip(2)
    if turn:
        stack = torch.rot90(stack, int(rng.integers(4)), (1, 2))
    return _split(stack, picture)


def content_window(picture: Picture, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
    """The box about what is brighter than air, with random margins; nothing where it is small."""
    bright = picture.image.max(axis=2) > 25
    rows, columns = np.flatnonzero(bright.mean(axis=1) > 0.02), np.flatnonzero(bright.mean(axis=0) > 0.02)
    height, width = bright.shape
    if not len(rows) or not len(columns) or np.ptp(rows) < 0.35 * height or np.ptp(columns) < 0.35 * width:
        return None
    margin = rng.uniform(0, 0.12, 4) * [height, height, width, width]
    top, bottom = int(rows[0] - margin[0]), int(rows[-1] + 1 + margin[1])
    left, right = int(columns[0] - margin[2]), int(columns[-1] + 1 + margin[3])
    return max(0, top), min(height, bottom), max(0, left), min(width, right)


def _stack(picture: Picture) -> torch.Tensor:
    """-> (C + 3 (+ 2), H, W) in [0, 1]: image, lesion, unknown, tissue, classes."""
    planes = [picture.image.astype(np.float32) / 255]
    planes += [
        mask[..., None].astype(np.float32) for mask in (picture.lesion == 1, picture.lesion == 2, picture.tissue)
    ]
    if picture.classes is not None:
        planes.append(picture.classes.astype(np.float32) / 255)
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(planes, axis=2).transpose(2, 0, 1)))


def _split(stack: torch.Tensor, picture: Picture) -> Framed:
    planes = stack.clamp(0, 1).numpy().transpose(1, 2, 0)
    channels = picture.image.shape[2]
    lesion, unknown, tissue = (planes[..., channels + index] for index in range(3))
    classes = None if picture.classes is None else planes[..., channels + 3 :]
    return Framed(planes[..., :channels], lesion, unknown > 0.1, tissue > 0.5, classes)


def _resize(stack: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(stack[None], size, mode="bicubic", align_corners=False, antialias=True)[0]


def _place(stack: torch.Tensor, size: int, rng: np.random.Generator) -> torch.Tensor:
    """Cut or pad both sides to ``size``, at a random place."""
    for axis in (1, 2):
        spare = size - stack.shape[axis]
        start = int(rng.integers(0, abs(spare) + 1))
        if spare < 0:
            stack = stack.narrow(axis, start, size)
        else:
            pad = (start, spare - start, 0, 0) if axis == 2 else (0, 0, start, spare - start)
            stack = F.pad(stack, pad)
    return stack


def _bend(stack: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Rotate by some degrees and move by a smooth random field."""
    angle = np.deg2rad(rng.normal(0, 6))
    turn = torch.tensor([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]], dtype=torch.float32)
    grid = F.affine_grid(turn[None], [1, 1, *stack.shape[1:]], align_corners=False)
    nodes = int(rng.integers(4, 8))
    field = torch.from_numpy(rng.normal(0, rng.uniform(0, 0.09) / nodes**0.5, (1, 2, nodes, nodes)).astype(np.float32))
    moved = F.interpolate(field, stack.shape[1:], mode="bicubic", align_corners=True)
    return F.grid_sample(stack[None], grid + moved.permute(0, 2, 3, 1), mode="bilinear", align_corners=False)[0]
