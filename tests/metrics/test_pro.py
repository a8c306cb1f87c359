from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import label, regionprops

from anomalyclip_monai.metrics.pixels import PixelScores
from anomalyclip_monai.metrics.pro import exact_pro, paper_pro
from anomalyclip_monai.metrics.regions import region_weights
from anomalyclip_monai.metrics.undefined import Undefined


def _collect(heatmap: object, mask: object) -> PixelScores:
    pixels = PixelScores()
    pixels.update(np.asarray(heatmap, np.float32), np.asarray(mask))
    return pixels


def _brute_exact(maps: list[np.ndarray], masks: list[np.ndarray], limit: float) -> float:
    regions = [(index, region.coords) for index, mask in enumerate(masks) for region in regionprops(label(mask))]
    normal = np.concatenate([heatmap[mask == 0] for heatmap, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([heatmap.ravel() for heatmap in maps]))[::-1]:
        overlap = np.mean([(maps[index][tuple(coords.T)] >= threshold).mean() for index, coords in regions])
        points.append(((normal >= threshold).mean(), overlap))
    rate, overlap = np.array(points).T
    rates = np.append(rate[rate < limit], limit)
    # At one rate the curve may rise; the value at the limit is on the step that crosses it.
    first = int(np.argmax(rate >= limit))
    share = (limit - rate[first - 1]) / (rate[first] - rate[first - 1])
    at_limit = overlap[first - 1] + share * (overlap[first] - overlap[first - 1])
    return float(np.trapezoid(np.append(overlap[rate < limit], at_limit), rates) / limit)


def _brute_paper(maps: np.ndarray, masks: np.ndarray) -> float:
    rates, overlaps = [], []
    for threshold in np.arange(maps.min(), maps.max(), (maps.max() - maps.min()) / 200):
        predicted = maps > threshold
        covered = [
            one[tuple(region.coords.T)].mean()
            for one, mask in zip(predicted, masks, strict=True)
            for region in regionprops(label(mask))
        ]
        overlaps.append(np.mean(covered))
        rates.append(predicted[masks == 0].mean())
    rate, overlap = np.array(rates), np.array(overlaps)
    rate, overlap = rate[rate < 0.3], overlap[rate < 0.3]
    rate = (rate - rate.min()) / (rate.max() - rate.min())
    return float(-np.trapezoid(overlap, rate))


def _smooth(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    masks = (random.random((4, 33, 41)) > 0.97).astype(int)
    masks[:, 5:12, 8:20] = 1
    return (random.random((4, 33, 41)) + 0.4 * masks).astype(np.float32), masks


def test_pixels_that_touch_at_a_corner_are_one_region():
    mask = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], bool)
    weights, regions = region_weights(mask)
    assert regions == 2
    assert weights.tolist() == [0.5, 0.5, 1.0]


def test_weights_come_in_array_order():
    mask = np.zeros((4, 5), bool)
    mask[1:, 3] = True
    mask[2, 1] = True
    weights, regions = region_weights(mask)
    assert regions == 2
    assert weights.tolist() == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])
    empty, none = region_weights(np.zeros((3, 3), bool))
    assert (empty.size, none) == (0, 0)


def test_exact_worked_value():
    # Regions: one pixel (0.9) and two pixels (0.8, 0.2); normal pixels 0.7, 0.6, 0.5 and three of 0.1.
    heatmap = [[0.9, 0.7, 0.8], [0.6, 0.5, 0.2], [0.1, 0.1, 0.1]]
    mask = [[1, 0, 1], [0, 0, 1], [0, 0, 0]]
    # Before the first false alarm: (1 + 1/2) / 2 = 0.75, and so until the rate 3/6.
    assert exact_pro(_collect(heatmap, mask), limit=0.5) == pytest.approx(0.75)
    assert exact_pro(_collect(heatmap, mask)) == pytest.approx(0.75)
    # From 0.2 down the second region is whole.
    assert exact_pro(_collect(heatmap, mask), limit=1.0) == pytest.approx(0.5 * 0.75 + 0.5 * 1.0)


def test_exact_interpolates_at_the_limit():
    # One step from (0, 0) to (1, 1): the area up to 0.3 is 0.3 * 0.3 / 2.
    assert exact_pro(_collect([[0.5, 0.5]], [[1, 0]])) == pytest.approx(0.15)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_exact_equals_every_threshold_in_turn(limit):
    maps, masks = _smooth(0)
    maps = np.round(maps * 40) / np.float32(40)
    pixels = PixelScores(run_entries=301, memory_bytes=1000, block_entries=64)
    for heatmap, mask in zip(maps, masks, strict=True):
        pixels.update(heatmap, mask)
    expected = _brute_exact(list(maps), list(masks), limit)
    assert exact_pro(pixels, limit=limit) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_paper_equals_the_loop_over_thresholds(dtype):
    maps, masks = _smooth(1)
    maps = maps.astype(dtype)
    pixels = PixelScores(dtype=dtype)
    for heatmap, mask in zip(maps, masks, strict=True):
        pixels.update(heatmap, mask)
    assert paper_pro(pixels) == pytest.approx(_brute_paper(maps, masks), abs=1e-12)


def test_a_perfect_map_reaches_one():
    heatmap = np.linspace(0, 0.4, 400, dtype=np.float32).reshape(20, 20)
    mask = np.zeros((20, 20), int)
    mask[3:6, 4:9] = 1
    heatmap[mask == 1] = 1
    assert exact_pro(_collect(heatmap, mask)) == pytest.approx(1.0)
    assert paper_pro(_collect(heatmap, mask)) == pytest.approx(1.0)


def test_undefined_values_have_a_reason():
    image = np.linspace(0, 1, 6).reshape(2, 3)
    for measure in (exact_pro, paper_pro):
        assert measure(PixelScores()) == Undefined("no pixel")
        assert measure(_collect(image, np.zeros((2, 3)))) == Undefined("no abnormal pixel")
        assert measure(_collect(image, np.ones((2, 3)))) == Undefined("no normal pixel")
    constant = _collect(np.full((2, 3), 0.5), [[1, 0, 0], [0, 0, 0]])
    assert paper_pro(constant) == Undefined("all scores are equal")
    # Every threshold below the maximum calls all normal pixels abnormal.
    two_levels = paper_pro(_collect([[0.0, 1.0, 1.0]], [[1, 0, 0]]))
    assert isinstance(two_levels, Undefined)
    assert "below 0.3" in two_levels.reason


def test_regions_must_be_measured():
    with pytest.raises(ValueError, match="regions=True"):
        exact_pro(PixelScores(regions=False))
