"""What a mask means: one rule for lesions and organs, on the values as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anomalyclip_monai.data.cases import the_case
from anomalyclip_monai.data.geometry import corner_distance, spacing
from anomalyclip_monai.data.photo import is_photo, orientation, photo_affine, read_picture
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.types import Affine, FloatArray, PathLike

MaskRule: TypeAlias = Literal["auto", "half"] | tuple[int, ...]
"""Which values of a mask are inside.

``auto``: labels or a soft mask, see :func:`meaning_of`. ``half``: always a soft mask, for data sets whose masks are
0 and 255 (or 0 and 1) with soft edges or JPEG noise. A tuple: exactly these labels, for masks that hold organs as well.
"""

MAX_LABELS = 32
"""A mask with more different values is a soft one."""

IGNORED = 255
"""The label of what its author could not tell, beside labels that are all below :data:`IGNORED_BESIDE`."""

IGNORED_BESIDE = 64

WHOLE = 1e-3
"""Largest distance of a label from a whole number, after some program went over it in floating point."""

UNIT_BELOW = 2
"""Fractions below this value are of 1: splines overshoot a little."""

EDGE_SHARE = 0.5
"""Of the smallest voxel edge: two grids whose corners lie further apart are not the same."""


@dataclass(frozen=True, slots=True)
class StoredMask:
    """A mask before anybody says what its values mean.

    Attributes:
        values: (X, Y, Z) as they are stored; NaN where the file says nothing or is transparent.
        affine: (4, 4) voxel index to RAS mm.
        path: its file, None for one in memory.
        placed: whether the affine says where it lies; not in a picture.
        lossy: compressed as a photo, so that values are not exact.
        notes: what reading it changed, one sentence each.
    """

    values: FloatArray
    affine: Affine
    path: Path | None = None
    placed: bool = True
    lossy: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a mask says of each voxel.

    Attributes:
        inside: (X, Y, Z) the lesion, or the organ.
        ignored: (X, Y, Z) neither that nor its contrary; None where there is no such voxel.
        notes: which values were taken, where that is not plain.
    """

    inside: NDArray[np.bool_]
    ignored: NDArray[np.bool_] | None
    notes: tuple[str, ...]


def read_mask_file(path: PathLike) -> StoredMask:
    """Read the mask in a file or a DICOM folder.

    Raises:
        AnomalyCLIPError: it cannot be read.
    """
    path = Path(path)
    if not is_photo(path) or not path.is_file():
        return mask_of_volume(the_case(path).read(keep_nan=True))
    picture = read_picture(path)
    values, notes = picture.values, [*picture.notes, *_said_of_nan(picture.values)]
    if picture.alpha is not None:
        # A layer of constant opacity counts as drawn, a soft brush from half of its strongest stroke on.
        drawn = 2 * picture.alpha.astype(np.int32) > max(int(picture.alpha.max()), 1)
        if drawn.any() and not drawn.all() and not values[drawn].any():
            values = np.where(drawn, np.float32(1), np.nan)
            notes.append("the mask is black on transparent: what is opaque was taken")
        elif not drawn.all():
            values = np.where(drawn, values, np.nan)
            notes.append("what is transparent in the mask was taken as outside")
    return StoredMask(values, photo_affine(), path, placed=False, lossy=picture.lossy, notes=tuple(notes))


def mask_of_volume(volume: Volume) -> StoredMask:
    """A volume that was read with its NaN; of several channels the largest value counts."""
    source, values = volume.source, volume.data.max(axis=0)
    notes = (*source.warnings, *_said_of_nan(values))
    return StoredMask(values, volume.affine, source.path, placed=source.has_physical_size, notes=notes)


