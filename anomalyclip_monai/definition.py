"""A bundle's configuration files with values put in: the one door between what a user typed and MONAI's language.

MONAI's ``ConfigParser`` evaluates every string that begins with ``$`` and follows ``@`` and ``%``, wherever it stands.
That is right for what a bundle's author wrote and wrong for a folder's name. Here a value enters the configuration as
an expression that looks it up, ``$_given[3]``, and never as text, so that it arrives as the very object it was.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from anomalyclip_monai.exceptions import UsageError

_GIVEN = "_given"
"""Name under which the expressions find the values."""

_TARGET = "_target_"


def configured(
    files: Sequence[Path], values: Mapping[str, Any], components: Mapping[str, Mapping[str, Any]] | None = None
) -> ConfigParser:
    """Configuration files of a bundle, the later over the earlier, with values in the place of their entries.

    Args:
        files: such as ``configs/inference.json`` and ``configs/evaluate.json`` of one bundle. They are code.
        values: id in the configuration, such as ``output_dir`` -> value, which nothing parses.
        components: id -> definition with ``_target_``, whose arguments are plain values in the same way.

    Raises:
        UsageError: a file is missing or no JSON object (``E_MODEL``).
    """
    parser = ConfigParser(config={})
    for file in files:
        for key, value in read_definition(file).items():
            merge_kv(parser, key, value)
    given: list[Any] = []

    def door(value: Any) -> str:
        given.append(value)
        return f"${_GIVEN}[{len(given) - 1}]"

    for key, component in (components or {}).items():
        parser[key] = _arguments_through(component, door)
    for key, value in values.items():
        parser[key] = door(value)
    filled = ConfigParser(config=parser.get(), globals={_GIVEN: given})
    return filled


def read_definition(file: Path) -> dict[str, Any]:
    """Content of a bundle's configuration file, nothing of it resolved; the caller's own copy.

    Raises:
        UsageError: it is missing or no JSON object (``E_MODEL``).
    """
    try:
        stat = file.stat()
        return copy.deepcopy(_read_json(file, stat.st_size, stat.st_mtime_ns))
    except (OSError, ValueError, RecursionError) as error:
        what = f"the bundle's configuration cannot be read ({type(error).__name__})"
        raise UsageError("E_MODEL", what, file, "choose another model, or reinstall this one") from error


_contents: dict[Path, tuple[int, int, dict[str, Any]]] = {}


def _read_json(file: Path, size: int, modified: int) -> dict[str, Any]:
    """The same object as long as size and time of the file stay: a definition is read once."""
    if (known := _contents.get(file)) and known[:2] == (size, modified):
        return known[2]
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("no object")
    _contents[file] = size, modified, content
    return content


def _arguments_through(component: Any, door: Any) -> Any:
    if isinstance(component, Mapping):
        return {key: value if key == _TARGET else _arguments_through(value, door) for key, value in component.items()}
    if isinstance(component, (list, tuple)):
        return [_arguments_through(value, door) for value in component]
    return door(component)


# MONAI warns on every start of a bundle that configurations can run code; ours come with the package, and of another
# bundle the command line says that it is code.
warnings.filterwarnings("ignore", message=".*_target_.*", category=UserWarning, module="monai.bundle.*")
