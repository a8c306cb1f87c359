"""``anomalyclip evaluate --ablate``: the paper's ablation table."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from anomalyclip_monai.cli.console import path_of, say
from anomalyclip_monai.cli.exits import EXIT_CASE_FAILED, EXIT_DONE
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.options import ModelOptions
from anomalyclip_monai.text import printable

if TYPE_CHECKING:
    from anomalyclip_monai.engines.ablation import RowReport

_FIRST_SEED = 111

_OF_ABLATION = ("epochs", "seeds_count", "object_names", "rows")
"""Options that mean nothing without ``--ablate``."""

_NOT_WITH_ABLATION = ("all", "methods", "seeds", "against")


def add_ablation_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``evaluate`` for the ablation table."""
    group = parser.add_argument_group("ablation", "learn the prompts of network variants and compare them")
    group.add_argument(
        "--ablate",
        nargs=2,
        action="append",
        metavar=("AUX_SET", "AUX_PATH"),
        help="print the ablation table, with prompts learned on this data set; can be given several times",
    )
    group.add_argument("--epochs", type=_at_least_one, metavar="N", help="of learning (default 15)")
    group.add_argument("--seeds-count", type=_at_least_one, metavar="N", help="seeds of every row (default 1)")
    group.add_argument(
        "--object-names",
        nargs=2,
        metavar=("AUX", "SET"),
        help="nouns of prompts that name their object (default: from the sets, where they tell)",
    )
    group.add_argument(
        "--rows", nargs="+", metavar="ROWS", help="only attention, prompts, layers, context, depth, tokens or loss"
    )


def check_ablation_options(arguments: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: an option does nothing with, or without, ``--ablate`` (``E_USAGE``).
    """
    wrong = _NOT_WITH_ABLATION if arguments.ablate else _OF_ABLATION
    if given := [f"--{name.replace('_', '-')}" for name in wrong if getattr(arguments, name) is not None]:
        what = f"{', '.join(given)} {'and' if arguments.ablate else 'without'} --ablate"
        raise UsageError(
            "E_USAGE", what, None, "leave one out" if arguments.ablate else "add --ablate AUX_SET AUX_PATH"
        )


def run_ablation(
    arguments: argparse.Namespace, model: ModelOptions, evaluation: Mapping[str, Any]
) -> tuple[int, list[list[str]], list[str]]:
    """Learn and measure every row -> exit code, cells of the table, lines below it.

    Args:
        arguments: of the command.
        model: which network, and where.
        evaluation: values for the bundle's ``evaluate.json``.
    """
    from anomalyclip_monai.api import resolve_device
    from anomalyclip_monai.engines.ablation import Ablation, short_table
    from anomalyclip_monai.weights.choice import choose_model

    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # it repeats an error that is reported here
    count = arguments.seeds_count or 1
    ablation = Ablation(
        choose_model(model),
        [(name, path_of(path, "the auxiliary set")) for name, path in arguments.ablate],
        arguments.dataset,
        evaluation["dataset_dir"],
        evaluation["output_dir"],
        device=resolve_device(model.device),
        epochs=arguments.epochs,
        seeds=range(_FIRST_SEED, _FIRST_SEED + count),
        nouns=arguments.object_names,
        groups=arguments.rows,
        evaluation=evaluation,
    )
    total = len(ablation.rows)
    numbers = iter(range(1, total + 1))

    def done(row: RowReport) -> None:
        if not arguments.quiet:
            say(f"{next(numbers)}/{total} {' '.join(_describe(row))}")

    content = ablation.run(done)
    table = short_table(content)
    failed = any(row.failed for row in content.built)
    lines = [*table.notes, f"-> {printable(ablation.folder / 'ablation.md')}"]
    return EXIT_CASE_FAILED if failed else EXIT_DONE, [table.header, *table.rows], lines


def _describe(found: RowReport) -> Iterator[str]:
    from anomalyclip_monai.engines.ablation import NotBuilt

    yield f"{found.row.group}: {found.row.title}:" if found.row.group else f"{found.row.title}:"
    if isinstance(found, NotBuilt):
        yield found.error
        return
    yield f"learned in {found.learning:.0f} s, measured in {found.measuring:.0f} s"
    if found.failed:
        yield f"({len(found.failed)} cases failed)"


def _at_least_one(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is below 1")
    return value
