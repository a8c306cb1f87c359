"""The two thresholds of the shipped weights, from training data: quiet on healthy heads, close to held-out lesions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

import anomalyclip_monai as ac
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.transforms.outline import lesion_mask
from anomalyclip_monai.transforms.post import DEFAULT_MIN_VOLUME_MM3
from anomalyclip_monai.types import PathLike
from recipes.tiny.organs.sets import SETS, read_picture
from recipes.tiny.sources import read_subjects
from recipes.tiny.validation import overlap

HEALTHY_HEADS: Mapping[str, tuple[str, str, tuple[int, int, int]]] = {
    "normal_volumes/mni152_2009_t1.nii.gz": ("mr_brain", "1", (1, 1, 4)),
    "normal_volumes/flair_synthsr.nii.gz": ("mr_brain", "1", (1, 1, 4)),
    "normal_volumes/t2_thick_slices.nii.gz": ("mr_brain", "auto", (1, 1, 1)),
    "normal_heads_dcmqa/t1_sag_4p8mm.nii.gz": ("mr_brain", "auto", (1, 1, 1)),
    "normal_volumes/ct_head_template.nii.gz": ("ct_head", "auto", (2, 2, 2)),
}
"""Healthy training head -> preset, planes, and every which voxel is looked at. The networks trained on all but the T2.

One plane is stricter than the three that the product takes where it can; the CT template ends in the skull base, whose
last axial slices alone say nothing.
"""

SARCOMA = "sts_sarcoma/STS_024"
"""The held-out patient, in CT and MR."""

PHOTOS = 12
"""Held-out pictures of a set that count, at most."""

STEPS = np.round(np.arange(0.1, 0.901, 0.05), 2)
"""Thresholds that are tried."""

NEARLY = 0.01
"""Difference in mean Dice that counts as none."""


class Seen(NamedTuple):
    """A heatmap and what is known of it.

    Attributes:
        group: set, or volume.
        heatmap: values in [0, 1].
        lesion: same shape; None in a healthy head.
        voxel: mm3 of a voxel; 0 in a photo.
    """

    group: str
    heatmap: NDArray[np.float32]
    lesion: NDArray[np.bool_] | None
    voxel: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        value: a lesion holds the least volume of voxels as high.
        low: its outline.
        dice: mean over the groups, with these.
        table: value -> low -> mean Dice over the groups.
        false_ml: healthy head -> value -> ml.
        groups: group -> Dice with the chosen.
    """

    value: float
    low: float
    dice: float
    table: dict[float, dict[float, float]]
    false_ml: dict[str, dict[float, float]]
    groups: dict[str, float]


def look(data: PathLike, model: PathLike) -> Iterator[Seen]:
    """Run the product on the healthy heads and on what the training held out."""
    root = Path(data)
    options: dict[str, Any] = {"model": model}
    for name, (preset, axes, (x, y, z)) in HEALTHY_HEADS.items():
        if (root / name).is_file():
            head = nib.load(root / name)
            result = ac.localize(head.slicer[::x, ::y, ::z], preset=preset, axes=axes, **options)
            yield Seen(name, _heatmap(result), None, _voxel(result))
    for kind, preset in (("CT", "ct_abdomen"), ("MR_T1", "mr_body")):
        folder = root / SARCOMA
        if folder.is_dir():
            result = ac.localize(folder / f"{kind}_image.nii.gz", preset=preset, **options)
            lesion = np.asarray(nib.load(folder / f"{kind}_mask.nii.gz").dataobj) > 0
            yield Seen(f"sarcoma_{kind}", _heatmap(result), lesion, _voxel(result))
    for one in (known for known in SETS if known.shipped):
        held_out = [file for file in one.files(root) if one.validates(file) and one.lesions and not one.centred]
        for file in held_out[:: max(1, len(held_out) // PHOTOS)][:PHOTOS]:
            if (mask := one.mask(root, file)) is not None:
                yield _photo(one.name, file, read_picture(file, mask).lesion == 1, options)
    polyps = [s for s in read_subjects(root) if s.domain == "colonoscopy" and s.validates]
    for subject in polyps[:: max(1, len(polyps) // PHOTOS)][: 2 * PHOTOS]:
        file = next((root / "kvasir_256" / "images").glob(f"{subject.name}.*"))
        yield _photo("kvasir_256", file, subject.cut(2, 0).lesion == 1, options)


def choose(seen: Sequence[Seen]) -> Choice:
    """The highest pair that marks nothing in any healthy head and is nearly as close to the lesions as the best.

    Of pairs whose mean Dice over the groups is within :data:`NEARLY` of the best the one with the highest value, then
    the highest low: what is calmer costs nothing there.

    Raises:
        UsageError: every threshold marks something in a healthy head (``E_THRESHOLD``).
    """
    healthy = [one for one in seen if one.lesion is None]
    false = {one.group: {float(value): _millilitres(one, value) for value in STEPS} for one in healthy}
    quiet = [float(value) for value in STEPS if not any(table[float(value)] for table in false.values())]
    if not quiet:
        raise UsageError("E_THRESHOLD", "every threshold marks something in a healthy head", None, "train longer")
    groups: dict[str, list[Seen]] = {}
    for one in seen:
        if one.lesion is not None and one.lesion.any():
            groups.setdefault(one.group, []).append(one)
    found: dict[tuple[float, float], dict[str, float]] = {}
    for value in STEPS:
        for low in STEPS[value >= STEPS]:
            found[float(value), float(low)] = {
                name: float(np.mean([_dice(one, value, low) for one in members])) for name, members in groups.items()
            }
    means = {pair: float(np.mean(list(by_group.values()))) for pair, by_group in found.items()}
    best = max(mean for pair, mean in means.items() if pair[0] in quiet)
    value, low = max(pair for pair, mean in means.items() if pair[0] in quiet and mean >= best - NEARLY)
    table: dict[float, dict[float, float]] = {}
    for pair, mean in means.items():
        table.setdefault(pair[0], {})[pair[1]] = mean
    return Choice(value, low, means[value, low], table, false, found[value, low])


def _photo(group: str, file: Path, lesion: NDArray[np.bool_], options: Mapping[str, Any]) -> Seen:
    return Seen(group, _heatmap(ac.localize(file, **options))[:, :, 0].T, lesion, 0.0)


def _heatmap(result: Any) -> NDArray[np.float32]:
    return np.asarray(result.heatmap[0], dtype=np.float32)


def _voxel(result: Any) -> float:
    return float(abs(np.linalg.det(np.asarray(result.heatmap.affine)[:3, :3])))


def _mask(one: Seen, value: float, low: float) -> NDArray[np.bool_]:
    least = max(1, int(np.ceil(DEFAULT_MIN_VOLUME_MM3 / one.voxel))) if one.voxel else 1
    return lesion_mask(one.heatmap, value, low, smallest=least)


def _millilitres(one: Seen, value: float) -> float:
    return float(_mask(one, value, value).sum()) * one.voxel / 1000


def _dice(one: Seen, value: float, low: float) -> float:
    assert one.lesion is not None
    return overlap(one.lesion, _mask(one, value, low))
