"""Write the files of a report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from anomalyclip_monai.files import whole_file, write_text
from anomalyclip_monai.folders.marker import has_schema, keep_others
from anomalyclip_monai.outputs.report.cases import CaseView, draw_sheet, show_cases
from anomalyclip_monai.outputs.report.content import Report
from anomalyclip_monai.outputs.report.curves import PLOTS, draw_curves
from anomalyclip_monai.outputs.report.page import report_page
from anomalyclip_monai.outputs.report.tables import report_markdown


def check_report_folder(folder: Path) -> None:
    """Refuse a folder in which files of others have the names of a report's.

    Raises:
        OutputError: one is there, and no ``report.json`` of ours (``E_WRITE``).
    """
    pictures = ("cases.png", *(f"curves_{kind}.png" for kind in PLOTS))
    ours = has_schema(folder / "report.json", "anomalyclip-report")
    keep_others(folder, ("report.json", "table.md", "report.html", *pictures), ours=ours)


def write_report(report: Report, folder: Path, cases: Callable[[str], CaseView] | None = None) -> list[Path]:
    """Write ``report.json``, ``table.md``, ``curves_*.png``, ``cases.png``, ``report.html``, each whole or not at all.

    Curves need matplotlib; without it they are left out with a warning. Pictures of an earlier report that this one
    does not have are removed.

    Args:
        report: what they say.
        folder: made if it is not there.
        cases: gives the view of a sample by its name, asked for the few that are shown; None leaves out ``cases.png``.

    Returns:
        The files, ``report.json`` first.

    Raises:
        OutputError: a file cannot be written, or one of others is in its place (``E_WRITE``).
        ValueError: a number is NaN or infinite; an undefined measure has a reason instead.
    """
    check_report_folder(folder)
    text = json.dumps(report.to_json(), indent=1, allow_nan=False)
    written = [
        write_text(folder / "report.json", text + "\n"),
        write_text(folder / "table.md", report_markdown(report)),
    ]
    curves = draw_curves(report)
    for kind in PLOTS:
        path = folder / f"curves_{kind}.png"
        path.unlink(missing_ok=True)
        if kind in curves:
            with whole_file(path) as temporary:
                temporary.write_bytes(curves[kind])
            written.append(path)
    shown = show_cases(report.samples.samples, cases) if cases is not None else []
    path = folder / "cases.png"
    path.unlink(missing_ok=True)
    if shown:
        with whole_file(path) as temporary:
            draw_sheet(shown).save(temporary, "PNG", optimize=True)
        written.append(path)
    return [*written, write_text(folder / "report.html", report_page(report, curves, shown))]
