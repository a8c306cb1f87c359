"""Values of volumes whose files do not say what they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from anomalyclip_monai.transforms.hounsfield import are_ct_numbers


def _ct(air: float = 0.4) -> np.ndarray:
    """Air, fat, muscle with edges between them, and bone."""
    rng = np.random.default_rng(0)
    counts = [int(20000 * share) for share in (air, 0.6 * (1 - air) * 0.4, 0.6 * (1 - air) * 0.6, 0.1)]
    parts = [rng.normal(mean, 12, count) for mean, count in zip((-1000, -100, 50, 700), counts, strict=True)]
    return np.concatenate([*parts, rng.uniform(-1000, 50, 1000)]).astype(np.float32)


def _mr(top: float = 900) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([abs(rng.normal(0, 8, 12000)), rng.uniform(200, top, 8000)]).astype(np.float32)


def _resampled(lowest: float, share: float = 0.005, top: float = 900, air: float = 0.0) -> np.ndarray:
    """Splines undershoot at edges: a few voxels are negative, the more so the fewer they are."""
    values = _mr(top)
    values[:12000] *= air
    count = int(share * values.size)
    values[:count] = -np.geomspace(1, -lowest, count)
    return values


CT: dict[str, Callable[[], np.ndarray]] = {
    "whole": _ct,
    "little air": lambda: _ct(0.02),
    "padded with -3024": lambda: np.append(_ct(), np.full(9000, -3024, np.float32)),
    "padded with -2000": lambda: np.append(_ct(), np.full(9000, -2000, np.float32)),
    "padded with -32768": lambda: np.append(_ct(), np.full(9000, -32768, np.float32)),
    "padded with 32767": lambda: np.append(_ct(), np.full(9000, 32767, np.float32)),
    "clipped at -200 and 300": lambda: _ct().clip(-200, 300),
    "clipped at -100 and 240": lambda: _ct().clip(-100, 240),
    "cropped to the inside of a body": lambda: _ct(0.0)[:-1000],
    "one voxel of 1e9": lambda: np.append(_ct(), np.float32(1e9)),
    "metal": lambda: np.append(_ct(), np.full(500, 30000, np.float32)),
    "a small object": lambda: np.append(_ct(), np.full(900000, -1000, np.float32)),
    "a phantom without noise": lambda: np.repeat(np.float32([-1000, 35, 900, 75]), (500, 300, 50, 9)),
    "air": lambda: np.full(100, -1024, np.float32),
}

NOT_CT: dict[str, Callable[[], np.ndarray]] = {
    "MR": _mr,
    "resampled, from -119": lambda: _resampled(-119),
    "resampled, from -666": lambda: _resampled(-666, top=3000),
    "resampled, from -666, air of noise": lambda: _resampled(-666, top=3000, air=2),
    "resampled, much of it negative": lambda: _resampled(-300, share=0.08, top=2000),
    "resampled, 16 bits": lambda: _resampled(-3000, share=0.05, top=30000),
    "one negative stray": lambda: np.append(_mr(), np.float32(-1e9)),
    "padded with -32768": lambda: np.append(_mr(), np.full(9000, -32768, np.float32)),
    "padded with -1024, no noise": lambda: np.append(_mr() * (_mr() > 100), np.full(9000, -1024, np.float32)),
    "offset by -32768": lambda: _mr() - 32768,
    "offset by 1e6": lambda: _mr() + 1e6,
    "from -3 to 3": lambda: _mr() / 150 - 3,
}


@pytest.mark.parametrize("name", CT)
def test_ct_numbers(name: str) -> None:
    found, why = are_ct_numbers(CT[name]())
    assert found, why
    assert why.endswith("look like CT")


@pytest.mark.parametrize("name", NOT_CT)
def test_other_numbers(name: str) -> None:
    found, why = are_ct_numbers(NOT_CT[name]())
    assert not found, why
    assert why.startswith("values from ")


def test_ct_numbers_with_an_offset_are_said_to_be_unclear() -> None:
    found, why = are_ct_numbers((_ct() + 1024).clip(0))
    assert not found
    assert why.endswith("are no CT numbers (if they are, with 1024 added to each, subtract that first)")
    assert are_ct_numbers(_mr())[1].endswith("are no CT numbers")
