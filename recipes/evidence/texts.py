"""Numbers as texts show them: hundredths, with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from anomalyclip_monai.data.published import published
from anomalyclip_monai.outputs.report.content import Measure
from anomalyclip_monai.outputs.report.numbers import interval, number

NOTHING = ""
"""A cell without a number."""

IN_ML = "normal_false_ml"
"""The one measure that is no share."""


def cell(measure: str, found: Measure | None) -> str:
    """``82.4 [80.1, 84.9]``; the interval over sets, where there is one, in parentheses."""
    if found is None or found.value is None:
        return NOTHING
    return number(measure, found.value) + interval(measure, found)


def cell_over_sets(measure: str, found: Measure | None) -> str:
    """``82.4 (75.0, 88.1)``: of the intervals only that over sets."""
    if found is None or found.value is None:
        return NOTHING
    return cell(measure, Measure(found.value, classes_low=found.classes_low, classes_high=found.classes_high))


def of_the_paper(name: str, measure: str) -> str:
    """``93.4``: the published value of a set, or nothing."""
    value = published(name).get(measure)
    return NOTHING if value is None else number(measure, value)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; a column that is empty throughout is left out."""
    lines = [list(row) for row in rows]
    kept = [index for index in range(len(heads)) if any(line[index] for line in lines)]
    return [
        *(_row([heads[index] for index in kept]), _row(["---"] * len(kept))),
        *(_row([line[index] for index in kept]) for line in lines),
    ]


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
