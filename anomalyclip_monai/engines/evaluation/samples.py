"""The last step of preprocessing in an evaluation: the protocol's grid, and the true lesion on it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms.transform import MapTransform, Transform
from numpy.typing import NDArray
from torch.nn import functional as F

from anomalyclip_monai.data.benchmarks import Sample, Truth, read_truth
from anomalyclip_monai.data.benchmarks.masks import (
    check_one_page,
    cover,
    covered_truth,
    empty_mask,
    squash_truth,
)
from anomalyclip_monai.data.cases import Case, the_case
from anomalyclip_monai.exceptions import AnomalyCLIPError
from anomalyclip_monai.metrics.baselines import lit_field, resized
from anomalyclip_monai.types import Record


def records_of(samples: Sequence[Sample]) -> list[Record]:
    """Samples -> records with ``case``, ``image`` (a :class:`Case`, so that every reader works) and ``sample``."""
    return [{"case": sample.name, "image": _case(sample), "sample": sample} for sample in samples]


def _case(sample: Sample) -> Case:
    try:
        found = the_case(sample.image)
    except AnomalyCLIPError as error:
        return Case(sample.name, sample.image, error=error)
    return Case(sample.name, found.path, found.series, found.error)


class SquashPhoto(Transform):
    """(C, X, Y, Z) in [0, 1] -> (C, size, size, Z), squashed as the paper does it (bicubic, antialias, clamped).

    Args:
        size: side in pixels.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, data: torch.Tensor) -> torch.Tensor:
        """Squash every slice."""
        plain = data.as_tensor() if isinstance(data, MetaTensor) else data
        size = (self.size, self.size)
        slices = F.interpolate(plain.movedim(-1, 0), size, mode="bicubic", align_corners=False, antialias=True)
        squashed = slices.clamp(0, 1).movedim(0, -1).contiguous()
        if not isinstance(data, MetaTensor):
            return squashed
        meta = {key: value for key, value in data.meta.items() if key != "affine"}
        meta["spatial_shape"] = np.array(squashed.shape[1:])
        return MetaTensor(squashed, affine=data.affine, meta=meta)


class PrepareSampled(MapTransform):
    """Bring image and true lesion of a sample onto the protocol's grid.

    The record gets ``truth``: bool (X, Y, Z), or None where the lesion of an abnormal image is not known; ``counted``:
    bool (X, Y, Z) where its pixels are measured, None for everywhere; ``abnormal``: the sample's label, or whether its
    mask on its own grid shows a lesion; ``mask_error``: why the lesion of an abnormal image that has a mask is not
    known, else None; and ``stored_shape``: of the image before it was squashed. How the mask was understood goes to
    ``notes``.

    Args:
        keys: the image's key.
        size: side to which photos are squashed, None for their own grid.
    """

    def __init__(self, keys: str = "image", size: int | None = None) -> None:
        super().__init__(keys)
        self.size = size

    def __call__(self, data: Mapping[Hashable, object]) -> Record:
        """Prepare one record.

        Raises:
            CaseError: the mask does not belong to the image, see :func:`read_truth`.
        """
        record: Record = {str(key): value for key, value in data.items()}
        sample: Sample = record["sample"]
        for key in self.key_iterator(record):
            image: MetaTensor = record[key]
            shape = tuple(image.shape[1:])
            record["stored_shape"] = shape
            check_one_page(sample, shape)
            truth, error = None, None
            if sample.masks or sample.label != 1:
                affine = np.asarray(image.affine, dtype=np.float64) if sample.volume else None
                truth = read_truth(sample, shape, affine)
                error = empty_mask(sample, truth)
            record["mask_error"] = error
            record["abnormal"] = bool(truth.lesion.any() if sample.label is None and truth else sample.label)
            record["notes"] = [*record.get("notes", ()), *(truth.notes if truth else ())]
            if self.size is not None:
                record[key] = SquashPhoto(self.size)(image)
                truth = truth and squash_truth(truth, self.size)
            known = truth if error is None else None
            record["truth"] = known and known.lesion
            record["counted"] = known and known.counted
        return record


@dataclass(frozen=True, slots=True)
class MeasuredPhoto:
    """What of a photo is measured against a map of the same shape.

    Attributes:
        lesion: (X, Y) the true one.
        counted: (X, Y) where pixels are measured, None: everywhere.
        lit: (X, Y) the lit field.
    """

    lesion: NDArray[np.bool_]
    counted: NDArray[np.bool_] | None
    lit: NDArray[np.bool_]

    @classmethod
    def of(cls, record: Record, size: int | None) -> MeasuredPhoto:
        """A record whose lesion is known, on its own grid or on a square of ``size``."""
        lesion, counted = record["truth"], record["counted"]
        lit = lit_field(np.asarray(record["image"][..., 0].cpu()) * 255)
        if size is not None:
            truth = covered_truth(Truth(lesion, None if counted is None else ~counted), size)
            lesion, counted = truth.lesion, truth.counted
            lit = cover(lit, size) > 0.5
        return cls(lesion[..., 0], None if counted is None else counted[..., 0], lit)


def on_grid(plane: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """(X, Y) map -> the same on another grid."""
    return plane if plane.shape == shape else resized(plane, shape[1], shape[0])
