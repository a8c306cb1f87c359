"""What looks odd and is no lesion: light, glare, vessels, text, instruments. All take (S, S, C) pictures in [0, 1]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from recipes.tiny.anatomy import smooth_noise
from recipes.tiny.framing import Plane
from recipes.tiny.lesions import blob


def illumination(image: Plane, rng: np.random.Generator) -> Plane:
    """An uneven light: one bright side, a vignette, or clouds."""
    size = len(image)
    rows, columns = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    kind = rng.integers(3)
    if kind == 0:
        field = 1 + rng.uniform(-0.7, 0.7) * rows + rng.uniform(-0.7, 0.7) * columns
    elif kind == 1:
        away = np.hypot(rows - rng.normal(0, 0.15), columns - rng.normal(0, 0.15))
        field = 1 - rng.uniform(0.2, 1.2) * away**2
    else:
        field = np.exp(rng.uniform(0.05, 0.25) * smooth_noise(size, 50, rng))
    return np.clip(image * field[..., None], 0, 1).astype(np.float32)


def tint(image: Plane, rng: np.random.Generator) -> Plane:
    """A grey picture in colours: (S, S, 1) -> (S, S, 3), every channel on a curve of its own."""
    return np.clip(image ** np.exp(rng.normal(0, 0.35, 3)) * rng.uniform(0.55, 1.05, 3), 0, 1).astype(np.float32)


def glare(image: Plane, rng: np.random.Generator) -> Plane:
    """Specular spots on wet mucosa, strewn about or crowded where the surface faces the light."""
    size = len(image)
    crowded, middle = rng.random() < 0.4, rng.uniform(0, size, 2)
    for _ in range(int(rng.integers(3, 16) if crowded else rng.integers(1, 8))):
        at = middle + rng.normal(0, 0.08 * size, 2) if crowded else rng.uniform(0, size, 2)
        row, column = np.clip(at, 0, size - 1).astype(int)
        spot = blob(size, (row, column), size / 192 * np.exp(rng.uniform(0, 2)), rng, irregular=0.5)
        image = image + spot[..., None] * rng.uniform(0.5, 1.0) * (0.97 - image)
    return image.astype(np.float32)


def instrument(image: Plane, rng: np.random.Generator) -> Plane:
    """A smooth shaft that comes in from the border."""
    size = len(image)
    end = rng.uniform(0.25, 0.75, 2) * size
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    y, x = rows - end[0], columns - end[1]
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    half = size / 192 * rng.uniform(3, 11)
    shaft = ndimage.gaussian_filter(((along > 0) & (np.abs(across) < half)).astype(np.float32), 0.7)
    round_shade = np.sqrt(np.clip(1.05 - (across / half) ** 2, 0.05, None)) * rng.uniform(0.3, 1.0)
    colour = np.clip(round_shade[..., None] * rng.uniform(0.75, 1.0, image.shape[2]), 0, 1)
    return (image + shaft[..., None] * (colour - image)).astype(np.float32)


def vessels(image: Plane, tissue: NDArray[np.bool_], rng: np.random.Generator) -> Plane:
    """Thin bright vessels, as after contrast: lines in the plane and dots across it."""
    size = len(image)
    places = np.argwhere(tissue)
    if not len(places):
        return image
    lines = np.zeros((size, size), dtype=np.float32)
    for _ in range(int(rng.integers(1, 6))):
        at = places[int(rng.integers(len(places)))].astype(float)
        heading = rng.uniform(0, 2 * np.pi)
        for _ in range(int(rng.integers(1, 60))):
            row, column = np.rint(at).astype(int)
            if not (0 <= row < size and 0 <= column < size and tissue[row, column]):
                break
            lines[row, column] = 1
            heading += rng.normal(0, 0.25)
            at += [np.sin(heading), np.cos(heading)]
    width = size / 192 * rng.uniform(0.45, 0.9)
    lines = np.clip(ndimage.gaussian_filter(lines, width) * 3, 0, 1)
    return (image + lines[..., None] * rng.uniform(0.3, 0.95) * (0.98 - image)).astype(np.float32)


def burnt_in(image: Plane, rng: np.random.Generator) -> tuple[Plane, NDArray[np.bool_]]:
    """Letters, a scale or a box in a corner; also where they lie, for the loss to leave out."""
    size = len(image)
    canvas = Image.new("L", (size, size))
    draw = ImageDraw.Draw(canvas)
    kind = rng.integers(4)
    boxes = np.zeros((size, size), dtype=bool)
    if kind == 0:
        side = rng.integers(size // 8, size // 3, 2)
        top, left = (int(rng.choice([0, size - edge])) for edge in side)
        image = image.copy()
        image[top : top + side[0], left : left + side[1]] = rng.uniform(0, 0.05)
        boxes[top : top + side[0], left : left + side[1]] = True
    elif kind == 1:
        x = int(rng.choice([6, size - 8]))
        top, step = int(rng.integers(size // 19, size // 3)), int(rng.integers(5, 12))
        draw.line([(x, top), (x, size - top)], fill=255)
        for y in range(top, size - top, step):
            draw.line([(x - 2, y), (x + 2, y)], fill=255)
    else:
        font = ImageFont.load_default(size=int(rng.integers(7, 13) * size / 192))
        for _ in range(int(rng.integers(1, 4))):
            words = "".join(rng.choice(list("ABCDEFLRSP0123456789 .:/"), int(rng.integers(1, 9))))
            x, y = int(rng.choice([3, size * 2 // 3])), int(rng.choice([3, 16, size - 30, size - 14]))
            draw.text((x, y), words, fill=255, font=font)
    ink = np.asarray(canvas, dtype=np.float32) / 255 * rng.uniform(0.5, 1.0)
    return (image + ink[..., None] * (1 - image)).astype(np.float32), ndimage.binary_dilation(ink > 0.1) | boxes
