"""The report as one HTML page that needs nothing else: pictures, style and script are inside."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from PIL import Image

from anomalyclip_monai.outputs.preview import OUTLINE
from anomalyclip_monai.outputs.report.cases import TRUTH, ShownCase, colour_scale
from anomalyclip_monai.outputs.report.content import SCHEMA, Report
from anomalyclip_monai.outputs.report.curves import MATPLOTLIB_MISSING, PLOTS, curve_title
from anomalyclip_monai.outputs.report.tables import (
    Table,
    category_table,
    comparison_table,
    counts,
    failed_table,
    html_text,
    measures_table,
)
from anomalyclip_monai.text import counted

RESEARCH_USE = "Research use only. Not a medical device, not for clinical decisions."

_START = "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"

OPEN_UP_TO = 200
"""Cases up to which the table of cases is open, and therefore printed."""

JPEG_QUALITY = 92
"""Of the pictures of cases inside the page; ``cases.png`` has them without loss."""

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
    body = [
        _head(report),
        _section("Measures", measures_table(report)),
        _section("Comparison", comparison_table(report)),
        _section("Classes", category_table(report)),
        _curves(report, curves),
        _cases(shown),
        _samples(report),
        _section("Failed cases", failed_table(report)),
        _warnings(report),
        _provenance(report),
    ]
    return whole_page(f"{report.title}: {report.main.title}", "".join(body))


def whole_page(title: str, body: str) -> str:
    """The frame of every page: style, script, and a policy that lets no other script run and nothing be loaded.

    Args:
        title: plain text.
        body: HTML.
    """
    style, script = (resources.files(__package__).joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        f"{_START}"
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{html_text(title)}</title><style>{style}</style></head>\n"
        f"<body>{body}<footer>{RESEARCH_USE}</footer><script>{script}</script></body></html>\n"
    )


def is_page(path: Path) -> bool:
    """Whether a file is a page of ours."""
    try:
        if not path.is_file():
            return False
        content = path.read_bytes()
    except OSError:
        return False
    return content.startswith(_START.encode()) and RESEARCH_USE.encode() in content


def _head(report: Report) -> str:
    part = "" if report.complete else f"<p class='part'><b>A part of the set:</b> {html_text(report.note)}.</p>"
    return (
        f"<header><p class='kind'>Evaluation of {html_text(report.main.title)}</p>"
        f"<h1>{html_text(report.title)}</h1>{part}"
        f"<p>{html_text(report.protocol.text)} <span class='kind'>Protocol "
        f"<code>{html_text(report.protocol.id)}</code>.</span></p>"
        f"<p>{html_text(counts(report))}. <span class='kind'>List of cases, sha256 "
        f"<code>{html_text(report.samples.sha256)}</code>.</span></p></header>"
    )


def _section(heading: str, table: Table | None) -> str:
    return "" if table is None else f"<section><h2>{html_text(heading)}</h2>{table.html()}</section>"


def _curves(report: Report, curves: Mapping[str, bytes]) -> str:
    if not curves:
        wanted = any(method.curves for method in report.methods.values())
        return f"<section><h2>Curves</h2><p>{html_text(MATPLOTLIB_MISSING)}</p></section>" if wanted else ""
    pictures = "".join(
        f"<img alt='{html_text(curve_title(kind, report))}: {html_text(PLOTS[kind].y)} against "
        f"{html_text(PLOTS[kind].x)}' src='{_data_uri(png, 'png')}'>"
        for kind, png in curves.items()
    )
    return f"<section><h2>Curves</h2><div class='curves'>{pictures}</div></section>"


def _cases(shown: Sequence[ShownCase]) -> str:
    if not shown:
        return ""
    scale = ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colour_scale(24, (90, 90, 90)))
    legend = (
        f"<div class='legend'><span>heatmap 0 <i class='scale' style='background: linear-gradient(to right, {scale})'>"
        f"</i> 1</span>{_border(TRUTH, 'lesion')}{_border(OUTLINE, 'mask')}</div>"
    )
    groups = []
    for kind in dict.fromkeys(case.kind for case in shown):
        figures = "".join(_figure(case) for case in shown if case.kind == kind)
        groups.append(f"<h3>{html_text(kind)}</h3><div class='cases'>{figures}</div>")
    return f"<section><h2>Cases</h2>{legend}{''.join(groups)}</section>"


def _border(colour: Iterable[int], name: str) -> str:
    return f"<span><i class='border' style='--mark: rgb({' '.join(map(str, colour))})'></i> {name}</span>"


def _figure(case: ShownCase) -> str:
    picture = "<p class='kind'>cannot be shown</p>"
    if case.picture is not None:
        name = html_text(case.name)
        picture = f"<img alt='{name}: image, and heatmap over it' src='{_data_uri(_jpeg(case.picture), 'jpeg')}'>"
    caption = f"<figcaption>{html_text(case.name)}<small>{html_text(case.caption)}</small></figcaption>"
    return f"<figure>{picture}{caption}</figure>"


def _samples(report: Report) -> str:
    """Every case with its numbers; columns without any value are left out."""
    samples = [sample.to_json() for sample in report.samples.samples]
    names = ["name"]
    names += ["category"] if len({sample["category"] for sample in samples}) > 1 else []
    names += ["group"] if any(sample["group"] != sample["name"] for sample in samples) else []
    names += [name for name in _COLUMNS if any(sample[name] is not None for sample in samples)]
    titles = {"name": "case", "category": "class", "group": "group", **_COLUMNS}
    head = "".join(f"<th scope='col'{_number_class(name)}>{html_text(titles[name])}</th>" for name in names)
    rows = "".join(
        f"<tr><th scope='row'>{html_text(sample['name'])}</th>"
        + "".join(f"<td{_number_class(name)}>{html_text(_value(name, sample[name]))}</td>" for name in names[1:])
        + "</tr>"
        for sample in samples
    )
    return (
        f"<section><h2>All cases</h2><details{' open' if len(samples) <= OPEN_UP_TO else ''}>"
        f"<summary>{counted(len(samples), 'case')}; a click on a column sorts by it</summary>"
        "<div class='frame samples'><table class='sortable'>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div></details></section>"
    )


def _number_class(name: str) -> str:
    return " class='number'" if name in _COLUMNS and name not in _WORDS else ""


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


def _warnings(report: Report) -> str:
    if not report.warnings:
        return ""
    lines = "".join(f"<li>{html_text(line)}</li>" for line in report.warnings)
    return f"<section><h2>Warnings</h2><ul>{lines}</ul></section>"


def _provenance(report: Report) -> str:
    """What another person needs to get the same numbers."""
    entries = [(f"model, {key}", value) for key, value in report.model.items()]
    entries += [("prompt seeds", ", ".join(report.main.seeds))]
    entries += [(f"version, {key}", value) for key, value in report.versions.items()]
    bootstrap = report.bootstrap
    entries += [
        ("bootstrap", f"{bootstrap.repeats} resamples by {bootstrap.unit}, seed {bootstrap.seed}"),
        ("device", report.device),
        ("seconds", f"{report.seconds:.1f}"),
        ("schema", SCHEMA),
    ]
    terms = "".join(f"<dt>{html_text(key)}</dt><dd>{html_text(value)}</dd>" for key, value in entries)
    return (
        f"<section><h2>How these numbers came about</h2><dl>{terms}</dl>"
        "<p class='kind'>All of them, with every decimal: report.json beside this page.</p></section>"
    )


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
