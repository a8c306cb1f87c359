"""The options of a viewer's request: values as text, or whole lists of choices, on top of those of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.options import CaseOptions, ModelOptions, Option

_CHOICES = {
    "preset": lambda: ("auto", *resources.presets()),
    "slice_axis": lambda: ("auto", "axial", "coronal", "sagittal"),
    "axes": lambda: ("auto", "1", "3"),
}
"""What viewers offer in a list; a request may hold what the command takes as well."""


@dataclass(frozen=True)
class Asked:
    """How requests are understood.

    Attributes:
        model: options of the network that the server was started with.
        case: the same of cases.
    """

    model: ModelOptions
    case: CaseOptions

    def shown(self) -> dict[str, Any]:
        """Name -> default, or choices with the default first: what a viewer shows. A file is shown by its name."""
        found: dict[str, Any] = {}
        for known in CaseOptions.known():
            if not known.displayed:
                continue
            own = self._shown_default(known.name)
            choices = _CHOICES[known.name]() if known.name in _CHOICES else ()
            found[known.name] = list(dict.fromkeys([own, *choices])) if choices else own
        return found | {"fast": bool(self.model.fast)}

    def options(self, request: Mapping[str, Any]) -> tuple[ModelOptions, CaseOptions]:
        """The server's options with those of a request; what is empty, or shown as the default, is the server's.

        Raises:
            UsageError: a value is none of its option's, or a file of the server's (``E_OPTION``).
        """
        given: dict[str, Any] = {}
        for known in CaseOptions.known():
            value = _chosen(request.get(known.name))
            if value not in (None, "", self._shown_default(known.name)):
                given[known.name] = _value(known, value)
        case = CaseOptions(**{**self.case.given(), **given})
        fast = _chosen(request.get("fast"))
        if fast in (None, ""):
            return self.model, case
        known_fast = next(known for known in ModelOptions.known() if known.name == "fast")
        return ModelOptions(**{**self.model.given(), "fast": _value(known_fast, fast) or None}), case

    def _shown_default(self, name: str) -> str:
        own = getattr(self.case, name)
        if own is None:
            return "auto"
        if isinstance(own, (tuple, list)):
            return ",".join(map(str, own))
        return Path(str(own)).name


def _chosen(value: Any) -> Any:
    """The first of a list of choices, which a viewer hands back where nothing was chosen."""
    return (value[0] if value else None) if isinstance(value, (list, tuple)) else value


def _value(known: Option, given: Any) -> Any:
    """A text of a request as a value of an option; numbers, and yes or no, in any of their spellings.

    Raises:
        UsageError: it is none of its kind, or a path (``E_OPTION``).
    """
    if known.kind in ("switch", "yes"):
        given = {"true": True, "false": False}.get(str(given).lower(), given)
    elif known.kind == "text":
        given = str(given)
        if "/" in given or "\\" in given or given.strip().endswith((".json", ".yaml", ".yml")):
            todo = "the files of a preset or a calibration are chosen when the server starts"
            raise UsageError("E_OPTION", f"{known.name} {given[:80]!r} is a file", None, todo)
    return known.value(given)
