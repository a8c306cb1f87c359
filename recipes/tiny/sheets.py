"""Pictures of what the network learns from and of what it then says: what is wrong there is seen at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from anomalyclip_monai.outputs.preview import OUTLINE, colours, opacity
from recipes.tiny.crops import UNKNOWN, Crop, Crops
from recipes.tiny.validation import Case, overlap

COLUMNS, ROWS = 8, 4

LESION_COLOUR = (255, 0, 0)
UNKNOWN_TINT = (0, 0, 100)
MARKED_COLOUR = (255, 255, 255)
"""Border of a lesion under a map, which itself has red."""


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


def draw_maps(maps: NDArray[np.float32], cases: Sequence[Case], file: Path, threshold: float = 0.5) -> Path:
    """Draw held-out pictures under their maps, a row for every group: its four worst, then its four best; -> the file.

    Those with a lesion by the overlap with the mask, others by the height of the map. Colours are those of the
    product's previews, the mask is outlined in cyan, the lesion in white.

    Args:
        maps: (N, S, S) in [0, 1].
        cases: what they are of.
        file: the PNG.
        threshold: of the mask.
    """
    half, rows = COLUMNS // 2, []
    for group in dict.fromkeys(case.group for case in cases):
        members = [index for index, case in enumerate(cases) if case.group == group]
        ill = [index for index in members if (cases[index].label == 1).any()]
        merit = {index: -float(maps[index].max()) for index in members}
        if ill:
            merit = {index: overlap(cases[index].label == 1, maps[index] >= threshold) for index in ill}
        order = sorted(merit, key=lambda index: (merit[index], index))
        shown = [*order[:half], *order[max(half, len(order) - half) :]]
        tiles = [with_map(maps[index], cases[index], threshold) for index in shown]
        tiles += [np.zeros_like(tiles[0])] * (COLUMNS - len(tiles))
        rows.append(np.concatenate(tiles, axis=1))
    Image.fromarray(np.concatenate(rows)).save(file)
    return file


def with_map(values: NDArray[np.float32], case: Case, threshold: float) -> NDArray[np.uint8]:
    """-> (S, S, 3): a picture under its map."""
    alpha = opacity(values)[..., None]
    picture = np.round((1 - alpha) * case.image.transpose(1, 2, 0) + alpha * colours(values)).astype(np.uint8)
    for region, colour in ((case.label == 1, MARKED_COLOUR), (values >= threshold, OUTLINE)):
        picture[region & ~ndimage.binary_erosion(region)] = colour
    return picture


def outlined(crop: Crop) -> NDArray[np.uint8]:
    """-> (S, S, 3): lesions outlined in red, what the loss leaves out tinted blue."""
    picture = crop.image.permute(1, 2, 0).numpy().copy()
    label = crop.label.numpy()
    unknown, lesion = label == UNKNOWN, label == 1
    picture[unknown] = picture[unknown] * 0.6 + np.array(UNKNOWN_TINT)
    picture[lesion & ~ndimage.binary_erosion(lesion)] = LESION_COLOUR
    return picture
