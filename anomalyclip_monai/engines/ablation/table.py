"""The ablation table, for readers and for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from anomalyclip_monai.engines.ablation.content import AblationReport, MeasuredRow, NotBuilt, RowReport
from anomalyclip_monai.engines.ablation.rows import GROUPS
from anomalyclip_monai.engines.evaluation.methods import MODEL
from anomalyclip_monai.engines.evaluation.report import FEW_GROUPS
from anomalyclip_monai.files import write_text
from anomalyclip_monai.folders.marker import has_schema, keep_others
from anomalyclip_monai.outputs.report.content import Difference, Measures, MethodReport
from anomalyclip_monai.outputs.report.numbers import Footnotes, difference, interval, measured, number
from anomalyclip_monai.outputs.report.tables import Table, counts, markdown_text, measure_title

BEYOND_CHANCE = "\N{DAGGER}"
"""Behind a difference whose interval excludes 0."""


def write_ablation(content: AblationReport, folder: Path) -> None:
    """Write ``ablation.json`` and ``ablation.md``, each whole or not at all.

    Raises:
        OutputError: a file cannot be written, or one of others is in its place (``E_WRITE``).
    """
    check_ablation_folder(folder)
    write_text(folder / "ablation.json", json.dumps(content.to_json(), indent=1, allow_nan=False) + "\n")
    write_text(folder / "ablation.md", ablation_markdown(content))


def check_ablation_folder(folder: Path) -> None:
    """Refuse a folder in which files of others have the names of an ablation's.

    Raises:
        OutputError: one is there, and no ``ablation.json`` of ours (``E_WRITE``).
    """
    ours = has_schema(folder / "ablation.json", "anomalyclip-ablation")
    keep_others(folder, ("ablation.json", "ablation.md"), ours=ours)


def ablation_markdown(content: AblationReport) -> str:
    """-> ``ablation.md``: what was learned and measured how, the base, a table for each kind of change, and notes."""
    report, auxiliary = content.measured, content.auxiliary
    sets = markdown_text(", ".join(f"{count} of {name}" for name, count in auxiliary["sets"].items()))
    seeds = f"seed{'s' * (len(content.seeds) > 1)} {', '.join(map(str, content.seeds))}"
    part = "" if report.complete else f"\n\n**A part of the set:** {markdown_text(report.note)}."
    footnotes = Footnotes()
    parts = [
        f"# Ablation of {markdown_text(report.methods[MODEL].title)} on {markdown_text(report.title)}{part}",
        f"Prompts learned on {auxiliary['images']} images ({sets}): {content.epochs} epochs, batches of "
        f"{content.training['batch_size']}, {seeds}. Measured on {counts(report)}; sha256 of the list: "
        f"`{report.samples.sha256}`.",
        f"Protocol `{report.protocol.id}`: {markdown_text(report.protocol.text)}",
    ]
    parts.append(_table(content, [content.base, *content.trivial], footnotes).markdown())
    for group, heading in GROUPS.items():
        if found := [row for row in content.changed if row.row.group == group]:
            parts += [
                f"## {heading[0].upper()}{heading[1:]}",
                _table(content, [content.base, *found], footnotes).markdown(),
            ]
    parts += [
        "## How to read it",
        "\n".join(f"- {markdown_text(note)}" for note in [*footnotes.lines(), *notes(content)]),
    ]
    return "\n\n".join(parts) + "\n"


def shown_measures(content: AblationReport) -> list[str]:
    """The primary measures and pointing, where the base defines them."""
    names, measures = dict.fromkeys((*content.measured.primary, "pointing")), content.base.measures
    return [name for name in names if name in measures and measures[name].value is not None]


def short_table(content: AblationReport) -> Table:
    """All rows with values and differences, without intervals."""
    names = shown_measures(content)
    header = ["", *(cell for name in names for cell in (measure_title(name, content.measured), "+/-")), "s"]
    rows = []
    for row in content.rows:
        title = f"{row.row.group}: {row.row.title}" if row.row.group else row.row.title
        if isinstance(row, NotBuilt):
            rows.append([title, "not built", *[""] * (len(header) - 2)])
            continue
        cells = [cell for name in names for cell in _short(content, name, row.measures, row.differences)]
        rows.append([title, *cells, f"{row.seconds:.0f}"])
    for method in content.trivial:
        cells = [cell for name in names for cell in _short(content, name, method.measures, {})]
        rows.append([method.title, *cells, ""])
    not_built = [f"{row.row.title}: {row.error}" for row in content.changed if isinstance(row, NotBuilt)]
    return Table(header, rows, [*not_built, *notes(content)])


def notes(content: AblationReport) -> list[str]:
    """How to read the table, and what it does not show."""
    report, built = content.measured, content.built
    repeats, seeds = report.bootstrap.repeats, len(content.seeds)
    found = ["In hundredths. +/-: difference from the base, whose prompts were learned in the same way."]
    if repeats:
        found.append(
            f"In brackets: 95 % interval, of differences by a paired bootstrap ({repeats} resamples, the same cases)."
        )
    if _can_tell(content):
        tests = [test for row in built for name in shown_measures(content) if (test := row.differences.get(name))]
        found.append(
            f"{BEYOND_CHANCE}: the interval of the difference excludes 0. Of {len(tests)} differences about "
            f"{round(len(tests) / 20)} would by chance alone."
        )
    elif repeats:
        found.append("Too few groups (patients, sequences) to tell a difference from chance: none is marked.")
    found.append(
        "One seed: intervals hold the chance of cases, not that of learning."
        if seeds == 1
        else f"Mean ± standard deviation of {seeds} seeds; intervals hold the chance of cases."
    )
    found.append(
        "Prompts are learned anew for each row, the backbone is not. A backbone that was itself trained with one kind "
        "of local attention, feature layers and prompts, as that of the embedded model (v-v), favours that row: the "
        "others then show what it is used to, not which is better. OpenAI's CLIP was trained with no local path at all."
    )
    if report.trained_on:
        found.append(f"Not zero-shot: the backbone was trained on {report.trained_on}.")
    if content.image_score == "map_top2" and any(row.row.group == "loss" for row in built):
        found.append(
            "The image score of this model is read off the map: the global loss teaches the class token, which is not "
            "what is measured."
        )
    return [*found, *report.warnings]


def _table(content: AblationReport, rows: Sequence[RowReport | MethodReport], footnotes: Footnotes) -> Table:
    """Rows, and baselines, which have no difference and no seconds."""
    names = shown_measures(content)
    header = [
        "",
        *(cell for name in names for cell in (measure_title(name, content.measured), "+/-")),
        "learning, s",
        "measuring, s",
    ]
    cells = []
    for row in rows:
        if isinstance(row, NotBuilt):
            cells.append([row.row.title, f"not built: {row.error}", *[""] * (len(header) - 2)])
            continue
        if isinstance(row, MeasuredRow):
            title, differences = row.row.title, row.differences
            seconds = [f"{row.learning:.0f}", f"{row.measuring:.0f}"]
        else:
            title, differences, seconds = row.title, {}, ["", ""]
        found = [title]
        for name in names:
            found.append(measured(name, row.measures.get(name), footnotes))
            found.append(_difference(content, name, differences, with_interval=True))
        cells.append([*found, *seconds])
    return Table(header, cells, lead=1)


def _can_tell(content: AblationReport) -> bool:
    """Whether intervals rest on enough groups to say what is beyond chance."""
    return bool(content.measured.bootstrap.repeats) and content.measured.samples.groups >= FEW_GROUPS


def _short(
    content: AblationReport, name: str, measures: Measures, differences: Mapping[str, Difference]
) -> tuple[str, str]:
    value = measures[name].value if name in measures else None
    text = "" if value is None else number(name, value)
    return text, _difference(content, name, differences, with_interval=False)


def _difference(
    content: AblationReport, name: str, differences: Mapping[str, Difference], *, with_interval: bool
) -> str:
    found = differences.get(name)
    if found is None:
        return ""
    text = difference(name, found.value)
    if found.excludes_zero and _can_tell(content):
        text += BEYOND_CHANCE
    return text + interval(name, found) if with_interval else text
