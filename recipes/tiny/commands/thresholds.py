"""``python -m recipes.tiny thresholds``: the two thresholds of a bundle from training data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from anomalyclip_monai import resources
from recipes.tiny.commands.console import say

if TYPE_CHECKING:
    from recipes.tiny.commands.console import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    thresholds = commands.add_parser(
        "thresholds", help="the two thresholds of a bundle from training data", description=run.__doc__
    )
    thresholds.add_argument("data", type=Path, metavar="DATA", help="folder with the training sets")
    thresholds.add_argument(
        "--model", default=resources.DEFAULT_BUNDLE, help="name or folder of the bundle (default: %(default)s)"
    )
    thresholds.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the model on healthy heads and on held-out lesions, and print the pair that is quiet and closest to these."""
    from anomalyclip_monai.exceptions import NoInputError
    from recipes.tiny.organs.thresholds import choose, look

    seen = list(look(arguments.data, arguments.model))
    if not any(one.lesion is not None and one.lesion.any() for one in seen):
        raise NoInputError("E_NO_INPUT", "no held-out lesion found", arguments.data, "give the folder of the sets")
    choice = choose(seen)
    for head, table in choice.false_ml.items():
        marked = ", ".join(f"{ml:.2f} ml at {value}" for value, ml in table.items() if ml)
        say(f"{head}: {marked or 'nothing is marked'}")
    for value, by_low in choice.table.items():
        say(f"{value}: " + ", ".join(f"{dice:.3f} from {low}" for low, dice in by_low.items()))
    say(f"value {choice.value}, low {choice.low}, mean Dice {choice.dice:.3f}: {choice.groups}")
