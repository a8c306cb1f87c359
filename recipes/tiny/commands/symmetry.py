"""``python -m recipes.tiny symmetry``: the weight of left against right from training data."""

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
    symmetry = commands.add_parser(
        "symmetry", help="the weight of left against right from training data", description=run.__doc__
    )
    symmetry.add_argument("data", type=Path, metavar="DATA", help="folder with the training sets")
    symmetry.add_argument(
        "--model", default=resources.DEFAULT_BUNDLE, help="name or folder of the bundle (default: %(default)s)"
    )
    symmetry.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Score slices of the training heads, and print per weight how well scores tell those with a lesion."""
    from anomalyclip_monai.exceptions import NoInputError
    from recipes.tiny.symmetry import look, table

    seen = list(look(arguments.data, arguments.model))
    if len({one.lesion for one in seen}) < 2:
        raise NoInputError("E_NO_INPUT", "no heads with and without lesions", arguments.data, "give the sets' folder")
    usual, by_weight = table(seen)
    say(f"{len(seen)} slices, {sum(one.lesion for one in seen)} with a lesion")
    say(f"usual {usual:.3f}; AUROC by weight: " + ", ".join(f"{w:g}: {v:.4f}" for w, v in by_weight.items()))
