"""What the recipe's commands share: the type of the parser that they extend, and lines on the terminal."""

from __future__ import annotations

import argparse
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def say(text: str) -> None:
    """Print a line at once, so that a log shows how far a training of hours is."""
    print(text, flush=True)
