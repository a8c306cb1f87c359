"""The recipe's own command line, ``python -m recipes.tiny``: a module per command, which adds its options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from anomalyclip_monai.exceptions import AnomalyCLIPError
from recipes.tiny.commands import average, evidence, features, neck, reproduce, symmetry, thresholds, train, unseen

COMMANDS = (train, average, reproduce, features, neck, symmetry, thresholds, unseen, evidence)
"""The modules of the commands, in the order of ``--help``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; -> 0 done, 2 an error of one line."""
    arguments = parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except AnomalyCLIPError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """What reads the command line."""
    made = argparse.ArgumentParser(prog="python -m recipes.tiny", description="Make the weights of anomalyclip_tiny.")
    commands = made.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return made
