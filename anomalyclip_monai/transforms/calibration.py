"""A threshold that was fitted on a user's own normal cases: its file, and for what it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalyclip_monai.exceptions import CaseError, UsageError
from anomalyclip_monai.files import read_text
from anomalyclip_monai.transforms.findings import Threshold

SCHEMA = "anomalyclip-calibration/1"
"""Named in the file; another number is another form."""

_AGAIN = "calibrate again, or use the same settings"


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold, where it comes from, and the only settings for which it holds.

    Attributes:
        threshold: value in (0, 1], low in [0, value], and as origin one sentence.
        preset: of all cases that it was fitted on.
        conditions: model and settings that make heatmap and mask, JSON types.
        details: what else the file tells: the wanted false alarm, the cases, versions.
    """

    threshold: Threshold
    preset: str
    conditions: dict[str, Any]
    details: dict[str, Any]

    def to_json(self) -> str:
        """Content of the file."""
        found = self.threshold
        head = {"schema": SCHEMA, "threshold": found.value, "threshold_low": found.low, "origin": found.origin}
        return (
            json.dumps(
                {**head, "preset": self.preset, "conditions": self.conditions, **self.details},
                indent=2,
                allow_nan=False,
            )
            + "\n"
        )

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """From a file.

        Raises:
            UsageError: it is not there, or no calibration (``E_CALIBRATION``).
        """
        todo = "give the file that anomalyclip calibrate wrote"
        try:
            content = json.loads(read_text(path))
            if content.pop("schema") != SCHEMA:
                raise ValueError
            value = float(content.pop("threshold"))
            low = float(content.pop("threshold_low", value))  # earlier files have one threshold
            threshold = Threshold(value, low, str(content.pop("origin")))
            preset, conditions = str(content.pop("preset")), dict(content.pop("conditions"))
            if not (0 < value <= 1 and 0 <= low <= value):
                raise ValueError
        except OSError as error:
            raise UsageError("E_CALIBRATION", "the file cannot be read", path, todo) from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UsageError("E_CALIBRATION", "this is no calibration", path, todo) from error
        return cls(threshold, preset, conditions, details=content)

    def require(self, conditions: Mapping[str, Any], path: Path) -> None:
        """Check that model and settings are those it was made with.

        Raises:
            UsageError: they are not (``E_CALIBRATION``).
        """
        for name in sorted({*self.conditions, *conditions}, key=lambda name: (name != "model", name)):
            made, now = _normal(self.conditions.get(name)), _normal(conditions.get(name))
            if made == now:
                continue
            if name == "model":
                todo = "calibrate again with this model"
                raise UsageError("E_CALIBRATION", "the threshold was fitted for another model", path, todo)
            what = f"the threshold was fitted with {name} {_said(made)}, this run has {_said(now)}"
            raise UsageError("E_CALIBRATION", what, path, _AGAIN)

    def require_preset(self, preset: str, path: Path) -> None:
        """Check that a case has the preset it was made with.

        Raises:
            CaseError: it has another one (``E_CALIBRATION``).
        """
        if preset != self.preset:
            what = f"the threshold was fitted with preset {self.preset}, this case has {preset}"
            raise CaseError("E_CALIBRATION", what, path, f"calibrate on {preset} cases, or use --preset {self.preset}")


def plain_conditions(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions as JSON types, the same for settings that mean the same."""
    return {name: _normal(value) for name, value in conditions.items()}


def _normal(value: Any) -> Any:
    """A number written as text and a list written with commas are what they say."""
    if isinstance(value, Mapping):
        return {str(key): _normal(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return ",".join(str(entry) for entry in value)
    if value is None or isinstance(value, bool):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value).replace(" ", "")


def _said(value: Any) -> str:
    return "its default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
