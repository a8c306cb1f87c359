"""Training crops: crop ``n`` of a seed is always the same, whoever draws it and in whatever order."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from anomalyclip_monai.inferers.glare import fill_glare
from recipes.tiny import anatomy, distractors, surfaces
from recipes.tiny.framing import Framed, Plane, content_window, frame
from recipes.tiny.lesions import Scene, add_lesion
from recipes.tiny.sources import Picture, Subject

SURFACE = "surface"
"""The domain of :mod:`~recipes.tiny.surfaces`, which needs no subject."""

SHARES: Mapping[str, float] = {
    "mr_brain": 0.37,
    "colonoscopy": 0.18,
    "ct_head": 0.13,
    "ultrasound": 0.08,
    "mr_body": 0.04,
    "ct_body": 0.04,
    "xray": 0.02,
    SURFACE: 0.14,
}
"""Domain -> share of the crops; what a training lacks is spread over the others."""

SUBJECT_SHARES: Mapping[str, float] = {
    "mni152": 0.38,
    "flair_synthsr": 0.22,
    "t1_sag_4p8mm": 0.13,
    "patient19_flair": 0.12,
    "patient19_t1post": 0.05,
    "patient19_t1": 0.05,
    "patient19_t2": 0.05,
    "ct_head_template": 14.0,
    "cmb_crc_scan001_t2": 3.0,
}
"""Subject -> weight within its domain; 1 for the others. One MS patient must not teach that ventricles have lesions."""

SYNTHETIC: Mapping[str, float] = {
    "mr_brain": 0.45,
    "colonoscopy": 0.5,
    "ct_head": 0.55,
    "ultrasound": 0.55,
    "mr_body": 0.6,
    "ct_body": 0.6,
    "xray": 0.5,
    SURFACE: 0.67,
}
"""Domain -> share of the lesion-free crops that get a synthetic lesion; the others teach what is healthy."""

BESIDE_REAL: Mapping[str, float] = {"mr_brain": 0.4}
"""Domain -> share of the crops of really ill subjects that get a synthetic lesion as well; .2 for the others."""

CONTRAST_OF = {"flair_synthsr": "flair", "t2_thick_slices": "flair", "t1_sag_4p8mm": "t1"}

UNKNOWN = 255
"""Label of pixels that the loss leaves out."""

TINTED = 0.12
"""Share of the grey crops that are shown in colours, so that colour alone is nothing new."""

GLARE_FILLED = 0.75
"""Share of the crops of endoscopy and surfaces whose reflections are filled, as ``fill_glare`` does it in use."""

MAX_BLACK = 0.06
"""Display values below this, connected to the border of an endoscopy frame, are its frame."""


Labelled = tuple[Plane, NDArray[np.uint8]]
"""(S, S, C) picture in [0, 1] and its (S, S) label."""


class Crop(NamedTuple):
    """What the network learns from.

    Attributes:
        image: (3, S, S) uint8 display values.
        label: (S, S) uint8, 1 in a lesion, 0 outside, :data:`UNKNOWN` where the loss has no say.
        domain: what it shows, one of :data:`SHARES`.
    """

    image: Tensor
    label: Tensor
    domain: str


class Crops(Dataset[Crop]):
    """Crops by number, drawn when asked for.

    Args:
        subjects: the training subjects.
        seed: with the number of a crop, all of its chance.
        size: side in pixels.
        length: the number of crops.
    """

    def __init__(self, subjects: Sequence[Subject], *, seed: int = 0, size: int = 192, length: int = 1 << 31) -> None:
        self.seed = seed
        self.size = size
        self.length = length
        there = {SURFACE, *(subject.domain for subject in subjects)}
        self.domains = [domain for domain in SHARES if domain in there]
        self.subjects = {
            domain: [subject for subject in subjects if subject.domain == domain] for domain in self.domains
        }
        self.weights = {
            domain: _normalised([SUBJECT_SHARES.get(subject.name, 1.0) for subject in found])
            for domain, found in self.subjects.items()
        }
        self.shares = _normalised([SHARES[domain] for domain in self.domains])

    def __len__(self) -> int:
        return self.length

    def of_size(self, size: int) -> Crops:
        """The same crops with another side."""
        other = copy.copy(self)
        other.size = size
        return other

    def __getitem__(self, index: int) -> Crop:
        """The crop of this number."""
        return self.draw(np.random.default_rng([self.seed, index]))

    def draw(self, rng: np.random.Generator, domain: str | None = None, *, lesion: bool | None = None) -> Crop:
        """A crop of a random or a given domain, with, without or with a chance of a synthetic lesion."""
        domain = domain or str(rng.choice(self.domains, p=self.shares))
        image, label = self._surface(rng, lesion) if domain == SURFACE else self._organ(domain, rng, lesion)
        image, label = _finish(image, label, domain, rng)
        if domain in ("colonoscopy", SURFACE) and rng.random() < GLARE_FILLED:
            image, before = _without_glare(image), image
            if domain == SURFACE:  # a filled spot on a polyp is polyp still, a small white stain may have gone
                label[(np.abs(image - before).max(axis=2) > 0.1) & (label == 1)] = UNKNOWN
        pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(2, 0, 1)
        shown = np.broadcast_to(pixels, (3, *label.shape)).copy()
        return Crop(torch.from_numpy(shown), torch.from_numpy(label), domain)

    def _surface(self, rng: np.random.Generator, damaged: bool | None) -> Labelled:
        if damaged is None:
            damaged = rng.random() < SYNTHETIC[SURFACE]
        image, extent = surfaces.draw(self.size, rng, damaged=damaged)
        return image, _marked(np.zeros(extent.shape, dtype=np.uint8), extent)

    def _organ(self, domain: str, rng: np.random.Generator, lesion: bool | None) -> Labelled:
        subject = self._subject(domain, rng)
        framed, contrast = _show(subject, rng, self.size)
        if domain == "ct_head":
            framed.image = _window(framed, rng)
        known = not framed.lesion.any() and not framed.unknown.any()
        chance = SYNTHETIC[domain] if known else BESIDE_REAL.get(domain, 0.2)
        wanted = rng.random() < chance if lesion is None else lesion
        label = np.where(framed.unknown, UNKNOWN, framed.lesion > 0.5).astype(np.uint8)
        image = framed.image
        if domain == "mr_brain" and rng.random() < 0.2:
            image = distractors.vessels(image, framed.tissue, rng)
        if wanted:
            donors = tuple(
                _show(self._subject(domain, rng), rng, self.size)[0].image for _ in range(rng.random() < 0.3)
            )
            white = None if framed.classes is None else framed.classes[..., 1]
            tissue = framed.tissue & (framed.lesion < 0.1) & ~framed.unknown
            made = add_lesion(Scene(image, tissue, rng, contrast, white, donors), domain)
            if made is not None:
                image, extent = made
                label = _marked(label, extent)
        return image, label

    def _subject(self, domain: str, rng: np.random.Generator) -> Subject:
        return self.subjects[domain][int(rng.choice(len(self.weights[domain]), p=self.weights[domain]))]


def _marked(label: NDArray[np.uint8], extent: Plane) -> NDArray[np.uint8]:
    """The label with a lesion of this extent, whose soft edge is left out."""
    label[(extent > 0.15) & (label == 0)] = UNKNOWN
    label[extent > 0.5] = 1
    return label


def _without_glare(image: Plane) -> Plane:
    return fill_glare(torch.from_numpy(image.transpose(2, 0, 1))[None])[0].numpy().transpose(1, 2, 0)


def _normalised(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.array(values)
    return array / array.sum()


def _show(subject: Subject, rng: np.random.Generator, size: int) -> tuple[Framed, str]:
    """A random cut of the subject as a healthy or really ill picture, and its MR contrast if that is known."""
    picture = _cut(subject, rng)
    if subject.domain == "colonoscopy":
        return _show_endoscopy(picture, rng, size), ""
    if subject.domain in ("ultrasound", "xray"):
        return frame(picture, size, rng, zoom=(0.95, 1.4), bend=0.2), ""
    window = content_window(picture, rng) if rng.random() < 0.7 else None
    framed = frame(picture, size, rng, zoom=(0.75, 1.3) if window else (0.85, 1.5), window=window)
    image, contrast = framed.image[..., 0], CONTRAST_OF.get(subject.name, subject.name.rpartition("_")[2])
    if framed.classes is not None:
        brain = image > 0.04
        if rng.random() < 0.25:  # the T1 itself, whose deep nuclei and vessels no painting has
            image, contrast = anatomy.intensity_curve(image, rng), ""
        else:
            image, contrast = anatomy.recontrast(image, framed.classes, rng)
        if rng.random() < 0.5:
            image = anatomy.paint_head(image, brain, rng)
    elif subject.domain in ("mr_brain", "mr_body"):
        before = image
        image = anatomy.intensity_curve(image, rng)
        if not _same_order(before, image):
            contrast = ""
    elif subject.name == "ct_head_template" and rng.random() < 0.9:
        image = anatomy.paint_head(image, image > 0.02, rng, ct=True)
    framed.image = image[..., None]
    return framed, contrast


def _same_order(before: Plane, after: Plane) -> bool:
    """Whether what was bright is bright still."""
    spread = float(before.std() * after.std())
    return spread > 0 and float(((before - before.mean()) * (after - after.mean())).mean()) > 0.9 * spread


def _cut(subject: Subject, rng: np.random.Generator) -> Picture:
    axes = list(subject.axes)
    weights = _normalised([2.5 if axis == 2 else 1.0 for axis in axes])
    axis = int(rng.choice(axes, p=weights))
    if rng.random() < 0.25:  # also the ends of the volume, where there is little or nothing to see
        return subject.cut(axis, int(rng.integers(subject.image.shape[axis])))
    return subject.cut(axis, int(rng.choice(subject.cuts[axis])))


def _show_endoscopy(picture: Picture, rng: np.random.Generator, size: int) -> Framed:
    """A frame, a part of one, or, for want of frames without a polyp, a part beside the polyp."""
    window = None
    kind = rng.random()
    height, width = picture.lesion.shape
    if kind < 0.5:
        beside = kind < 0.22
        for _ in range(12):
            rows, columns = (int(side * rng.uniform(0.4, 0.75)) for side in (height, width))
            top, left = int(rng.integers(height - rows)), int(rng.integers(width - columns))
            part = picture.lesion[top : top + rows, left : left + columns]
            lit = picture.tissue[top : top + rows, left : left + columns].mean()
            if lit > 0.6 and (not beside or not part.any()):
                window = (top, top + rows, left, left + columns)
                break
    framed = frame(picture, size, rng, zoom=(0.95, 1.3), bend=0.3, turn=True, window=window)
    gains = np.exp(rng.normal(0, 0.12, 3) + rng.normal(0, 0.12))
    grey = framed.image.mean(axis=2, keepdims=True)
    image = grey + (framed.image - grey) * np.exp(rng.normal(0, 0.25))
    framed.image = (np.clip(image * gains, 0, 1) ** np.exp(rng.normal(0, 0.2))).astype(np.float32)
    return framed


def _window(framed: Framed, rng: np.random.Generator) -> Plane:
    """Another window level: brings the brain to a grey that readers use."""
    inside = framed.image[..., 0][framed.tissue] if framed.tissue.any() else framed.image[framed.image > 0.05]
    if not inside.size or rng.random() < 0.25:
        return framed.image
    level = max(float(np.median(inside)), 0.02)
    low = rng.uniform(-0.3, 0.4) * level
    high = low + (level - low) / rng.uniform(0.2, 0.55)
    return np.clip((framed.image - low) / (high - low), 0, 1).astype(np.float32) * (framed.image > 0.01)


def _finish(image: Plane, label: NDArray[np.uint8], domain: str, rng: np.random.Generator) -> Labelled:
    """Light, noise and what is burnt into the picture."""
    if domain == "colonoscopy":
        black = ndimage.binary_closing(image.max(axis=2) < MAX_BLACK, iterations=2)
        label[black & (label == 0)] = UNKNOWN
    if domain in ("colonoscopy", SURFACE):
        if rng.random() < 0.45:
            image = distractors.illumination(image, rng)
        if rng.random() < 0.4:
            image = distractors.glare(image, rng)
        if domain == "colonoscopy" and rng.random() < 0.1:
            before, image = image, distractors.instrument(image, rng)
            label[(np.abs(image - before).max(axis=2) > 0.05) & (label == 1)] = UNKNOWN
        if rng.random() < 0.3:
            image = ndimage.gaussian_filter(image, [rng.uniform(0.4, 1.4)] * 2 + [0])
        if rng.random() < 0.3:
            image = image + rng.normal(0, rng.uniform(0, 0.03), image.shape).astype(np.float32)
    else:
        image = anatomy.acquire(image[..., 0], rng)[..., None]
        if domain in ("ultrasound", "xray") and rng.random() < 0.3:
            image = distractors.illumination(image, rng)
        if rng.random() < TINTED:
            image = distractors.tint(image, rng)
    if rng.random() < (0.05 if domain in ("mr_body", "ct_body") else 0.12):
        image, ink = distractors.burnt_in(image, rng)
        label[ink] = UNKNOWN
    return np.clip(image, 0, 1).astype(np.float32), label
