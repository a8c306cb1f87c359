"""Curves of all methods as PNG, drawn by matplotlib where it is installed."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyclip_monai.outputs.report.content import Report
from anomalyclip_monai.text import printable

logger = logging.getLogger(__name__)

MATPLOTLIB_MISSING = 'no curves were drawn, matplotlib is missing: pip install "anomalyclip-monai[report]"'

PRO_LIMIT = 0.3
"""False positive rate up to which PRO is integrated."""

FROC_LIMIT = 8.0
"""False alarms per case up to which FROC is read."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, which colour-blind readers can tell apart; the first is that of the report's own method."""

_BASELINES = {"brightness": ("#6b6b6b", "--"), "centre": ("#6b6b6b", ":"), "body": ("#6b6b6b", "-.")}

STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#55555a",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e8",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "text.usetex": False,
    "text.parse_math": False,  # a title is a user's folder name and may hold a dollar sign
}


@dataclass(frozen=True, slots=True)
class Plot:
    """One kind of curve: its words and how far its axis goes."""

    title: str
    x: str
    y: str
    limit: float = 1.0


PLOTS = {
    "roc": Plot("ROC", "false positive rate", "true positive rate"),
    "pr": Plot("precision and recall", "recall", "precision"),
    "pro": Plot("PRO", "false positive rate of pixels", "mean covered share of lesions", PRO_LIMIT),
    "froc": Plot("FROC", "false alarms per case", "share of lesions found", FROC_LIMIT),
}


def draw_curves(report: Report) -> dict[str, bytes]:
    """-> PNG of each kind of curve that a method of the report has; none, and a warning, without matplotlib."""
    kinds = [kind for kind in PLOTS if any(kind in method.curves for method in report.methods.values())]
    if not kinds:
        return {}
    if importlib.util.find_spec("matplotlib") is None:
        logger.warning(MATPLOTLIB_MISSING)
        return {}
    from matplotlib import style

    # from matplotlib's own settings, so that a user's matplotlibrc changes no picture
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # titles in other scripts
        return {kind: _draw(kind, report) for kind in kinds}


def curve_title(kind: str, report: Report) -> str:
    """``roc`` -> what the report says it is the ROC of (``curve_titles``), or just ``ROC``."""
    return report.curve_titles.get(kind, PLOTS[kind].title)


def curve_points(kind: str, points: Sequence[Sequence[float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(T, 2) points -> (T,) x and (T,) y as drawn.

    FROC comes from the highest threshold down and turns back where components grow together; it is read as the best
    sensitivity before false alarms first exceed a rate, and drawn so, up to the end of the axis.
    """
    x, y = np.asarray(points, np.float64).T
    if kind != "froc":
        return x, y
    x, y = np.maximum.accumulate(x), np.maximum.accumulate(y)
    return np.array([x[0], *x, max(x[-1], FROC_LIMIT)]), np.array([0.0, *y, y[-1]])


def chance_precision(curves: Sequence[Sequence[Sequence[float]]]) -> float | None:
    """Precision of calling everything abnormal: the lowest at full recall; None where no curve reaches it."""
    return min((precision for points in curves for recall, precision in points if recall >= 1), default=None)


def _draw(kind: str, report: Report) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plot = PLOTS[kind]
    figure = Figure(figsize=(3.5, 3.7), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    found = {key: method for key, method in report.methods.items() if kind in method.curves}
    colours = iter(COLOURS * len(found))
    lines, labels = [], []
    for order, (key, method) in enumerate(found.items()):
        colour, dash = _BASELINES[key] if key in _BASELINES else (next(colours), "-")
        x, y = curve_points(kind, method.curves[kind])
        lines += axes.plot(
            x,
            y,
            color=colour,
            linestyle=dash,
            linewidth=1.5 if order else 2.2,
            zorder=9 - order,
            drawstyle="steps-post" if kind == "froc" else "default",
        )
        labels.append(" " + printable(method.title))  # a label that starts with an underscore would be left out
    chance = _chance(kind, [method.curves[kind] for method in found.values()])
    if chance is not None:
        lines += axes.plot((0, plot.limit), chance, color="#b0b0b5", linewidth=1, zorder=1)
        labels.append(" chance")
    axes.set(
        title=printable(curve_title(kind, report)), xlabel=plot.x, ylabel=plot.y, xlim=(0, plot.limit), ylim=(0, 1.01)
    )
    figure.legend(lines, labels, loc="outside lower center", ncols=2)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()


def _chance(kind: str, curves: Sequence[Any]) -> tuple[float, float] | None:
    """Heights of the chance line at both ends: a guess covers regions and pixels at the rate of its false alarms."""
    if kind == "pr":
        precision = chance_precision(curves)
        return None if precision is None else (precision, precision)
    return None if kind == "froc" else (0, PLOTS[kind].limit)
