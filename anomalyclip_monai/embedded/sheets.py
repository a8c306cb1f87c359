"""Pictures of what the network learns from: a lesion in the air or a wrong mask is seen at a glance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from anomalyclip_monai.embedded.crops import UNKNOWN, Crop, Crops

COLUMNS, ROWS = 8, 4

LESION_COLOUR = (255, 0, 0)
UNKNOWN_TINT = (0, 0, 100)


def write_sheets(crops: Crops, folder: Path) -> list[Path]:
    """Write ``crops_<domain>.png`` with 32 crops of every domain; -> the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for domain in crops.domains:
        rng = np.random.default_rng(crops.seed)
        tiles = [outlined(crops.draw(rng, domain)) for _ in range(COLUMNS * ROWS)]
        rows = [np.concatenate(tiles[start : start + COLUMNS], axis=1) for start in range(0, len(tiles), COLUMNS)]
        files.append(folder / f"crops_{domain}.png")
        Image.fromarray(np.concatenate(rows)).save(files[-1])
    return files


def outlined(crop: Crop) -> NDArray[np.uint8]:
    """-> (S, S, 3): lesions outlined in red, what the loss leaves out tinted blue."""
    picture = crop.image.permute(1, 2, 0).numpy().copy()
    label = crop.label.numpy()
    unknown, lesion = label == UNKNOWN, label == 1
    picture[unknown] = picture[unknown] * 0.6 + np.array(UNKNOWN_TINT)
    picture[lesion & ~ndimage.binary_erosion(lesion)] = LESION_COLOUR
    return picture
