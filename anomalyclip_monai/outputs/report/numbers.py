"""How measures are written: hundredths with one decimal, intervals in brackets, footnotes where there is no value."""

from __future__ import annotations

from anomalyclip_monai.outputs.report.content import Difference, Measure

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
    """A measure: ``*_ml`` in ml, numbers (``*_lesions``) and ``*threshold*`` as they are, all others in hundredths."""
    if name.endswith("_ml"):
        text = f"{value:z.1f}"
    elif name.endswith("_lesions"):
        text = f"{value:z.2f}"
    elif "threshold" in name:
        text = f"{value:z.3f}"
    else:
        text = f"{100 * value:z.1f}"
    return text.replace("-", "\N{MINUS SIGN}")


def measured(name: str, measure: Measure | None, footnotes: Footnotes) -> str:
    """One cell of a table, for example ``82.4 ± 0.6 [80.1, 84.9]``.

    Args:
        name: of the measure.
        measure: None where a method does not have it.
        footnotes: take the reason why there is no value.
    """
    if measure is None:
        return ""
    if measure.value is None:
        return f"{NO_VALUE} {footnotes.mark(str(measure.undefined))}"
    text = number(name, measure.value)
    if measure.sd is not None:
        text += f" ± {number(name, measure.sd)}"
    return text + interval(name, measure)


def interval(name: str, found: Measure | Difference) -> str:
    """-> `` [low, high]``, or nothing where there is none; `` (low, high)`` over classes where there is that."""
    ends = (("[]", found.low, found.high), ("()", found.classes_low, found.classes_high))
    return "".join(
        f" {brackets[0]}{number(name, low)}, {number(name, high)}{brackets[1]}"
        for brackets, low, high in ends
        if low is not None and high is not None
    )


def difference(name: str, value: float) -> str:
    """-> the value with its sign, a plain 0 without."""
    text = number(name, value)
    return text if value <= 0 or text == number(name, 0) else f"+{text}"


def from_published(name: str, measure: Measure | None, published: float | None) -> str:
    """-> value minus published value; nothing where one of them is missing."""
    if measure is None or measure.value is None or published is None:
        return ""
    return difference(name, measure.value - published)


def p_value(p: float) -> str:
    """-> three decimals, as journals ask for."""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")