def meaning_of(mask: StoredMask, rule: MaskRule = "auto", *, of: str = "lesion") -> Meaning:
    """What the values of a mask mean.

    NaN, infinity and what is transparent are outside. At most 32 different whole numbers that were not compressed as a
    photo are labels: all above 0 are inside, and 255 is ignored where all others are below 64 (0 and 255 alone are a
    plain mask). Else the mask is soft: inside is what lies above a half, of 1 if nothing exceeds it (but for the
    overshoot of splines), of 255 if nothing exceeds that, else of the largest value. Where 0 and one other value are
    all there is, as after a header scaled a mask, that value is inside.

    Args:
        mask: its values.
        rule: see :data:`MaskRule`.
        of: what the inside is called in notes.

    Raises:
        ValueError: the values are neither labels nor a soft mask; says why.
    """
    values = mask.values
    known = np.isfinite(values)
    if isinstance(rule, tuple):
        return Meaning(known & np.isin(np.rint(values), rule), None, mask.notes)
    marked = values[known & (values != 0)]
    labels = None if mask.lossy else whole_numbers(marked)
    has_zero = marked.size < np.count_nonzero(known)
    ignored, note = None, ""
    if rule == "auto" and labels is not None and len(labels) + has_zero <= MAX_LABELS:
        taken = [label for label in labels if label > 0]
        inside = known & (values > 0.5)
        others = [label for label in taken if label != IGNORED]
        if IGNORED in taken and others and max(others) < IGNORED_BESIDE:
            ignored = inside & (np.rint(values) == IGNORED)
            inside &= ~ignored
            note = f"mask values taken as {of}: {listed(others)}; left out: {IGNORED}"
        elif taken not in ([], [1], [IGNORED]) or (taken and labels[0] < 0):
            note = f"mask values taken as {of}: {listed(taken)}"
    else:
        level = _half(marked, has_zero=has_zero, whole=labels is not None, lossy=mask.lossy)
        inside = known & (values > level)
        faint = bool(marked.size) and not mask.lossy and not inside.any()
        if faint or (level != IGNORED / 2 and labels != (1,)):
            low, high = min(marked.min(), 0) if has_zero else marked.min(), marked.max()
            note = f"mask values from {low:.4g} to {high:.4g}: above {level:.4g} taken as {of}"
    notes = [*mask.notes, note, f"all of the mask is {of}" if inside.all() else ""]
    return Meaning(inside, ignored, tuple(line for line in notes if line))


def whole_numbers(values: NDArray[Any]) -> tuple[int, ...] | None:
    """(N,) finite values -> the different whole numbers among them, rising; None where there are fractions."""
    whole = np.rint(values)
    if (np.abs(values - whole) > WHOLE).any():
        return None
    return tuple(int(value) for value in np.unique(whole))


def labels_of(mask: StoredMask) -> tuple[int, ...] | None:
    """The labels above 0 in a mask, rising; None where its values are no labels."""
    found = whole_numbers(mask.values[np.isfinite(mask.values)])
    return None if found is None or mask.lossy else tuple(label for label in found if label > 0)


def listed(labels: Sequence[int]) -> str:
    """``1, 2, 5``, the first 32 of them."""
    return ", ".join(map(str, labels[:MAX_LABELS])) + (" ..." if len(labels) > MAX_LABELS else "")


def grid_problem(
    mask: StoredMask, shape: Sequence[int], affine: Affine | None = None, image: Path | None = None
) -> str:
    """Why a mask does not lie on the grid of its image; empty where it does.

    Args:
        mask: the mask.
        shape: (X, Y, Z) of the image.
        affine: (4, 4) of the image; None where it has no place in space.
        image: its file.
    """
    found, wanted = mask.values.shape, tuple(shape)
    if found != wanted:
        what = f"the mask is {_size(found)}, the image {_size(wanted)}"
        turned = _turned_alone(image, mask.path) if found == (wanted[1], wanted[0], *wanted[2:]) else ""
        return f"{what}: {turned}" if turned else what
    if affine is None or not mask.placed:
        return ""
    apart = corner_distance(mask.affine, affine, wanted)
    edge = min(spacing(affine).min(), spacing(mask.affine).min())
    if apart > EDGE_SHARE * edge:
        return f"the mask lies elsewhere in space, its corners are up to {apart:.3g} mm away"
    return ""


def rotation_note(mask: StoredMask, image: Path | None) -> str:
    """What to look at where only one of two pictures was turned by its EXIF data and both have the same size."""
    turned = _turned_alone(image, mask.path)
    return f"{turned}: check that they fit" if turned else ""


def _turned_alone(image: Path | None, mask: Path | None) -> str:
    if image is None or mask is None or not (is_photo(image) and is_photo(mask)):
        return ""
    match orientation(image) == 1, orientation(mask) == 1:
        case False, True:
            return "the image was turned by its EXIF data, which the mask lacks"
        case True, False:
            return "the mask was turned by its EXIF data, which the image lacks"
    return ""


def _said_of_nan(values: FloatArray) -> list[str]:
    found = {"NaN": np.isnan(values).any(), "infinity": np.isinf(values).any()}
    said = " and ".join(name for name, is_there in found.items() if is_there)
    return [f"{said} in the mask was taken as outside"] if said else []


def _half(marked: NDArray[Any], *, has_zero: bool, whole: bool, lossy: bool) -> float:
    """The level of a soft mask, whose values other than 0 are ``marked``.

    Raises:
        ValueError: see :func:`meaning_of`.
    """
    largest = float(marked.max(initial=0))
    if lossy or not marked.size:
        return IGNORED / 2
    if has_zero and float(marked.min()) == largest:
        return largest / 2
    if largest < UNIT_BELOW:
        return 0.5
    if not whole and largest <= IGNORED / 2:
        raise ValueError(f"the mask's values are fractions up to {largest:.4g}, neither labels nor a soft mask")
    return IGNORED / 2 if largest <= IGNORED else largest / 2


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(count) for count in shape)
