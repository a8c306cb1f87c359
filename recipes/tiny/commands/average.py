"""``python -m recipes.tiny average``: several trainings of the embedded model as one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.tiny.commands.console import say

if TYPE_CHECKING:
    from recipes.tiny.commands.console import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    average = commands.add_parser(
        "average", help="the mean of trainings of the embedded model", description=run.__doc__
    )
    average.add_argument("files", type=Path, nargs="+", metavar="BACKBONE", help="backbone.safetensors of trainings")
    average.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the mean")
    average.add_argument(
        "--image-side", action="store_true", help="leave out the text side, for the second network of an ensemble"
    )
    average.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Average the weights of trainings that came from the same start: calmer than any one of them."""
    from recipes.tiny.average import mean_weights, write_weights

    write_weights(mean_weights(arguments.files), arguments.output, image_side=arguments.image_side)
    say(f"mean of {len(arguments.files)}: {arguments.output}")
