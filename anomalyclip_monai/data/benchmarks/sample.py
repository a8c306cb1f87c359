"""What evaluation and learning need to know of an image: its label, its masks and whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anomalyclip_monai.data.masks import MaskRule


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
    mask_rule: MaskRule = "auto"
