"""What a measure is where it has no value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, TypeGuard


@dataclass(frozen=True, slots=True)
class Undefined:
    """A measure that these data do not define, for example AUROC without a normal image.

    It is neither 0 nor NaN, so that no mean or table can take it for a number by mistake.

    Attributes:
        reason: why, in words for a table's footnote.
    """

    reason: str

    def __str__(self) -> str:
        return f"undefined ({self.reason})"


Value: TypeAlias = float | Undefined
"""A measure, or why there is none."""


def is_defined(value: Value) -> TypeGuard[float]:
    """Whether the measure has a value."""
    return not isinstance(value, Undefined)


def class_missing(positives: int, negatives: int, of: str) -> Undefined | None:
    """Why ranking measures have no value, if one of the two classes is empty.

    Args:
        positives: how many abnormal ones there are.
        negatives: how many normal ones there are.
        of: what is counted, for example ``image`` or ``pixel``.
    """
    if not positives and not negatives:
        return Undefined(f"no {of}")
    if not positives:
        return Undefined(f"no abnormal {of}")
    if not negatives:
        return Undefined(f"no normal {of}")
    return None
