"""The picture of a case: its most abnormal slices, upright, heatmap over anatomy, on one fixed colour scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import block_reduce, find_contours

from anomalyclip_monai.data.geometry import PLANES, SliceView, closest_axes, spacing
from anomalyclip_monai.transforms.findings import Threshold
from anomalyclip_monai.types import Affine

PANELS = 3
"""Slices in a preview."""

PANEL_SIZE = 384
"""Longer side of a slice in pixels."""

OPAQUE_FROM, OPAQUE_TO = 0.2, 0.7
"""Heatmap values at which the colour starts to show and at which it is as strong as it gets."""

STRONGEST = 0.6
"""Opacity of the colour at :data:`OPAQUE_TO`: anatomy stays visible under it."""

BAND_PIXELS = 2**20
"""About so many pixels of a photo are converted at a time."""

OUTLINE_PIXELS = 2**24
"""The border of a larger mask is taken from one of about so many pixels, far more than a panel has."""

OUTLINE = (0, 255, 255)
"""Colour of the mask's border: none of the heatmap's."""

_STOPS = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
_COLOURS = np.array([[40, 30, 120], [90, 40, 170], [225, 60, 80], [255, 150, 30], [255, 245, 120]], dtype=np.float64)
_BACKGROUND, _TEXT, _FAINT = (16, 16, 18), (235, 235, 235), (150, 150, 155)
_HEADER, _FOOTER, _GAP, _BAR = 34, 26, 8, 74


def colours(values: np.ndarray) -> np.ndarray:
    """(...) in [0, 1] -> (..., 3) from 0 to 255, the same colour for the same value in every picture."""
    return np.stack([np.interp(values, _STOPS, _COLOURS[:, channel]) for channel in range(3)], axis=-1)


def opacity(values: np.ndarray) -> np.ndarray:
    """(...) in [0, 1] -> opacity of the colour: nothing below :data:`OPAQUE_FROM`."""
    return STRONGEST * np.clip((values - OPAQUE_FROM) / (OPAQUE_TO - OPAQUE_FROM), 0, 1)


def choose_slices(slice_scores: np.ndarray, mask_sizes: np.ndarray, count: int = PANELS) -> list[int]:
    """Indices of the most abnormal slices, apart from one another, in their order.

    Neighbours of a slice show the same lesion; the next is taken at least a twentieth of the stack away if it can be.
    """
    order = np.lexsort((np.arange(len(slice_scores)), -mask_sizes, -np.round(slice_scores, 4)))
    apart = max(1, len(slice_scores) // 20)
    chosen: list[int] = []
    for distance in (apart, 1):
        for index in order:
            if len(chosen) < count and all(abs(int(index) - other) >= distance for other in chosen):
                chosen.append(int(index))
    return sorted(chosen)


def draw_preview(
    image: torch.Tensor,
    heatmap: torch.Tensor,
    mask: torch.Tensor,
    view: SliceView,
    *,
    affine: Affine,
    slice_scores: np.ndarray,
    threshold: Threshold,
    score: float,
    roi: torch.Tensor | None = None,
) -> Image.Image:
    """Draw the :data:`PANELS` most abnormal slices.

    Args:
        image: (1|3, X, Y, Z) in [0, 1].
        heatmap: (1, X, Y, Z) in [0, 1].
        mask: (1, X, Y, Z), outlined.
        view: slice axis and upright direction.
        affine: (4, 4), for the aspect ratio of pixels.
        slice_scores: (S,).
        threshold: marked on the colour bar, with a thinner line where outlines are drawn.
        score: of the case.
        roi: (1, X, Y, Z) bool; no colour outside of it.
    """
    shown = heatmap if roi is None else torch.where(roi, heatmap, 0.0)
    sizes = np.asarray(view.slices(mask)).sum(axis=(1, 2, 3), dtype=np.int64)  # torch would make a copy of that type
    chosen = choose_slices(np.asarray(slice_scores), sizes)
    size = spacing(affine)
    aspect = float(size[view.row_axis] / size[view.column_axis])
    panels = [
        _panel(
            np.asarray(view.flip(view.slices(image)[index])),
            np.asarray(view.flip(view.slices(shown)[index])[0]),
            np.asarray(view.flip(view.slices(mask)[index])[0]),
            aspect,
        )
        for index in chosen
    ]
    width = sum(panel.width + _GAP for panel in panels) + _GAP + _BAR
    width = max(width, 420)
    height = max(panel.height for panel in panels)
    canvas = Image.new("RGB", (width, _HEADER + height + _FOOTER), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    font, small = ImageFont.load_default(size=17), ImageFont.load_default(size=13)
    draw.text((_GAP, 8), f"case score {score:.2f}", fill=_TEXT, font=font)
    lesion_note = "outline: mask" if sizes.any() else "nothing above the threshold"
    draw.text((_GAP + 150, 11), lesion_note, fill=OUTLINE if sizes.any() else _FAINT, font=small)
    draw.text((width - _GAP, _HEADER + height + 5), "research use only", fill=_FAINT, font=small, anchor="ra")
    left, right, top = side_letters(view, affine)
    x = _GAP
    for index, panel in zip(chosen, panels, strict=True):
        y = _HEADER + (height - panel.height) // 2
        canvas.paste(panel, (x, y))
        if len(slice_scores) > 1:
            for text, place, anchor in (
                (left, (x + 4, y + panel.height // 2), "lm"),
                (right, (x + panel.width - 4, y + panel.height // 2), "rm"),
                (top, (x + panel.width // 2, y + 4), "ma"),
            ):
                draw.text(place, text, fill=_FAINT, font=small, anchor=anchor)
        caption = f"slice {index}   score {slice_scores[index]:.2f}"
        draw.text((x, _HEADER + height + 5), caption, fill=_TEXT, font=small)
        x += panel.width + _GAP
    _colour_bar(canvas, (width - _BAR + 6, _HEADER), height, threshold, small)
    return canvas


def blend(image: np.ndarray, heat: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """(1|3, H, W) anatomy under its (H, W) heatmap, both in [0, 1] -> picture of ``size`` (width, height)."""
    # Channel by channel and in bands: of a photo nothing is copied whole but what Pillow holds.
    channels = [
        np.asarray(Image.fromarray(scaled_to(channel, np.uint8)).resize(size, Image.Resampling.BICUBIC))
        for channel in image
    ]
    grey = np.broadcast_to(np.stack(channels, axis=-1), (*size[::-1], 3))
    warm = np.asarray(_floating(heat).resize(size, Image.Resampling.BILINEAR))
    alpha = opacity(warm)[..., np.newaxis]
    return Image.fromarray(np.round((1 - alpha) * grey + alpha * colours(warm)).astype(np.uint8))


def scaled_to(values: np.ndarray, dtype: type[np.uint8 | np.uint16]) -> np.ndarray:
    """(H, W) in [0, 1] -> whole numbers from 0 to the largest of their type, in bands of rows."""
    scaled = np.empty(values.shape, dtype)
    for rows in _bands(values.shape):
        scaled[rows] = np.round(values[rows] * np.iinfo(dtype).max)
    return scaled


def _floating(values: np.ndarray) -> Image.Image:
    """(H, W) -> picture of floating-point values, in bands of rows."""
    picture = Image.new("F", values.shape[::-1])
    for rows in _bands(values.shape):
        picture.paste(Image.fromarray(values[rows].astype(np.float32)), (0, rows.start))
    return picture


def _bands(shape: tuple[int, ...]) -> Iterator[slice]:
    rows, columns = shape
    step = max(1, BAND_PIXELS // max(1, columns))
    yield from (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def draw_outline(picture: Image.Image, mask: np.ndarray, colour: tuple[int, int, int], width: int = 2) -> None:
    """Draw the border of an (H, W) mask into a picture of the same field of view."""
    draw = ImageDraw.Draw(picture)
    rows, columns = mask.shape
    if (step := math.ceil(math.sqrt(mask.size / OUTLINE_PIXELS))) > 1:
        mask = block_reduce(mask, (step, step), np.max)
    scale = (picture.height / rows * step, picture.width / columns * step)
    for contour in find_contours(np.pad(mask.astype(np.float32), 1), 0.5):
        # contour points are pixel centres of the padded slice; the picture's pixel (0, 0) starts half a pixel earlier
        points = (contour - 0.5) * scale
        draw.line([(float(x), float(y)) for y, x in points], fill=colour, width=width)


def _panel(image: np.ndarray, heat: np.ndarray, mask: np.ndarray, aspect: float) -> Image.Image:
    """(1|3, H, W) anatomy under its (H, W) heatmap, with the outline of its (H, W) mask."""
    rows, columns = heat.shape
    scale = PANEL_SIZE / max(rows * aspect, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * aspect * scale)))
    picture = blend(image, heat, size)
    draw_outline(picture, mask, OUTLINE)
    return picture


def side_letters(view: SliceView, affine: Affine) -> tuple[str, str, str]:
    """Letters of the patient's side at the left, right and top of an upright slice."""
    plane = int(closest_axes(affine)[view.axis, 0])
    letters = {"sagittal": ("A", "P", "S"), "coronal": ("R", "L", "S"), "axial": ("R", "L", "A")}
    return {PLANES[name]: sides for name, sides in letters.items()}[plane]


def _colour_bar(canvas: Image.Image, corner: tuple[int, int], height: int, threshold: Threshold, font: Any) -> None:
    values = np.linspace(1, 0, height)[:, np.newaxis].repeat(16, axis=1)
    alpha = (opacity(values) / STRONGEST)[..., np.newaxis]
    strip = (1 - alpha) * np.array(_BACKGROUND) + alpha * colours(values)
    canvas.paste(Image.fromarray(np.round(strip).astype(np.uint8)), corner)
    draw = ImageDraw.Draw(canvas)
    x, y = corner
    draw.rectangle((x, y, x + 16, y + height - 1), outline=_FAINT)
    for value in (0.0, 0.5, 1.0):
        place = (x + 22, y + (1 - value) * (height - 1))
        anchor = {0.0: "ld", 1.0: "la"}.get(value, "lm")
        draw.text(place, f"{value:g}", fill=_TEXT, font=font, anchor=anchor)
    for value, width in {threshold.low: 1, threshold.value: 2}.items():
        line = y + (1 - min(max(value, 0.0), 1.0)) * (height - 1)
        draw.line((x - 3, line, x + 19, line), fill=OUTLINE, width=width)
