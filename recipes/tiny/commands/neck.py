"""``python -m recipes.tiny neck``: train the third network of the embedded model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.tiny.commands.console import say

if TYPE_CHECKING:
    from recipes.tiny.commands.console import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    neck = commands.add_parser("neck", help="train the third network on kept features", description=run.__doc__)
    neck.add_argument("features", type=Path, metavar="FEATURES", help="folder of the command features")
    neck.add_argument("--dinov2", type=Path, required=True, metavar="WHEEL", help="package with the backbone")
    neck.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER", help="of the network")
    neck.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="of the members of the neck (default: 0 1 2 3)"
    )
    neck.add_argument(
        "--leave-out",
        nargs="+",
        default=[],
        metavar="SET",
        help="measured sets, such as liver_us, without whose organs",
    )
    neck.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Train the members of the neck, less than a minute each, and write the network as a bundle has it.

    FOLDER gets image_encoder.safetensors, open_clip_config.json and training.json. Sets that may not be shipped are
    never learned from.
    """
    from recipes.tiny.organs.network import make_network, text_features
    from recipes.tiny.organs.store import read_features
    from recipes.tiny.organs.trunk import read_trunk

    trunk = read_trunk(arguments.dinov2)
    record = make_network(
        read_features(arguments.features),
        trunk,
        text_features(),
        arguments.output,
        seeds=arguments.seeds,
        measured=arguments.leave_out,
        log=say,
    )
    say(f"third network: {arguments.output}, {sum(record['squares'].values())} squares")
