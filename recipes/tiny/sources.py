"""The training data in memory: volumes and photos as 8-bit pictures with lesion and tissue masks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from anomalyclip_monai import resources
from anomalyclip_monai.data.photo import FORMATS
from anomalyclip_monai.exceptions import NoInputError
from anomalyclip_monai.transforms.preset import Preset
from anomalyclip_monai.types import PathLike

DOMAIN_OF = {"colonoscopy": "colonoscopy", "brain_mr": "mr_brain", "head_ct": "ct_head", "ultrasound": "ultrasound"}
"""Organ -> domain of its subjects, of what can be left out of a training: to measure an organ that it never saw."""

FOLDERS = (
    "sts_sarcoma",
    "open_ms",
    "normal_volumes",
    "normal_heads_dcmqa",
    "abdomen_mr",
    "head_ct_slices",
    "mbh_ct_hemorrhage",
    "kvasir_256",
    "busi",
    "chest_xray_normal_224",
)
"""The sets that are read; others in the data folder have no labels, or may not enter the weights."""

HELD_OUT = frozenset({"t2_thick_slices", "STS_024"})
"""Subjects whose number is too small for a random split and that validate: a head with skull, a sarcoma."""

VALIDATION_PERCENT = 15
"""Share of the patients of the larger sets that validate."""

KVASIR_TWINS = {
    "cju77k828z46w0871r0avuoo9": "cju30bmab08bi0835mvlr6e0r",
    "cju772304yw5t0818vbw8kkjf": "cju76lsehyia10987u54vn8rb",
}
"""Near-duplicate frames, which stay on one side of the split."""

NORMAL_HEAD_CT = (*range(11), *range(20, 28))
"""Slices of ``head_ct_slices`` clear of the infarct, which lies about slices 11 to 19."""

MNI_SHIFT = (2, 2, -6)
"""Voxels from the grid of the MNI T1 to that of its tissue maps, from their affines."""

EMPTY_BELOW = 0.2
"""Display value that the brightest pixel of a slice must exceed for the product to score it."""

MAX_ANISOTROPY = 2.0
"""A volume is cut along an axis only where the pixels of the cut are not longer than this times their width."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One slice or photo.

    Attributes:
        image: (H, W, C) 8-bit display values, C = 1 or 3.
        lesion: (H, W), 1 in a lesion, 2 where nobody knows.
        tissue: (H, W), 1 where a synthetic lesion may be put.
        classes: (H, W, 2) 8-bit shares of grey and white matter where they are known.
    """

    image: NDArray[np.uint8]
    lesion: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    classes: NDArray[np.uint8] | None = None

    @property
    def diseased(self) -> bool:
        """Whether any lesion is marked."""
        return bool((self.lesion == 1).any())

    @property
    def empty(self) -> bool:
        """Whether it is so dark that the product skips it."""
        return bool(self.image.max() <= EMPTY_BELOW * 255)


@dataclass(frozen=True, slots=True)
class Subject:
    """A patient's volume, or one photo as a volume of one slice.

    Attributes:
        name: name of the file or folder.
        patient: unit of the split.
        domain: ``mr_brain``, ``mr_body``, ``ct_head``, ``ct_body``, ``colonoscopy``, ``ultrasound`` or ``xray``.
        image: (X, Y, Z, C) 8-bit values after the preset's scaling, axes to the right, front and top of the patient.
        lesion: (X, Y, Z), 1 in a lesion, 2 where nobody knows.
        tissue: (X, Y, Z), 1 where a synthetic lesion may be put.
        spacing: mm between voxels.
        axes: axes that it may be cut along.
        classes: (X, Y, Z, 2) grey and white matter.
        cuts: per axis the slices that hold enough tissue to learn from.
    """

    name: str
    patient: str
    domain: str
    image: NDArray[np.uint8]
    lesion: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    axes: tuple[int, ...] = (2,)
    classes: NDArray[np.uint8] | None = None
    cuts: dict[int, NDArray[np.intp]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for axis in self.axes:
            others = tuple(other for other in range(3) if other != axis)
            content = self.tissue.mean(axis=others)
            self.cuts[axis] = np.flatnonzero(content > 0.01) if len(content) > 1 else np.zeros(1, dtype=np.intp)

    @property
    def validates(self) -> bool:
        """Whether the subject is held out of training."""
        if self.domain in ("mr_brain", "mr_body", "ct_body") or self.name.startswith(("dcmqa", "ct_head")):
            return bool(HELD_OUT & {self.name, self.patient})
        return int(hashlib.sha256(self.patient.encode()).hexdigest(), 16) % 100 < VALIDATION_PERCENT

    @property
    def diseased(self) -> bool:
        """Whether any lesion is marked."""
        return bool((self.lesion == 1).any())

    def cut(self, axis: int, index: int) -> Picture:
        """The slice as a radiologist sees it: anterior or superior on top."""

        def upright(volume: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return np.take(volume, index, axis)[::-1, ::-1].swapaxes(0, 1)

        classes = None if self.classes is None else upright(self.classes)
        return Picture(upright(self.image), upright(self.lesion), upright(self.tissue), classes)


def without(subjects: Iterable[Subject], organ: str | None) -> list[Subject]:
    """The subjects of all other organs; ``organ`` is one of :data:`DOMAIN_OF`, or None for all subjects."""
    return [subject for subject in subjects if organ is None or subject.domain != DOMAIN_OF[organ]]


def read_subjects(root: PathLike, *, leave_out: str | None = None) -> list[Subject]:
    """All subjects below the data folder, in a fixed order.

    Args:
        root: the folder with ``kvasir_256``, ``normal_volumes`` and so on; sets that are missing are left out.
        leave_out: one of :data:`DOMAIN_OF`, none of whose subjects is taken.

    Raises:
        NoInputError: nothing was found (``E_NO_INPUT``).
    """
    root = Path(root)
    subjects = without((subject for read in _SETS for subject in read(root)), leave_out)
    if not subjects:
        raise NoInputError("E_NO_INPUT", "no training data found", root, "give the folder that holds kvasir_256 ...")
    return subjects


def fingerprint(root: PathLike) -> dict[str, str]:
    """Set -> sha256 over the names and contents of its files, for the sets that are read."""
    found = {}
    for folder in sorted(path for name in FOLDERS if (path := Path(root) / name).is_dir()):
        digest = hashlib.sha256()
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(str(file.relative_to(folder)).encode())
            digest.update(file.read_bytes())
        found[folder.name] = digest.hexdigest()
    return found


def _sarcoma(root: Path) -> Iterator[Subject]:
    for folder in sorted((root / "sts_sarcoma").glob("STS_*")):
        for kind, domain, preset in (("CT", "ct_body", "ct_abdomen"), ("MR_T1", "mr_body", "mr_body")):
            image, spacing = _read(folder / f"{kind}_image.nii.gz")
            lesion = _read(folder / f"{kind}_mask.nii.gz")[0] > 0
            scaled = _scale(image, preset)
            yield _volume(f"{folder.name}_{kind}", folder.name, domain, scaled, scaled > 12, spacing, lesion)


def _multiple_sclerosis(root: Path) -> Iterator[Subject]:
    """Lesions are drawn on FLAIR and show alike on T2; on T1 some do, so there nobody knows."""
    for folder in sorted((root / "open_ms").glob("patient*")):
        lesion = _read(folder / "lesion_mask.nii.gz")[0] > 0
        for kind in ("flair", "t2", "t1", "t1post"):
            image, spacing = _read(folder / f"{kind}.nii.gz")
            scaled = _scale(np.maximum(image, 0), "mr_brain")
            tissue = inner(scaled > 12, spacing, 2) & (scaled > 12)
            marked = lesion * np.uint8(2 if kind.startswith("t1") else 1)
            yield _volume(f"{folder.name}_{kind}", folder.name, "mr_brain", scaled, tissue, spacing, marked)


def _healthy_heads(root: Path) -> Iterator[Subject]:
    folder = root / "normal_volumes"
    files = [folder / f"{name}.nii.gz" for name in ("flair_synthsr", "t2_thick_slices")]
    for file in (*files, root / "normal_heads_dcmqa" / "t1_sag_4p8mm.nii.gz"):
        if file.is_file():
            image, spacing = _read(file)
            scaled = _scale(image, "mr_brain")
            name = file.name.removesuffix(".nii.gz")
            tissue = inner(_filled(scaled > 12), spacing, 14) & (scaled > 12)
            yield _volume(name, name, "mr_brain", scaled, tissue, spacing)
    if (folder / "mni152_2009_t1.nii.gz").is_file():
        image, spacing = _read(folder / "mni152_2009_t1.nii.gz")
        scaled = _scale(image, "mr_brain")
        classes = np.stack(
            [_shifted(_read(folder / f"mni152_{kind}.nii.gz")[0], scaled.shape) for kind in ("gm", "wm")], axis=-1
        )
        tissue = inner(scaled > 12, spacing, 2)
        yield _volume("mni152", "mni152", "mr_brain", scaled, tissue, spacing, classes=classes)


def _abdomen(root: Path) -> Iterator[Subject]:
    for file in sorted((root / "abdomen_mr").glob("*.nii.gz")):
        image, spacing = _read(file)
        scaled = _scale(image, "mr_body")
        tissue = inner(_filled(scaled > 12), spacing, 10)
        yield _volume(file.name.removesuffix(".nii.gz"), file.name, "mr_body", scaled, tissue, spacing)


def _head_ct(root: Path) -> Iterator[Subject]:
    template = root / "normal_volumes" / "ct_head_template.nii.gz"
    if template.is_file():
        image, spacing = _read(template)
        scaled = _scale(image, "ct_head")
        tissue = inner(_filled(image > 5), spacing, 5)
        yield _volume("ct_head_template", "ct_head_template", "ct_head", scaled, tissue, spacing)
    for index in NORMAL_HEAD_CT:
        file = root / "head_ct_slices" / f"dcmqa_ge_{index:02d}.png"
        if file.is_file():
            yield _photo(file, "dcmqa_ge", "ct_head", tissue_of=_intracranial)
    for file in sorted((root / "mbh_ct_hemorrhage" / "images").glob("*.png")):
        masks = [file.parents[1] / "masks" / file.name]
        yield _photo(file, f"mbh{file.stem[:3]}", "ct_head", masks, tissue_of=_intracranial)


def _kvasir(root: Path) -> Iterator[Subject]:
    for file in sorted((root / "kvasir_256" / "images").glob("*.jpg")):
        mask = next((root / "kvasir_256" / "masks").glob(f"{file.stem}.*"))
        yield _photo(file, KVASIR_TWINS.get(file.stem, file.stem), "colonoscopy", [mask], tissue_of=_lit)


def _busi(root: Path) -> Iterator[Subject]:
    for file in sorted((root / "busi").glob("*/*.png")):
        if "_mask" not in file.stem:
            masks = sorted(path for path in file.parent.glob("*_mask*.png") if path.name.startswith(f"{file.stem}_"))
            yield _photo(file, file.stem, "ultrasound", masks, tissue_of=_echoing)


def _chest(root: Path) -> Iterator[Subject]:
    for file in sorted((root / "chest_xray_normal_224").glob("*.jp*g")):
        yield _photo(file, file.stem, "xray", tissue_of=_middle)


_SETS: tuple[Callable[[Path], Iterable[Subject]], ...] = (
    _sarcoma,
    _multiple_sclerosis,
    _healthy_heads,
    _abdomen,
    _head_ct,
    _kvasir,
    _busi,
    _chest,
)
"""Readers of the sets, in the order of the subjects."""


def _volume(
    name: str,
    patient: str,
    domain: str,
    scaled: NDArray[np.uint8],
    tissue: NDArray[np.bool_],
    spacing: tuple[float, float, float],
    lesion: NDArray[np.generic] | None = None,
    classes: NDArray[np.uint8] | None = None,
) -> Subject:
    axes = []
    for axis in range(3):
        plane = [spacing[other] for other in range(3) if other != axis]
        if max(plane) <= MAX_ANISOTROPY * min(plane):
            axes.append(axis)
    lesion = np.zeros_like(tissue) if lesion is None else lesion
    return Subject(
        name,
        patient,
        domain,
        scaled[..., None],
        lesion.astype(np.uint8),
        tissue.astype(np.uint8),
        spacing,
        tuple(axes),
        classes,
    )


def _photo(
    file: Path,
    patient: str,
    domain: str,
    masks: Iterable[Path] = (),
    *,
    tissue_of: Callable[[NDArray[np.uint8]], NDArray[np.bool_]],
) -> Subject:
    image = np.asarray(Image.open(file, formats=FORMATS).convert("RGB" if domain == "colonoscopy" else "L"))
    lesion = np.zeros(image.shape[:2], dtype=bool)
    for mask in masks:
        # Two masks of BUSI lost their aspect ratio when the set was made smaller.
        drawn = Image.open(mask, formats=FORMATS).convert("L")
        marked = np.asarray(drawn.resize(image.shape[1::-1], Image.Resampling.NEAREST))
        # JPEG masks have ripples about their edges; the colours of the others are all above zero.
        lesion |= marked > (127 if mask.suffix.startswith(".jp") else 0)
    tissue = tissue_of(image if image.ndim == 2 else image.max(axis=2))

    def stored(plane: NDArray[np.generic]) -> NDArray[np.uint8]:
        # Such that Subject.cut shows the photo as it is.
        return plane.astype(np.uint8).swapaxes(0, 1)[::-1, ::-1][:, :, None]

    picture = image[..., None] if image.ndim == 2 else image
    return Subject(file.stem, patient, domain, stored(picture), stored(lesion), stored(tissue))


def _read(file: Path) -> tuple[NDArray[np.float32], tuple[float, float, float]]:
    volume = nib.as_closest_canonical(nib.load(file))
    x, y, z = (float(step) for step in volume.header.get_zooms()[:3])
    return np.ascontiguousarray(volume.dataobj, dtype=np.float32), (x, y, z)


def _scale(volume: NDArray[np.float32], preset: str) -> NDArray[np.uint8]:
    """Modality values -> 0 to 255, by the limits that the preset has at inference."""
    low, high = Preset.from_table(preset, resources.preset_table(preset)).limits(torch.from_numpy(volume))
    return (np.clip((volume - low) / (high - low), 0, 1) * 255 + 0.5).astype(np.uint8)


def _shifted(volume: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A tissue map on the grid of the T1."""
    padded = np.pad(volume, 8)
    start = [8 + step for step in MNI_SHIFT]
    return padded[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))].astype(np.uint8)


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Holes closed slice by slice, so that air in the sinuses counts as head."""
    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(mask, 2, 0)], axis=2)


def inner(mask: NDArray[np.bool_], spacing: Sequence[float], depth: float) -> NDArray[np.bool_]:
    """What lies deeper than ``depth`` mm."""
    return ndimage.distance_transform_edt(np.pad(mask, 1), sampling=spacing)[1:-1, 1:-1, 1:-1] > depth


def _intracranial(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The largest region that bone encloses, in a brain window; nothing where no skull closes."""
    bone = ndimage.binary_closing(np.pad(image > 230, 20), iterations=9)[20:-20, 20:-20]
    inside = ndimage.binary_fill_holes(bone) & ~bone
    labels, count = ndimage.label(ndimage.binary_opening(inside, iterations=2))
    if count == 0:
        return np.zeros_like(inside)
    sizes = np.bincount(labels.ravel())[1:]
    largest = labels == 1 + int(sizes.argmax())
    if largest.mean() < 0.02 or image[largest].mean() < 15:
        return np.zeros_like(inside)
    return ndimage.binary_erosion(largest, iterations=3)


def _lit(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The field of view of an endoscope."""
    return ndimage.binary_erosion(ndimage.binary_opening(image > 40, iterations=3), iterations=6)


def _echoing(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where ultrasound comes back from: no black margins, no deep shadow."""
    return ndimage.gaussian_filter(image.astype(np.float32), 6) > 40


def _middle(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where lungs, heart and mediastinum lie in a radiograph of the chest."""
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    rows, columns = rows / image.shape[0], columns / image.shape[1]
    return (rows > 0.15) & (rows < 0.85) & (columns > 0.12) & (columns < 0.88) & (image > 15)
