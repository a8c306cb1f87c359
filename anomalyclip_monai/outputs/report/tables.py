"""The tables of a report, for Markdown and, through ``templates/table.html``, for HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from anomalyclip_monai.outputs.report.content import Measures, Report, Shortfall
from anomalyclip_monai.outputs.report.numbers import (
    Footnotes,
    difference,
    from_published,
    interval,
    measured,
    number,
    p_value,
)
from anomalyclip_monai.text import counted, printable


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as plain text; the first column names the row.

    Attributes:
        header: (columns,).
        rows: each (columns,).
        notes: lines below the table.
        lead: how many of the first rows are the ones that count, set apart from the rest.
        plain: how many of the first columns are words, the others being numbers.
    """

    header: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    lead: int = 0
    plain: int = 1

    def markdown(self) -> str:
        """-> the table with its notes as a list."""
        alignments = ["---" if column < self.plain else "---:" for column in range(len(self.header))]
        lines = [[markdown_text(cell) for cell in row] for row in (self.header, *self.rows)]
        for row in lines[1 : self.lead + 1]:
            row[0] = f"**{row[0]}**"
        lines.insert(1, alignments)
        text = "\n".join(f"| {' | '.join(row)} |" for row in lines)
        return text + "".join(f"\n{'' if index else chr(10)}- {markdown_text(n)}" for index, n in enumerate(self.notes))


def unbroken(cell: str) -> list[str]:
    """A number in the parts between which it may break: its intervals."""
    return re.split(r" (?=[\[(])", cell)


def markdown_text(text: object) -> str:
    """Any text -> no HTML, link or column of its own in a Markdown table."""
    safe = re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", printable(str(text)).replace("&", "&amp;"))
    return safe.replace("\\", "\\\\").replace("|", "\\|").replace("](", "]\\(").replace("`", "\\`")


def measure_names(report: Report) -> list[str]:
    """Measures that at least one method has, primary ones first."""
    found = {name for method in report.methods.values() for name in method.measures}
    primary = [name for name in report.primary if name in found]
    return primary + [name for name in report.measure_titles if name in found and name not in primary]


def counts(report: Report) -> str:
    """-> for example ``127 cases (49 normal, 78 abnormal) in 127 groups, 2 failed``."""
    measured_set = report.samples
    text = f"{counted(len(measured_set.samples), 'case')} ({measured_set.normal} normal, "
    text += f"{measured_set.abnormal} abnormal) in {counted(measured_set.groups, 'group')}"
    return text + (f", {len(report.failed)} failed" if report.failed else "")


def measure_title(name: str, report: Report) -> str:
    """-> the measure's title, with its unit if it has one."""
    title = report.measure_titles.get(name, name)
    return f"{title}, ml" if name.endswith("_ml") else title


def measures_table(report: Report) -> Table:
    """Measures x methods, with the published value and the difference from it where the set has one."""
    names, published, footnotes = measure_names(report), report.published, Footnotes()
    methods = report.methods.values()
    header = ["measure", *(method.title for method in methods)]
    header += ["published", "difference"] if published else []
    rows = []
    for name in names:
        row = [measure_title(name, report)]
        row += [measured(name, method.measures.get(name), footnotes) for method in methods]
        if published:
            row.append(number(name, published[name]) if name in published else "")
            row.append(from_published(name, report.main.measures.get(name), published.get(name)))
        rows.append(row)
    notes = shortfall_lines(report) + footnotes.lines() + _reading_notes(report)
    if report.trained_on:
        notes.append(f"Not zero-shot: {report.main.title} was trained on {report.trained_on}.")
    if published:
        notes.append(published_note([report]))
    lead = sum(name in report.primary for name in names)
    return Table(header, rows, notes, lead)


def published_note(reports: Sequence[Report]) -> str:
    """What the published column is, and why a difference from it may mean little."""
    text = "Published: AnomalyCLIP with ViT-L/14@336px, zero-shot, on the whole set (Zhou et al., ICLR 2024)"
    reasons = [
        reason
        for reason, holds in (
            ("only a part of the set was run", any(not report.complete for report in reports)),
            ("the protocol is not the paper's", any(report.protocol.name != "paper" for report in reports)),
            ("this model was trained on images of the kind", any(report.trained_on for report in reports)),
        )
        if holds
    ]
    return f"{text}; {' and '.join(reasons)}, so the difference is a hint at most." if reasons else f"{text}."


def comparison_table(report: Report) -> Table | None:
    """The paired test against another report on the same samples, if there was one."""
    comparison = report.comparison
    if comparison is None:
        return None
    rows = []
    for name in (name for name in measure_names(report) if name in comparison.measures):
        found = comparison.measures[name]
        p = "" if found.p is None else p_value(found.p)
        rows.append([measure_title(name, report), difference(name, found.value) + interval(name, found), p])
    title = report.main.title
    note = f"Paired bootstrap on the same cases; above 0, {title} has the higher value."
    return Table(["measure", f"{title} minus {comparison.title}", "p"], rows, [note])


