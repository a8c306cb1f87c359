"""Limits that stray voxels, padding and offsets do not move."""

from __future__ import annotations

import numpy as np
import pytest

from anomalyclip_monai.transforms.robust import SAMPLE, background, percentile_limits, sample, without_strays


def _old_limits(values: np.ndarray) -> tuple[float, float]:
    """The rule as the embedded model was trained with it."""
    foreground = values[values > 0.3 * values.mean(dtype=np.float64)]
    return 0.0, float(np.percentile(foreground, 99.8))


def _mr(seed: int = 0, shape: tuple[int, int, int] = (31, 40, 23)) -> np.ndarray:
    """Noisy air in three quarters of the volume, tissue of 300 to 900, a bright lesion."""
    rng = np.random.default_rng(seed)
    signal = np.zeros(shape)
    signal[8:24, 5:35, 3:20] = rng.uniform(300, 900, (16, 30, 17))
    signal[10:12, 10:12, 10:12] = 1600
    return np.hypot(signal + rng.normal(0, 8, shape), rng.normal(0, 8, shape)).astype(np.float32)


@pytest.mark.parametrize("change", ["none", "no air", "no noise", "a fifth of it negative", "resampled", "one value"])
def test_ordinary_volumes_are_scaled_as_in_training(change: str) -> None:
    values = _mr()
    match change:
        case "no air":
            values = values[8:24, 5:35, 3:20]
        case "no noise":
            values[values < 50] = 0
        case "a fifth of it negative":
            values[:, :, ::5] -= 20
        case "resampled":
            values[7, 5:35:4] = -119
            values[24, 5:35:9] = -666
        case "one value":
            values = np.where(values > 100, np.float32(700), np.float32(0))
    assert without_strays(flat := values.ravel()) is flat
    assert percentile_limits(values, 99.8, 0.3) == _old_limits(values)


@pytest.mark.parametrize(
    "strays", [[1e9], [-1e9], [1e9, 5e8, 3e7], [np.finfo(np.float32).max], list(np.geomspace(2e4, 1e30, 25))]
)
def test_stray_voxels_do_not_count(strays: list[float]) -> None:
    values = _mr()
    expected = percentile_limits(values, 99.8, 0.3)
    values[3, 2, : len(strays)] = strays[:23]
    assert percentile_limits(values, 99.8, 0.3) == pytest.approx(expected, rel=1e-3)


def test_a_stray_voxel_in_a_volume_of_a_few() -> None:
    values = np.arange(60, dtype=np.float32)
    values[7] = 1e9
    low, high = percentile_limits(values, 99.8, 0.3)
    assert low == 0
    assert 50 < high < 60


def test_a_stray_voxel_that_the_sample_misses() -> None:
    values = np.tile(_mr().ravel(), 10)
    assert values.size > SAMPLE
    expected = percentile_limits(values, 99.8, 0.3)
    values[
        np.flatnonzero(~np.isin(np.arange(values.size), np.random.default_rng(0).integers(values.size, size=SAMPLE)))[5]
    ] = 1e9
    assert 1e9 not in sample(values)
    assert percentile_limits(values, 99.8, 0.3) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("padding", [-32768.0, -2000.0, 65535.0, 32767.0])
def test_padding_does_not_count(padding: float) -> None:
    values = _mr()
    expected = percentile_limits(values, 99.8, 0.3)
    values[:4] = padding
    low, high = percentile_limits(values, 99.8, 0.3)
    assert low == expected[0]
    assert high == pytest.approx(expected[1], rel=0.02)


def test_few_values_far_apart_are_no_padding() -> None:
    values = np.repeat(np.float32([0, 60, 700]), (47, 14, 39))
    assert percentile_limits(values, 99.8, 0.3) == (0, 700)


@pytest.mark.parametrize("offset", [1e6, -32768.0, 1000.0, -5000.0, 2.0**24])
def test_an_offset_is_taken_away(offset: float) -> None:
    values = _mr()
    low, high = percentile_limits(values + np.float32(offset), 99.8, 0.3)
    expected = percentile_limits(values, 99.8, 0.3)
    assert low == pytest.approx(offset, abs=30)
    assert high - offset == pytest.approx(expected[1], abs=10)


def test_an_offset_without_air_and_one_with_padding() -> None:
    tissue = _mr()[8:24, 5:35, 3:20]
    low, high = percentile_limits(tissue + np.float32(1e6), 99.8, 0.3)
    assert 1e6 + 290 < low < 1e6 + 330
    assert 1e6 + 850 < high < 1e6 + 1600
    padded = _mr() + np.float32(1e6)
    padded[:4] = 0
    assert percentile_limits(padded, 99.8, 0.3)[0] == pytest.approx(1e6, abs=30)


def test_the_background_by_hand() -> None:
    # a tenth in a band at 200 of a range of 1000: that is where the air is
    values = np.concatenate([np.full(150, 200.0), np.linspace(300, 1200, 850)]).astype(np.float32)
    assert background(values) == 200
    assert background(values - 200) == 0
    assert background(values - 150) == 0  # 50 is nothing beside 1000
    assert background(np.linspace(300, 1200, 850, dtype=np.float32)) == 0  # no band
    assert background(np.full(9, 7.0, np.float32)) == 0


@pytest.mark.parametrize("value", [0.0, -5.0, 12.0])
def test_one_value(value: float) -> None:
    low, high = percentile_limits(np.full(60, value, np.float32), 99.8, 0.3)
    assert high > low
