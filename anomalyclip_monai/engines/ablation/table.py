"""The ablation table, for readers and for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalyclip_monai.engines.ablation.rows import GROUPS
from anomalyclip_monai.engines.evaluation.report import FEW_GROUPS
from anomalyclip_monai.outputs.report.numbers import Footnotes, difference, interval, measured, number
from anomalyclip_monai.outputs.report.tables import Table, counts, markdown_text, measure_title
from anomalyclip_monai.outputs.report.write import write_text

SCHEMA = "anomalyclip-ablation/1"

BEYOND_CHANCE = "\N{DAGGER}"
"""Behind a difference whose interval excludes 0."""

Content = Mapping[str, Any]
"""Of ``ablation.json``."""


def write_ablation(content: Content, folder: Path) -> None:
    """Write ``ablation.json`` and ``ablation.md``, each whole or not at all.

    Raises:
        OutputError: a file cannot be written (``E_WRITE``).
    """
    write_text(folder / "ablation.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_text(folder / "ablation.md", ablation_markdown(content))


def ablation_markdown(content: Content) -> str:
    """-> ``ablation.md``: what was learned and measured how, the base, a table for each kind of change, and notes."""
    training, auxiliary, samples = content["training"], content["auxiliary"], content["samples"]
    sets = markdown_text(", ".join(f"{count} of {name}" for name, count in auxiliary["sets"].items()))
    seeds = f"seed{'s' * (len(training['seeds']) > 1)} {', '.join(map(str, training['seeds']))}"
    part = "" if content["complete"] else f"\n\n**A part of the set:** {markdown_text(content['note'])}."
    cases = counts({"samples": samples, "failed": content["rows"][0]["failed"]})
    footnotes = Footnotes()
    parts = [
        f"# Ablation of {markdown_text(content['model_title'])} on {markdown_text(content['title'])}{part}",
        f"Prompts learned on {auxiliary['images']} images ({sets}): {training['epochs']} epochs, batches of "
        f"{training['batch_size']}, {seeds}. Measured on {cases}; sha256 of the list: `{samples['sha256']}`.",
        f"Protocol `{content['protocol']['id']}`: {markdown_text(content['protocol']['text'])}",
    ]
    base, *rows = content["rows"]
    trivial = [{**entry, "difference": {}} for entry in content["trivial"].values()]
    parts.append(_table(content, [base, *trivial], footnotes).markdown())
    for group, heading in GROUPS.items():
        if found := [row for row in rows if row["group"] == group]:
            parts += [f"## {heading[0].upper()}{heading[1:]}", _table(content, [base, *found], footnotes).markdown()]
    parts += [
        "## How to read it",
        "\n".join(f"- {markdown_text(note)}" for note in [*footnotes.lines(), *notes(content)]),
    ]
    return "\n\n".join(parts) + "\n"


def shown_measures(content: Content) -> list[str]:
    """The primary measures and pointing, where the base defines them."""
    names = dict.fromkeys((*content["primary"], "pointing"))
    return [name for name in names if "value" in content["rows"][0]["measures"].get(name, {})]


def short_table(content: Content) -> Table:
    """All rows with values and differences, without intervals."""
    names = shown_measures(content)
    header = ["", *(cell for name in names for cell in (measure_title(name, content), "+/-")), "s"]
    rows = []
    for row in content["rows"]:
        title = f"{row['group']}: {row['title']}" if row["group"] else row["title"]
        if "error" in row:
            rows.append([title, "not built", *[""] * (len(header) - 2)])
            continue
        cells = [cell for name in names for cell in _short(content, name, row)]
        rows.append([title, *cells, f"{sum(row['seconds'].values()):.0f}"])
    for entry in content["trivial"].values():
        cells = [cell for name in names for cell in _short(content, name, {**entry, "difference": {}})]
        rows.append([entry["title"], *cells, ""])
    not_built = [f"{row['title']}: {row['error']}" for row in content["rows"] if "error" in row]
    return Table(header, rows, [*not_built, *notes(content)])


def notes(content: Content) -> list[str]:
    """How to read the table, and what it does not show."""
    built = [row for row in content["rows"] if "error" not in row]
    repeats, seeds = content["bootstrap"]["repeats"], len(content["training"]["seeds"])
    found = ["In hundredths. +/-: difference from the base, whose prompts were learned in the same way."]
    if repeats:
        found.append(
            f"In brackets: 95 % interval, of differences by a paired bootstrap ({repeats} resamples, the same cases)."
        )
    if _can_tell(content):
        tests = [test for row in built for name in shown_measures(content) if (test := row["difference"].get(name))]
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
    if content["trained_on"]:
        found.append(f"Not zero-shot: the backbone was trained on {content['trained_on']}.")
    if content["image_score"] == "map_top2" and any(row["group"] == "loss" for row in built):
        found.append(
            "The image score of this model is read off the map: the global loss teaches the class token, which is not "
            "what is measured."
        )
    return [*found, *content["warnings"]]


def _table(content: Content, rows: Sequence[Mapping[str, Any]], footnotes: Footnotes) -> Table:
    names = shown_measures(content)
    header = [
        "",
        *(cell for name in names for cell in (measure_title(name, content), "+/-")),
        "learning, s",
        "measuring, s",
    ]
    cells = []
    for row in rows:
        if "error" in row:
            cells.append([row["title"], f"not built: {row['error']}", *[""] * (len(header) - 2)])
            continue
        found = [row["title"]]
        for name in names:
            found += [
                measured(name, row["measures"].get(name), footnotes),
                _difference(content, name, row, with_interval=True),
            ]
        seconds = row.get("seconds")
        found += [f"{seconds['learning']:.0f}", f"{seconds['measuring']:.0f}"] if seconds else ["", ""]
        cells.append(found)
    return Table(header, cells, lead=1)


def _can_tell(content: Content) -> bool:
    """Whether intervals rest on enough groups to say what is beyond chance."""
    return bool(content["bootstrap"]["repeats"]) and content["samples"]["groups"] >= FEW_GROUPS


def _short(content: Content, name: str, row: Mapping[str, Any]) -> tuple[str, str]:
    value = row["measures"].get(name, {}).get("value")
    return "" if value is None else number(name, value), _difference(content, name, row, with_interval=False)


def _difference(content: Content, name: str, row: Mapping[str, Any], *, with_interval: bool) -> str:
    entry = row["difference"].get(name)
    if entry is None:
        return ""
    text = difference(name, entry["difference"])
    if "low" in entry:
        text += BEYOND_CHANCE if _can_tell(content) and (entry["low"] > 0 or entry["high"] < 0) else ""
        text += interval(name, entry) if with_interval else ""
    return text
