"""How measures are written: hundredths with one decimal, intervals in brackets, footnotes where there is no value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_VALUE = "\N{EN DASH}"
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Footnotes:
    """Numbers reasons in the order in which they come up, each once."""

    def __init__(self) -> None:
        self._reasons: list[str] = []

    def mark(self, reason: str) -> str:
        """-> the superscript number of this reason."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        return str(self._reasons.index(reason) + 1).translate(_SUPERSCRIPTS)

    def lines(self) -> list[str]:
        """-> one line for each number."""
        return [f"{self.mark(reason)} undefined: {reason}" for reason in self._reasons]


def number(name: str, value: float) -> str:
    """The value of a measure: a volume (``*_ml``) in ml, a ``*threshold*`` as it is, all others in hundredths."""
    if name.endswith("_ml"):
        text = f"{value:z.1f}"
    elif "threshold" in name:
        text = f"{value:z.3f}"
    else:
        text = f"{100 * value:z.1f}"
    return text.replace("-", "\N{MINUS SIGN}")


def measured(name: str, entry: Mapping[str, Any] | None, footnotes: Footnotes) -> str:
    """One cell of a table, for example ``82.4 ± 0.6 [80.1, 84.9]``.

    Args:
        name: of the measure.
        entry: ``{"value", "low", "high", "sd"}``, where all but the value may be None or absent, or
            ``{"undefined": reason}``; None where a method does not have this measure.
        footnotes: take the reason why there is no value.
    """
    if entry is None:
        return ""
    if "undefined" in entry:
        return f"{NO_VALUE} {footnotes.mark(entry['undefined'])}"
    text = number(name, entry["value"])
    if entry.get("sd") is not None:
        text += f" ± {number(name, entry['sd'])}"
    return text + interval(name, entry)


def interval(name: str, entry: Mapping[str, Any]) -> str:
    """-> `` [low, high]``, or nothing where there is none."""
    low, high = entry.get("low"), entry.get("high")
    return "" if low is None or high is None else f" [{number(name, low)}, {number(name, high)}]"


def difference(name: str, value: float) -> str:
    """-> the value with its sign, a plain 0 without."""
    text = number(name, value)
    return text if value <= 0 or text == number(name, 0) else f"+{text}"


def from_published(name: str, entry: Mapping[str, Any] | None, published: float | None) -> str:
    """-> value minus published value; nothing where one of them is missing."""
    if entry is None or published is None or "undefined" in entry:
        return ""
    return difference(name, entry["value"] - published)


def p_value(p: float) -> str:
    """-> three decimals, as journals ask for."""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def counted(count: int, noun: str) -> str:
    """-> ``1 case``, ``2 cases``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """File names can hold anything: control characters, half of a surrogate pair and the like become ``?``."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
