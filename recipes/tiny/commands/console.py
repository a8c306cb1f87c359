"""What the recipe's commands share: the type of the parser that they extend, and lines on the terminal."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def say(text: str) -> None:
    """Print a line at once, so that a log shows how far a training of hours is."""
    print(text, flush=True)


def sentence(line: Mapping[str, Any]) -> str:
    """A line of a training's curve as text."""
    values = line.get("validation") or {"loss": line["loss"]}
    return f"{line['crops']} crops, {line['seconds']:.0f} s: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items())
