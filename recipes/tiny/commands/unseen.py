"""``python -m recipes.tiny unseen``: measure the embedded model on organs that it was never trained on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.tiny.commands.console import say

if TYPE_CHECKING:
    from recipes.tiny.commands.console import Commands

SEEDS = [[0, 1, 2, 3], [4, 5, 6, 7]]
"""Of the members of two trainings of a fold, the first with those of the shipped weights."""


def add(commands: Commands) -> None:
    """Add the command."""
    unseen = commands.add_parser(
        "unseen", help="measure organs with trainings that went without them", description=run.__doc__
    )
    unseen.add_argument("features", type=Path, metavar="FEATURES", help="folder of the command features")
    unseen.add_argument("organs", type=Path, metavar="ORGANS", help="folder of anomalyclip evaluate organs")
    unseen.add_argument("--dinov2", type=Path, required=True, metavar="WHEEL", help="package with the backbone")
    unseen.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="gone on with if begun")
    unseen.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        action="append",
        metavar="SEED",
        help="of the members of a training; given again, of another one (default: 0 1 2 3 and 4 5 6 7)",
    )
    unseen.add_argument(
        "--evidence", type=Path, metavar="FILE", help="gets the table as a part (default: OUT/evidence.json)"
    )
    unseen.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    unseen.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Train the third network without groups of organs and measure each training on the organs it went without.

    The first two networks are those of the bundle. The table has every set, the mean over all and over those whose
    organ none of the three networks learned lesions of, for every training and their mean. It takes an hour on a core;
    what was done is not done again.
    """
    from anomalyclip_monai.api import resolve_device
    from recipes.evidence import update
    from recipes.tiny.commands.evidence import HELD_OUT
    from recipes.tiny.organs.network import text_features
    from recipes.tiny.organs.store import read_features
    from recipes.tiny.organs.trunk import read_trunk
    from recipes.tiny.organs.unseen import measure_unseen

    device = resolve_device(arguments.device)
    trunk = read_trunk(arguments.dinov2)
    part = measure_unseen(
        read_features(arguments.features),
        trunk,
        text_features(),
        arguments.organs,
        arguments.output,
        seeds=arguments.seeds or SEEDS,
        device=str(device),
        log=say,
    )
    path = arguments.evidence or arguments.output / "evidence.json"
    update(path, HELD_OUT, part)
    say(f"{HELD_OUT}: {len(part.measurements)} numbers in {path}")
