"""What evaluation and learning need to know of an image: its label, its masks and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

MaskRule: TypeAlias = Literal["any", "half", "auto"] | tuple[int, ...]
"""Which values of a mask are lesion.

``any``: above 0. ``half``: above 127 of 255, for masks with soft edges or JPEG noise. ``auto``: ``half`` if the file
has such values or is a JPEG, else ``any``. A tuple: exactly these labels, for masks that hold organs as well.
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """An image of a data set.

    Attributes:
        name: unique in the set: path below its folder without suffix, with it where two would be the same.
        image: image file, volume file or DICOM folder.
        label: 1 abnormal, 0 normal, None: follows from the mask.
        masks: files whose union is the lesion; none for a normal image and where only the label is known.
        category: class of object, the set's name where there is one. Pixel measures are pooled per category.
        group: patient or sequence, the unit of the bootstrap; the image's own name where nothing is known.
        volume: a volume with slices, not a photo.
        mask_rule: which values of the masks are lesion.
    """

    name: str
    image: Path
    label: int | None
    masks: tuple[Path, ...]
    category: str
    group: str
    volume: bool
    mask_rule: MaskRule = "any"
