"""Synthetic lesions: each function puts one kind into a (S, S, C) picture in [0, 1] and says how far it reaches.

They imitate what disease does to a picture, not one disease: intensities shift, texture changes, borders are pushed
aside. A lesion is kept only where the picture really changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from recipes.tiny.anatomy import smooth_noise
from recipes.tiny.framing import Plane

VISIBLE = 0.045
"""The least mean change in display values within a lesion; what changes less is not called one."""


@dataclass(slots=True)
class Scene:
    """A picture on its way to a lesion.

    Attributes:
        image: (S, S, C) display values.
        tissue: (S, S) where lesions may lie.
        rng: the source of chance.
        contrast: ``t1``, ``t2``, ``flair`` ... where it is known: tells dark lesions from bright ones.
        white: (S, S) white matter where it is known.
        donors: other pictures, for foreign tissue.
    """

    image: Plane
    tissue: NDArray[np.bool_]
    rng: np.random.Generator
    contrast: str = ""
    white: Plane | None = None
    donors: tuple[Plane, ...] = ()

    @property
    def unit(self) -> float:
        """Pixels of this picture for one of a 192-pixel picture, in which all lengths are given."""
        return len(self.image) / 192

    def place(self, where: NDArray[np.bool_] | None = None) -> tuple[int, int]:
        """A random pixel of the tissue, or of a part of it."""
        candidates = np.flatnonzero(self.tissue if where is None else self.tissue & where)
        if not len(candidates):
            candidates = np.flatnonzero(self.tissue)
        row, column = divmod(int(self.rng.choice(candidates)), len(self.image))
        return row, column

    def shift(self, low: float, high: float) -> float:
        """A change of intensity: bright on T2 and FLAIR, mostly dark on T1, either way elsewhere."""
        bright = {"t2": 0.9, "flair": 0.93, "pd": 0.9, "t1": 0.3}.get(self.contrast, 0.6)
        return float(self.rng.uniform(low, high) * (1 if self.rng.random() < bright else -1))


Result = tuple[Plane, Plane]
"""The changed picture, and (S, S) how much of every pixel is lesion."""


def blob(
    size: int,
    centre: tuple[int, int],
    radius: float,
    rng: np.random.Generator,
    *,
    irregular: float = 0.2,
    soft: float = 1.0,
) -> Plane:
    """(size, size) in [0, 1]: an ellipse with a wavy outline, its edge ``soft`` pixels wide."""
    angle, ratio = rng.uniform(0, np.pi), np.exp(rng.normal(0, 0.25))
    # Nothing reaches further than this, and most lesions are small.
    reach = math.ceil((2 * radius + 8 * max(soft, 0.3)) * max(ratio, 1 / ratio) ** 0.5) + 1
    window = tuple(slice(max(0, middle - reach), min(size, middle + reach + 1)) for middle in centre)
    rows, columns = np.mgrid[window].astype(np.float32)
    y, x = rows - centre[0], columns - centre[1]
    u = (np.cos(angle) * x + np.sin(angle) * y) * ratio**0.5
    v = (np.cos(angle) * y - np.sin(angle) * x) / ratio**0.5
    theta = np.arctan2(v, u)
    outline = np.ones_like(theta)
    for wave in range(2, 7):
        outline += irregular / wave * rng.normal() * np.cos(wave * theta + rng.uniform(0, 2 * np.pi))
    inside = radius * np.clip(outline, 0.3, 2) - np.hypot(u, v)
    picture = np.zeros((size, size), dtype=np.float32)
    picture[window] = 1 / (1 + np.exp(-np.clip(4 * inside / max(soft, 0.3), -30, 30)))
    return picture


def _confined(alpha: Plane, scene: Scene) -> Plane:
    """Cut to the tissue, with an edge of a pixel."""
    return alpha * ndimage.gaussian_filter(scene.tissue.astype(np.float32), 0.6)


def blend(image: Plane, alpha: Plane, target: NDArray[Any] | float) -> Plane:
    """(S, S, C) that goes over into ``target`` where ``alpha`` (S, S) goes to 1."""
    return image + alpha[..., None] * (target - image)


def _local_mean(image: Plane, alpha: Plane) -> NDArray[np.float32]:
    """(C,) mean about a lesion's place."""
    weight = alpha[..., None] + 1e-6
    return (image * weight).sum((0, 1)) / weight.sum((0, 1))


