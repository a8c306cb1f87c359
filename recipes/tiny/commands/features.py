"""``python -m recipes.tiny features``: what the third network of the embedded model learns from."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.tiny.commands.console import say

if TYPE_CHECKING:
    from recipes.tiny.commands.console import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    features = commands.add_parser(
        "features", help="frozen features of the sets of many organs", description=run.__doc__
    )
    features.add_argument("data", type=Path, metavar="DATA", help="folder with the training sets")
    features.add_argument("--dinov2", type=Path, required=True, metavar="WHEEL", help="package with the backbone")
    features.add_argument("-o", "--output", type=Path, required=True, metavar="FEATURES", help="gone on with if begun")
    features.add_argument("--workers", type=int, default=2, help="processes that compute (default: %(default)s)")
    features.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Draw squares of all training sets, show them to DINOv2 and keep its features: 20 minutes on two cores.

    FEATURES needs 15 GB while it is made and has 4.7 GB then. What was done is not done again when the command is
    repeated. Sets that are not in DATA are named and left out.
    """
    from recipes.tiny.organs.store import Settings, make_features, missing_sets

    if missing := missing_sets(arguments.data):
        say(f"missing: {', '.join(missing)}")
    settings = Settings(arguments.data, arguments.dinov2)
    make_features(settings, arguments.output, workers=arguments.workers, log=say)
    say(f"features: {arguments.output}")
