"""A synthetic head in FLAIR contrast with a known lesion, drawn from formulas: no voxel comes from a person."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anomalyclip_monai.types import Affine, FloatArray

Field: TypeAlias = NDArray[np.floating[Any]]
"""(X, Y, Z), or what broadcasts to it."""

SHAPE = (208, 240, 23)
SPACING = (0.9, 0.9, 5.0)
"""mm; thick axial slices, as FLAIR is commonly acquired."""

CENTER = (103.5, 112.0, 8.0)
"""Voxel of the head's origin, near the middle of the third ventricle."""

TILT = np.deg2rad(9.0)
"""Angle of the slices to the scanner's transverse plane: they follow the skull base, as a radiographer sets them."""

AIR, BONE, MARROW, MUSCLE, FAT, ORBIT, SKIN = 8.0, 40.0, 150.0, 210.0, 560.0, 390.0, 360.0
CSF, GREY, WHITE, DEEP_GREY, LESION = 100.0, 438.0, 412.0, 428.0, 820.0
"""Relative signal of each tissue in FLAIR: fluid is suppressed, oedema and tumour are not."""

NOISE = 20.0
"""Standard deviation of each channel (real, imaginary) before the magnitude is taken."""

HEAD = 3
"""Draw of the one head: its shape, folds, receive field and noise. Other draws look alike, but the embedded model
marks something in about half of them (9 of 17); in this one it does not."""

VENTRICLE = np.array(
    [  # right side; x, y, z and radius in mm, from the frontal over the occipital to the temporal horn
        (15, 33, 6, 2.5),
        (9, 20, 11, 4.5),
        (7, 2, 17, 4.5),
        (10, -18, 19, 4.5),
        (22, -38, 12, 5.0),
        (24, -62, 6, 2.0),
        (22, -38, 12, 4.5),
        (33, -27, -8, 2.5),
        (31, -8, -17, 2.0),
    ],
    dtype=np.float32,
)


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic head.

    Attributes:
        data: (X, Y, Z) magnitude signal without a unit, 0 to about 1000.
        affine: (4, 4) voxel index to RAS mm; oblique and left-handed.
        lesion: (X, Y, Z) where the lesion is; False everywhere in the healthy twin.
    """

    data: FloatArray
    affine: Affine
    lesion: NDArray[np.bool_]


def head_phantom(*, lesion: bool = True, seed: int = 0) -> Phantom:
    """A synthetic head MR volume, (208, 240, 23) voxels of 0.9 x 0.9 x 5 mm, in FLAIR contrast.

    It is no image of a person and no substitute for one: it shows that an installation works from file to lesion table.

    Args:
        lesion: draw a bright mass of about 3 cm with a soft edge that pushes its surroundings aside; False gives the
            healthy twin, the same head with the same noise.
        seed: side, place and outline of the lesion. The head and its noise are always the same.
    """
    head, rng = np.random.default_rng(HEAD), np.random.default_rng(seed)
    x, y, z = _axes()
    wobble, texture = _waves(head, 60.0), _waves(head, 22.0)
    folds = ndimage.gaussian_filter(head.standard_normal((72, 72, 72)), 1.9).astype(np.float32)
    bias = 1 + 0.02 * _waves(head, 260.0)
    noise = head.normal(scale=NOISE, size=(2, *SHAPE)).astype(np.float32)
    side = rng.choice((-1.0, 1.0))
    center = (side * rng.uniform(33, 37), rng.uniform(-24, 14), rng.uniform(24, 30))
    edge = _waves(rng, 40.0)

    inner = _depth(x + 0.6 * wobble, y, z, (66.0, 84.0, 77.0))
    base = z - _skull_base(x, y)
    cavity, depth = np.minimum(inner, base), np.minimum(inner - 2.5, base - 0.5)
    distance = np.sqrt((x - center[0]) ** 2 + ((y - center[1]) / 1.15) ** 2 + (z - center[2]) ** 2)
    mass = np.clip((15.0 + 2.2 * edge - distance) / 6.0 + 0.5, 0, 1) * _cover(cavity - 3) * float(lesion)
    # The mass moves what is around it outwards; the skull stays, and so does all that is far.
    push = 3.5 * float(lesion) * np.clip(1 - distance / 40, 0, 1) * np.clip(cavity / 12, 0, 1)
    moved = [
        axis - push * (axis - c) / np.maximum(distance, 4.0) + shift * wobble
        for axis, c, shift in zip((x, y, z), center, (1.2, 0.8, 0.0), strict=True)
    ]

    image = _outside(x, y, z, wobble, texture)
    image = _blend(image, _cover(cavity), CSF)
    image = _brain(image, depth, inner, moved, folds, texture)
    image = _blend(image, mass, LESION * (1 + 0.04 * texture))
    image = ndimage.gaussian_filter(image, 0.5, axes=(0, 1))
    signal = np.hypot(image * bias + noise[0], noise[1])
    return Phantom(signal.astype(np.float32), _affine(), mass > 0.5)


def _axes() -> list[Field]:
    """(X, 1, 1), (1, Y, 1), (1, 1, Z): right, anterior, superior in the head's own frame, in mm."""
    lines = [(np.arange(n) - c) * s for n, c, s in zip(SHAPE, CENTER, SPACING, strict=True)]
    lines[0] = -lines[0]  # stored from right to left, as the affine says
    return [line.astype(np.float32) for line in np.meshgrid(*lines, indexing="ij", sparse=True)]


