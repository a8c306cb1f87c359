"""A volume slice by slice through a 2D network, and the maps back onto the stored grid."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor, nn

from anomalyclip_monai.data.geometry import (
    SliceAxis,
    SliceView,
    closest_axes,
    plane_distance,
    resolve_slice_axis,
    spacing,
)
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.inferers.body import body_window
from anomalyclip_monai.inferers.glare import fill_glare
from anomalyclip_monai.inferers.planes import Axes, parse_axes, resolve_axes
from anomalyclip_monai.networks.similarity import smooth_last_axis, top_fraction_mean

logger = logging.getLogger(__name__)

MEMORY_MAP_FROM = 2**30
"""A heatmap of this many bytes or more is assembled on disk."""

SLAB_VOXELS = 2**24
"""About this many voxels are smoothed at a time."""


class SliceAnomalyInferer(Inferer):
    """``inferer(inputs, network)``: (B, C, X, Y, Z) in [0, 1] -> heatmap (B, 1, X, Y, Z) float32 in [0, 1].

    Slices are taken along the slice axis, turned upright, scored in batches and put back at their index on the stored
    grid; no volume is resampled. For a ``MetaTensor`` the result carries the input's affine and, in its meta data,
    ``axes`` (B, 3; -1 for those not used), ``slice_scores`` (B, S) along the first of them and ``batch_halvings``
    (B,). (B, C, X, Y) images are taken as single slices.

    With several ``axes`` the heatmap is the mean of the heatmaps along each, where a skipped slice counts as 0. What
    has no second plane keeps to one: single slices, slices that lie on no grid, pictures and frames without a physical
    size. Such slices are no neighbours either and are not smoothed by ``smooth_slices``. Of a heatmap that is smoothed
    or a mean, the score of a slice along the first axis is the mean of the highest 2 % of the heatmap in it.

    A network with ``score_and_map((B, C, H, W)) -> (B,), (B, 1, H, W)`` gives its own scores. For any other the last
    channel of its output is the map and the mean of the highest 2 % of it the score.

    Where the meta data say that the object is ``symmetric`` (a preset does, of heads), and a network with ``symmetry``
    is given, scores of axial and coronal slices weigh what differs between left and right, see
    :class:`~anomalyclip_monai.networks.Symmetry`.

    Args:
        slice_axis: see :func:`~anomalyclip_monai.data.geometry.resolve_slice_axis`.
        slice_batch: slices per call of the network. Halved when memory runs out.
        smooth_mm: standard deviation in mm of a Gaussian across the planes of the heatmap along each axis; 0 for none.
        smooth_slices: the same in slices. Variances of both add up.
        empty_below: slices whose brightest pixel is not above this are skipped: heatmap and score are 0 there.
        amp: mixed precision; by default on CUDA only.
        progress: called with (slices done, slices in all) after each batch; those along all axes count.
        axes: along how many axes slices are taken, or along which ones, see
            :func:`~anomalyclip_monai.inferers.planes.parse_axes`; ``auto``: along all three where that helps, see
            :func:`~anomalyclip_monai.inferers.planes.resolve_axes`.
        mirror: slices along one axis are scored mirrored left to right as well, and get the mean.
        crop: show the network of what has a physical size only the part of the slices that holds the body, see
            :func:`~anomalyclip_monai.inferers.body.body_window`. Outside of it the heatmap is 0; a
            network's own score is of that part.
        fill_glare: fill the reflections of colour pictures before the network sees them, see
            :func:`~anomalyclip_monai.inferers.glare.fill_glare`.
    """

    def __init__(
        self,
        slice_axis: SliceAxis | str = "auto",
        slice_batch: int = 16,
        smooth_mm: float = 0.0,
        smooth_slices: float = 0.0,
        empty_below: float = 0.01,
        amp: bool | None = None,
        progress: Callable[[int, int], None] | None = None,
        axes: Axes = 1,
        mirror: bool = False,
        crop: bool = False,
        fill_glare: bool = False,
    ) -> None:
        super().__init__()
        if slice_batch < 1:
            raise ValueError(f"slice_batch ({slice_batch}) must be at least 1")
        for name, sigma in (("smooth_mm", smooth_mm), ("smooth_slices", smooth_slices)):
            if sigma < 0:
                raise ValueError(f"{name} ({sigma}) must not be negative")
        resolve_slice_axis(slice_axis, np.eye(4), (1, 1, 1))  # refuse an unknown one before any work
        self.slice_axis = slice_axis
        self.slice_batch = slice_batch
        self.smooth_mm = smooth_mm
        self.smooth_slices = smooth_slices
        self.empty_below = empty_below
        self.amp = amp
        self.progress = progress
        self.axes = parse_axes(axes)
        self.mirror = mirror
        self.crop = crop
        self.fill_glare = fill_glare

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
        heatmap = _blank((len(volumes), 1, *volumes.shape[2:]))
        scores, axes, halvings = [], [], []
        with torch.no_grad():
            for volume, place, out in zip(volumes, _places(inputs), heatmap, strict=True):
                chosen = self._axes_of(volume, place)
                volume_scores, halved = self._fill(out, volume, place, chosen, network, *args, **kwargs)
                scores.append(volume_scores)
                axes.append(chosen)
                halvings.append(halved)
        if not isinstance(inputs, MetaTensor):
            return heatmap
        if len({len(item) for item in scores}) > 1:
            raise ValueError("the volumes of one batch have different numbers of slices, use a batch of one")
        found = {
            "slice_scores": torch.stack(scores),
            "axes": torch.tensor([[*chosen, -1, -1][:3] for chosen in axes]),
            "batch_halvings": torch.tensor(halvings),
        }
        result = MetaTensor(heatmap, meta={**inputs.meta, **found})
        result.is_batch = inputs.is_batch
        return result

    def _axes_of(self, volume: Tensor, place: _Place) -> tuple[int, ...]:
        """The array axes along which slices of a volume (C, X, Y, Z) are taken."""
        if place.stacked is not None:
            return (place.stacked,)
        shape = volume.shape[1:]
        axes = resolve_axes(self.axes, self.slice_axis, place.affine, shape, place.acquired)
        return axes if place.physical and min(shape) > 1 else axes[:1]

    def _fill(
        self,
        out: Tensor,
        volume: Tensor,
        place: _Place,
        axes: tuple[int, ...],
        network: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, int]:
        """Fill ``out`` (1, X, Y, Z) in place; -> scores (S,) and how often the batch was halved."""
        views = [SliceView.upright(place.affine, axis) for axis in axes]
        sigmas = [self._sigma(place, axis) if volume.shape[1 + axis] > 1 else 0.0 for axis in axes]
        todo = [self._not_empty(view.slices(volume)) for view in views]
        total, done, halvings = sum(map(len, todo)), 0, 0
        mirror = self.mirror and len(axes) == 1
        scores = torch.zeros(0)
        symmetry = getattr(network, "symmetry", None) if _is_symmetric(views[0], place) else None
        halves = None if symmetry is None else torch.full((volume.shape[1 + axes[0]],), math.nan)
        for number, (view, indices, sigma) in enumerate(zip(views, todo, sigmas, strict=True)):
            maps = out if number == 0 else _blank(tuple(out.shape))
            report = self._report(done, total)
            window = (..., *self._window(view, volume, place))
            slices, canvas = view.slices(volume)[window], view.slices(maps)[window]
            found, halvings = self._score(
                canvas,
                slices,
                view,
                indices,
                halvings,
                report,
                mirror,
                halves if number == 0 else None,
                network,
                *args,
                **kwargs,
            )
            done += len(indices)
            if sigma:
                _smooth_across(maps, view.axis, sigma)
            if number == 0:
                scores = found
            else:
                out += maps
        if len(axes) > 1:
            out /= len(axes)
        if len(axes) > 1 or any(sigmas):
            scores = torch.cat([top_fraction_mean(plane[None]) for plane in out.unbind(1 + axes[0])])
        return scores if symmetry is None else symmetry.weigh(scores, halves), halvings

    def _window(self, view: SliceView, volume: Tensor, place: _Place) -> tuple[slice, slice]:
        """Rows and columns of the slices that the network is shown."""
        if not (self.crop and place.physical):
            return slice(None), slice(None)
        size = spacing(place.affine)
        return body_window(view.slices(volume), (float(size[view.row_axis]), float(size[view.column_axis])))

    def _sigma(self, place: _Place, axis: int) -> float:
        """Standard deviation of the Gaussian across the planes along an axis, in planes."""
        neighbours = place.stacked is None and place.physical
        return math.hypot(
            self.smooth_mm / plane_distance(place.affine, axis), self.smooth_slices if neighbours else 0.0
        )

    def _not_empty(self, slices: Tensor) -> list[int]:
        """Indices of the slices (S, C, H, W) that are to be scored."""
        return torch.nonzero(slices.amax(dim=(1, 2, 3)) > self.empty_below).flatten().tolist()

    def _report(self, before: int, total: int) -> Callable[[int], None]:
        """Takes how many slices along one axis are done, and tells how many are of all axes."""
        return lambda done: self.progress(before + done, total) if self.progress else None

    def _score(
        self,
        maps: Tensor,
        slices: Tensor,
        view: SliceView,
        todo: list[int],
        halvings: int,
        report: Callable[[int], None],
        mirror: bool,
        halves: Tensor | None,
        network: Callable[..., Any],
        *args: Any,
        **kwargs: Any,
    ) -> tuple[Tensor, int]:
        """Fill ``maps`` (S, 1, H, W) of slices (S, C, H, W) in place; -> scores (S,) and halvings of the batch.

        ``halves`` (S,), if given, is filled with the asymmetries of the slices.
        """
        scores = torch.zeros(len(slices), dtype=torch.float32)
        done = 0
        device = _device_of(network, slices.device)
        while done < len(todo):
            batch = max(1, self.slice_batch >> halvings)
            chunk = todo[done : done + batch]
            try:
                shown = slices[_span(chunk)]
                shown = fill_glare(shown) if self.fill_glare else shown
                images = view.flip(shown.to(device, torch.float32))
                with self._autocast(device):
                    score, anomaly_map = _score_and_map(network, images, mirror, *args, **kwargs)
                    if halves is not None:
                        halves[chunk] = cast(Any, network).asymmetry(images).to(halves)
                anomaly_map = view.flip(anomaly_map.float()).to(maps.device)
            except (MemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if batch == 1:
                    raise CaseError(
                        "E_MEMORY", "not even one slice fits into memory", None, "use a smaller model or device cpu"
                    ) from error
                halvings += 1
                logger.warning("out of memory, going on with %d slices at a time", batch // 2)
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            maps[_span(chunk)] = anomaly_map
            scores[chunk] = score.float().to(scores.device)
            done += len(chunk)
            report(done)
        return scores, halvings

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        enabled = device.type == "cuda" if self.amp is None else self.amp
        return torch.autocast(device.type, enabled=True) if enabled else contextlib.nullcontext()


def _span(chunk: list[int]) -> slice | list[int]:
    """Rising indices as a slice where they follow one another: then nothing is copied on the way."""
    span = slice(chunk[0], chunk[-1] + 1)
    return span if span.stop - span.start == len(chunk) else chunk


def _blank(shape: tuple[int, ...]) -> Tensor:
    """Zeros, float32; large ones lie in a file without a name that goes when the tensor does."""
    if math.prod(shape) * 4 < MEMORY_MAP_FROM:
        return torch.from_numpy(np.zeros(shape, np.float32))  # takes its memory only as it is filled
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, dtype=np.float32, mode="w+", shape=shape))


def _score_and_map(
    network: Callable[..., Any], images: Tensor, mirror: bool, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    own = getattr(network, "score_and_map", None)
    if own is not None:
        return own(images, *args, **({"mirror": True} if mirror else {}), **kwargs)
    anomaly_map = network(images, *args, **kwargs)[:, -1:].float()
    if mirror:
        anomaly_map = (anomaly_map + network(images.flip(-1), *args, **kwargs)[:, -1:].float().flip(-1)) / 2
    return top_fraction_mean(anomaly_map), anomaly_map


def _smooth_across(maps: Tensor, axis: int, sigma: float) -> None:
    """Smooth (1, X, Y, Z) along an array axis in place, ``sigma`` in planes; slab by slab, for what lies on disk."""
    lines = maps[0].movedim(axis, -1)
    for slab in lines.split(max(1, SLAB_VOXELS // lines[0].numel())):
        slab.copy_(smooth_last_axis(slab, sigma))


@dataclass(frozen=True)
class _Place:
    """What is known of where a volume lies: affine, acquisition axis, and, of slices on no grid, their axis."""

    affine: np.ndarray
    acquired: int | None = None
    stacked: int | None = None
    physical: bool = True
    symmetric: bool = False


def _is_symmetric(view: SliceView, place: _Place) -> bool:
    """Whether left and right, along the columns of these slices, are to be compared."""
    return place.symmetric and int(closest_axes(place.affine)[view.column_axis, 0]) == 0


def _places(inputs: Tensor) -> list[_Place]:
    """Of each volume of a batch, whose meta data may have been collated or not."""
    count = len(inputs)
    if not isinstance(inputs, MetaTensor):
        return [_Place(np.eye(4))] * count
    affines = np.broadcast_to(np.asarray(inputs.affine, dtype=np.float64), (count, 4, 4))

    def values(key: str, default: int) -> list[int]:
        return [int(value) for value in np.broadcast_to(np.asarray(inputs.meta.get(key, default)), (count,))]

    keys = {"acquisition_axis": -1, "stacked_axis": -1, "physical_size": 1, "symmetric": 0}
    rows = zip(affines, *(values(key, default) for key, default in keys.items()), strict=True)
    return [
        _Place(
            affine,
            acquired if acquired >= 0 else None,
            stacked if stacked >= 0 else None,
            bool(physical),
            bool(symmetric),
        )
        for affine, acquired, stacked, physical, symmetric in rows
    ]


def _device_of(network: Callable[..., Any], default: torch.device) -> torch.device:
    parameter = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    return default if parameter is None else parameter.device


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        "out of memory" in text or "can't allocate memory" in text or "not enough memory" in text
    )
