"""Best, median and worst cases as pictures: the image, and the heatmap over it on the fixed colour scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anomalyclip_monai.exceptions import AnomalyCLIPError
from anomalyclip_monai.outputs.preview import OUTLINE, blend, colours, draw_outline, opacity
from anomalyclip_monai.outputs.report.content import MeasuredSample
from anomalyclip_monai.text import printable

PER_ROW = 3
"""Cases of each kind at most."""

PANEL_SIZE = 280
"""Longer side of one picture in pixels; a case has two, side by side."""

TRUTH = (255, 255, 255)
"""Colour of the true lesion's border, on a dark rim; that of the mask is the previews'."""

_PAPER, _INK, _FAINT, _ABSENT = (255, 255, 255), (25, 25, 28), (110, 110, 115), (235, 235, 238)
_GAP, _SPLIT, _HEADING, _CAPTION, _LEGEND, _LEGEND_WIDTH = 24, 4, 34, 54, 40, 540


@dataclass(frozen=True, slots=True)
class CaseView:
    """One slice of a case, upright, as it is shown.

    Attributes:
        image: (H, W, 3) or (H, W), uint8, or floating in [0, 1].
        heatmap: (H, W) in [0, 1].
        truth: (H, W) bool, the lesion; None where the set has no masks.
        mask: (H, W) bool, what was taken for lesion.
        aspect: height of a pixel over its width.
        note: what is shown of the case, for example ``slice 12``.
    """

    image: NDArray[np.uint8] | NDArray[np.floating[Any]]
    heatmap: NDArray[np.floating[Any]]
    truth: NDArray[np.bool_] | None
    mask: NDArray[np.bool_]
    aspect: float = 1.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class ShownCase:
    """A chosen case.

    Attributes:
        kind: ``best``, ``median``, ``worst`` or what else it was chosen for.
        name: of the sample.
        caption: its numbers.
        picture: image and heatmap side by side; None if the case cannot be shown.
    """

    kind: str
    name: str
    caption: str
    picture: Image.Image | None


def choose_cases(samples: Sequence[MeasuredSample]) -> dict[str, list[MeasuredSample]]:
    """Pick up to :data:`PER_ROW` cases of each kind, none twice.

    Abnormal cases are ranked by Dice, or by score if no case has a Dice; normal ones are there for their false alarms.
    """
    has_dice = any(sample.dice is not None for sample in samples)
    abnormal = [sample for sample in samples if sample.label and (not has_dice or sample.dice is not None)]
    abnormal.sort(key=lambda sample: (-(sample.dice or 0), -sample.score, sample.name))
    count = min(PER_ROW, max(1, len(abnormal) // 3))
    best, rest = abnormal[:count], abnormal[count:]
    worst, rest = rest[-count:], rest[:-count]
    middle = max(0, len(rest) - count) // 2
    by = "Dice" if has_dice else "score"
    normal = sorted((sample for sample in samples if not sample.label), key=lambda sample: (-sample.score, sample.name))
    chosen = {
        f"best {by}": best,
        f"median {by}": rest[middle : middle + count],
        f"worst {by}": worst,
        "normal, highest score": normal[:PER_ROW],
    }
    return {kind: found for kind, found in chosen.items() if found}


def show_cases(samples: Sequence[MeasuredSample], cases: Callable[[str], CaseView]) -> list[ShownCase]:
    """Draw the chosen cases one after the other; a case that cannot be read again is shown by its error."""
    shown = []
    for kind, chosen in choose_cases(samples).items():
        for sample in chosen:
            numbers = f"score {sample.score:.2f}"
            if sample.dice is not None:
                numbers += f" · Dice {sample.dice:.2f}"
            try:
                view = cases(sample.name)
            except AnomalyCLIPError as error:
                shown.append(ShownCase(kind, sample.name, f"{numbers} · {error}", None))
                continue
            caption = f"{numbers} · {view.note}" if view.note else numbers
            shown.append(ShownCase(kind, sample.name, caption, draw_case(view)))
    return shown


def draw_case(view: CaseView) -> Image.Image:
    """Image alone, and beside it the heatmap with the borders of mask and lesion."""
    rows, columns = view.heatmap.shape
    scale = PANEL_SIZE / max(rows * view.aspect, columns)
    size = (max(1, round(columns * scale)), max(1, round(rows * view.aspect * scale)))
    image = view.image / np.float32(255) if view.image.dtype == np.uint8 else np.clip(view.image, 0, 1)
    anatomy = np.atleast_3d(image).transpose(2, 0, 1)
    warm = blend(anatomy, view.heatmap, size)
    draw_outline(warm, view.mask, OUTLINE)
    if view.truth is not None:
        draw_outline(warm, view.truth, (0, 0, 0), width=4)
        draw_outline(warm, view.truth, TRUTH)
    picture = Image.new("RGB", (2 * size[0] + _SPLIT, size[1]), _PAPER)
    picture.paste(blend(anatomy, np.zeros_like(view.heatmap), size), (0, 0))
    picture.paste(warm, (size[0] + _SPLIT, 0))
    return picture


def draw_sheet(shown: Sequence[ShownCase]) -> Image.Image:
    """All cases on one sheet: a row for each kind, a legend below."""
    kinds = list(dict.fromkeys(case.kind for case in shown))
    rows = [[case for case in shown if case.kind == kind] for kind in kinds]
    tile = max((case.picture.width for case in shown if case.picture), default=2 * PANEL_SIZE + _SPLIT)
    heights = [max(case.picture.height if case.picture else 80 for case in row) for row in rows]
    width = max(_LEGEND_WIDTH, _GAP + max(len(row) for row in rows) * (tile + _GAP))
    sheet = Image.new("RGB", (width, _GAP + sum(h + _HEADING + _CAPTION for h in heights) + _LEGEND), _PAPER)
    draw = ImageDraw.Draw(sheet)
    title, font, small = (ImageFont.load_default(size=size) for size in (20, 15, 14))
    y = _GAP // 2
    for kind, row, height in zip(kinds, rows, heights, strict=True):
        draw.text((_GAP, y), kind, fill=_INK, font=title)
        y += _HEADING
        for column, case in enumerate(row):
            x = _GAP + column * (tile + _GAP)
            if case.picture is not None:
                sheet.paste(case.picture, (x, y))
            else:
                draw.rectangle((x, y, x + tile, y + height), fill=_ABSENT)
                draw.text((x + tile // 2, y + height // 2), "cannot be shown", fill=_FAINT, font=font, anchor="mm")
            draw.text((x, y + height + 5), _fitted(draw, case.name, font, tile), fill=_INK, font=font)
            draw.text((x, y + height + 24), _fitted(draw, case.caption, small, tile), fill=_FAINT, font=small)
        y += height + _CAPTION
    _draw_legend(draw, sheet, y + 8, small)
    return sheet


def colour_scale(steps: int, background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """(steps, 3) colours of heatmap values from 0 to 1 as they look over a background."""
    values = np.linspace(0, 1, steps)
    alpha = opacity(values)[:, np.newaxis]
    return np.round((1 - alpha) * np.array(background) + alpha * colours(values)).astype(np.uint8)


def _draw_legend(draw: ImageDraw.ImageDraw, sheet: Image.Image, y: int, font: Any) -> None:
    scale = Image.fromarray(colour_scale(180, (128, 128, 128))[np.newaxis].repeat(16, axis=0))
    x = _GAP
    for text, colour in (("heatmap 0", None), ("1", scale), ("lesion", TRUTH), ("mask", OUTLINE)):
        if isinstance(colour, Image.Image):
            sheet.paste(colour, (x, y))
            x += colour.width + 8
        elif colour is not None:
            draw.rectangle((x, y, x + 30, y + 15), fill=(90, 90, 90))
            draw.line((x + 4, y + 8, x + 26, y + 8), fill=colour, width=3)
            x += 38
        draw.text((x, y), text, fill=_INK, font=font)
        x += round(draw.textlength(text, font=font)) + (8 if colour is None else _GAP)


def _fitted(draw: ImageDraw.ImageDraw, text: str, font: Any, width: int) -> str:
    """The text if it fits, else with its middle left out."""
    text = printable(text)
    kept = len(text)
    fitted = text
    while draw.textlength(fitted, font=font) > width:
        kept -= 1
        fitted = f"{text[: kept // 2]}…{text[-(kept - kept // 2) :]}"
    return fitted