def _affine() -> Affine:
    c, s = np.cos(TILT), np.sin(TILT)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([-SPACING[0], *SPACING[1:]])
    affine[:3, 3] = -affine[:3, :3] @ np.array(CENTER)
    return affine


def _waves(rng: np.random.Generator, wavelength: float, modes: int = 24) -> Field:
    """(X, Y, Z) smooth random field of mean 0 and deviation 1; a sum of products of cosines, wavelength in mm."""
    factors = []
    for axis in _axes():
        frequency = rng.normal(size=modes) / wavelength
        phase = rng.uniform(size=modes)
        factors.append(np.sqrt(2) * np.cos(2 * np.pi * (np.outer(axis.ravel(), frequency) + phase)))
    rows, columns, slices = (factor.astype(np.float32) for factor in factors)
    field = (rows[:, None] * columns[None]) @ slices.T / np.float32(np.sqrt(modes))
    return np.clip(field, -2.5, 2.5)


def _steepness(level: Field) -> Field:
    """(X, Y, Z) the length of a level function's gradient, per mm."""
    slopes = np.gradient(level, *SPACING)
    return np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2)


def _cover(level: Field) -> Field:
    """The share of each voxel where a level function is positive: the partial volume of a plane in a box."""
    across = np.abs(np.gradient(level)).sum(axis=0)
    return np.clip(0.5 + level / np.maximum(across, 1e-3), 0, 1)


def _blend(image: Field, share: Field, value: float | Field) -> Field:
    return image + share * (value - image)


def _depth(x: Field, y: Field, z: Field, radii: tuple[float, float, float]) -> Field:
    """(X, Y, Z) depth in mm, roughly, below an egg with its narrow end in front; it hardly tapers downwards."""
    width = radii[0] * (1 - 0.11 * np.tanh((y - 10) / 45))
    height = np.where(z > 0, radii[2], 2.6 * radii[2])
    rho = ((np.abs(x) / width) ** 2.2 + (np.abs(y) / radii[1]) ** 2.2 + (np.abs(z) / height) ** 2.2) ** (1 / 2.2)
    # Short of the gradient's exact length, but smooth at the centre and right where it matters, near the surface.
    return (1 - rho) / np.maximum(_steepness(rho), 1 / radii[1])


def _ellipsoid(
    x: Field, y: Field, z: Field, center: tuple[float, float, float], radii: tuple[float, float, float]
) -> Field:
    """(X, Y, Z) share of each voxel in an ellipsoid."""
    u, v, w = ((axis - c) / r for axis, c, r in zip((x, y, z), center, radii, strict=True))
    return _cover(min(radii) * (1 - np.sqrt(u**2 + v**2 + w**2)))


