"""``cohort.csv``: a line for each case of an output folder, whatever run it comes from."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from anomalyclip_monai.text import printable

COHORT = "cohort.csv"
"""Name of the table in an output folder."""


@dataclass(frozen=True, slots=True)
class Row:
    """A case as the table shows it; texts that are not known are empty.

    Attributes:
        case: its name.
        state: ``done``, ``replaced``, ``there already`` or ``failed``.
        score: of the case, 6 decimals.
        ml: volume of all lesions in millilitres, 3 decimals; of photos nothing.
        seconds: 3 decimals.
        error: the line of a case that failed.
    """

    case: str
    state: str
    score: str = ""
    ml: str = ""
    seconds: str = ""
    error: str = ""


_FORMULA = tuple("=+-@＝＋－＠' ")  # noqa: RUF001
"""What a cell of a spreadsheet's formula begins with, in the width of any script."""

_HEADER = ",".join(field.name for field in fields(Row))


def is_cohort(path: Path) -> bool:
    """Whether a file is such a table, by its first line."""
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return file.readline(len(_HEADER) + 2).rstrip(b"\r\n") == _HEADER.encode()
    except OSError:
        return False


def is_begun_cohort(path: Path) -> bool:
    """Whether a file is such a table, or the beginning of one, as a kill leaves it."""
    try:
        if path.is_symlink() or not path.is_file():
            return False
        with open(path, "rb") as file:
            begun = file.read(len(_HEADER))
    except OSError:
        return False
    return _HEADER.encode().startswith(begun)


def read_cohort(path: Path) -> dict[str, Row]:
    """The rows of a table by their cases as they are written; none where there is no table."""
    if not is_cohort(path):
        return {}
    rows: dict[str, Row] = {}
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        lines = csv.reader(file)
        with contextlib.suppress(csv.Error):  # somebody has changed it; what follows cannot be told into rows
            next(lines)
            rows |= {cells[0]: Row(*cells) for cells in lines if len(cells) == len(fields(Row))}
    return rows


def cohort_text(rows: Iterable[Row]) -> str:
    """Content of the file: UTF-8, a comma between cells, a line each."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_HEADER.split(","))
    table.writerows(astuple(row) for row in rows)
    return text.getvalue()


def cell(text: str) -> str:
    r"""A text of others as a cell: on one line, and never a formula for a spreadsheet.

    >>> cell("=1+2"), cell("a\nb")
    ("'=1+2", 'a\\nb')
    """
    shown = printable(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
