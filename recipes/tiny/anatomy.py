"""Healthy tissue in other contrasts: tissue classes repainted (SynthSeg, Billot et al. 2023), bone and skin painted on.

All functions take and give (S, S) pictures in [0, 1].
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from recipes.tiny.framing import Plane

CONTRASTS = {
    "t1": ((0.75, 0.98), (0.5, 0.7), (0.08, 0.3)),
    "t2": ((0.25, 0.42), (0.4, 0.58), (0.75, 1.0)),
    "flair": ((0.4, 0.58), (0.52, 0.75), (0.03, 0.2)),
    "pd": ((0.5, 0.65), (0.65, 0.85), (0.6, 0.95)),
}
"""Ranges of white matter, grey matter and fluid after the MR preset's scaling."""


def smooth_noise(size: int, sigma: float, rng: np.random.Generator) -> Plane:
    """(size, size) of zero mean and unit spread, correlated over about ``sigma`` pixels."""
    nodes = max(3, min(size, round(1.6 * size / max(sigma, 1)) + 2))
    noise = rng.normal(size=(nodes, nodes))
    if nodes < size:
        spread = _spline(nodes, size)
        noise = (spread @ torch.from_numpy(noise) @ spread.T).numpy()
    return ((noise - noise.mean()) / (noise.std() + 1e-6)).astype(np.float32)


@functools.lru_cache(maxsize=512)
def _spline(nodes: int, size: int) -> torch.Tensor:
    """(size, nodes) cubic interpolation of values at ``nodes`` equal parts of a side of ``size`` pixels.

    A product with it on both sides is ``scipy.ndimage.zoom`` of a square, at a fraction of the time.
    """
    columns = ndimage.zoom(np.eye(nodes), (size / nodes, 1), order=3, mode="reflect", grid_mode=True)
    return torch.from_numpy(columns[:size])


def recontrast(image: Plane, classes: Plane, rng: np.random.Generator) -> tuple[Plane, str]:
    """A T1 slice with known grey and white matter in another contrast.

    Args:
        image: the T1 slice, zero outside the brain.
        classes: (S, S, 2) grey and white matter.
        rng: the source of chance.

    Returns:
        The slice and the name of its contrast (``random`` for values of no real sequence).
    """
    name = str(rng.choice([*CONTRASTS, "random"], p=[0.24, 0.2, 0.36, 0.08, 0.12]))
    if name == "random":
        white, grey, fluid = rng.uniform(0.05, 1.0, 3)
    else:
        white, grey, fluid = (rng.uniform(*limits) for limits in CONTRASTS[name])
    brain = np.clip(image / 0.15, 0, 1)
    gm, wm = classes[..., 0], classes[..., 1]
    csf = np.clip(brain - gm - wm, 0, 1)
    painted = wm * white + gm * grey + csf * fluid
    # The T1's own fine detail keeps nuclei, vessels and folds from looking like paint.
    detail = image - ndimage.gaussian_filter(image, rng.uniform(1.5, 4))
    sign = 1.0 if name == "t1" else float(rng.uniform(-1, 0.6))
    texture = 1 + rng.uniform(0, 0.04) * smooth_noise(len(image), rng.uniform(1.5, 5), rng)
    painted = painted * texture + sign * 0.5 * detail * brain
    return np.clip(about_ventricles(painted, csf, rng), 0, 1).astype(np.float32), name


def about_ventricles(image: Plane, fluid: Plane, rng: np.random.Generator) -> Plane:
    """What is normal about ventricles and is often taken for a lesion: bright caps and rims, and choroid plexus."""
    ventricles = ndimage.binary_opening(fluid > 0.5, iterations=2)
    if not ventricles.any():
        return image
    unit = len(image) / 192
    if rng.random() < 0.4:
        rim = ndimage.gaussian_filter(ventricles.astype(np.float32), unit * rng.uniform(1.5, 4)) * (1 - fluid)
        image = image + rng.uniform(0.05, 0.3) * rim
    if rng.random() < 0.3:
        plexus = np.zeros_like(image)
        places = np.argwhere(ventricles)
        for row, column in places[rng.integers(len(places), size=int(rng.integers(1, 4)))]:
            plexus[row, column] = 1
        plexus = ndimage.gaussian_filter(plexus, unit * rng.uniform(0.8, 2))
        plexus = plexus / plexus.max() * ndimage.gaussian_filter(ventricles.astype(np.float32), 0.7)
        image = image + plexus * (rng.uniform(0.3, 0.9) - image)
    return image


