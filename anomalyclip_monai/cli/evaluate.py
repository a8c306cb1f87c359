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
from anomalyclip_monai.cli.console import add_options, add_quiet, given_options, model_options, path_of, say
from anomalyclip_monai.cli.exits import EXIT_CASE_FAILED, EXIT_DONE
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, UsageError
from anomalyclip_monai.options import CaseOptions, MeasureOptions, ModelOptions
from anomalyclip_monai.text import printable

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
    for options in (ModelOptions, CaseOptions, MeasureOptions):
        add_options(evaluate, options, "evaluate")
    add_quiet(evaluate)
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
    model = model_options(arguments)
    if arguments.all:
        return _all(arguments, model)
    if arguments.ablate:
        return _ablate(arguments, model)
    return _one(arguments, model, arguments.dataset, arguments.path)[0]


def _all(arguments: argparse.Namespace, model: ModelOptions) -> int:
    """Every set below a folder that has no finished report yet, then the table over all of them."""
    from anomalyclip_monai.data.benchmarks import find_all
    from anomalyclip_monai.outputs.report import all_sets_table, check_all_sets_folder, write_all_sets

    code, reports = EXIT_DONE, []
    found = find_all(path_of(arguments.all, "the folder of all sets"))
    check_all_sets_folder(path_of(arguments.output, "the output"))
    if not arguments.quiet:
        say(f"found: {', '.join(f'{dataset} in {printable(folder)}' for dataset, folder in found.items())}")
    for dataset, folder in found.items():
        try:
            done, report = _one(arguments, model, dataset, folder, keep=True)
            reports.append(report)
        except AnomalyCLIPError as error:
            done = EXIT_CASE_FAILED
            say(f"{dataset}: {error}", to=sys.stderr)
        code = max(code, done)
    if reports:
        page = write_all_sets(reports, path_of(arguments.output, "the output"))[-1]
        for line in all_sets_table(reports).splitlines():
            say(line)
        say(f"-> {printable(page)}")
    return code


def _one(
    arguments: argparse.Namespace, model: ModelOptions, dataset: str, path: str | Path, *, keep: bool = False
) -> tuple[int, Report]:
    """One set -> exit code and report; ``keep``: that of an earlier run with the same options if nothing changed."""
    values = _values(arguments, dataset, path)
    from anomalyclip_monai.api import resolve_device
    from anomalyclip_monai.engines.evaluation import bundle_evaluator
    from anomalyclip_monai.weights.choice import choose_model

    evaluator = bundle_evaluator(choose_model(model), {"device": resolve_device(model.device), **values})
    if keep and (finished := evaluator.evaluation.finished()) is not None:
        if not arguments.quiet:
            folder = evaluator.evaluation.folder
            say(f"{evaluator.evaluation.title}: there already, delete {printable(folder)} to measure it again")
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


def _ablate(arguments: argparse.Namespace, model: ModelOptions) -> int:
    """The ablation table of one set."""
    code, rows, lines = run_ablation(arguments, model, _values(arguments, arguments.dataset, arguments.path))
    if not arguments.quiet:
        for line in (*_columns(rows), *(f"  {line}" for line in lines)):
            say(line)
    return code


def _values(arguments: argparse.Namespace, dataset: str, path: str | Path) -> dict[str, Any]:
    """Entries of ``evaluate.json`` and ``inference.json``, paths absolute."""
    case, measure = given_options(arguments, CaseOptions), given_options(arguments, MeasureOptions)
    values = {
        "dataset_name": dataset,
        "dataset_dir": str(path_of(str(path), "the data set")),
        "output_dir": str(path_of(arguments.output, "the output")),
        **case.given(),
        **measure.given(),
    }
    if measure.seeds:
        values["seeds"] = [str(path_of(seed, "a file of prompts")) for seed in measure.seeds]
    if measure.against:
        values["against"] = str(path_of(measure.against, "the report"))
    return {**values, **(resources.preset_values(case.preset) if case.preset else {})}


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
    from anomalyclip_monai.outputs.report.tables import category_table, counts, has_sets, measures_table

    table = measures_table(report)
    yield report.title + (f" - A PART: {report.note}" if not report.complete else "")
    yield from _columns([table.header, *table.rows])
    for note in table.notes:
        yield f"  {note}"
    if (classes := category_table(report)) is not None and has_sets(report):
        yield from _columns([classes.header, *classes.rows])
        for note in classes.notes:
            yield f"  {note}"
    if report.comparison is not None:
        yield f"compared with {printable(report.comparison.title)}: see table.md"
    for warning in report.warnings:
        yield f"  {printable(warning)}"
    done = f"protocol {report.protocol.id}; {counts(report)}; {report.seconds:.0f} s"
    yield f"{done} -> {printable(folder / 'report.html')}"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Cells as aligned text, the first column to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