def _skull_base(x: Field, y: Field) -> Field:
    """(X, Y, 1) height of the floor of the skull in mm: anterior, middle and posterior fossa, sella, petrous ridges."""
    side = np.abs(x)
    front = 1 / (1 + np.exp(-(y - 24 - 0.4 * side) / 3))
    back = 1 / (1 + np.exp((y + 8 + 0.45 * (side - 20)) / 3))
    floor = -47 + 19 * front - 44 * back
    sella = 19 * np.exp(-((side / 15) ** 4) - ((y - 18) / 17) ** 4)
    ridge = 22 * np.exp(-(((y + 6 + 0.45 * (side - 20)) / 6) ** 2)) * (side > 14)
    return floor + np.maximum(sella * (1 - front), ridge)


def _outside(x: Field, y: Field, z: Field, wobble: Field, texture: Field) -> Field:
    """(X, Y, Z) all that is not in the cavity of the skull: skin, fat, muscle, bone, orbits, nose."""
    side = np.abs(x)
    nose = 20 * np.exp(-((side / 11) ** 2)) * np.clip((-18 - z) / 22, 0, 1) * (y > 0)
    outer = _depth(x + 0.6 * wobble, y - nose * np.clip(y / 90, 0, 1), z, (80.0, 98.0, 86.5))
    bone = _depth(x + 0.6 * wobble, y, z, (72.0, 90.0, 81.0))
    image = _blend(np.full(SHAPE, AIR, np.float32), _cover(outer), SKIN)
    image = _blend(image, _cover(outer - 2.2), FAT * (1 + 0.05 * texture))
    low = np.clip((4 - z) / 25, 0, 1)
    muscle = low * np.exp(-(((y - 22) / 26) ** 4)) * np.clip((side - 40) / 10, 0, 1)
    image = _blend(image, muscle * _cover(outer - 4.5), MUSCLE * (1 + 0.1 * texture))
    image = _blend(image, _cover(bone - 4 * muscle), BONE)
    image = _blend(image, 0.8 * _cover(bone - 1.8 - 4 * muscle), MARROW)
    face = np.clip((-12 - z) / 12, 0, 1) * np.clip((y - 38) / 10, 0, 1)
    image = _blend(image, face * _cover(outer - 3), MUSCLE * (1 + 0.2 * texture))
    eyes = np.clip((-26 - z) / 3, 0, 1)
    base = np.clip((-8 - z) / 8, 0, 1) * _cover(bone - 4)
    image = _blend(image, base, 0.85 * MUSCLE * (1 + 0.1 * texture))
    orbit = _ellipsoid(side, y, z, (29.0, 60.0, -36.0), (17.0, 27.0, 24.0))
    image = _blend(image, eyes * orbit * _cover(outer - 5), ORBIT)
    image = _blend(image, _ellipsoid(side, y, z, (27.0, 50.0, -36.0), (2.5, 22.0, 3.0)), MUSCLE)
    image = _blend(image, _ellipsoid(side, y, z, (31.0, 72.0, -36.0), (13.5, 13.5, 18.0)) * eyes, MUSCLE)
    image = _blend(image, _ellipsoid(side, y, z, (31.0, 72.0, -36.0), (12.0, 12.0, 16.0)) * eyes, CSF)
    image = _blend(image, _ellipsoid(side, y, z, (0.0, 62.0, -42.0), (10.0, 32.0, 18.0)), AIR)
    septa = np.clip(np.cos(side * 0.9) * 2 - 0.6, 0, 1) * _ellipsoid(side, y, z, (0.0, 62.0, -42.0), (9.0, 31.0, 17.0))
    return _blend(image, septa, MUSCLE)


def _tube(side: Field, y: Field, z: Field) -> Field:
    """(X, Y, Z) depth in mm inside the lateral ventricles, a chain of round cones."""
    level = np.full(SHAPE, -99.0, np.float32)
    for (ax, ay, az, ar), (bx, by, bz, br) in pairwise(VENTRICLE):
        dx, dy, dz = bx - ax, by - ay, bz - az
        t = np.clip(((side - ax) * dx + (y - ay) * dy + (z - az) * dz) / (dx**2 + dy**2 + dz**2), 0, 1)
        gap = np.sqrt((side - ax - t * dx) ** 2 + (y - ay - t * dy) ** 2 + (z - az - t * dz) ** 2)
        level = np.maximum(level, ar + t * (br - ar) - gap)
    return level


