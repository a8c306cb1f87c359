"""A volume slice by slice through a 2D network, and the maps back onto the stored grid."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn

from anomalyclip_monai.data.geometry import SliceAxis, SliceView, plane_distance, resolve_slice_axis
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.networks.similarity import smooth_last_axis, top_fraction_mean

logger = logging.getLogger(__name__)

MEMORY_MAP_FROM = 2**30
"""A heatmap of this many bytes or more is assembled on disk."""


class SliceAnomalyInferer(Inferer):
    """``inferer(inputs, network)``: (B, C, X, Y, Z) in [0, 1] -> heatmap (B, 1, X, Y, Z) float32 in [0, 1].

    Slices are taken along the slice axis, turned upright, scored in batches and put back at their index on the stored
    grid; no volume is resampled. For a ``MetaTensor`` the result carries the input's affine and, in its meta data,
    ``slice_scores`` (B, S), ``slice_axis`` (B,) and ``batch_halvings`` (B,). (B, C, X, Y) images are taken as single
    slices.

    A network with ``score_and_map((B, C, H, W)) -> (B,), (B, 1, H, W)`` gives its own scores. For any other the last
    channel of its output is the map and the mean of the highest 2 % of it the score.

    Args:
        slice_axis: see :func:`~anomalyclip_monai.data.geometry.resolve_slice_axis`.
        slice_batch: slices per call of the network. Halved when memory runs out.
        smooth_mm: standard deviation in mm of a Gaussian across the planes of the heatmap; 0 for none. Slice scores
            stay those of the single slices.
        empty_below: slices whose brightest pixel is not above this are skipped: heatmap and score are 0 there.
        amp: mixed precision; by default on CUDA only.
        progress: called with (slices done, slices in all) after each batch.
    """

    def __init__(
        self,
        slice_axis: SliceAxis | str = "auto",
        slice_batch: int = 16,
        smooth_mm: float = 0.0,
        empty_below: float = 0.01,
        amp: bool | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        super().__init__()
        if slice_batch < 1:
            raise ValueError(f"slice_batch ({slice_batch}) must be at least 1")
        if smooth_mm < 0:
            raise ValueError(f"smooth_mm ({smooth_mm}) must not be negative")
        resolve_slice_axis(slice_axis, np.eye(4), (1, 1, 1))  # refuse an unknown one before any work
        self.slice_axis = slice_axis
        self.slice_batch = slice_batch
        self.smooth_mm = smooth_mm
        self.empty_below = empty_below
        self.amp = amp
        self.progress = progress

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """(B, C, X, Y, Z) -> (B, 1, X, Y, Z), see the class.

        Raises:
            CaseError: not even one slice fits into memory (``E_MEMORY``).
            ValueError: the shape is not that of a batch of volumes.
        """
        if inputs.ndim == 4:
            return self(inputs.unsqueeze(-1), network, *args, **kwargs).squeeze(-1)
        if inputs.ndim != 5:
            raise ValueError(f"inputs have shape {tuple(inputs.shape)}, (B, C, X, Y, Z) or (B, C, X, Y) is needed")
        volumes = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        affines, acquisition, stacked = _geometry(inputs)
        heatmap = _blank((len(volumes), 1, *volumes.shape[2:]))
        scores, axes, halvings = [], [], []
        with torch.no_grad():
            for volume, affine, acquired, bound, out in zip(
                volumes, affines, acquisition, stacked, heatmap, strict=True
            ):
                axis = bound
                if axis is None:
                    axis = resolve_slice_axis(self.slice_axis, affine, volume.shape[1:], acquired)
                view = SliceView.upright(affine, axis)
                volume_scores, halved = self._score(volume, view, out, network, *args, **kwargs)
                if self.smooth_mm:
                    sigma = self.smooth_mm / plane_distance(affine, axis)
                    out.copy_(smooth_last_axis(out.movedim(1 + axis, -1), sigma).movedim(-1, 1 + axis))
                scores.append(volume_scores)
                axes.append(axis)
                halvings.append(halved)
        if not isinstance(inputs, MetaTensor):
            return heatmap
        if len({len(item) for item in scores}) > 1:
            raise ValueError("the volumes of one batch have different numbers of slices, use a batch of one")
        found = {
            "slice_scores": torch.stack(scores),
            "slice_axis": torch.tensor(axes),
            "batch_halvings": torch.tensor(halvings),
        }
        result = MetaTensor(heatmap, meta={**inputs.meta, **found})
        result.is_batch = inputs.is_batch
        return result

    def _score(
        self, volume: Tensor, view: SliceView, out: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, int]:
        """Fill ``out`` (1, X, Y, Z) in place; -> scores (S,) and how often the batch was halved."""
        slices, maps = view.slices(volume), view.slices(out)
        brightest = slices.amax(dim=(1, 2, 3))
        todo = torch.nonzero(brightest > self.empty_below).flatten().tolist()
        scores = torch.zeros(len(slices), dtype=torch.float32)
        batch, halvings, done = self.slice_batch, 0, 0
        device = _device_of(network, volume.device)
        while done < len(todo):
            chunk = todo[done : done + batch]
            try:
                images = view.flip(slices[chunk].to(device, torch.float32))
                with self._autocast(device):
                    score, anomaly_map = _score_and_map(network, images, *args, **kwargs)
                anomaly_map = view.flip(anomaly_map.float()).to(maps.device)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if batch == 1:
                    raise CaseError(
                        "E_MEMORY", "not even one slice fits into memory", None, "use a smaller model or device cpu"
                    ) from error
                batch, halvings = max(1, batch // 2), halvings + 1
                logger.warning("out of memory, going on with %d slices at a time", batch)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            maps[chunk] = anomaly_map
            scores[chunk] = score.float().to(scores.device)
            done += len(chunk)
            if self.progress:
                self.progress(done, len(todo))
        return scores, halvings

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        enabled = device.type == "cuda" if self.amp is None else self.amp
        return torch.autocast(device.type, enabled=True) if enabled else contextlib.nullcontext()


def _blank(shape: tuple[int, ...]) -> Tensor:
    """Zeros, float32; large ones lie in a file without a name that goes when the tensor does."""
    if math.prod(shape) * 4 < MEMORY_MAP_FROM:
        return torch.zeros(shape, dtype=torch.float32)
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))


def _score_and_map(network: Callable[..., Any], images: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    own = getattr(network, "score_and_map", None)
    if own is not None:
        return own(images, *args, **kwargs)
    anomaly_map = network(images, *args, **kwargs)[:, -1:].float()
    return top_fraction_mean(anomaly_map), anomaly_map


def _geometry(inputs: Tensor) -> tuple[list[np.ndarray], list[int | None], list[int | None]]:
    """Affine, acquisition axis and, where slices lie on no grid, their axis, of each volume of a batch.

    Meta data may have been collated or not.
    """
    count = len(inputs)
    if not isinstance(inputs, MetaTensor):
        return [np.eye(4)] * count, [None] * count, [None] * count
    affines = np.broadcast_to(np.asarray(inputs.affine, dtype=np.float64), (count, 4, 4))

    def axes(key: str) -> list[int | None]:
        values = np.broadcast_to(np.asarray(inputs.meta.get(key, -1)), (count,))
        return [int(axis) if axis >= 0 else None for axis in values]

    return list(affines), axes("acquisition_axis"), axes("stacked_axis")


def _device_of(network: Callable[..., Any], default: torch.device) -> torch.device:
    parameter = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return default if parameter is None else parameter.device


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )
