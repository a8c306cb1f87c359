"""The images that prompts learn from: photos as they are, and slices taken out of volumes."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ignite.distributed as idist
import numpy as np
import torch
from torch import Tensor

from anomalyclip_monai.data.benchmarks import LAYOUTS, Sample, find_samples, read_truth
from anomalyclip_monai.data.benchmarks.masks import check_one_page, empty_mask
from anomalyclip_monai.data.geometry import SliceView, resolve_slice_axis
from anomalyclip_monai.exceptions import UsageError, unwrapped
from anomalyclip_monai.files import read_json, write_json
from anomalyclip_monai.losses.prompt_loss import LossTerms
from anomalyclip_monai.text import name_bytes
from anomalyclip_monai.transforms.preset import ApplyPreset, ApplyPresetd
from anomalyclip_monai.types import PathLike, Record

logger = logging.getLogger(__name__)

_SAID: set[str] = set()
"""What this process has logged of images."""

Preprocessing = Callable[[Record], Record]
"""The bundle's ``preprocessing``: loads ``image`` and scales it to [0, 1]."""


class Upright(NamedTuple):
    """One image, as a radiologist sees it.

    Attributes:
        image: (1|3, H, W) in [0, 1].
        mask: (H, W) bool, the lesion.
        label: 1 for abnormal, 0 for normal.
    """

    image: Tensor
    mask: Tensor
    label: int


@dataclass(frozen=True)
class PhotoItem:
    """A photo or frame, read anew each time."""

    name: str
    sample: Sample
    preprocessing: Preprocessing

    def read(self) -> Upright:
        """Load, scale and turn upright.

        Raises:
            AnomalyCLIPError: image or mask cannot be read.
        """
        image, mask, view = _read(self.sample, self.preprocessing, axis=2)
        shown, inside = (view.flip(view.slices(volume)[0]) for volume in (image, mask))
        label = int(inside.any()) if self.sample.label is None else self.sample.label
        return Upright(shown, inside[0], label)


@dataclass(frozen=True)
class SliceItem:
    """A slice of a volume, read from the file into which :func:`extract_slices` put it."""

    name: str
    path: Path

    def read(self) -> Upright:
        """Load image and mask."""
        with np.load(self.path) as stored:
            image, mask = torch.from_numpy(stored["image"]), torch.from_numpy(stored["mask"])
        return Upright(image, mask, int(mask.any()))


class TrainingData(Sequence[PhotoItem | SliceItem]):
    """All items of a training, in a fixed order.

    Attributes:
        items: the items.
        sha256: over names and contents of all files and, for volumes, the chosen slices.
        sets: number of items per data set.
    """

    def __init__(self, items: Sequence[PhotoItem | SliceItem], sha256: str, sets: dict[str, int]) -> None:
        self.items = list(items)
        self.sha256 = sha256
        self.sets = sets

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]


def training_data(
    sets: Iterable[tuple[str, PathLike]],
    preprocessing: Preprocessing,
    folder: PathLike,
    *,
    terms: LossTerms = "both",
    preset: str = "auto",
    slices: int = 16,
    slice_axis: str | int = "auto",
    empty_below: float = 0.01,
    seed: int = 111,
) -> TrainingData:
    """Find the images of data sets, in the split that holds defects: the published code learns from ``test``.

    Args:
        sets: (name of the data set, its folder).
        preprocessing: see :data:`Preprocessing`.
        folder: slices of volumes are put here.
        terms: losses that will be used; without ``global`` alone every abnormal image needs a mask.
        preset: ``auto`` takes the preset of the set's layout for volumes.
        slices: most slices of one volume; half of them with lesion.
        slice_axis: as in inference.
        empty_below: slices whose brightest pixel is not above this are not taken.
        seed: of the choice of slices.

    Raises:
        UsageError: unknown set (``E_DATASET``), masks are missing (``E_MASK``), or a single class of images where
            only the global loss is used (``E_LABELS``).
        NoInputError: nothing was found (``E_LAYOUT``).
        CaseError: a volume or its mask cannot be read.
    """
    items: list[PhotoItem | SliceItem] = []
    digest, counts = hashlib.sha256(), Counter[str]()
    for number, (name, root) in enumerate(sets):
        samples = find_samples(name, root)
        _check_masks(samples, name, root, terms)
        for sample in samples:
            digest.update(_hash_of(name, sample).encode())
        photos = [sample for sample in samples if not sample.volume]
        volumes = [sample for sample in samples if sample.volume]
        found: list[PhotoItem | SliceItem] = [
            PhotoItem(f"{name}/{photo.name}", photo, preprocessing) for photo in photos
        ]
        if volumes:
            place = Path(folder) / f"{number}_{name}"
            layout_preset = LAYOUTS[name].preset
            scaled = with_preset(preprocessing, layout_preset) if preset == "auto" else preprocessing
            key = {
                "data": digest.hexdigest(),
                "slices": slices,
                "axis": str(slice_axis),
                "empty_below": empty_below,
                "seed": seed,
                "preset": layout_preset if preset == "auto" else preset,
            }
            digest.update(json.dumps(key).encode())
            if idist.get_rank() == 0:
                extract_slices(volumes, scaled, place, key)
            idist.barrier()
            found += stored_slices(place, name, seed)
        counts[name] += len(found)
        items += found
    _check_labels(items, terms)
    return TrainingData(items, digest.hexdigest(), dict(counts))


def with_preset(preprocessing: Preprocessing, name: str) -> Preprocessing:
    """A copy of MONAI's ``Compose`` in which the preset is ``name``, unless that is the one for photos."""
    changed: Any = copy.deepcopy(preprocessing)
    for step in changed.transforms if name != "photo" else ():
        if isinstance(step, ApplyPresetd):
            step.transform = ApplyPreset(name, inplace=step.transform.inplace)
    return changed


def extract_slices(samples: Sequence[Sample], preprocessing: Preprocessing, folder: Path, key: Record) -> None:
    """Take slices out of volumes: half with lesion, half without, evenly drawn, one volume in memory at a time.

    Does nothing if ``folder`` holds the slices of the same ``key`` already.
    """
    done = folder / "key.json"
    if read_json(done) == key:
        return
    done.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.npz"):
        old.unlink()
    for number, sample in enumerate(samples):
        image, mask, view = _read(sample, preprocessing, key["axis"])
        images, masks = view.slices(image), view.slices(mask)
        lesion = masks.flatten(1).any(dim=1)
        shown = images.flatten(1).amax(dim=1) > key["empty_below"]
        random = np.random.default_rng((key["seed"], zlib.crc32(name_bytes(sample.name))))
        for wanted in (lesion, shown & ~lesion):
            candidates = torch.nonzero(wanted).flatten().numpy()
            chosen = random.permutation(candidates)[: max(1, key["slices"] // 2)]
            for index in sorted(chosen.tolist()):
                kind = "lesion" if lesion[index] else "normal"
                np.savez(
                    folder / f"{number:05d}_{index:04d}_{kind}.npz",
                    image=view.flip(images[index]).numpy(),
                    mask=view.flip(masks[index][0]).numpy(),
                )
    write_json(done, key)


def stored_slices(folder: Path, dataset: str, seed: int) -> list[SliceItem]:
    """Items of a folder, with at most as many normal slices as slices with lesion, if there are any with."""
    files = sorted(folder.glob("*.npz"))
    lesion = [path for path in files if path.stem.endswith("lesion")]
    normal = [path for path in files if path.stem.endswith("normal")]
    if 0 < len(lesion) < len(normal):
        kept = np.random.default_rng(seed).permutation(len(normal))[: len(lesion)]
        normal = [normal[index] for index in sorted(kept)]
    return [SliceItem(f"{dataset}/{path.stem}", path) for path in sorted([*lesion, *normal])]


def _read(sample: Sample, preprocessing: Preprocessing, axis: str | int) -> tuple[Tensor, Tensor, SliceView]:
    """-> image (1|3, X, Y, Z) in [0, 1], mask (1, X, Y, Z) bool, and the upright view along the slice axis."""
    with unwrapped():
        record = preprocessing({"image": str(sample.image), "case": sample.name})
    for note in record.get("notes", []):
        _say_once(note, sample.name)
    image = record["image"]
    affine = np.asarray(image.affine, dtype=np.float64)
    acquired = int(image.meta.get("acquisition_axis", -1))
    resolved = resolve_slice_axis(axis, affine, image.shape[1:], acquired if acquired >= 0 else None)
    shape = tuple(image.shape[1:])
    # Abnormal without a mask: the global loss alone, which reads no mask.
    unmasked = sample.label == 1 and not sample.masks
    check_one_page(sample, shape)
    mask = np.zeros(shape, dtype=bool)
    notes = list(record.get("notes", ()))
    if not unmasked:
        truth = read_truth(sample, shape, affine)
        if (empty := empty_mask(sample, truth)) is not None:
            raise empty
        mask = truth.lesion
        notes += truth.notes
    for note in notes:
        _say_once(note, sample.name)
    return image.as_tensor(), torch.from_numpy(mask)[None], SliceView.upright(affine, resolved)


def _say_once(note: str, name: str) -> None:
    """Log a note with the first image that has it: images are read again in every epoch."""
    if note not in _SAID:
        _SAID.add(note)
        logger.warning("%s: %s; nothing is said of others like it", name, note)


def _hash_of(dataset: str, sample: Sample) -> str:
    """Over the names and contents of the files of a sample; no path outside the set goes in."""
    digest = hashlib.sha256(name_bytes(f"{dataset}/{sample.name}/{sample.label}"))
    for path in _files((sample.image, *sample.masks)):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _check_masks(samples: Sequence[Sample], name: str, root: PathLike, terms: LossTerms) -> None:
    # The label of a volume says nothing of its slices.
    lacking = [
        sample.name
        for sample in samples
        if sample.label == 1 and not sample.masks and (terms != "global" or sample.volume)
    ]
    if lacking:
        raise UsageError(
            "E_MASK",
            f"{len(lacking)} abnormal images of {name} have no mask, such as {lacking[0]}",
            root,
            "add masks, or learn from photos without masks with --loss global",
        )


def _check_labels(items: Sequence[PhotoItem | SliceItem], terms: LossTerms) -> None:
    labels = {item.sample.label for item in items if isinstance(item, PhotoItem)}
    labels |= {int(item.path.stem.endswith("lesion")) for item in items if isinstance(item, SliceItem)}
    if terms == "local" or len(labels) > 1 or None in labels:
        return
    only = "abnormal" if 1 in labels else "normal"
    if terms == "global":
        raise UsageError("E_LABELS", f"all images are {only}", None, "the global loss needs both kinds, add a set")
    logger.warning("all images are %s: image scores learn nothing else; add a set, or use the local loss alone", only)
