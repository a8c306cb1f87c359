"""Say how a state dict differs from what a module expects."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

SHOWN = 4
"""Differences that are named; the others are counted."""


def describe_mismatch(expected: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """Missing keys, unknown keys and other sizes in words; empty if there are none."""
    problems = [f"{key} is missing" for key in expected if key not in given]
    problems += [f"{key} is unknown" for key in given if key not in expected]
    problems += [
        f"{key} is {tuple(value.shape)}, not {tuple(expected[key].shape)}"
        for key, value in given.items()
        if key in expected and value.shape != expected[key].shape
    ]
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return ", ".join(problems[:SHOWN]) + more
