"""What commands share: options, lines and progress bars on the terminal."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.options import ModelOptions, Option, OptionSet
from anomalyclip_monai.text import printable

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

Options = TypeVar("Options", bound=OptionSet)
_Step = TypeVar("_Step")


def add_options(parser: argparse.ArgumentParser, options: type[OptionSet], command: str) -> None:
    """The flags that a command has of a class of options; what was not given is None."""
    for known in options.known():
        if command not in known.commands:
            continue
        said: dict[str, Any] = {"dest": known.name, "default": None, "help": _help(known)}
        match known.kind:
            case "yes":
                said["action"] = "store_true"
            case "switch":
                said["action"] = argparse.BooleanOptionalAction
            case "texts" | "counts":
                said |= {"nargs": "+", "action": "extend", "metavar": known.metavar}
            case _:
                said["metavar"] = known.metavar or (f"{{{','.join(known.choices)}}}" if known.choices else None)
        parser.add_argument(known.flags, **said)


def _help(known: Option) -> str:
    default = f" (default: {known.default_in_words})" if known.default_in_words else ""
    return f"{known.help}{default}".replace("%", "%%")


def given_options(arguments: argparse.Namespace, options: type[Options]) -> Options:
    """What was given of a class of options, checked.

    Raises:
        UsageError: a value is none of its kind, or out of range (``E_OPTION``).
    """
    given = {name: getattr(arguments, name, None) for name in options.names()}
    return options(**{name: value for name, value in given.items() if value is not None})


def model_options(arguments: argparse.Namespace) -> ModelOptions:
    """The options of the network; of a bundle that does not come with the package one line says that it is code.

    Raises:
        UsageError: a value is wrong, there is no such bundle, or no place for temporary files.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as error:  # torch cannot be imported without one
        what = "there is no folder for temporary files that can be written"
        raise UsageError("E_WRITE", what, None, "set TMPDIR to one") from error
    if arguments.model is not None and arguments.backbone is not None:
        raise UsageError("E_OPTION", "--model and --backbone", None, "leave one out")
    chosen = given_options(arguments, ModelOptions)
    root = resources.bundle_root(chosen.model)
    if not resources.comes_with_the_package(root) and not arguments.quiet:
        say(f"running the code of a bundle that does not come with the package: {printable(root)}", to=sys.stderr)
    return chosen


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """``--quiet``, of every command that runs for a while."""
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars, only errors")


def inputs_of(texts: Sequence[str]) -> list[Path]:
    """Files and folders that were named, absolute.

    Raises:
        UsageError: a name is empty (``E_USAGE``).
    """
    return [path_of(text, "an input") for text in texts]


def path_of(text: str, what: str) -> Path:
    """A file or folder that was named, absolute.

    Raises:
        UsageError: the name is empty, which would stand for the working folder (``E_USAGE``).
    """
    if not text or "\0" in text:
        raise UsageError("E_USAGE", f"{what} has no name", None, "give a file or folder")
    return Path(os.path.abspath(text))


@contextmanager
def progress(
    quiet: bool,
) -> Iterator[tuple[Callable[[int, int], None], Callable[[Iterable[_Step]], Iterator[_Step]]]]:
    """A bar over the slices of a case and, for several cases, one over cases; none unless on a terminal."""
    from tqdm import tqdm

    off = quiet or not sys.stderr.isatty()
    slice_bar = tqdm(desc="slices", unit="slice", leave=False, disable=off, position=1)

    def slices(done: int, total: int) -> None:
        if done <= slice_bar.n or slice_bar.total != total:  # another case has begun
            slice_bar.reset(total)
        slice_bar.update(done - slice_bar.n)

    def cases(steps: Iterable[_Step]) -> Iterator[_Step]:
        total = len(steps) if isinstance(steps, Sized) else None
        yield from tqdm(steps, desc="cases", unit="case", leave=False, disable=off or total == 1, total=total)

    try:
        yield slices, cases
    finally:
        slice_bar.close()


def say(text: str, to: Any = None) -> None:
    """Print a line, above the progress bars; what it holds of names is shown on that line, whatever they hold."""
    from tqdm import tqdm

    tqdm.write(printable(text), file=to or sys.stdout)
