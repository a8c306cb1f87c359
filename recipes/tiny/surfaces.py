"""Lit surfaces of no organ: random relief, colours and patterns, whole or damaged. What is odd there is odd anywhere.

They are to an embedded model what photos of industrial goods are to the paper's: they teach that an anomaly is what
differs from the rest of a picture. Lengths are in pixels of a 192-pixel picture.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from recipes.tiny.anatomy import smooth_noise
from recipes.tiny.framing import Plane
from recipes.tiny.lesions import blend, blob, is_visible

OBJECT_SHARE = 0.35
"""Share of the pictures that show an object before a plain background instead of nothing but surface."""


@dataclass(frozen=True, slots=True)
class Surface:
    """What is seen, before it is lit.

    Attributes:
        relief: (S, S) heights in pixels.
        colour: (S, S, 3) share of the light that comes back, in [0, 1].
        light: (3,) unit vector towards the light: right, down, to the viewer.
        ambient: share of the light that comes from everywhere.
        gloss: strength of the mirror image of the light.
    """

    relief: Plane
    colour: Plane
    light: NDArray[np.float64]
    ambient: float
    gloss: float

    @property
    def unit(self) -> float:
        """Pixels of this picture for one of a 192-pixel picture."""
        return len(self.relief) / 192

    def lit(self) -> Plane:
        """-> (S, S, 3) in [0, 1], by the reflection of Blinn and Phong."""
        down, right = np.gradient(self.relief)
        normal = np.stack([-right, -down, np.ones_like(right)], axis=2)
        normal /= np.linalg.norm(normal, axis=2, keepdims=True)
        half = self.light + np.array([0.0, 0.0, 1.0])
        half /= np.linalg.norm(half)
        diffuse = np.clip(normal @ self.light, 0, 1) / max(self.light[2], 0.5)
        mirror = np.clip(normal @ half, 0, 1) ** 60
        image = self.colour * (self.ambient + (1 - self.ambient) * diffuse)[..., None]
        return np.clip(image + self.gloss * mirror[..., None], 0, 1).astype(np.float32)


def draw(size: int, rng: np.random.Generator, *, damaged: bool) -> tuple[Plane, Plane]:
    """A random surface or object, whole or damaged.

    Args:
        size: side S of the picture.
        rng: the source of chance.
        damaged: whether to damage it; what cannot be seen is no damage.

    Returns:
        (S, S, 3) picture in [0, 1], and (S, S) how much of every pixel is damage.
    """
    surface, where = random_surface(size, rng), _outline(size, rng)
    image, extent = surface.lit(), np.zeros((size, size), dtype=np.float32)
    if damaged:
        makers, shares = zip(*DAMAGES, strict=True)
        for _ in range(4):
            changed, reach = makers[int(rng.choice(len(makers), p=shares))](surface, where, rng)
            after, reach = changed.lit(), reach * where
            if is_visible(image, after, reach):
                image, extent = blend(image, reach, after), reach
                break
    if not where.all():
        behind = _colour(rng) * rng.choice([0.05, 0.5, 1.0]) * (1 + 0.05 * smooth_noise(size, 8, rng))[..., None]
        edge = ndimage.gaussian_filter(where.astype(np.float32), 0.7 * surface.unit)[..., None]
        image = edge * image + (1 - edge) * np.clip(behind, 0, 1)
    if rng.random() < 0.4:
        image = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    return image.astype(np.float32), extent.astype(np.float32)


def random_surface(size: int, rng: np.random.Generator) -> Surface:
    """Relief of one to three scales, colours of one to three, and a light."""
    unit = size / 192
    relief = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.integers(1, 4))):
        shape = _waves(size, rng)
        slope = float(np.hypot(*np.gradient(shape)).mean()) + 1e-6
        relief += shape / slope * np.exp(rng.uniform(np.log(0.03), np.log(0.35)))
    colour = np.broadcast_to(_colour(rng), (size, size, 3)).astype(np.float32)
    for _ in range(int(rng.integers(0, 3))):
        share = 1 / (1 + np.exp(-rng.uniform(1, 8) * (_waves(size, rng) + rng.normal())))
        colour = blend(colour, share * np.exp(rng.uniform(-2, 0)), _colour(rng))
    if rng.random() < 0.4:  # what lies deep or in the shade
        shade = 1 / (1 + np.exp(-4 * (smooth_noise(size, unit * rng.uniform(40, 90), rng) - rng.uniform(0.3, 1.5))))
        colour = colour * (1 - rng.uniform(0.3, 0.95) * shade[..., None])
    if rng.random() < 0.35:
        veins = _lines(size, rng, int(rng.integers(2, 12)), wander=0.2)
        veins = np.clip(ndimage.gaussian_filter(veins, unit * rng.uniform(0.4, 1.2)) * 3, 0, 1)
        colour = blend(colour, veins * rng.uniform(0.2, 0.8), _colour(rng))
    tilt, turn = rng.uniform(0, 0.9), rng.uniform(0, 2 * np.pi)
    light = np.array([np.sin(tilt) * np.cos(turn), np.sin(tilt) * np.sin(turn), np.cos(tilt)])
    gloss = rng.uniform(0, 0.8) if rng.random() < 0.5 else 0.0
    return Surface(relief, colour, light, float(rng.uniform(0.1, 0.7)), float(gloss))


def _colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """(3,) any hue, from grey to vivid."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.beta(1.2, 2.0), rng.uniform(0.25, 1.0)))