def _push(scene: Scene, centre: tuple[int, int], radius: float, strength: float) -> Plane:
    """Mass effect: tissue moves away from a growing centre and is pressed together about it."""
    size = len(scene.image)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    y, x = rows - centre[0], columns - centre[1]
    distance = np.hypot(y, x) + 1e-3
    back = strength * radius * np.exp(-((distance / (1.8 * radius)) ** 2)) / distance
    at = np.stack([rows - back * y, columns - back * x])
    return np.stack(
        [
            ndimage.map_coordinates(scene.image[..., channel], at, order=1, mode="nearest")
            for channel in range(scene.image.shape[2])
        ],
        axis=2,
    )


def mass(scene: Scene) -> Result:
    """A tumour: brighter or darker, with its own texture, a sharp or an infiltrating edge, and mass effect."""
    rng, size = scene.rng, len(scene.image)
    radius = scene.unit * np.exp(rng.uniform(np.log(5), np.log(36)))
    centre = scene.place()
    image = _push(scene, centre, radius, rng.uniform(0, 0.45)) if rng.random() < 0.5 else scene.image
    soft = scene.unit * rng.choice([1.0, 2.5, 6.0])
    alpha = _confined(blob(size, centre, radius, rng, irregular=rng.uniform(0.1, 0.5), soft=soft), scene)
    if rng.random() < 0.35:  # infiltration
        alpha = alpha * np.clip(0.75 + 0.35 * smooth_noise(size, 7 * scene.unit, rng), 0, 1)
        if scene.white is not None:
            alpha = alpha * (0.45 + 0.55 * scene.white)
    mean = _local_mean(image, alpha)
    level = np.clip(mean + scene.shift(0.06, 0.5), 0.02, 1)
    keep = rng.uniform(0.0, 0.9)
    inner = level + keep * (image - mean)
    inner = inner * (1 + rng.uniform(0, 0.16) * smooth_noise(size, scene.unit * rng.uniform(1.5, 9), rng)[..., None])
    return blend(image, alpha, inner), alpha


def ring(scene: Scene) -> Result:
    """A necrotic or cystic core, a rim that takes up contrast, and oedema about it."""
    rng, size = scene.rng, len(scene.image)
    radius = scene.unit * rng.uniform(4, 15)
    centre = scene.place()
    shape = rng.integers(1 << 31)
    image = _push(scene, centre, radius, rng.uniform(0, 0.5))

    def same_blob(grow: float, soft: float) -> Plane:
        return _confined(blob(size, centre, radius * grow, np.random.default_rng(shape), soft=soft), scene)

    extent = outer = same_blob(1.0, 1.2)
    if rng.random() < 0.7:
        oedema = same_blob(rng.uniform(1.3, 2.4), 5 * scene.unit)
        oedema = oedema * np.clip(0.85 + 0.3 * smooth_noise(size, 9 * scene.unit, rng), 0, 1)
        image = blend(image, 0.9 * oedema, np.clip(image + scene.shift(0.1, 0.3), 0, 1))
        extent = np.maximum(outer, oedema)
    core = same_blob(rng.uniform(0.5, 0.85), 1.5)
    mean = _local_mean(scene.image, outer)
    image = blend(image, outer, np.clip(mean + rng.uniform(0.12, 0.55) * rng.choice([1, 1, 1, -1]), 0, 1))
    texture = 0.05 * smooth_noise(size, 5 * scene.unit, rng)[..., None]
    image = blend(image, core, np.clip(mean + rng.uniform(-0.4, 0.35) + texture, 0, 1))
    return image, extent


def spots(scene: Scene) -> Result:
    """Many small plaques, as in multiple sclerosis, in the white matter where it is known."""
    rng, size = scene.rng, len(scene.image)
    where = None if scene.white is None else scene.white > 0.6
    extent = np.zeros((size, size), dtype=np.float32)
    image, shift = scene.image, scene.shift(0.12, 0.45)
    for _ in range(int(rng.integers(1, 9))):
        radius = scene.unit * np.exp(rng.uniform(np.log(1.6), np.log(6)))
        alpha = _confined(blob(size, scene.place(where), radius, rng, soft=scene.unit * rng.uniform(0.8, 2.5)), scene)
        level = np.clip(_local_mean(image, alpha) + shift * rng.uniform(0.7, 1.2), 0.02, 1)
        image = blend(image, alpha, level + 0.3 * (image - _local_mean(image, alpha)))
        extent = np.maximum(extent, alpha)
    return image, extent


