"""The paper's table: several sets, ours beside what was published and beside the trivial baselines."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from anomalyclip_monai.files import write_text
from anomalyclip_monai.folders.marker import keep_others
from anomalyclip_monai.outputs.report.content import MethodReport, Report
from anomalyclip_monai.outputs.report.numbers import Footnotes, from_published, measured, number
from anomalyclip_monai.outputs.report.pages import START, begins_as, render
from anomalyclip_monai.outputs.report.tables import (
    Table,
    counts,
    markdown_text,
    measure_names,
    measure_title,
    published_note,
    shortfall_lines,
)
from anomalyclip_monai.text import counted

PART = "†"
"""Behind the name of a set of which only a part was run."""
TRAINED = "‡"
"""Behind the name of a set whose kind of images the model was trained on."""

_BASELINES = {"brightness": "brightness", "centre": "centre", "body": "centre of the body"}


def all_sets_table(reports: Sequence[Report]) -> str:
    """The primary measures of all sets as a Markdown table with notes."""
    return _table(reports).markdown() + "\n"


def write_all_sets(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Write ``table.md`` and ``index.html``, which links to ``<dataset>/report.html``.

    Raises:
        OutputError: a file cannot be written, or one of others is in its place (``E_WRITE``).
    """
    check_all_sets_folder(folder)
    page = write_text(folder / "index.html", _index(reports))  # it tells that the table is ours
    return [write_text(folder / "table.md", f"# {markdown_text(_title(reports))}\n\n{all_sets_table(reports)}"), page]


def check_all_sets_folder(folder: Path) -> None:
    """Refuse a folder in which files of others have the names of the table over all sets.

    Raises:
        OutputError: one is there (``E_WRITE``).
    """
    keep_others(folder, ("index.html", "table.md"), ours=begins_as(folder / "index.html", START))


def _table(reports: Sequence[Report]) -> Table:
    footnotes = Footnotes()
    rows = []
    for report in reports:
        published = report.published
        marks = ["" if report.complete else PART, TRAINED if report.trained_on else ""]
        name = " ".join([report.title, *filter(None, marks)])
        for measure in (measure for measure in measure_names(report) if measure in report.primary):
            ours = report.main.measures.get(measure)
            baselines = [method.measures.get(measure) if method else None for method in _baselines(report)]
            row = [name, measure_title(measure, report), measured(measure, ours, footnotes)]
            row.append(number(measure, published[measure]) if measure in published else "")
            row.append(from_published(measure, ours, published.get(measure)))
            rows.append(row + [measured(measure, entry, footnotes) for entry in baselines])
            name = ""
    header = ["set", "measure", "ours [interval]", "published AnomalyCLIP", "difference", *_BASELINES.values()]
    notes = [f"{report.title}: {line}" for report in reports for line in shortfall_lines(report)]
    notes += footnotes.lines()
    notes += [f"{PART} {report.title}: {report.note}" for report in reports if not report.complete]
    notes += [
        f"{TRAINED} {report.title}: not zero-shot, the model was trained on {report.trained_on}"
        for report in reports
        if report.trained_on
    ]
    notes += [f"{report.title}: {counted(len(report.failed), 'case')} failed" for report in reports if report.failed]
    compared = [report for report in reports if report.published]
    if compared:
        notes.append(published_note(compared))
    return Table(header, rows, notes, plain=2)


def _baselines(report: Report) -> list[MethodReport | None]:
    return [report.methods.get(name) for name in _BASELINES]


def _title(reports: Sequence[Report]) -> str:
    titles = dict.fromkeys(report.main.title for report in reports)
    return f"{', '.join(titles)} on {counted(len(reports), 'set')}"


def _index(reports: Sequence[Report]) -> str:
    shown = [
        {
            "folder": quote(os.fsencode(report.dataset)),
            "title": report.title,
            "counts": counts(report),
            "protocol": report.protocol.text,
        }
        for report in reports
    ]
    return render("all_sets.html", title=_title(reports), measures=_table(reports), reports=shown)
