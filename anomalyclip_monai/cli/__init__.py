"""The ``anomalyclip`` command. The only package that prints; everything it does is also in the Python API.

One module per command, which adds its options to the parser; what is slow to import is imported when a command runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from anomalyclip_monai import __version__
from anomalyclip_monai.cli import calibrate, demo, evaluate, info, localize, train, weights
from anomalyclip_monai.cli.console import (
    EXIT_CASE_FAILED,
    EXIT_INTERRUPTED,
    EXIT_NOT_STARTED,
    fail,
    use_escapes_for_what_the_terminal_cannot_show,
)
from anomalyclip_monai.exceptions import AnomalyCLIPError, NoInputError, UsageError, WeightsError
from anomalyclip_monai.text import printable

COMMANDS = (localize, calibrate, evaluate, train, demo, info, weights)
"""The modules of the commands, in the order of ``--help``."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; -> 0 all cases done, 1 at least one failed, 2 nothing could start."""
    use_escapes_for_what_the_terminal_cannot_show()
    arguments = _parser().parse_args(argv)
    # What libraries log may hold values of headers; only this package's own warnings reach the terminal.
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.getLogger("anomalyclip_monai").setLevel(logging.WARNING)
    try:
        code: int = arguments.run(arguments)
        return code
    except (UsageError, NoInputError, WeightsError) as error:
        return fail(error, EXIT_NOT_STARTED)
    except AnomalyCLIPError as error:
        return fail(error, EXIT_CASE_FAILED)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CASE_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a request, whatever its words hold."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="anomalyclip",
        description="Zero-shot lesion localisation in medical images. Research use only, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"anomalyclip-monai {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
