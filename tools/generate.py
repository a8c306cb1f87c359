"""Write what follows: from declared options entries of JSON files and docs/options.md, from the evidence texts.

    python tools/generate.py            write
    python tools/generate.py --check    write nothing; exit 1 where a file is not what would be written

Of a bundle's JSON files the value of an entry is the bundle's own and stays; an entry that is missing gets the
option's default, and what hands entries on (the arguments of steps, the conditions of a calibration, the options of a
report) is written anew from :mod:`anomalyclip_monai.options`. What a bundle says of its presets, and the regions
of Markdown pages between ``<!-- evidence: NAME -->`` and ``<!-- end -->``, are written from the bundle's
``docs/evidence.json``, the pages outside of bundles from that of the default bundle: see :mod:`recipes.evidence`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anomalyclip_monai import resources
from anomalyclip_monai.options import (
    CaseOptions,
    InputOptions,
    LearnOptions,
    MeasureOptions,
    ModelOptions,
    Option,
    OptionSet,
    OutputOptions,
    ServeOptions,
    heatmap_settings,
    reported_settings,
)
from recipes.evidence import evidence_file, read_evidence
from recipes.evidence.pages import OPENING, Source, filled
from recipes.evidence.presets import preset_lines, published_lines

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "options.md"

_DISPLAYED = "displayable_configs"
"""Entry of ``inference.json`` into which MONAI Label writes the options of a request."""

SECTIONS: tuple[tuple[type[OptionSet], str], ...] = (
    (ModelOptions, "Which network"),
    (CaseOptions, "How a case is read, scored and outlined"),
    (InputOptions, "Which cases, and where in them"),
    (OutputOptions, "Which files are written"),
    (MeasureOptions, "What is measured"),
    (LearnOptions, "How prompts are learned"),
    (ServeOptions, "Where a server answers"),
)


def main() -> int:
    """Write or check; -> exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 where something would change")
    check = parser.parse_args().check
    stale = []
    for path, content in generated():
        if path.is_file() and path.read_text(encoding="utf-8") == content:
            continue
        stale.append(path)
        if not check:
            path.write_text(content, encoding="utf-8")
    for path in stale:
        print(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if check and stale else 0


def generated() -> Iterator[tuple[Path, str]]:
    """Every generated file and what it should hold."""
    definitions = {}
    for folder in sorted((ROOT / "bundles").iterdir()):
        for name, fill in (("inference", fill_inference), ("evaluate", fill_evaluate), ("train", fill_train)):
            path = folder / "configs" / f"{name}.json"
            config = json.loads(path.read_text(encoding="utf-8"))
            content = fill(config)
            if name == "inference":
                content |= preset_evidence(folder, fast="fast" in content)
                definitions[folder.name] = content
            yield path, json.dumps(content, indent=4) + "\n"
    yield PAGE, page(definitions)
    for path in pages():
        text = path.read_text(encoding="utf-8")
        if OPENING in text:
            yield path, filled(text, source_of(path))


def pages() -> Iterator[Path]:
    """The pages that may show what was measured."""
    yield ROOT / "README.md"
    yield from sorted((ROOT / "docs").glob("*.md"))
    yield from sorted((ROOT / "bundles").glob("*/docs/README.md"))


def source_of(page: Path) -> Source:
    """The bundle that a page is in, elsewhere the default one, and its evidence."""
    own = page.parents[1]
    bundle = (
        own
        if own.parent == ROOT / "bundles"
        else ROOT / "bundles" / f"{resources.BUNDLE_PREFIX}{resources.DEFAULT_BUNDLE}"
    )
    return Source(bundle, read_evidence(evidence_file(bundle)))


def preset_evidence(bundle: Path, *, fast: bool) -> dict[str, dict[str, str]]:
    """The entries of ``inference.json`` that say how good the model is; ``fast``: of its first network as well."""
    path = evidence_file(bundle)
    if not path.is_file():
        return {"evidence": published_lines()}
    evidence = read_evidence(path)
    entries = {"evidence": preset_lines(evidence)}
    return entries | ({"evidence_fast": preset_lines(evidence, fast=True)} if fast else {})


def fill_inference(config: Mapping[str, Any]) -> dict[str, Any]:
    """``inference.json`` with an entry for every option of a case, handed on to the steps that use it.

    The values of those that viewers show stand in ``displayable_configs``, and their entries refer to it.
    """
    known = [*CaseOptions.known(), *InputOptions.known(), *OutputOptions.known()]
    filled = _with_entries(config, known)
    for option in known:
        for step in option.used_in:
            _at(filled, step)[option.name] = f"@{option.name}"
    displayed = [option.name for option in known if option.displayed]
    shown = filled.get(_DISPLAYED, {})
    filled[_DISPLAYED] = {name: shown.get(name, filled[name]) for name in displayed}
    filled |= {name: f"@{_DISPLAYED}#{name}" for name in displayed}
    filled["conditions"] = {
        **{name: config["conditions"][name] for name in ("model", "preset_table")},
        **_references(heatmap_settings()),
    }
    return filled


def fill_evaluate(config: Mapping[str, Any]) -> dict[str, Any]:
    """``evaluate.json`` with an entry for every option of measuring, and what a report says was asked."""
    known = list(MeasureOptions.known())
    filled = _with_entries(config, known)
    evaluation = filled["evaluation"]
    for option in known:
        evaluation[option.name] = f"@{option.name}"
    evaluation["options"] = _references(reported_settings())
    return filled


def fill_train(config: Mapping[str, Any]) -> dict[str, Any]:
    """``train.json`` with an entry for every option of learning, and of a case as far as they matter there."""
    of_case = [option for option in CaseOptions.known() if option.training]
    filled = _with_entries(config, [*LearnOptions.known(), *of_case])
    for option in of_case:
        for step in option.training:
            _at(filled, step)[option.name] = f"@{option.name}"
    return filled


def _references(names: tuple[str, ...]) -> dict[str, str]:
    """``preset_table`` goes with ``preset``."""
    pairs = {"preset": "@preset", "preset_table": "@preset_table"}
    return {**(pairs if "preset" in names else {}), **{name: f"@{name}" for name in names}}


def _with_entries(config: Mapping[str, Any], options: list[Option]) -> dict[str, Any]:
    """A copy with the missing entries, each behind the option that is declared before it."""
    entries = list(json.loads(json.dumps(config)).items())
    names = [option.name for option in options]
    for index, option in enumerate(options):
        if option.name in config:
            continue
        keys = [key for key, _ in entries]
        before = [keys.index(name) for name in names[:index] if name in keys]
        entries.insert(
            max(before, default=keys.index("bundle_root") if "bundle_root" in keys else 0) + 1,
            (option.name, option.default),
        )
    return dict(entries)


def _at(config: Any, step: str) -> Any:
    """The definition of a step, by MONAI's id."""
    for key in step.split("#"):
        config = config[int(key)] if isinstance(config, list) else config[key]
    return config


def page(definitions: Mapping[str, Mapping[str, Any]]) -> str:
    """docs/options.md."""
    names = [bundle.removeprefix("anomalyclip_") for bundle in definitions]
    values = [{**definition, **definition[_DISPLAYED]} for definition in definitions.values()]
    lines = [
        "# Options",
        "",
        "The options of network, cases, files, measuring and learning: as a flag of the commands that have them,",
        "as an argument in Python, and as an entry of a bundle's JSON files for `monai.bundle run`. What only one",
        "command has, such as `--no-dicom`, stands on the page of that command. This page is made from",
        "`anomalyclip_monai/options.py` by `python tools/generate.py`.",
        "",
    ]
    for options, title in SECTIONS:
        entries = options is CaseOptions
        lines += [f"## {title}", "", f"`{options.__module__}.{options.__name__}`", ""]
        heads = ["option", "meaning", "values", *(names if entries else ["default"]), "commands"]
        lines += [_row(heads), _row(["---"] * len(heads))]
        for option in options.known():
            if entries:
                defaults = [_default(option, own.get(option.name)) for own in values]
            else:
                defaults = [option.default_in_words]
            flag = option.flags if option.commands else ""
            name = f"`{option.name}`" + (f" `{flag}`" if flag else "")
            lines.append(
                _row([name, option.help, _values(option), *defaults, ", ".join(option.commands) or "JSON only"])
            )
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _default(option: Option, value: Any) -> str:
    return option.shown if value is None else json.dumps(value).strip('"')


def _values(option: Option) -> str:
    match option.kind:
        case "switch" | "yes":
            return "yes, no"
        case "number" | "count" | "counts":
            several = ", one or more" if option.kind == "counts" else ""
            return option.range + (f" ({option.unit})" if option.unit else "") + several
        case _:
            return ", ".join(option.choices) or ("texts" if option.kind == "texts" else "text")


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
