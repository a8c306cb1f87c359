"""Lesion masks on the grid of their image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyclip_monai.data.benchmarks.sample import MaskRule, Sample
from anomalyclip_monai.data.cases import Case, the_case
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import Affine

HALF = 127
"""Grey values above this one are lesion in masks with soft edges."""

TOLERANCE = 0.01
"""Largest difference of two affines of the same grid, in mm."""


def read_mask(sample: Sample, shape: tuple[int, ...], affine: Affine | None = None) -> NDArray[np.bool_]:
    """The lesion of an image, (X, Y, Z) with X columns, Y rows and Z = 1 for a photo.

    Args:
        sample: the image; without masks and not abnormal it has no lesion.
        shape: (X, Y, Z) of the image.
        affine: (4, 4) of a volume; None: it is read from the image's file.

    Raises:
        CaseError: the mask cannot be read, lies on another grid (``E_MASK_GRID``), is not there for an abnormal image,
            or shows a lesion in a normal one (``E_MASK``).
    """
    if not sample.masks:
        if sample.label == 1:
            raise CaseError("E_MASK", "an abnormal image without a mask", sample.image, "measure image scores only")
        return np.zeros(shape, np.bool_)
    if sample.volume and affine is None:
        affine = the_case(sample.image).read(volume=0).affine
    lesion = np.zeros(shape, np.bool_)
    for path in sample.masks:
        mask = Case(sample.name, path).read(volume=0)
        found = mask.data.shape[1:]
        if found != tuple(shape):
            what = f"the mask is {_size(found)}, the image {_size(shape)}"
            raise CaseError("E_MASK_GRID", what, path, "make the mask on the image's grid")
        offset = float(np.abs(mask.affine - affine).max()) if affine is not None and sample.volume else 0.0
        if offset > TOLERANCE:
            what = f"the mask lies elsewhere in space, its affine differs by {offset:.3g}"
            raise CaseError("E_MASK_GRID", what, path, "make the mask on the image's grid")
        lesion |= _lesion(mask, sample.mask_rule).any(axis=0)
    if sample.label == 0 and lesion.any():
        raise CaseError("E_MASK", "a normal image whose mask shows a lesion", sample.image, "correct label or mask")
    return lesion


def squash_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """(X, Y, 1) -> (size, size, 1) as the paper's protocol has it: bilinear with antialias, above a half."""
    grey = Image.fromarray(mask[:, :, 0].T.astype(np.uint8) * np.uint8(255))
    squashed = np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))
    return (squashed > HALF).T[:, :, np.newaxis]


def _lesion(mask: Volume, rule: MaskRule) -> NDArray[np.bool_]:
    """(C, X, Y, Z) -> the same, where the values are those of a lesion."""
    data = mask.data
    if isinstance(rule, tuple):
        return np.isin(data, rule)
    if rule == "auto":
        jpeg = mask.source.path is not None and mask.source.path.suffix.lower() in (".jpg", ".jpeg")
        photo = mask.source.kind == "photo"
        rule = "half" if photo and (jpeg or data.max() > HALF) else "any"
    return data > (HALF if rule == "half" else 0)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(count) for count in shape)