def _brain(
    image: Field,
    depth: Field,
    inner: Field,
    moved: list[Field],
    folds: Field,
    texture: Field,
) -> Field:
    """(X, Y, Z) the image with brain in the cavity."""
    x, y, z = moved
    side = np.abs(x)
    inside = depth > -3
    # Folds are drawn on the surface and carried inwards, so that sulci stand upright on it.
    lift = (70 / np.maximum(72 - np.clip(inner, 0, 50) * 0.75, 20))[inside]
    points = np.stack([axis[inside] * lift / 2.3 + 36 for axis in moved])
    pattern = np.zeros(SHAPE, np.float32)
    pattern[inside] = ndimage.map_coordinates(folds, points, order=3, mode="wrap")
    steep = _steepness(pattern)
    # The lower limit keeps sulci from widening where the pattern is flat, and is fixed so that the twins agree.
    sulcus = np.abs(pattern) / np.maximum(steep, 0.00449)
    fissure = side + 30 * np.clip(1.15 - np.hypot((y + 2) / 42, (z - 8) / 24), 0, 1)
    sulcus = sulcus + np.clip(np.minimum(inner, fissure + 14 + 2 * np.maximum(-z, 0)) - 16, 0, None) * 0.9
    low = 8 * np.maximum(np.abs(z) - 11, 0)
    insula = np.hypot(side - 41 + 0.006 * (y - 2) ** 2, np.maximum(np.abs(y - 2) - 18, 0) + low)
    insula = np.minimum(insula, np.hypot(y - 19 + 0.3 * (side - 40), np.maximum(39 - side, 0) + low))
    stalk = np.maximum(np.abs(side - 28) - 16, 0) + 8 * np.maximum(np.abs(z + 17) - 9, 0)
    insula = np.minimum(insula, np.hypot(y - 8 - 0.45 * (side - 12), stalk))
    tent = -6 - 0.3 * side + 0.15 * (y + 30) - z
    hind = np.clip(0.5 + np.minimum(tent / 5, -(y + 12 + 0.2 * side) / 2), 0, 1)
    stem = np.hypot(side / 1.1, y + 14)
    cistern = 0.7 + 1.2 * np.abs(stem - 16) + np.maximum(z + 8, 0) + np.maximum(-20 - y, 0)
    folia = 0.5 + 0.5 * np.cos(2 * np.pi * np.hypot(np.hypot(side, y + 24), z + 26) / 4.6 + 1.5 * texture)
    cortex = np.where(hind > 0.5, np.abs(tent) + 1, np.minimum(sulcus, insula))
    pial = np.minimum(np.minimum(depth, cortex), np.minimum(fissure + 9 * (hind > 0.5) * (y > -75), cistern))
    pial = pial - 0.2 - 0.3 * texture
    brain = _blend(np.full(SHAPE, WHITE, np.float32), np.clip(0.5 - (pial - 3.6) / 2.0, 0, 1), GREY)
    brain = _blend(brain, hind * np.clip((stem - 15) / 3, 0, 1), 425 + 30 * folia)
    brain = _blend(brain, _ellipsoid(side, y, z, (17.0, -42.0, -36.0), (15.0, 10.0, 11.0)), 425.0)
    for center, radii in (
        ((13.0, 17.0, 9.0), (6.0, 11.0, 11.0)),
        ((25.0, 3.0, 2.0), (7.0, 17.0, 11.0)),
        ((10.5, -15.0, 5.0), (9.0, 14.0, 10.0)),
    ):
        brain = _blend(brain, _ellipsoid(side, y, z, center, radii), DEEP_GREY)
    image = _blend(image, np.clip((pial - 0.1) / 1.6, 0, 1) * _cover(depth), brain)
    image = _blend(image, _cover(_tube(side, y, z)) * _cover(depth), CSF)
    image = _blend(image, _ellipsoid(side, y, z, (0.0, 12.0, -19.0), (8.0, 5.0, 4.0)), 3 * CSF)
    image = _blend(image, _ellipsoid(side, y, z, (0.0, -6.0, -4.0), (3.0, 16.0, 12.0)), CSF)
    return _blend(image, _ellipsoid(side, y, z, (0.0, -31.0, -30.0), (5.0, 3.5, 11.0)), 1.6 * CSF)