def cavity(scene: Scene) -> Result:
    """A resection cavity: fluid behind a sharp edge, with a scar about it."""
    rng, size = scene.rng, len(scene.image)
    radius = scene.unit * rng.uniform(5, 18)
    border = scene.tissue & ~ndimage.binary_erosion(scene.tissue, iterations=max(2, int(radius)))
    centre = scene.place(border)
    shape = rng.integers(1 << 31)
    scar, hole = (
        _confined(blob(size, centre, radius * grow, np.random.default_rng(shape), irregular=0.4), scene)
        for grow in (1.0, rng.uniform(0.6, 0.92))
    )
    fluid = {"t2": 0.9, "flair": 0.08, "t1": 0.12}.get(scene.contrast, rng.uniform(0.02, 0.95))
    image = blend(scene.image, scar, np.clip(scene.image + scene.shift(0.08, 0.35), 0, 1))
    return blend(image, hole, float(np.clip(fluid + rng.normal(0, 0.04), 0, 1))), scar


def meningioma(scene: Scene) -> Result:
    """A solid mass that sits on the surface of the organ and dents it."""
    rng, size = scene.rng, len(scene.image)
    radius = scene.unit * rng.uniform(5, 18)
    border = scene.tissue & ~ndimage.binary_erosion(scene.tissue, iterations=4)
    centre = scene.place(border)
    image = _push(scene, centre, radius, rng.uniform(0.2, 0.6))
    alpha = _confined(blob(size, centre, radius, rng, irregular=0.1, soft=1.5), scene)
    level = np.clip(_local_mean(scene.image, alpha) + scene.shift(0.12, 0.5), 0.03, 1)
    return blend(image, alpha, level * (1 + 0.04 * smooth_noise(size, 3 * scene.unit, rng)[..., None])), alpha


def foreign(scene: Scene) -> Result:
    """Tissue of another picture, its border matched by Poisson blending (Perez et al. 2003)."""
    rng, size = scene.rng, len(scene.image)
    if not scene.donors:
        return texture(scene)
    donor = scene.donors[int(rng.integers(len(scene.donors)))]
    donor = donor.mean(axis=2, keepdims=True) if donor.shape[2] != scene.image.shape[2] else donor
    donor = np.roll(donor, rng.integers(0, size, 2), axis=(0, 1))
    centre, radius = scene.place(), scene.unit * rng.uniform(7, 24)
    alpha = _confined(blob(size, centre, radius, rng, irregular=0.3, soft=1.2), scene)
    half = int(1.8 * radius) + 3
    rows = slice(max(0, centre[0] - half), min(size, centre[0] + half))
    columns = slice(max(0, centre[1] - half), min(size, centre[1] + half))
    here, there = scene.image[rows, columns], donor[rows, columns]
    share = rng.uniform(0, 0.6)  # some of the donor's own intensity beside its gradients
    patch = there + (1 - share) * _membrane(here - there)
    image = scene.image.copy()
    image[rows, columns] = np.clip(blend(here, alpha[rows, columns], patch), 0, 1)
    return image, alpha


def _membrane(difference: Plane) -> Plane:
    """The harmonic function with the border values of ``difference``, by a sine transform."""
    height, width, _ = difference.shape
    border = difference.copy()
    border[1:-1, 1:-1] = 0
    rhs = -(border[:-2, 1:-1] + border[2:, 1:-1] + border[1:-1, :-2] + border[1:-1, 2:] - 4 * border[1:-1, 1:-1])
    k = 2 * np.cos(np.pi * np.arange(1, height - 1) / (height - 1)) - 2
    m = 2 * np.cos(np.pi * np.arange(1, width - 1) / (width - 1)) - 2
    spectrum = fft.dstn(rhs, type=1, axes=(0, 1)) / (k[:, None] + m[None, :])[..., None]
    border[1:-1, 1:-1] = fft.idstn(spectrum, type=1, axes=(0, 1))
    return border.astype(np.float32)


