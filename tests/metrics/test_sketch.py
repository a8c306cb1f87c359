from __future__ import annotations

import numpy as np
import pytest

from anomalyclip_monai.metrics import PixelScores, exact_pro, paper_pro
from anomalyclip_monai.metrics.sketch import ABNORMAL, COVERED, NORMAL, NORMAL_INSIDE, PooledSketches, sketch

SHAPE = (90, 121)


def _images(count: int = 6, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Maps, masks and lit fields; the last image is normal."""
    random = np.random.default_rng(seed)
    found = []
    for index in range(count):
        mask = np.zeros(SHAPE, bool)
        for _ in range(random.integers(1, 4) if index < count - 1 else 0):
            y, x = random.integers(0, 70, 2)
            mask[y : y + random.integers(4, 18), x : x + random.integers(4, 18)] = True
        heatmap = (0.5 + 0.1 * random.normal(size=SHAPE) + 0.13 * mask).astype(np.float32)
        inside = np.zeros(SHAPE, bool)
        inside[10:, :100] = True
        found.append((heatmap, mask, inside))
    return found


def _exact(images) -> dict[str, float]:
    pixels, lit = PixelScores(), PixelScores(regions=False)
    for heatmap, mask, inside in images:
        pixels.update(heatmap, mask)
        lit.update(heatmap, mask, inside)
    return {
        "pixel_auroc": pixels.auroc(),
        "pixel_auroc_lit": lit.auroc(),
        "pixel_ap": pixels.average_precision(),
        "pixel_dice_max": pixels.best_dice().value,
        "pixel_pro_exact": exact_pro(pixels),
        "pixel_pro_paper": paper_pro(pixels),
    }


def _pooled(images) -> PooledSketches:
    maps = [heatmap for heatmap, _, _ in images]
    return PooledSketches([sketch(*image) for image in images], float(np.min(maps)), float(np.max(maps)))


def test_a_sketch_holds_every_pixel_once():
    heatmap, mask, inside = _images()[0]
    found = sketch(heatmap, mask, inside)
    counts = found.counts.sum(axis=0)
    assert counts[NORMAL] == (~mask).sum()
    assert counts[ABNORMAL] == mask.sum()
    assert counts[NORMAL_INSIDE] == (~mask & inside).sum()
    assert counts[COVERED] == pytest.approx(found.regions, rel=1e-5)
    assert len(found.scores) < 900


def test_pooled_measures_are_close_to_the_exact_ones():
    images = _images()
    found = _pooled(images).measures(np.ones((1, len(images)), np.float32))
    for name, value in _exact(images).items():
        assert found[name][0] == pytest.approx(value, abs=4e-3), name


def test_resampled_sets_vary_as_the_exact_measures_do():
    images = _images()
    draws = np.random.default_rng(1).multinomial(len(images), np.ones(len(images)) / len(images), 8).astype(np.float32)
    pooled = _pooled(images)
    once = pooled.measures(np.ones((1, len(images)), np.float32))
    found, exact = pooled.measures(draws), _exact(images)
    for row, times in enumerate(draws.astype(int)):
        truth = _exact([image for image, count in zip(images, times, strict=True) for _ in range(count)])
        for name, value in truth.items():
            moved = found[name][row] + exact[name] - once[name][0]
            # the paper's thresholds stay those of the whole set, and its last one below the limit may be far from it
            assert moved == pytest.approx(value, abs=2e-2 if name == "pixel_pro_paper" else 6e-3), name


def test_sets_without_lesions_are_undefined():
    images = _images()
    only_normal = np.zeros((1, len(images)), np.float32)
    only_normal[0, -1] = 2
    assert all(np.isnan(rows[0]) for rows in _pooled(images).measures(only_normal).values())


def test_pixels_that_do_not_count_are_in_no_bin():
    random = np.random.default_rng(6)
    heatmap, mask = random.random((20, 30)), np.zeros((20, 30), bool)
    mask[3:8, 4:9] = True
    counted = np.ones((20, 30), bool)
    counted[12:] = False
    found = sketch(heatmap, mask, mask | True, counted)
    whole = sketch(heatmap[:12], mask[:12], mask[:12] | True)
    np.testing.assert_array_equal(found.scores, whole.scores)
    np.testing.assert_array_equal(found.counts, whole.counts)
