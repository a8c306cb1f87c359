"""YAML as data: small, shallow, without aliases, nothing of it run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from anomalyclip_monai.exceptions import UsageError

MAX_BYTES = 64 * 1024
"""A preset has about one thousand."""

MAX_DEPTH = 8
"""Lists and mappings inside each other; a preset has two."""


def read_yaml(path: Path, code: str) -> Any:
    """Content of a file: mappings, lists, texts, numbers, yes and no, dates.

    An alias (``*name``) is refused: a few lines of aliases of aliases are a billion entries. Size and depth are known
    before anything is built.

    Args:
        path: the file.
        code: of the error.

    Raises:
        UsageError: it cannot be read, is no YAML, or is beyond the limits (``code``).
    """
    todo = "copy an installed preset and change it"
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise UsageError(code, f"the file is larger than {MAX_BYTES // 1024} kB", path, todo)
        text = content.decode("utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise UsageError(code, "the file has aliases", path, "write the values out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise UsageError(code, f"the file is more than {MAX_DEPTH} levels deep", path, todo)
        return yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise UsageError(code, "not a YAML file", path, "give a preset") from error
