"""The ``anomalyclip`` command. The only package that prints; everything it does is also in the Python API.

One module per command, which adds its options to the parser; what is slow to import is imported when a command runs.
Nothing slow is imported here, before signals are taken: an interrupt while the rest is imported ends in one line.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from anomalyclip_monai import __version__
from anomalyclip_monai.cli import signals
from anomalyclip_monai.cli.exits import EXIT_CASE_FAILED, EXIT_NOT_STARTED, fail
from anomalyclip_monai.exceptions import (
    AnomalyCLIPError,
    NoInputError,
    UsageError,
    WeightsError,
    innermost,
    known_cause,
)
from anomalyclip_monai.text import printable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0 all cases done, 1 at least one failed or nobody reads the output any more, 2 nothing could start, 130 after
        SIGINT, 143 after SIGTERM.
    """
    with signals.caught() as caught:
        _never_refuse_a_character()
        try:
            try:
                code = _run(argv)
            finally:
                _flush()
        except BrokenPipeError:  # the reader of our output has gone, as `head` does
            code = EXIT_CASE_FAILED
        except OSError as error:
            code = _fail_by_system(error)
        except SystemExit:  # of argparse, which has said why
            if caught.signal is None:
                raise
            code = caught.code
        except BaseException as error:
            # An interrupt in the middle of an import can come out as any other error.
            if caught.signal is not None or isinstance(error, KeyboardInterrupt):
                code = caught.code
            elif isinstance(error, Exception):
                code = _fail_unforeseen(error)
            else:
                raise
        if caught.signal is not None:
            code = caught.code
            with contextlib.suppress(OSError):
                print(caught.said, file=sys.stderr)
        _silence()
        return code


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    # What libraries log, or warn of, may hold values of headers; only this package's own warnings reach the terminal.
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    ours, once = logging.getLogger("anomalyclip_monai"), _Once()
    before = ours.level
    ours.setLevel(logging.ERROR if getattr(arguments, "quiet", False) else logging.WARNING)
    formatters = {handler: handler.formatter for handler in logging.root.handlers}
    for handler in formatters:
        handler.addFilter(once)
        handler.setFormatter(_OneLine())
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:
                warnings.simplefilter("ignore")
            code: int = arguments.run(arguments)
        return code
    except (UsageError, NoInputError, WeightsError) as error:
        return fail(error, EXIT_NOT_STARTED)
    except AnomalyCLIPError as error:
        return fail(error, EXIT_CASE_FAILED)
    except RecursionError:
        what = "a file is nested more deeply than any that is meant"
        return fail(UsageError("E_OPTION", what, None, "check the files that were given"), EXIT_NOT_STARTED)
    finally:
        ours.setLevel(before)
        for handler, formatter in formatters.items():
            handler.removeFilter(once)
            handler.setFormatter(formatter)


class _OneLine(logging.Formatter):
    """Shows a message on one line, whatever the names in it hold."""

    def format(self, record: logging.LogRecord) -> str:
        """The message alone."""
        return printable(record.getMessage())


class _Once(logging.Filter):
    """Lets a warning of ours through once in a run, be it that several parts of a command look at the same folder."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is an error, or ours and not said yet."""
        if record.levelno < logging.ERROR and not record.name.startswith("anomalyclip_monai"):
            return False  # some libraries set levels of their own
        message = record.getMessage()
        new = record.levelno != logging.WARNING or message not in self._said
        self._said.add(message)
        return new


def _fail_by_system(error: OSError) -> int:
    """One line for what the operating system refused and no part of the program foresaw."""
    what = error.strerror or str(error)
    with contextlib.suppress(OSError):
        return fail(AnomalyCLIPError("E_SYSTEM", what, error.filename, "see what the system says"), EXIT_CASE_FAILED)
    return EXIT_CASE_FAILED


def _fail_unforeseen(error: Exception) -> int:
    """One line for a mistake of ours; its traceback goes to the log of the level DEBUG."""
    logging.getLogger(__name__).debug("unexpected error", exc_info=error)
    unknown = AnomalyCLIPError("E_INTERNAL", f"unexpected {innermost(error)}", None, "please report this line")
    with contextlib.suppress(OSError):
        return fail(known_cause(error) or unknown, EXIT_CASE_FAILED)
    return EXIT_CASE_FAILED


def _never_refuse_a_character() -> None:
    r"""Show what the terminal's encoding lacks as ``\xe4`` rather than end the run."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Write what is still to be written, as long as an error can be told.

    Raises:
        OSError: the reader has gone, or the disk is full.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _silence() -> None:
    """Let nothing that could not be written make noise at the very end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a request, whatever its words hold."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _parser() -> argparse.ArgumentParser:
    from anomalyclip_monai.cli import calibrate, demo, evaluate, info, localize, report, serve, train, weights

    parser = _Parser(
        prog="anomalyclip",
        description="Zero-shot lesion localisation in medical images. Research use only, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"anomalyclip-monai {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (localize, report, calibrate, evaluate, train, serve, demo, info, weights):  # in the order of --help
        command.add(commands)
    return parser
