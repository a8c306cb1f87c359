"""``anomalyclip evaluate``: measure a model on a data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalyclip_monai import resources
from anomalyclip_monai.cli.ablation import add_ablation_options, check_ablation_options, run_ablation
from anomalyclip_monai.cli.console import (
    EXIT_CASE_FAILED,
    EXIT_DONE,
    add_model_options,
    add_slice_options,
    model_options,
    say,
)
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, UsageError
from anomalyclip_monai.text import printable
from anomalyclip_monai.types import SLICE_OPTIONS

if TYPE_CHECKING:
    from anomalyclip_monai.cli.console import Commands
    from anomalyclip_monai.engines.evaluation import SetEvaluator
    from anomalyclip_monai.outputs.report import Report


def add(commands: Commands) -> None:
    """Add the command."""
    evaluate = commands.add_parser(
        "evaluate",
        help="measure a model on a data set, beside trivial baselines",
        description=run.__doc__,
        epilog="Any other word as SET prints the names of the data sets; layouts are in docs/datasets.md.",
    )
    evaluate.add_argument("dataset", nargs="?", metavar="SET", help="name of a data set, such as brainmri; see below")
    evaluate.add_argument("path", nargs="?", metavar="PATH", help="its folder, or a CSV file")
    evaluate.add_argument("-o", "--output", required=True, metavar="OUT", help="the report goes to OUT/SET/")
    evaluate.add_argument("--all", metavar="ROOT", help="every data set that is found below this folder")
    add_model_options(evaluate)
    evaluate.add_argument("--protocol", help="paper or native (default: paper for the paper's sets of photos)")
    evaluate.add_argument("--methods", nargs="+", metavar="METHOD", help="anomalyclip, clip, clip_ac, hand_written ...")
    evaluate.add_argument(
        "--seeds", nargs="+", metavar="PROMPTS", help="prompt files of several trainings: mean and sd"
    )
    evaluate.add_argument("--against", metavar="REPORT", help="report.json of another model: a paired test")
    evaluate.add_argument("--bootstrap", type=int, metavar="N", help="resampled sets, 0 for none (default 1000)")
    evaluate.add_argument("--limit", type=int, metavar="N", help="only N samples, spread evenly over the set")
    evaluate.add_argument(
        "--preset", help=f"auto, {', '.join(resources.presets())}, or a YAML file (default: the set's)"
    )
    evaluate.add_argument("--threshold", help="auto, or a value above 0 up to 1, for Dice and false mask")
    add_slice_options(evaluate)
    evaluate.add_argument("--volume", type=int, metavar="N", help="which volume of 4D files, counted from 0")
    add_ablation_options(evaluate)
    evaluate.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure a model on a data set and write a report with intervals, baselines, curves and every score.

    A run that was stopped goes on where it was when the same command is given again.
    """
    if bool(arguments.all) == bool(arguments.dataset and arguments.path):
        raise UsageError(
            "E_USAGE", "no data set" if not arguments.all else "SET and --all", None, "give SET PATH or --all"
        )
    check_ablation_options(arguments)
    if arguments.all:
        return _all(arguments)
    if arguments.ablate:
        return _ablate(arguments)
    return _one(arguments, arguments.dataset, arguments.path)[0]


def _all(arguments: argparse.Namespace) -> int:
    """Every set below a folder that has no finished report yet, then the table over all of them."""
    from anomalyclip_monai.data.benchmarks import find_all
    from anomalyclip_monai.outputs.report import all_sets_table, write_all_sets

    code, reports = EXIT_DONE, []
    found = find_all(arguments.all)
    if not arguments.quiet:
        say(f"found: {', '.join(f'{dataset} in {folder}' for dataset, folder in found.items())}")
    for dataset, folder in found.items():
        try:
            done, report = _one(arguments, dataset, folder, keep=True)
            reports.append(report)
        except AnomalyCLIPError as error:
            done = EXIT_CASE_FAILED
            say(f"{dataset}: {error}", to=sys.stderr)
        code = max(code, done)
    if reports:
        page = write_all_sets(reports, Path(arguments.output))[-1]
        say(all_sets_table(reports))
        say(f"-> {page}")
    return code


