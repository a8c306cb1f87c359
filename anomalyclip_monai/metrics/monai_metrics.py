"""The measures as MONAI metrics, for ``monai.handlers.IgniteMetricHandler`` and evaluators.

Asked for one measure, a metric aggregates to its value; asked for several, to a dictionary, whose entries ignite puts
into ``engine.state.metrics`` one by one. A value can be :class:`~anomalyclip_monai.metrics.undefined.Undefined`. The
``evaluate.json`` of a bundle attaches them, see :mod:`anomalyclip_monai.engines.evaluation.handlers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from monai.metrics import CumulativeIterationMetric
from numpy.typing import NDArray

from anomalyclip_monai.metrics.pixels import PixelScores
from anomalyclip_monai.metrics.pro import exact_pro, paper_pro
from anomalyclip_monai.metrics.ranking import BestF1, auroc, average_precision, best_f1, dice
from anomalyclip_monai.metrics.sorted_scores import MEMORY_BYTES
from anomalyclip_monai.metrics.undefined import Undefined, Value, is_defined

Aggregate: TypeAlias = Value | dict[str, Value]


def _image_f1(labels: NDArray[Any], scores: NDArray[Any]) -> Value:
    return _best(best_f1(labels, scores))


def _pixel_dice(pixels: PixelScores) -> Value:
    return _best(pixels.best_dice())


def _best(best: BestF1 | Undefined) -> Value:
    return best.value if isinstance(best, BestF1) else best


IMAGE_MEASURES: Mapping[str, Callable[[NDArray[Any], NDArray[Any]], Value]] = {
    "image_auroc": auroc,
    "image_ap": average_precision,
    "image_f1_max": _image_f1,
}
PIXEL_MEASURES: Mapping[str, Callable[[PixelScores], Value]] = {
    "pixel_auroc": PixelScores.auroc,
    "pixel_ap": PixelScores.average_precision,
    "pixel_pro_paper": paper_pro,
    "pixel_pro_exact": exact_pro,
    "pixel_dice_max": _pixel_dice,
}


_WITHOUT_REGIONS = {"pixel_auroc", "pixel_ap", "pixel_dice_max"}


class ImageMetrics(CumulativeIterationMetric):
    """Image measures from scores and labels, each (B,) or (B, 1); gathered over processes.

    Args:
        measures: one name of ``IMAGE_MEASURES``, or several.
    """

    def __init__(self, measures: str | Sequence[str] = tuple(IMAGE_MEASURES)) -> None:
        super().__init__()
        self.measures = _known(measures, IMAGE_MEASURES)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None or y_pred.numel() != len(y_pred) or y.numel() != len(y_pred):
            shape = None if y is None else tuple(y.shape)
            raise ValueError(f"scores {tuple(y_pred.shape)} and labels {shape} must be one number for each image")
        return torch.stack([y_pred.reshape(-1), y.reshape(-1).to(y_pred)], dim=1)

    def aggregate(self) -> Aggregate:
        """The measures over all images so far."""
        buffer = self.get_buffer()
        pairs = np.zeros((0, 2)) if buffer is None else buffer.cpu().numpy()
        return _aggregate(self.measures, lambda name: IMAGE_MEASURES[name](pairs[:, 1], pairs[:, 0]))


class PixelMetrics(CumulativeIterationMetric):
    """Pixel measures from heatmaps and masks, each (B, 1, H, W), exact and in bounded memory.

    The maps are sorted where they are computed and not gathered over processes, so that aggregating in a distributed
    run raises; evaluate in one process. The buffer holds the highest score and the abnormal pixels of each image.
    Regions are looked for only where a PRO is asked for.

    Args:
        measures: one name of ``PIXEL_MEASURES``, or several.
        memory_bytes: what sorted scores of each class may hold in memory.
    """

    def __init__(
        self, measures: str | Sequence[str] = tuple(PIXEL_MEASURES), *, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._memory_bytes = memory_bytes
        self.measures = _known(measures, PIXEL_MEASURES)
        super().__init__()

    def reset(self) -> None:
        """Forget all maps."""
        super().reset()
        names = [self.measures] if isinstance(self.measures, str) else self.measures
        self.pixels = PixelScores(regions=not _WITHOUT_REGIONS.issuperset(names), memory_bytes=self._memory_bytes)

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None or y_pred.ndim != 4 or y_pred.shape[1] != 1 or y_pred.shape != y.shape:
            shape = None if y is None else tuple(y.shape)
            raise ValueError(f"heatmap {tuple(y_pred.shape)} and mask {shape} must both be (B, 1, H, W)")
        maps, masks = np.asarray(y_pred[:, 0].cpu()), np.asarray(y[:, 0].cpu())
        for heatmap, mask in zip(maps, masks, strict=True):
            self.pixels.update(heatmap, mask)
        peak, abnormal = y_pred.flatten(1).amax(1), (y > 0).flatten(1).sum(1)
        return torch.stack([torch.as_tensor(peak), torch.as_tensor(abnormal).to(peak)], dim=1)

    def aggregate(self) -> Aggregate:
        """The measures over all maps so far.

        Raises:
            RuntimeError: more than one process takes part.
        """
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            raise RuntimeError("pixel measures are not gathered over processes - evaluate in one process")
        return _aggregate(self.measures, lambda name: PIXEL_MEASURES[name](self.pixels))


class MaskDice(CumulativeIterationMetric):
    """Mean Dice over the images with a lesion, from masks, each (B, 1, H, W) or (B, 1, X, Y, Z), above 0 in a lesion.

    Gathered over processes; the buffer holds the Dice of each image, NaN without a lesion, as MONAI's does.
    """

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        if y is None or y_pred.ndim < 4 or y_pred.shape[1] != 1 or y_pred.shape != y.shape:
            shape = None if y is None else tuple(y.shape)
            raise ValueError(
                f"mask {tuple(y_pred.shape)} and true mask {shape} must both be (B, 1, H, W) or (B, 1, X, Y, Z)"
            )
        found = [dice(true, mask, 1) for mask, true in zip(np.asarray(y_pred.cpu()), np.asarray(y.cpu()), strict=True)]
        values = [value if is_defined(value) else np.nan for value in found]
        return torch.tensor(values, dtype=torch.float64).unsqueeze(1)

    def aggregate(self) -> Value:
        """The mean over all images with a lesion so far."""
        buffer = self.get_buffer()
        values = np.zeros(0) if buffer is None else buffer.cpu().numpy().ravel()
        known = values[np.isfinite(values)]
        return float(known.mean()) if known.size else Undefined("no image with a lesion")


def _known(measures: str | Sequence[str], known: Mapping[str, Any]) -> str | tuple[str, ...]:
    names = (measures,) if isinstance(measures, str) else tuple(measures)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"measures {unknown} are unknown; there are {', '.join(known)}")
    return measures if isinstance(measures, str) else names


def _aggregate(measures: str | tuple[str, ...], value: Callable[[str], Value]) -> Aggregate:
    return value(measures) if isinstance(measures, str) else {name: value(name) for name in measures}