def texture(scene: Scene) -> Result:
    """Structure lost or replaced: blurred, grainy, or shuffled tissue at about the same mean."""
    rng, size = scene.rng, len(scene.image)
    alpha = _confined(blob(size, scene.place(), scene.unit * rng.uniform(7, 24), rng, irregular=0.35, soft=2), scene)
    kind = rng.integers(3)
    if kind == 0:
        target = ndimage.gaussian_filter(scene.image, [scene.unit * rng.uniform(2, 6)] * 2 + [0])
        target = target + rng.uniform(-0.15, 0.15)
    elif kind == 1:
        mean = ndimage.gaussian_filter(scene.image, [scene.unit * 5] * 2 + [0])
        target = mean + rng.uniform(0.06, 0.2) * smooth_noise(size, scene.unit * rng.uniform(1, 3), rng)[..., None]
    else:
        target = np.roll(scene.image, rng.integers(size // 8, size // 2, 2), axis=(0, 1))[::-1] * rng.uniform(0.8, 1.3)
    return blend(scene.image, alpha, np.clip(target, 0, 1)), alpha


def haematoma(scene: Scene) -> Result:
    """Fresh blood in CT: within the brain, on its surface, in its furrows or in the ventricles."""
    rng, size = scene.rng, len(scene.image)
    kind = str(rng.choice(["within", "surface", "furrows", "ventricles"], p=[0.42, 0.3, 0.16, 0.12]))
    grey = scene.image.mean(axis=2)
    brain_level = float(np.median(grey[scene.tissue]))
    blood = np.clip(brain_level + rng.uniform(0.12, 0.4), 0, 1)
    image, rows_columns = scene.image, np.mgrid[:size, :size].astype(np.float32)
    if kind == "surface":
        depth = ndimage.distance_transform_edt(ndimage.binary_dilation(scene.tissue, iterations=2))
        centre, reach = scene.place(depth < 4), scene.unit * rng.uniform(14, 55)
        along = np.hypot(rows_columns[0] - centre[0], rows_columns[1] - centre[1]) / reach
        thickness = scene.unit * rng.uniform(2.5, 10) * np.sqrt(np.clip(1 - along**2, 0, 1))
        alpha = 1 / (1 + np.exp(np.clip(2 * (depth - thickness), -30, 30)))
        alpha = alpha * (thickness > 1.0) * (depth > 0)
    elif kind in ("furrows", "ventricles"):
        dark = (grey < brain_level - 0.04) & scene.tissue
        if kind == "ventricles":
            dark = ndimage.binary_opening(dark, iterations=2)
        centre = scene.place(dark)
        near = blob(size, centre, scene.unit * rng.uniform(12, 40), rng, soft=6)
        alpha = ndimage.gaussian_filter(dark.astype(np.float32), 0.6) * near
        alpha = np.clip(alpha * 1.2, 0, 1)
    else:
        centre, radius = scene.place(), scene.unit * np.exp(rng.uniform(np.log(3), np.log(22)))
        image = _push(scene, centre, radius, rng.uniform(0, 0.4))
        if rng.random() < 0.6:
            halo = _confined(blob(size, centre, radius * rng.uniform(1.2, 1.7), rng, soft=4 * scene.unit), scene)
            image = blend(image, halo, np.clip(image - rng.uniform(0.03, 0.12), 0, 1))
        alpha = _confined(blob(size, centre, radius, rng, irregular=rng.uniform(0.1, 0.5), soft=2), scene)
    level = blood * (1 + 0.08 * smooth_noise(size, 4 * scene.unit, rng))[..., None]
    return blend(image, alpha.astype(np.float32), np.clip(level, 0, 1)), alpha.astype(np.float32)


def infarct(scene: Scene) -> Result:
    """A wide region of CT or MR with less (CT) or other intensity, grey matter and white alike."""
    rng, size = scene.rng, len(scene.image)
    alpha = _confined(
        blob(size, scene.place(), scene.unit * rng.uniform(9, 30), rng, irregular=0.5, soft=scene.unit * 4), scene
    )
    mean = _local_mean(scene.image, alpha)
    level = np.clip(mean - rng.uniform(0.08, 0.25), 0, 1)
    return blend(scene.image, alpha, level + rng.uniform(0.1, 0.5) * (scene.image - mean)), alpha


def polyp(scene: Scene) -> Result:
    """A bump of the mucosa: shaded, of another hue, with a highlight and a dark rim."""
    rng, size = scene.rng, len(scene.image)
    centre, radius = scene.place(), scene.unit * np.exp(rng.uniform(np.log(7), np.log(38)))
    alpha = _confined(blob(size, centre, radius, rng, irregular=0.2, soft=2 * scene.unit), scene)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    y, x = (rows - centre[0]) / radius, (columns - centre[1]) / radius
    height = np.sqrt(np.clip(1.1 - y**2 - x**2, 0.05, None))
    light = rng.normal(0, 0.35, 2)
    shade = 0.75 + 0.35 * (height + light[0] * y + light[1] * x)
    image = _push(scene, centre, radius, rng.uniform(0.1, 0.5))
    hue = 1 + rng.normal(0, 0.1, image.shape[2])
    body = ndimage.gaussian_filter(image, [2 * scene.unit] * 2 + [0])
    body = body * shade[..., None] * hue * (1 + 0.05 * smooth_noise(size, 3 * scene.unit, rng)[..., None])
    rim = np.clip(ndimage.gaussian_filter(alpha, 3 * scene.unit) * 2 - alpha, 0, 1) * rng.uniform(0, 0.35)
    image = blend(image * (1 - rim[..., None]), alpha, np.clip(body, 0, 1))
    if rng.random() < 0.6:
        spot = (int(centre[0] + radius * rng.uniform(-0.5, 0.3)), int(centre[1] + radius * rng.uniform(-0.5, 0.5)))
        image = blend(image, blob(size, spot, scene.unit * rng.uniform(1, 4), rng), 0.97)
    return image, alpha


def hypoechoic(scene: Scene) -> Result:
    """A mass in ultrasound: dark, grainy, with a shadow or an enhancement below."""
    rng, size = scene.rng, len(scene.image)
    centre, radius = scene.place(), scene.unit * rng.uniform(6, 30)
    alpha = _confined(blob(size, centre, radius, rng, irregular=rng.uniform(0.05, 0.5), soft=scene.unit * 2), scene)
    below = np.zeros((size, size), dtype=np.float32)
    left, right = max(0, int(centre[1] - 0.8 * radius)), int(centre[1] + 0.8 * radius)
    below[centre[0] :, left:right] = 1
    below = ndimage.gaussian_filter(below, 4 * scene.unit) * rng.uniform(-0.4, 0.35)
    image = np.clip(scene.image * (1 + below[..., None]), 0, 1)
    level = _local_mean(image, alpha) * rng.uniform(0.05, 0.6)
    grain = 1 + 0.3 * smooth_noise(size, 1.5 * scene.unit, rng)[..., None]
    return blend(image, alpha, np.clip(level * grain, 0, 1)), alpha


def opacity(scene: Scene) -> Result:
    """A nodule or a consolidation of the lung in a radiograph."""
    rng, size = scene.rng, len(scene.image)
    radius = scene.unit * np.exp(rng.uniform(np.log(4), np.log(26)))
    soft = scene.unit * (1.5 if radius < 10 * scene.unit else 8)
    alpha = _confined(blob(size, scene.place(), radius, rng, irregular=0.3, soft=soft), scene)
    return np.clip(scene.image + alpha[..., None] * rng.uniform(0.1, 0.35), 0, 1), alpha


KINDS: dict[str, tuple[tuple[Callable[[Scene], Result], float], ...]] = {
    "mr_brain": (
        (mass, 0.36), (ring, 0.15), (spots, 0.23), (cavity, 0.06), (meningioma, 0.07), (foreign, 0.08), (texture, 0.05)
    ),
    "mr_body": ((mass, 0.5), (ring, 0.15), (spots, 0.1), (foreign, 0.15), (texture, 0.1)),
    "ct_body": ((mass, 0.5), (ring, 0.15), (spots, 0.1), (foreign, 0.15), (texture, 0.1)),
    "ct_head": ((haematoma, 0.8), (infarct, 0.08), (mass, 0.07), (foreign, 0.05)),
    "colonoscopy": ((polyp, 0.8), (foreign, 0.2)),
    "ultrasound": ((hypoechoic, 0.75), (mass, 0.1), (foreign, 0.15)),
    "xray": ((opacity, 0.7), (foreign, 0.2), (mass, 0.1)),
}  # fmt: skip
"""Domain -> kinds of lesion and their shares."""


def is_visible(before: Plane, after: Plane, extent: Plane) -> bool:
    """Whether a change of a (S, S, C) picture is large and strong enough within its ``extent`` (S, S) to be seen."""
    inside = extent > 0.5
    if inside.sum() < 6 * (len(before) / 192) ** 2:
        return False
    return bool(np.abs(after - before).mean(axis=2)[inside].mean() > VISIBLE)


def add_lesion(scene: Scene, domain: str, *, tries: int = 4) -> Result | None:
    """One lesion, or one shower of spots, that is visible in the picture; nothing where none could be made.

    Raises:
        KeyError: the domain has no lesions.
    """
    if not scene.tissue.any():
        return None
    makers, shares = zip(*KINDS[domain], strict=True)
    for _ in range(tries):
        image, extent = makers[int(scene.rng.choice(len(makers), p=shares))](scene)
        if is_visible(scene.image, image, extent):
            return np.clip(image, 0, 1).astype(np.float32), extent
    return None
