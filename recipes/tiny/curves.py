"""The course of a training as a picture, drawn by matplotlib where it is installed."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalyclip_monai.outputs.report.curves import COLOURS, MATPLOTLIB_MISSING, STYLE

logger = logging.getLogger(__name__)

PANELS = {
    "loss": "loss",
    "dice": "Dice at .5, held out",
    "auroc": "image AUROC, held out",
    "false_ml": "ml of mask in the healthy head, held out",
}
"""Measure -> title of its panel."""


def draw_curve(curve: Sequence[Mapping[str, Any]], file: Path) -> Path | None:
    """Draw the lines of ``curve.jsonl``; -> the PNG, or nothing, and a warning, without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning(MATPLOTLIB_MISSING)
        return None
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context(["default", STYLE]):
        figure = Figure(figsize=(9, 5.5), dpi=110, layout="constrained")
        for axes, (measure, title) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
            found = points(curve, measure)
            for (label, line), colour in zip(found.items(), COLOURS * len(found), strict=False):
                axes.plot(*zip(*line, strict=True), label=label, color=colour, linewidth=1.5, marker=".")
            axes.set(title=title, xlabel="crops")
            if len(found) > 1:
                axes.legend()
        FigureCanvasAgg(figure).print_png(str(file))
    return file


def points(curve: Sequence[Mapping[str, Any]], measure: str) -> dict[str, list[tuple[int, float]]]:
    """Group (of held-out subjects; none for the loss) -> (crops, value) of a measure, in order."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in curve:
        if measure in line:
            found.setdefault("", []).append((line["crops"], line[measure]))
        for name, value in line.get("validation", {}).items():
            group, _, kind = name.rpartition(".")
            if kind == measure:
                found.setdefault(group, []).append((line["crops"], value))
    return found