def category_table(report: Report) -> Table | None:
    """Primary measures of the first method in each class of the set, if it has several.

    Where subsets of them have means of their own: below that every method's means, over all and over each subset.
    """
    categories = report.main.by_category
    if len(categories) < 2:
        return None
    footnotes = Footnotes()
    names = [name for name in report.primary if any(name in measures for measures in categories.values())]

    def row(title: str, measures: Measures) -> list[str]:
        return [title, *(measured(name, measures.get(name), footnotes) for name in names)]

    rows = [row(category, measures) for category, measures in categories.items()]
    notes = []
    if has_sets(report):
        rows += [
            row(f"mean of {len(categories)}: {method.title}", method.measures) for method in report.methods.values()
        ]
        for subset in report.subsets:
            kept = [(method.title, method.by_subset.get(subset.name)) for method in report.methods.values()]
            short = f"mean of {len(subset.categories)}"
            rows += [row(f"{short}: {title}", measures) for title, measures in kept if measures is not None]
            notes.append(f"{short[0].upper()}{short[1:]}: {subset.title} ({', '.join(subset.categories)}).")
    head = "set" if has_sets(report) else "class"
    return Table([head, *(measure_title(name, report) for name in names)], rows, notes + footnotes.lines())


def has_sets(report: Report) -> bool:
    """Whether the classes are sets of their own, over which there are intervals or means of subsets."""
    of_sets = (measure.classes_low is not None for measure in report.main.measures.values())
    return bool(report.subsets) or any(of_sets)


def shortfall_lines(report: Report) -> list[str]:
    """In words, where the report's method does not beat a baseline: a line for each baseline and part of the set."""
    lines = []
    for beaten in (False, True):
        groups: dict[tuple[str, str], list[str]] = {}
        for found in report.shortfalls:
            if found.beaten == beaten and found.baseline in report.methods:
                groups.setdefault((found.subset, found.baseline), []).append(_shortfall(found, report))
        for (subset, baseline), measures in groups.items():
            where = next((f", on {part.title}" for part in report.subsets if part.name == subset), "")
            verb = "is not surely better than" if beaten else "DOES NOT BEAT"
            title = report.methods[baseline].title
            lines.append(f"{report.main.title} {verb} {title}{where}: {'; '.join(measures)}.")
    return lines


def _shortfall(found: Shortfall, report: Report) -> str:
    """-> ``PRO 59.6 against 63.9``, and the interval of the difference where the method is ahead."""
    name, (own, other) = (
        found.measure,
        (
            (method.by_subset[found.subset] if found.subset else method.measures)[found.measure].value
            for method in (report.main, report.methods[found.baseline])
        ),
    )
    assert own is not None
    assert other is not None
    turned = f" (or {number(name, 1 - other)} turned round)" if name == "image_auroc" and other < 0.5 else ""
    text = f"{measure_title(name, report)} {number(name, own)} against {number(name, other)}{turned}"
    if not found.beaten:
        return text
    return f"{text}, difference {difference(name, found.difference.value)}{interval(name, found.difference)}"


def failed_table(report: Report) -> Table | None:
    """The cases that could not be measured."""
    if not report.failed:
        return None
    return Table(["case", "error"], [[failure.name, failure.error] for failure in report.failed], plain=2)


def report_markdown(report: Report) -> str:
    """-> ``table.md``: protocol, samples, all tables."""
    part = "" if report.complete else f"\n\n**A part of the set:** {markdown_text(report.note)}."
    parts = [
        f"# {markdown_text(report.title)}{part}",
        f"{counts(report)}. List of cases, sha256: `{markdown_text(report.samples.sha256)}`.",
        f"Protocol `{markdown_text(report.protocol.id)}`: {markdown_text(report.protocol.text)}",
        measures_table(report).markdown(),
    ]
    for heading, table in (
        ("Comparison", comparison_table(report)),
        ("Classes", category_table(report)),
        ("Failed", failed_table(report)),
    ):
        if table is not None:
            parts += [f"## {heading}", table.markdown()]
    return "\n\n".join(parts) + "\n"


def _reading_notes(report: Report) -> list[str]:
    """How to read a cell."""
    bootstrap, seeds = report.bootstrap, len(report.main.seeds)
    note = "In hundredths, thresholds and measures with a unit apart."
    if bootstrap.repeats:
        note += f" In brackets: 95 % interval of {bootstrap.repeats} bootstrap resamples by {bootstrap.unit}"
        note += "; in parentheses: by set." if has_sets(report) else "."
    return [note, f"Mean ± standard deviation of {seeds} prompt seeds."] if seeds > 1 else [note]