def _waves(size: int, rng: np.random.Generator) -> Plane:
    """(S, S) of about zero mean and unit spread: clouds, folds, grain, stripes, a lattice."""
    unit, kind = size / 192, int(rng.choice(5, p=[0.35, 0.2, 0.12, 0.15, 0.18]))
    if kind == 0:
        return smooth_noise(size, unit * np.exp(rng.uniform(np.log(8), np.log(60))), rng)
    if kind == 1:
        folds = np.abs(smooth_noise(size, unit * rng.uniform(12, 45), rng))
        return ((folds - folds.mean()) / (folds.std() + 1e-6)).astype(np.float32)
    if kind == 2:
        return smooth_noise(size, unit * rng.uniform(1, 4), rng)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    bent = 4 * rng.random() * smooth_noise(size, 50 * unit, rng)
    angle, period = rng.uniform(0, np.pi), unit * np.exp(rng.uniform(np.log(5), np.log(40)))
    along = (columns * np.cos(angle) + rows * np.sin(angle) + bent) * 2 * np.pi / period
    across = (rows * np.cos(angle) - columns * np.sin(angle) + bent) * 2 * np.pi / period
    wave = np.sin(along) if kind == 3 else np.sin(along) * np.sin(across) * 1.4
    return (1.4 * wave).astype(np.float32)


def _lines(size: int, rng: np.random.Generator, count: int, *, wander: float) -> Plane:
    """(S, S), 1 on wandering lines."""
    lines = np.zeros((size, size), dtype=np.float32)
    for _ in range(count):
        steps = int(size * rng.uniform(0.1, 1.0))
        headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, wander, steps))
        rows = rng.uniform(0, size) + np.cumsum(np.sin(headings))
        columns = rng.uniform(0, size) + np.cumsum(np.cos(headings))
        at = np.rint(np.stack([rows, columns])).astype(int)
        at = at[:, ((at >= 0) & (at < size)).all(axis=0)]
        lines[at[0], at[1]] = 1
    return lines


def _outline(size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(S, S), True where the object lies; everywhere where there is nothing but surface."""
    if rng.random() >= OBJECT_SHARE:
        return np.ones((size, size), dtype=bool)
    centre = (int(size * rng.uniform(0.42, 0.58)), int(size * rng.uniform(0.42, 0.58)))
    inside = blob(size, centre, size * rng.uniform(0.28, 0.45), rng, irregular=rng.uniform(0, 0.5)) > 0.5
    if rng.random() < 0.3:
        hole = blob(size, centre, size * rng.uniform(0.06, 0.14), rng, irregular=0.1) > 0.5
        inside &= ~hole
    return inside


def _spot(
    surface: Surface, where: NDArray[np.bool_], rng: np.random.Generator, smallest: float, largest: float
) -> tuple[Plane, float]:
    """A blob on the object, and its radius."""
    places = np.argwhere(where)
    row, column = places[int(rng.integers(len(places)))]
    radius = surface.unit * float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
    soft = surface.unit * float(rng.choice([1.0, 2.0, 5.0]))
    irregular = rng.uniform(0.05, 0.5)
    return blob(len(surface.relief), (int(row), int(column)), radius, rng, irregular=irregular, soft=soft), radius


Damage = Callable[[Surface, NDArray[np.bool_], np.random.Generator], tuple[Surface, Plane]]


def _dent(surface: Surface, where: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Surface, Plane]:
    """A bump or a pit, flat or round, of one lobe or several, with the surface's own colours and grain or others."""
    extent, radius = _spot(surface, where, rng, 7, 56)
    dome = _dome(extent, radius)
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 4))):
            beside = where & (extent > 0.15) & (extent < 0.85)
            if not beside.any():
                break
            size = radius / surface.unit
            lobe, reach = _spot(surface, beside, rng, 0.5 * size, size)
            extent, dome = np.maximum(extent, lobe), np.maximum(dome, _dome(lobe, reach))
    dome *= np.exp(rng.uniform(np.log(0.12), np.log(0.9)))
    dome = ndimage.gaussian_filter(dome, surface.unit * rng.uniform(0.6, 2.0))
    dome *= 1 if rng.random() < 0.7 else -1
    flat = ndimage.gaussian_filter(surface.relief, 3 * surface.unit)
    relief = surface.relief + extent * rng.uniform(0, 0.8) * (flat - surface.relief) + dome
    if rng.random() < 0.3:
        grain = smooth_noise(len(extent), surface.unit * rng.uniform(1.2, 5), rng)
        relief = relief + extent * surface.unit * rng.uniform(0.2, 0.8) * grain
    tinted = blend(surface.colour, extent * rng.uniform(0, 0.35), _colour(rng))
    return replace(surface, relief=relief.astype(np.float32), colour=tinted.astype(np.float32)), extent