def intensity_curve(image: Plane, rng: np.random.Generator) -> Plane:
    """Another contrast of a whole head: a smooth random curve over its values that keeps air black."""
    if rng.random() < 0.65:
        return image ** np.float32(np.exp(rng.normal(0, 0.25)))
    knots = np.array([0.0, 0.08, 0.3, 0.5, 0.7, 1.0])
    values = np.concatenate([[0.0, rng.uniform(0, 0.15)], rng.uniform(0.05, 1.0, 4)])
    curve = ndimage.gaussian_filter1d(np.interp(np.linspace(0, 1, 256), knots, values), 10)
    curve[:16] *= np.linspace(0, 1, 16)
    return np.interp(image, np.linspace(0, 1, 256), curve).astype(np.float32)


def paint_head(image: Plane, brain: NDArray[np.bool_], rng: np.random.Generator, *, ct: bool = False) -> Plane:
    """Fluid, bone and scalp about a brain whose picture ends at its surface.

    Args:
        image: zero outside the brain.
        brain: its mask.
        rng: the source of chance.
        ct: bone is white and scalp dark grey, as in a brain window, instead of bone dark and scalp bright.
    """
    if not brain.any():
        return image
    hull = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(brain, 24), iterations=12))[24:-24, 24:-24]
    size = len(image)
    distance = ndimage.distance_transform_edt(~hull) * (1 + 0.15 * smooth_noise(size, 40, rng))
    unit = size / 192
    fluid_to = unit * rng.uniform(0.5, 3)
    bone_to = fluid_to + unit * rng.uniform(4, 9)
    skin_to = bone_to + unit * rng.uniform(2, 10)
    if ct:
        fluid, bone, skin = rng.uniform(0.05, 0.35), 1.0, rng.uniform(0.0, 0.45)
    else:
        fluid, bone, skin = rng.uniform(0.02, 0.6), rng.uniform(0.02, 0.15), rng.uniform(0.35, 1.0)
    painted = np.where(distance < fluid_to, fluid, np.where(distance < bone_to, bone, skin)).astype(np.float32)
    if not ct and rng.random() < 0.6:  # marrow between the tables of the skull
        middle = np.abs(distance - (fluid_to + bone_to) / 2) < unit * rng.uniform(0.5, 2)
        painted[middle] = rng.uniform(0.1, 0.7)
    painted[distance >= skin_to] = 0
    painted *= 1 + rng.uniform(0, 0.1) * smooth_noise(size, 6, rng)
    edge = ndimage.gaussian_filter(brain.astype(np.float32), 0.7 * unit)
    outside = ndimage.gaussian_filter(painted, 0.6 * unit)
    return np.clip(image * edge + outside * (1 - edge), 0, 1).astype(np.float32)


def acquire(image: Plane, rng: np.random.Generator) -> Plane:
    """What a scanner adds to a grey picture: bias field, gamma, lost resolution, noise, ghosts."""
    size = len(image)
    if rng.random() < 0.7:
        image = image * np.exp(rng.uniform(0, 0.3) * smooth_noise(size, 70, rng))
    if rng.random() < 0.15:  # a receiving coil close to one side
        rows, columns = np.mgrid[:size, :size] / size
        angle = rng.uniform(0, 2 * np.pi)
        away = np.hypot(rows - 0.5 - 0.5 * np.sin(angle), columns - 0.5 - 0.5 * np.cos(angle))
        image = image * (1 + rng.uniform(0.2, 1.0) * np.exp(-away / rng.uniform(0.15, 0.4)))
    if rng.random() < 0.4:
        sigma = rng.uniform(0.3, 1.3)
        image = ndimage.gaussian_filter(image, sigma)
    if rng.random() < 0.5:
        level = rng.uniform(0, 0.05)
        image = np.hypot(image + rng.normal(0, level, image.shape), rng.normal(0, level, image.shape) * 0.7)
    if rng.random() < 0.04:
        image = image + rng.uniform(0.02, 0.08) * np.roll(image, size // int(rng.integers(2, 5)), axis=0)
    if rng.random() < 0.5:
        image = np.clip(image, 0, None) ** np.exp(rng.normal(0, 0.2)) * rng.uniform(0.6, 1.25)
    return np.clip(image, 0, 1).astype(np.float32)
