"""``anomalyclip report``: one page over all cases of an output folder."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from anomalyclip_monai.cli.console import path_of, say
from anomalyclip_monai.cli.exits import EXIT_DONE
from anomalyclip_monai.text import counted, printable

if TYPE_CHECKING:
    from anomalyclip_monai.cli.console import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    report = commands.add_parser("report", help="one page over the results of many cases", description=run.__doc__)
    report.add_argument("output", metavar="OUT", help="the folder that was given to localize with -o")
    report.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write OUT/index.html, a page over all cases of OUT, from their folders and cohort.csv."""
    out = path_of(arguments.output, "the output")
    from anomalyclip_monai.outputs.report.index import write_index

    page, entries = write_index(out)
    say(f"{counted(len(entries), 'case')} -> {printable(page)}")
    if without := sum(bool(entry.folder) and not entry.report for entry in entries):
        say(
            f"  {counted(without, 'case')} without report.html: their images are in the input alone; "
            "localize INPUT -o OUT --report --continue, with the options of the first run, adds the pages"
        )
    return EXIT_DONE
