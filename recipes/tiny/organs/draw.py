"""Pictures of many organs as training squares: shown whole, or framed, changed and with lesions made in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recipes.tiny import anatomy, distractors
from recipes.tiny.crops import UNKNOWN
from recipes.tiny.framing import Plane, frame, squash
from recipes.tiny.lesions import Result, Scene, cavity, foreign, hypoechoic, is_visible, mass, ring, spots, texture
from recipes.tiny.sources import Picture

Square = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""(3, S, S) display values, and (S, S) of 1 in a lesion, 0 outside, UNKNOWN."""

KINDS = (
    (mass, 0.34), (foreign, 0.2), (texture, 0.13), (ring, 0.1), (spots, 0.12), (cavity, 0.05), (hypoechoic, 0.06)
)  # fmt: skip
"""Kinds of lesions that are made where nobody knows what the organ's own would be, and their shares."""

MADE_BESIDE_REAL, MADE_IN_HEALTHY = 0.45, 0.8
"""Share of the squares that get a lesion made, of sets with and without lesions."""

MOST = 3
"""At most this many are made in one picture."""


def whole(picture: Picture, size: int) -> Square:
    """The whole picture, as the product shows it to the network."""
    framed = squash(picture, size)
    return pixels(framed.image), np.where(framed.unknown, UNKNOWN, framed.lesion > 0.5).astype(np.uint8)


def drawn(
    picture: Picture,
    size: int,
    rng: np.random.Generator,
    *,
    made: float,
    donors: Sequence[Picture] = (),
    zoom: tuple[float, float] = (0.75, 1.5),
) -> Square:
    """The picture framed at random, in other light, with lesions made in it.

    Args:
        picture: what to show.
        size: side of the square.
        rng: the source of chance.
        made: probability that lesions are made.
        donors: pictures whose tissue may be put into this one.
        zoom: range of the picture's side, as a share of the square.
    """
    framed = frame(picture, size, rng, zoom=zoom, bend=0.35, turn=bool(rng.random() < 0.3))
    image, lesion = framed.image, framed.lesion
    if rng.random() < 0.25:
        image, lesion = image[::-1].copy(), lesion[::-1].copy()
        framed.tissue, framed.unknown = framed.tissue[::-1].copy(), framed.unknown[::-1].copy()
    image = _in_other_light(image, rng)
    if picture.lesion.min() == 2:  # what nobody drew is taken for normal only beneath what is made
        label = np.full(lesion.shape, UNKNOWN, dtype=np.uint8)
        tissue = framed.tissue
    else:
        label = np.where(framed.unknown, UNKNOWN, lesion > 0.5).astype(np.uint8)
        tissue = framed.tissue & (lesion < 0.1) & ~framed.unknown
    if rng.random() < made:
        others = tuple(frame(donor, size, rng, turn=True).image for donor in donors)
        for _ in range(int(rng.choice([1, 1, 1, 2, MOST]))):
            found = _lesion(Scene(image, tissue, rng, donors=others))
            if found is None:
                break
            image, extent = found
            label[(extent > 0.15) & (label == 0)] = UNKNOWN
            label[extent > 0.5] = 1
            tissue = tissue & (extent < 0.1)
    if image.shape[2] == 1:
        image = anatomy.acquire(image[..., 0], rng)[..., None]
    elif rng.random() < 0.3:
        image = distractors.illumination(image, rng)
    if rng.random() < 0.1:
        image, ink = distractors.burnt_in(image, rng)
        label[ink] = UNKNOWN
    return pixels(image), label


def _in_other_light(image: Plane, rng: np.random.Generator) -> Plane:
    if image.shape[2] == 1:
        grey = image[..., 0]
        if rng.random() < 0.5:
            grey = anatomy.intensity_curve(grey, rng)
        elif rng.random() < 0.2:
            shown = grey > 0.08
            grey = np.where(shown, np.clip(0.92 - grey, 0.08, 1), grey).astype(np.float32)
        return grey[..., None]
    grey = image.mean(axis=2, keepdims=True)
    coloured = grey + (image - grey) * np.exp(rng.normal(0, 0.25))
    gains = np.exp(rng.normal(0, 0.1, 3))
    changed: Plane = (np.clip(coloured * gains, 0, 1) ** np.exp(rng.normal(0, 0.25))).astype(np.float32)
    return changed


def _lesion(scene: Scene, tries: int = 3) -> Result | None:
    if not scene.tissue.any():
        return None
    makers, shares = zip(*KINDS, strict=True)
    for _ in range(tries):
        image, extent = makers[int(scene.rng.choice(len(makers), p=shares))](scene)
        if scene.image.shape[2] == 3:  # of another hue than the tissue
            hue = 1 + 0.3 * scene.rng.normal(size=3)
            image = scene.image + (image - scene.image) * hue
        image = np.clip(image, 0, 1).astype(np.float32)
        if is_visible(scene.image, image, extent):
            return image, extent
    return None


def pixels(image: Plane) -> NDArray[np.uint8]:
    """(S, S, 1 or 3) in [0, 1] -> (3, S, S) display values."""
    shown = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(shown, (3, *shown.shape[1:])))