def _dome(extent: Plane, radius: float) -> Plane:
    """(S, S) heights in pixels of half a ball over a blob."""
    depth = np.clip(ndimage.distance_transform_edt(extent > 0.5) / radius, 0, 1)
    return (np.sqrt(1 - (1 - depth) ** 2) * radius).astype(np.float32)


def _stain(surface: Surface, where: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Surface, Plane]:
    """Another colour, lighter or darker."""
    extent, _ = _spot(surface, where, rng, 4, 38)
    if rng.random() < 0.5:
        target = np.clip(surface.colour * np.exp(rng.choice([-1, 1]) * rng.uniform(0.2, 0.8)), 0, 1)
    else:
        target = np.broadcast_to(_colour(rng), surface.colour.shape)
    colour = blend(surface.colour, extent * rng.uniform(0.4, 1.0), target)
    return replace(surface, colour=colour.astype(np.float32)), extent


def _specks(surface: Surface, where: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Surface, Plane]:
    """Many small stains of one colour."""
    target, extent = _colour(rng), np.zeros_like(surface.relief)
    for _ in range(int(rng.integers(2, 8))):
        extent = np.maximum(extent, _spot(surface, where, rng, 1.6, 6)[0])
    colour = blend(surface.colour, extent * rng.uniform(0.5, 1.0), target)
    return replace(surface, colour=colour.astype(np.float32)), extent


def _foreign(surface: Surface, where: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Surface, Plane]:
    """A piece of another surface under the same light."""
    extent, _ = _spot(surface, where, rng, 6, 38)
    other = random_surface(len(extent), rng)
    relief = surface.relief + extent * (other.relief - surface.relief)
    colour = blend(surface.colour, extent * rng.uniform(0.3, 1.0), other.colour)
    return replace(surface, relief=relief.astype(np.float32), colour=colour.astype(np.float32)), extent


def _worn(surface: Surface, where: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Surface, Plane]:
    """Relief and pattern lost."""
    extent, _ = _spot(surface, where, rng, 8, 38)
    wide = surface.unit * rng.uniform(4, 9)
    relief = surface.relief + extent * (ndimage.gaussian_filter(surface.relief, wide) - surface.relief)
    plain = ndimage.gaussian_filter(surface.colour, [wide, wide, 0]) * rng.uniform(0.8, 1.25)
    colour = blend(surface.colour, extent, np.clip(plain, 0, 1))
    return replace(surface, relief=relief.astype(np.float32), colour=colour.astype(np.float32)), extent


def _scratch(surface: Surface, where: NDArray[np.bool_], rng: np.random.Generator) -> tuple[Surface, Plane]:
    """A groove or a crack that crosses the pattern."""
    line = _lines(len(surface.relief), rng, int(rng.integers(1, 3)), wander=rng.uniform(0, 0.15))
    wide = surface.unit * rng.uniform(0.8, 2.5)
    extent = np.clip(ndimage.gaussian_filter(line, wide) * wide * 3.5, 0, 1).astype(np.float32)
    relief = surface.relief + extent * surface.unit * rng.uniform(-4, 2)
    colour = blend(surface.colour, extent * rng.uniform(0, 0.9), _colour(rng))
    return replace(surface, relief=relief.astype(np.float32), colour=colour.astype(np.float32)), extent


DAMAGES: tuple[tuple[Damage, float], ...] = (
    (_dent, 0.38),
    (_stain, 0.2),
    (_specks, 0.08),
    (_foreign, 0.18),
    (_worn, 0.09),
    (_scratch, 0.07),
)
"""Kinds of damage and their shares."""
