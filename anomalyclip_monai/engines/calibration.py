"""Fit the threshold on normal cases, where all mask is false alarm, and that of outlines on cases with lesions."""

from __future__ import annotations

import datetime
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from anomalyclip_monai.data.benchmarks import Sample, read_truth
from anomalyclip_monai.data.geometry import voxel_volume
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, UsageError
from anomalyclip_monai.metrics.ranking import dice
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.resources import installed_version
from anomalyclip_monai.text import counted
from anomalyclip_monai.transforms.calibration import Calibration, plain_conditions
from anomalyclip_monai.transforms.findings import Threshold
from anomalyclip_monai.transforms.outline import lesion_mask
from anomalyclip_monai.transforms.post import default_min_volume, smallest_lesion

STEPS = 10_000
"""The threshold is a multiple of one over this."""

LEVELS = (np.arange(1, STEPS + 1) / STEPS).astype(np.float32)
"""All thresholds that are tried, as a float32 heatmap is compared with them."""

PARTS = 20
"""The thresholds of the outlines that are tried are so many parts of the threshold: a twentieth, two, ... all."""

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
    """A case: its heatmap as indices into ``LEVELS`` lies in ``file``, with a lesion the true one in ``truth``."""

    name: str
    file: Path
    smallest: int
    voxel: float
    before: float
    peak: float
    truth: Path | None = None
    amounts: dict[tuple[int, int], float] = field(default_factory=dict)

    def mask(self, level: int, low: int) -> NDArray[np.bool_]:
        """(X, Y, Z) at ``LEVELS[level - 1]`` and outlines from ``LEVELS[low - 1]``, without small components."""
        return lesion_mask(np.load(self.file), level, low, smallest=self.smallest)

    def amount(self, level: int, low: int) -> float:
        """What the mask holds."""
        if (level, low) not in self.amounts:
            self.amounts[level, low] = float(np.count_nonzero(self.mask(level, low)) * self.voxel)
        return self.amounts[level, low]

    def dice(self, level: int, low: int) -> float:
        """Of the mask and the true lesion, which is there."""
        with np.load(cast(Path, self.truth)) as truth:
            known = truth["known"]
            return cast(float, dice(truth["lesion"][known], self.mask(level, low)[known], 1))


class Calibrator:
    """Collects results of normal cases and finds the smallest threshold that keeps the false alarm as small as wanted.

    Where there are cases with lesions as well, outlines reach down to the threshold, at or below that one, of the best
    mean Dice on them; else there is one threshold. The false alarm that is wanted is that before outlines grow.

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
        self._ill: list[_Case] = []
        self._wants_ill = False
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

    def add(self, result: Result, sample: Sample | None = None) -> None:
        """Take a case, or note that it failed.

        Args:
            result: of a normal case, or with a ``sample`` of one that may have a lesion.
            sample: whose masks show the true lesion; without one in them it does not count.

        Raises:
            UsageError: it has another preset than those before (``E_MIXED``), or no physical size where ml are wanted
                (``E_FALSE_ALARM``).
        """
        self._wants_ill |= sample is not None
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
        file = Path(self._folder.name) / f"{len(self._cases)}-{len(self._ill)}.npy"
        before, peak = float(np.count_nonzero(mask) * voxel), float(heatmap.max())
        case = _Case(result.case, file, smallest_lesion(least, mm3), voxel, before, peak)
        if sample is not None:
            try:
                truth = read_truth(sample, heatmap.shape, result.affine if sample.volume else None)
            except AnomalyCLIPError as error:
                self.failed[result.case] = error
                return
            if not truth.lesion.any():
                return
            case.truth = file.with_suffix(".npz")
            known = np.ones_like(truth.lesion) if truth.counted is None else truth.counted
            np.savez_compressed(case.truth, lesion=truth.lesion, known=known)
        np.save(file, np.searchsorted(LEVELS, heatmap, side="right").astype(np.uint16))
        (self._cases if sample is None else self._ill).append(case)

    def fit(self, conditions: Mapping[str, Any]) -> Calibration:
        """The smallest threshold whose false alarm is at most the wanted one.

        Args:
            conditions: model and settings with which the results were made.

        Raises:
            CaseError: no case could be scored, or none of those that should have a lesion (``E_CASES``).
            UsageError: no threshold is high enough (``E_CALIBRATION``).
        """
        if not self._cases:
            reasons = "; ".join(f"{case}: {error}" for case, error in self.failed.items()) or "there is none"
            raise CaseError("E_CASES", f"no normal case could be scored: {reasons}", None, "give readable ones")
        if self._wants_ill and not self._ill:
            reasons = "; ".join(f"{case}: {error}" for case, error in self.failed.items()) or "no mask shows a lesion"
            raise CaseError("E_CASES", f"no case with a lesion could be scored: {reasons}", None, "give readable ones")
        if not self.wanted.allows(self._reached(STEPS)):
            what = f"even a threshold of 1 leaves {self.wanted.said(self._reached(STEPS))}"
            raise UsageError("E_CALIBRATION", what, None, "allow more, or check that the cases are normal")
        below, level = 0, STEPS  # the false alarm at below is too large, or below is no threshold
        while level - below > 1:
            middle = (below + level) // 2
            below, level = (below, middle) if self.wanted.allows(self._reached(middle)) else (middle, level)
        low = self._outline(level)
        date = datetime.date.today().isoformat()
        origin = f"calibrated on {counted(len(self), f'normal {self._preset} case')}, {date}, "
        origin += f"at most {self.wanted.said(self.wanted.amount)}"
        if self._ill:
            origin += f" before outlines grow, these by the best Dice of {counted(len(self._ill), 'case')} with lesions"
        details = {
            "date": date,
            "wanted": {"amount": self.wanted.amount, "unit": self.wanted.unit, "quantile": self.wanted.quantile},
            "reached": self._reached(level, low),
            "before": self.wanted.over_cases(np.array([case.before for case in self._cases])),
            "cases": [
                {"case": case.name, "false_alarm": case.amount(level, low), "before": case.before, "peak": case.peak}
                for case in self._cases
            ],
            "with_lesions": [
                {"case": case.name, "dice": case.dice(level, low), "dice_of_one_threshold": case.dice(level, level)}
                for case in self._ill
            ],
            "failed": [{"case": case, "error": str(error)} for case, error in self.failed.items()],
            "versions": {name: installed_version(name) for name in _VERSIONED},
        }
        threshold = Threshold(level / STEPS, low / STEPS, origin)
        return Calibration(threshold, self._preset, plain_conditions(conditions), details)

    def _outline(self, level: int) -> int:
        """The level of the outlines; of several with the same Dice the highest."""
        if not self._ill:
            return level
        tried = [max(1, round(level * part / PARTS)) for part in range(PARTS, 0, -1)]
        return max(tried, key=lambda low: float(np.mean([case.dice(level, low) for case in self._ill])))

    def _reached(self, level: int, low: int | None = None) -> float:
        """The false alarm of a threshold, with that of the outlines where there are two."""
        low = level if low is None else low
        return self.wanted.over_cases(np.array([case.amount(level, low) for case in self._cases]))
