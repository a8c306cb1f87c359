"""``index.html``: all cases of an output folder, the most suspicious first, from their folders and ``cohort.csv``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from anomalyclip_monai.exceptions import NoInputError, UsageError
from anomalyclip_monai.files import read_json, write_text
from anomalyclip_monai.folders.cohort_table import COHORT, Row, cell, read_cohort
from anomalyclip_monai.folders.marker import note_of, of_others, own_files
from anomalyclip_monai.outputs.cohort import row_of
from anomalyclip_monai.outputs.report.pages import START, begins_as, render
from anomalyclip_monai.outputs.report.viewer import REPORT
from anomalyclip_monai.text import counted

INDEX = "index.html"
"""Name of the page in an output folder."""

_START = f"{START}<meta name='generator' content='anomalyclip cohort'>"
"""How it begins: the marker by which it is known as ours."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A case on the page.

    Attributes:
        name: of the case.
        folder: its address below the page, percent-encoded; empty where it has no results.
        report: whether ``report.html`` is there.
        preview: whether ``preview.png`` is there.
        score: None where it failed.
        lesions: how many.
        ml: of all lesions, as ``cohort.csv`` has it; empty if there is no physical size.
        preset: its name.
        warnings: how many.
        error: why its last run failed, or empty.
    """

    name: str
    folder: str = ""
    report: bool = False
    preview: bool = False
    score: float | None = None
    lesions: int = 0
    ml: str = ""
    preset: str = ""
    warnings: int = 0
    error: str = ""


def write_index(out: Path) -> tuple[Path, list[Entry]]:
    """Write ``index.html`` of an output folder; -> its path and the cases, the highest score first, failures last.

    Raises:
        NoInputError: there are no results (``E_NOT_FOUND``).
        UsageError: a file of others has the page's name (``E_WRITE``).
        OutputError: it cannot be written (``E_WRITE``).
    """
    check_index(out)
    entries = find_entries(out)
    if not entries:
        todo = "give the folder that was given to localize with -o"
        raise NoInputError("E_NOT_FOUND", "no results of localize are there", out, todo)
    failed = sum(bool(entry.error) for entry in entries)
    title = counted(len(entries), "case") + (f", {failed} failed" if failed else "")
    page = render("cohort.html", start=_START, title=title, entries=entries, failed=failed)
    return write_text(out / INDEX, page), entries


def check_index(out: Path) -> None:
    """Refuse a folder in which a file of others has the page's name.

    Raises:
        UsageError: there is one (``E_WRITE``).
    """
    path = out / INDEX
    if os.path.lexists(path) and (path.is_symlink() or not begins_as(path, _START)):
        raise UsageError(*of_others(path))


def find_entries(out: Path) -> list[Entry]:
    """All cases whose results are below a folder, and those that its table says have failed."""
    rows = read_cohort(out / COHORT)
    entries = []
    for folder in _case_folders(out):
        name = folder.relative_to(out).as_posix()
        if scores := read_json(folder / "scores.json"):
            entries.append(_entry(name, own_files(folder), scores, rows.pop(cell(name), None)))
    entries += [Entry(row.case, error=row.error) for row in rows.values() if row.error]
    return sorted(entries, key=lambda entry: (entry.score is None, -(entry.score or 0), entry.name))


def _case_folders(out: Path) -> Iterator[Path]:
    """Folders below ``out`` that hold results of a case and say so by their marker; links are not followed."""
    for parent, folders, _ in os.walk(out):
        folders.sort()
        folder = Path(parent)
        if folder != out and note_of(folder).get("kind") == "case":
            yield folder


def _entry(name: str, files: frozenset[str], scores: Mapping[str, Any], row: Row | None) -> Entry:
    """What the files of a case say, whoever may have changed them."""
    lesions, preset, warnings = (scores.get(key) for key in ("lesions", "preset", "warnings"))
    found = row_of(name, scores, "done")
    return Entry(
        name,
        folder=quote(os.fsencode(name)),
        report=REPORT in files,
        preview="preview.png" in files,
        score=float(found.score) if found.score else None,
        lesions=len(lesions) if isinstance(lesions, list) else 0,
        ml=found.ml,
        preset=str(preset.get("name", "")) if isinstance(preset, dict) else "",
        warnings=len(warnings) if isinstance(warnings, list) else 0,
        error=row.error if row else "",
    )
