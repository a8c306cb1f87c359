"""The report of an evaluation as one HTML page that needs nothing else: pictures, style and script are inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anomalyclip_monai.outputs.preview import OUTLINE
from anomalyclip_monai.outputs.report.cases import TRUTH, ShownCase, colour_scale
from anomalyclip_monai.outputs.report.content import SCHEMA, Report
from anomalyclip_monai.outputs.report.curves import MATPLOTLIB_MISSING, PLOTS, curve_title
from anomalyclip_monai.outputs.report.pages import render
from anomalyclip_monai.outputs.report.tables import (
    category_table,
    comparison_table,
    counts,
    failed_table,
    measures_table,
)
from anomalyclip_monai.text import counted

OPEN_UP_TO = 200
"""Cases up to which the table of cases is open, and therefore printed."""

_COLUMNS = {
    "label": "label",
    "score": "score",
    "peak": "peak",
    "pointing": "peak in lesion",
    "dice": "Dice",
    "brightness": "brightness",
    "seconds": "seconds",
}
_WORDS = ("label", "pointing")


def report_page(report: Report, curves: Mapping[str, bytes], shown: Sequence[ShownCase]) -> str:
    """-> the page.

    Args:
        report: what it says.
        curves: PNG by kind, see :func:`~anomalyclip_monai.outputs.report.curves.draw_curves`.
        shown: pictures of chosen cases.
    """
    wanted = any(method.curves for method in report.methods.values())
    return render(
        "evaluation.html",
        report=report,
        counts=counts(report),
        measures=measures_table(report),
        comparison=comparison_table(report),
        classes=category_table(report),
        failed=failed_table(report),
        curves=[
            {"title": curve_title(kind, report), "x": PLOTS[kind].x, "y": PLOTS[kind].y, "png": png}
            for kind, png in curves.items()
        ],
        no_curves=MATPLOTLIB_MISSING if wanted else "",
        cases={kind: [case for case in shown if case.kind == kind] for kind in dict.fromkeys(c.kind for c in shown)},
        scale=[f"rgb({red} {green} {blue})" for red, green, blue in colour_scale(24, (90, 90, 90))],
        borders={"lesion": TRUTH, "mask": OUTLINE},
        samples=_samples(report),
        open_up_to=OPEN_UP_TO,
        provenance=_provenance(report),
    )


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    is_number: bool


def _samples(report: Report) -> dict[str, Any]:
    """Every case with its numbers; columns without any value are left out."""
    samples = [sample.to_json() for sample in report.samples.samples]
    names = ["name"]
    names += ["category"] if len({sample["category"] for sample in samples}) > 1 else []
    names += ["group"] if any(sample["group"] != sample["name"] for sample in samples) else []
    names += [name for name in _COLUMNS if any(sample[name] is not None for sample in samples)]
    titles = {"name": "case", "category": "class", "group": "group", **_COLUMNS}
    return {
        "counted": counted(len(samples), "case"),
        "columns": [_Column(titles[name], name in _COLUMNS and name not in _WORDS) for name in names],
        "rows": [[sample["name"], *(_value(name, sample[name]) for name in names[1:])] for sample in samples],
    }


def _value(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "label":
        return "abnormal" if value else "normal"
    if name == "pointing" and value in (0, 1):
        return "yes" if value else "no"
    if name == "seconds":
        return f"{value:.2f}"
    return f"{value:.3f}" if name in _COLUMNS else str(value)


def _provenance(report: Report) -> list[tuple[str, str]]:
    """What another person needs to get the same numbers."""
    bootstrap = report.bootstrap
    return [
        *((f"model, {key}", value) for key, value in report.model.items()),
        ("prompt seeds", ", ".join(report.main.seeds)),
        *((f"version, {key}", value) for key, value in report.versions.items()),
        ("bootstrap", f"{bootstrap.repeats} resamples by {bootstrap.unit}, seed {bootstrap.seed}"),
        ("device", report.device),
        ("seconds", f"{report.seconds:.1f}"),
        ("schema", SCHEMA),
    ]
