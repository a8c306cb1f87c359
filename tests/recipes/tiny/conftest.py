"""A data folder of a few small files, and subjects made in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from recipes.tiny.sources import Subject


@pytest.fixture
def write_photo(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, pixels: np.ndarray) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(file, quality=100)
        return file

    return write


@pytest.fixture
def write_volume(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, voxels: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1)) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])), file)
        return file

    return write


def ball(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    axes = np.ogrid[tuple(slice(count) for count in shape)]
    return sum((axis - (count - 1) / 2) ** 2 for axis, count in zip(axes, shape, strict=True)) <= radius**2


@pytest.fixture
def subjects() -> list[Subject]:
    """A grey ball as a healthy head, the same in a CT, and photos with and without a lesion."""
    rng = np.random.default_rng(0)
    head = ball((44, 50, 40), 17)
    grey = (head * rng.integers(90, 140, head.shape)).astype(np.uint8)[..., None]
    tissue = ball(head.shape, 15).astype(np.uint8)
    made = [
        Subject("healthy", "healthy", domain, grey, np.zeros_like(tissue), tissue, axes=(0, 1, 2))
        for domain in ("mr_brain", "ct_head", "mr_body", "ct_body")
    ]
    for index in range(8):
        photo = rng.integers(60, 120, (60, 48, 1, 3)).astype(np.uint8)
        lesion = np.zeros((60, 48, 1), dtype=np.uint8)
        lesion[20:40, 10:30] = 1
        photo[lesion == 1] += 80
        made.append(Subject(f"frame{index}", f"frame{index}", "colonoscopy", photo, lesion, np.ones_like(lesion)))
        for domain in ("ultrasound", "xray"):
            nothing = np.zeros_like(lesion)
            made.append(Subject(f"{domain}{index}", f"{index}", domain, photo[..., :1], nothing, nothing + 1))
    return made
