"""Fit the threshold on normal cases: whatever the mask holds there is a false alarm."""

from __future__ import annotations

import datetime
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import generate_binary_structure, label

from anomalyclip_monai.data.geometry import voxel_volume
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, UsageError
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.resources import installed_version
from anomalyclip_monai.text import counted
from anomalyclip_monai.transforms.calibration import Calibration, plain_conditions
from anomalyclip_monai.transforms.post import default_min_volume, smallest_lesion

STEPS = 10_000
"""The threshold is a multiple of one over this."""

LEVELS = (np.arange(1, STEPS + 1) / STEPS).astype(np.float32)
"""All thresholds that are tried, as a float32 heatmap is compared with them."""

_VERSIONED = ("anomalyclip-monai", "torch", "open_clip_torch")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The false alarm that is allowed.

    Attributes:
        amount: at most this much mask in a normal case.
        unit: ``ml``, or ``share`` of all voxels or pixels.
        quantile: in this share of the cases; None for the mean over the cases.

    Raises:
        UsageError: a value is out of range (``E_FALSE_ALARM``).
    """

    amount: float = 1.0
    unit: Literal["ml", "share"] = "ml"
    quantile: float | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.amount < (math.inf if self.unit == "ml" else 1)):
            limits = "0 or more ml" if self.unit == "ml" else "a share from 0 to below 1"
            raise UsageError("E_FALSE_ALARM", f"{self.amount:g} is no false alarm to aim at", None, f"give {limits}")
        if self.quantile is not None and not 0 < self.quantile <= 1:
            raise UsageError("E_FALSE_ALARM", f"{self.quantile:g} is no share of cases", None, "give one up to 1")

    def over_cases(self, amounts: NDArray[np.float64]) -> float:
        """(N,) amounts of the cases -> the one number that must not exceed ``amount``."""
        if self.quantile is None:
            return float(amounts.mean())
        return float(np.sort(amounts)[math.ceil(self.quantile * len(amounts) - 1e-9) - 1])

    def allows(self, amount: float) -> bool:
        """Whether this is not too much, the rounding of sums aside."""
        return amount <= self.amount * (1 + 1e-9)

    def said(self, amount: float) -> str:
        """An amount of mask, in words."""
        much = f"{amount:.3g} ml" if self.unit == "ml" else f"{amount:.3g} of the picture"
        among = "per case on average" if self.quantile is None else f"in {self.quantile:.0%} of the cases"
        return f"{much} of false mask {among}"


@dataclass(slots=True)
class _Case:
    """A normal case: its heatmap as indices into ``LEVELS`` lies in ``file``."""

    name: str
    file: Path
    smallest: int
    voxel: float
    before: float
    peak: float
    amounts: dict[int, float] = field(default_factory=dict)

    def amount(self, level: int) -> float:
        """What the mask holds at ``LEVELS[level - 1]``, without components that are too small."""
        if level not in self.amounts:
            inside = np.load(self.file) >= level
            components, _ = label(inside, generate_binary_structure(inside.ndim, inside.ndim))
            sizes = np.bincount(components.ravel())[1:]
            self.amounts[level] = float(sizes[sizes >= self.smallest].sum() * self.voxel)
        return self.amounts[level]


class Calibrator:
    """Collects results of normal cases and finds the smallest threshold that keeps the false alarm as small as wanted.

    The mask shrinks as the threshold rises, without small components too: what is left of a component lies in a
    larger one. So bisection finds the threshold, to 1 / :data:`STEPS`. Heatmaps are kept on disk meanwhile, two bytes
    a voxel; a context manager that removes them.

    Args:
        wanted: the false alarm that is allowed.
        min_volume: smaller components do not count, see :class:`~anomalyclip_monai.transforms.FindLesionsd`.

    Attributes:
        failed: case -> its error.
    """

    def __init__(self, wanted: Wanted, min_volume: float | None = None) -> None:
        self.wanted = wanted
        self.min_volume = min_volume
        self.failed: dict[str, AnomalyCLIPError] = {}
        self._cases: list[_Case] = []
        self._preset = ""
        self._folder = tempfile.TemporaryDirectory(prefix="anomalyclip-calibrate-")

    def __enter__(self) -> Calibrator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    def __len__(self) -> int:
        return len(self._cases)

    def add(self, result: Result) -> None:
        """Take a normal case, or note that it failed.

        Raises:
            UsageError: it has another preset than those before (``E_MIXED``), or no physical size where ml are wanted
                (``E_FALSE_ALARM``).
        """
        if result.error is not None or result.heatmap is None or result.mask is None:
            self.failed[result.case] = result.error or CaseError("E_RESULT", "no result", None, "report this")
            return
        physical, preset = result.source.has_physical_size, str(result.preset["name"])
        if self.wanted.unit == "ml" and not physical:
            what = f"{result.case} has no physical size, so no ml"
            raise UsageError("E_FALSE_ALARM", what, None, "give --false-alarm-share")
        if self._preset not in ("", preset):
            what = f"the cases have several presets: {self._preset}, {result.case} {preset}"
            raise UsageError("E_MIXED", what, None, "calibrate one kind of image at a time, or give --preset")
        self._preset = preset
        heatmap, mask = np.asarray(result.heatmap[0]), np.asarray(result.mask[0])
        mm3 = voxel_volume(result.affine) if physical else 1.0
        voxel = mm3 / 1000 if self.wanted.unit == "ml" else 1 / heatmap.size
        least = default_min_volume(physical) if self.min_volume is None else self.min_volume
        file = Path(self._folder.name) / f"{len(self._cases)}.npy"
        np.save(file, np.searchsorted(LEVELS, heatmap, side="right").astype(np.uint16))
        before, peak = float(np.count_nonzero(mask) * voxel), float(heatmap.max())
        self._cases.append(_Case(result.case, file, smallest_lesion(least, mm3), voxel, before, peak))

    def fit(self, conditions: Mapping[str, Any]) -> Calibration:
        """The smallest threshold whose false alarm is at most the wanted one.

        Args:
            conditions: model and settings with which the results were made.

        Raises:
            CaseError: no case could be scored (``E_CASES``).
            UsageError: no threshold is high enough (``E_CALIBRATION``).
        """
        if not self._cases:
            reasons = "; ".join(f"{case}: {error}" for case, error in self.failed.items()) or "there is none"
            raise CaseError("E_CASES", f"no normal case could be scored: {reasons}", None, "give readable ones")
        if not self.wanted.allows(self._reached(STEPS)):
            what = f"even a threshold of 1 leaves {self.wanted.said(self._reached(STEPS))}"
            raise UsageError("E_CALIBRATION", what, None, "allow more, or check that the cases are normal")
        low, high = 0, STEPS  # the false alarm at low is too large, or low is no threshold
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.wanted.allows(self._reached(middle)) else (middle, high)
        reached, date = self._reached(high), datetime.date.today().isoformat()
        count = counted(len(self), f"normal {self._preset} case")
        rows = [
            {"case": case.name, "false_alarm": case.amount(high), "before": case.before, "peak": case.peak}
            for case in self._cases
        ]
        wanted = {"amount": self.wanted.amount, "unit": self.wanted.unit, "quantile": self.wanted.quantile}
        details = {
            "date": date,
            "wanted": wanted,
            "reached": reached,
            "before": self.wanted.over_cases(np.array([case.before for case in self._cases])),
            "cases": rows,
            "failed": [{"case": case, "error": str(error)} for case, error in self.failed.items()],
            "versions": {name: installed_version(name) for name in _VERSIONED},
        }
        origin = f"calibrated on {count}, {date}, at most {self.wanted.said(self.wanted.amount)}"
        return Calibration(high / STEPS, origin, self._preset, plain_conditions(conditions), details)

    def _reached(self, level: int) -> float:
        return self.wanted.over_cases(np.array([case.amount(level) for case in self._cases]))
