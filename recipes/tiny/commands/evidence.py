"""``python -m recipes.tiny evidence``: reports of organs as a part of a bundle's measured numbers."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from anomalyclip_monai import resources
from recipes.tiny.commands.console import say

if TYPE_CHECKING:
    from anomalyclip_monai.outputs.report.content import Report
    from recipes.evidence import Part
    from recipes.tiny.commands.console import Commands

OF_SHIPPED = ("organs", "organs_fast")
"""Parts from one report of the shipped weights; of the second only the first network ran."""

HELD_OUT = "held_out_organs"
"""The part from reports of trainings that went without organs."""


def add(commands: Commands) -> None:
    """Add the command."""
    evidence = commands.add_parser(
        "evidence", help="put reports of organs into a bundle's measured numbers", description=run.__doc__
    )
    evidence.add_argument(
        "reports",
        nargs="+",
        metavar="REPORT",
        help=f"report.json of anomalyclip evaluate organs; of {HELD_OUT} one for each training and seed, as "
        "kidney,liver=REPORT: the organs that it went without",
    )
    evidence.add_argument("--part", choices=(*OF_SHIPPED, HELD_OUT), default=OF_SHIPPED[0], help="default: %(default)s")
    evidence.add_argument(
        "--bundle", default=resources.DEFAULT_BUNDLE, help="name or folder of the bundle (default: %(default)s)"
    )
    evidence.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Write a part of the bundle's docs/evidence.json, from which python tools/generate.py makes texts and tables."""
    from recipes.evidence import evidence_file, update

    root = resources.bundle_root(arguments.bundle)
    part = _held_out(arguments.reports) if arguments.part == HELD_OUT else _organs(arguments, root)
    path = evidence_file(root)
    update(path, arguments.part, part)
    say(f"{arguments.part}: {len(part.measurements)} numbers in {path}")


def _organs(arguments: argparse.Namespace, root: Path) -> Part:
    from anomalyclip_monai.exceptions import UsageError
    from recipes.evidence.parts import Provenance, check_weights, organs_part

    if len(arguments.reports) > 1:
        raise UsageError("E_OPTION", f"{len(arguments.reports)} reports for {arguments.part}", None, "give one")
    report, measured = _read(arguments.reports[0])
    check_weights(report, root, fast=arguments.part == OF_SHIPPED[1])
    return organs_part(report, Provenance.now(measured))


def _held_out(texts: list[str]) -> Part:
    from anomalyclip_monai.exceptions import UsageError
    from recipes.evidence.parts import Provenance, held_out_part
    from recipes.tiny.organs.sets import FIRST_ORGANS

    trainings: dict[str, list[Report]] = {}
    days = []
    for text in texts:
        organs, separator, path = text.partition("=")
        if not separator:
            raise UsageError("E_OPTION", f"{text!r} does not say which organs", None, "give ORGAN,ORGAN=REPORT")
        report, measured = _read(path)
        trainings.setdefault(organs, []).append(report)
        days.append(measured)
    return held_out_part(trainings, Provenance.now(max(days)), FIRST_ORGANS)


def _read(path: str) -> tuple[Report, datetime.date]:
    """A report and the day on which it was written."""
    from anomalyclip_monai.outputs.report.content import read_report

    report = read_report(Path(path))
    return report, datetime.datetime.fromtimestamp(Path(path).stat().st_mtime, datetime.UTC).date()