def _one(arguments: argparse.Namespace, dataset: str, path: str | Path, *, keep: bool = False) -> tuple[int, Report]:
    """One set -> exit code and report; ``keep``: that of an earlier run with the same options if nothing changed."""
    from anomalyclip_monai.api import resolve_device
    from anomalyclip_monai.engines.evaluation import bundle_evaluator
    from anomalyclip_monai.weights.choice import choose_model

    chosen = model_options(arguments)
    device = resolve_device(chosen.pop("device"))
    evaluator = bundle_evaluator(choose_model(**chosen), {"device": device, **_overrides(arguments, dataset, path)})
    if keep and (finished := evaluator.evaluation.finished()) is not None:
        if not arguments.quiet:
            folder = evaluator.evaluation.folder
            say(f"{evaluator.evaluation.title}: there already, delete {folder} to measure it again")
        return EXIT_DONE, finished
    code = EXIT_DONE
    with _bar(evaluator, arguments.quiet):
        try:
            evaluator.run()
        except CaseError as error:
            if error.code != "E_CASES":
                raise
            code = EXIT_CASE_FAILED
    if not arguments.quiet:
        for line in _describe(evaluator.report, evaluator.evaluation.folder):
            say(line)
    return code, evaluator.report


def _ablate(arguments: argparse.Namespace) -> int:
    """The ablation table of one set."""
    code, rows, lines = run_ablation(arguments, _overrides(arguments, arguments.dataset, arguments.path))
    if not arguments.quiet:
        for line in (*_columns(rows), *(f"  {line}" for line in lines)):
            say(line)
    return code


def _overrides(arguments: argparse.Namespace, dataset: str, path: str | Path) -> dict[str, Any]:
    values = {
        "dataset_name": dataset,
        "dataset_dir": str(path),
        "output_dir": arguments.output,
        **{
            name: getattr(arguments, name)
            for name in (
                *("protocol", "methods", "seeds", "against", "bootstrap", "limit"),
                *("threshold", *SLICE_OPTIONS, "volume"),
            )
        },
    }
    preset = arguments.preset
    if preset is not None:
        is_file = preset.endswith((".yaml", ".yml"))
        values |= resources.read_overlay(resources.preset_overlay(preset)) if is_file else {"preset": preset}
    return {key: value for key, value in values.items() if value is not None}


@contextmanager
def _bar(evaluator: SetEvaluator, quiet: bool) -> Iterator[None]:
    """A bar over the samples of all passes, on a terminal."""
    from ignite.engine import Events
    from tqdm import tqdm

    total = len(evaluator.evaluation.samples) * len(evaluator.evaluation.passes)
    title = evaluator.evaluation.title
    with tqdm(desc=title, unit="case", total=total, leave=False, disable=quiet or not sys.stderr.isatty()) as bar:
        evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda _: bar.update())
        yield


def _describe(report: Report, folder: Path) -> Iterator[str]:
    """The table with its baselines, then what it is a table of."""
    from anomalyclip_monai.outputs.report.tables import counts, measures_table

    table = measures_table(report)
    yield report.title + (f" - A PART: {report.note}" if not report.complete else "")
    yield from _columns([table.header, *table.rows])
    for note in table.notes:
        yield f"  {note}"
    if report.comparison is not None:
        yield f"compared with {printable(report.comparison.title)}: see table.md"
    for warning in report.warnings:
        yield f"  {warning}"
    done = f"protocol {report.protocol.id}; {counts(report)}; {report.seconds:.0f} s"
    yield f"{done} -> {folder / 'report.html'}"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Cells as aligned text, the first column to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
