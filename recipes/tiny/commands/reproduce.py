"""``python -m recipes.tiny reproduce``: all stages of the shipped weights, one after the other."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalyclip_monai import resources
from recipes.tiny.commands.console import say, sentence

if TYPE_CHECKING:
    from recipes.tiny.commands.console import Commands
    from recipes.tiny.training import Log


def add(commands: Commands) -> None:
    """Add the command."""
    reproduce = commands.add_parser("reproduce", help="all stages of the shipped weights", description=run.__doc__)
    reproduce.add_argument("data", type=Path, metavar="DATA", help="folder with the training sets")
    reproduce.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="gone on with if begun")
    reproduce.add_argument("--network", choices=("first", "second"), help="one of the two (default: both)")
    reproduce.add_argument("--threads", type=int, default=1, help="of the processor (default: %(default)s)")
    reproduce.add_argument("--workers", type=int, default=1, help="processes that draw crops (default: %(default)s)")
    reproduce.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    reproduce.add_argument("-q", "--quiet", action="store_true", help="only what is written in the end")
    reproduce.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Train the first two networks as the shipped ones were: twelve trainings, 330,000 crops, 13 hours on a core.

    OUT gets a folder for every training, backbone.safetensors (the first network) and image_encoder.safetensors (the
    second), of the shipped ones' kind: the recipe has grown since their first stages, so not the same numbers. The
    text side and the learned prompts are the bundle's. What was done is not done again when the command is repeated.
    """
    from anomalyclip_monai.api import resolve_device
    from recipes.tiny.sources import fingerprint, read_subjects
    from recipes.tiny.stages import NETWORKS, reproduce

    def log(name: str) -> Log:
        def tell(line: dict[str, Any]) -> None:
            if not arguments.quiet:
                say(f"{name}: {sentence(line)}")

        return tell

    device = resolve_device(arguments.device)
    subjects = read_subjects(arguments.data)
    if others := unlike_the_record(fingerprint(arguments.data)):
        say(f"not the files that the shipped weights learned from: {', '.join(others)}")
    for network in [arguments.network] if arguments.network else NETWORKS:
        file = reproduce(
            NETWORKS[network],
            arguments.data,
            subjects,
            arguments.output,
            device=device,
            threads=arguments.threads,
            workers=arguments.workers,
            log=log,
        )
        say(f"{network} network: {file}")


def unlike_the_record(found: dict[str, str]) -> list[str]:
    """The training sets that are missing or whose files are not those of the shipped weights' record.

    Args:
        found: set -> sha256, see :func:`~recipes.tiny.sources.fingerprint`.
    """
    record = resources.bundle_root(resources.DEFAULT_BUNDLE) / "models" / "training.json"
    known: dict[str, str] = json.loads(record.read_text(encoding="utf-8"))["data_sha256"]
    return [name for name, digest in known.items() if found.get(name) != digest]
