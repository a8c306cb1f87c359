"""The true lesion of a sample on the grid of its image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyclip_monai.data.benchmarks.sample import Sample
from anomalyclip_monai.data.cases import the_case
from anomalyclip_monai.data.masks import grid_problem, meaning_of, read_mask_file, rotation_note
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import Affine

HALF = 127
"""Grey values above this one are lesion in a squashed mask."""

LEAST_PIXELS, LEAST_COVER = 4, 0.2
"""A lesion that would be smaller than so many pixels keeps those of which it covers this share."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What the masks of an image say.

    Attributes:
        lesion: (X, Y, Z).
        ignored: (X, Y, Z) neither lesion nor normal: left out of every measure of pixels; None where nothing is.
        notes: how the masks were understood, where that is not plain.
    """

    lesion: NDArray[np.bool_]
    ignored: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()

    @property
    def counted(self) -> NDArray[np.bool_] | None:
        """(X, Y, Z) where pixels are measured; None: everywhere."""
        return None if self.ignored is None else ~self.ignored


def read_truth(sample: Sample, shape: tuple[int, ...], affine: Affine | None = None) -> Truth:
    """What is known of the lesion of an image, X columns, Y rows and Z = 1 for a photo.

    Args:
        sample: the image; without masks and not abnormal it has no lesion.
        shape: (X, Y, Z) of the image.
        affine: (4, 4) of a volume; None: it is read from the image's file.

    Raises:
        CaseError: the mask cannot be read, lies on another grid (``E_MASK_GRID``), is not there for an abnormal image,
            shows a lesion in a normal one, or has values that mean nothing (``E_MASK``). That of an abnormal image may
            be empty, see :func:`empty_mask`.
    """
    if not sample.masks:
        if sample.label == 1:
            raise CaseError("E_MASK", "an abnormal image without a mask", sample.image, "measure image scores only")
        return Truth(np.zeros(shape, np.bool_))
    if sample.volume and affine is None:
        affine = the_case(sample.image).read(volume=0).affine
    lesion, ignored = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    notes: dict[str, None] = {}
    for path in sample.masks:
        mask = read_mask_file(path)
        if problem := grid_problem(mask, shape, affine if sample.volume else None, sample.image):
            raise CaseError("E_MASK_GRID", problem, path, "make the mask on the image's grid")
        try:
            meaning = meaning_of(mask, sample.mask_rule)
        except ValueError as error:
            raise CaseError("E_MASK", str(error), path, "save labels, or 0 and 255") from error
        lesion |= meaning.inside
        if meaning.ignored is not None:
            ignored |= meaning.ignored
        notes |= dict.fromkeys(line for line in (*meaning.notes, rotation_note(mask, sample.image)) if line)
    if sample.label == 0 and lesion.any():
        raise CaseError("E_MASK", "a normal image whose mask shows a lesion", sample.image, "correct label or mask")
    ignored &= ~lesion
    return Truth(lesion, ignored if ignored.any() else None, tuple(notes))


def empty_mask(sample: Sample, truth: Truth) -> CaseError | None:
    """The error (``E_MASK``) of an abnormal image whose mask shows no lesion; None where all is well."""
    if sample.label != 1 or truth.lesion.any():
        return None
    said = f" ({'; '.join(truth.notes)})" if truth.notes else ""
    what = f"an abnormal image whose mask is empty{said}"
    return CaseError("E_MASK", what, sample.masks[0], "draw the lesion, or correct the label")


def read_mask(sample: Sample, shape: tuple[int, ...], affine: Affine | None = None) -> NDArray[np.bool_]:
    """The lesion of an image, (X, Y, Z); see :func:`read_truth`.

    Raises:
        CaseError: as there, and for an abnormal image whose mask is empty (``E_MASK``).
    """
    truth = read_truth(sample, shape, affine)
    if (error := empty_mask(sample, truth)) is not None:
        raise error
    return truth.lesion


def check_one_page(sample: Sample, shape: tuple[int, ...]) -> None:
    """Refuse a photo of several pages, whose lesion no mask of one page shows.

    Args:
        sample: the image.
        shape: (X, Y, Z) of it.

    Raises:
        CaseError: it has several (``E_PIXELS``).
    """
    if not sample.volume and shape[-1] != 1:
        raise CaseError("E_PIXELS", f"a photo of {shape[-1]} pages", sample.image, "save its pages as single files")


def squash_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """(X, Y, 1) -> (size, size, 1) as the paper's protocol has it: bilinear with antialias, above a half."""
    grey = Image.fromarray(mask[:, :, 0].T.astype(np.uint8) * np.uint8(255))
    squashed = np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))
    return (squashed > HALF).T[:, :, np.newaxis]


def squash_truth(truth: Truth, size: int) -> Truth:
    """Both parts of a truth as :func:`squash_mask` does it; a pixel counts as normal where at least half of it is."""
    lesion = squash_mask(truth.lesion, size)
    if truth.ignored is None:
        return Truth(lesion, None, truth.notes)
    return Truth(lesion, squash_mask(truth.lesion | truth.ignored, size) & ~lesion, truth.notes)


def cover(mask: NDArray[np.bool_], size: int) -> NDArray[np.float32]:
    """(X, Y) -> (size, size) share of each pixel of the new grid that the mask covers."""
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def covered_truth(truth: Truth, size: int) -> Truth:
    """A truth of (X, Y, 1) -> (size, size, 1): a pixel is lesion where at least half of it is, and no lesion gets lost.

    Where no pixel is covered by half, those at half of the largest cover are lesion; where fewer than 4 pixels remain,
    those of which at least a fifth is covered.
    """
    lesion = _covered(truth.lesion, size)
    if truth.ignored is None:
        return Truth(lesion, None, truth.notes)
    ignored = cover((truth.lesion | truth.ignored)[:, :, 0], size)[:, :, np.newaxis] >= 0.5
    return Truth(lesion, ignored & ~lesion, truth.notes)


def _covered(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    share = cover(mask[:, :, 0], size)[:, :, np.newaxis]
    most = float(share.max())
    if not most:
        return np.zeros(share.shape, np.bool_)
    kept = share >= (0.5 if most >= 0.5 else most / 2)
    return kept if np.count_nonzero(kept) >= LEAST_PIXELS else share >= min(LEAST_COVER, most / 2)
