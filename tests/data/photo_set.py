"""A small data set in the layout ``folder``: normal and abnormal photos, with masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def make_photo_set(root: Path, count: int, size: tuple[int, int] = (40, 56)) -> Path:
    """Grey noise, ``size`` (rows, columns); every other photo has a bright block, which its mask shows."""
    random = np.random.default_rng(0)
    for folder in ("normal", "abnormal", "masks"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(count):
        photo = random.normal(90, 12, size)
        if index % 2:
            mask = np.zeros(size, np.uint8)
            row, column = random.integers(2, size[0] - 16), random.integers(2, size[1] - 16)
            mask[row : row + 14, column : column + 12] = 255
            photo[mask > 0] += 120
            Image.fromarray(mask).save(root / "masks" / f"{index:02d}.png")
        kind = "abnormal" if index % 2 else "normal"
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(root / kind / f"{index:02d}.png")
    return root
