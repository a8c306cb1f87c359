from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anomalyclip_monai.metrics import ranking
from anomalyclip_monai.metrics.pixels import Curves, PixelScores
from anomalyclip_monai.metrics.pro import exact_pro, paper_pro
from anomalyclip_monai.metrics.ranking import BestF1
from anomalyclip_monai.metrics.undefined import Undefined

TINY = {"run_entries": 97, "memory_bytes": 900, "block_entries": 64}
"""Buffers so small that a few maps fill many runs, go to disk and come back in many blocks."""


def _maps(seed: int, levels: int | None = None, dtype: type = np.float32) -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(seed)
    made = []
    for height, width in ((31, 47), (20, 64), (53, 22), (40, 40)):
        mask = random.random((height, width)) > 0.95
        heatmap = (random.random((height, width)) + 0.3 * mask).astype(dtype)
        made.append((heatmap if levels is None else np.round(heatmap * levels).astype(dtype) / dtype(levels), mask))
    return made


def _collect(maps: list[tuple[np.ndarray, np.ndarray]], **arguments: object) -> PixelScores:
    pixels = PixelScores(**arguments)
    for heatmap, mask in maps:
        pixels.update(heatmap, mask)
    return pixels


def _flat(maps: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.concatenate([pair[index].ravel() for pair in maps]) for index in (1, 0))


def test_worked_values():
    pixels = PixelScores()
    pixels.update(np.array([[0.1, 0.4, 0.35]], np.float32), np.array([[0, 0, 1]]))
    pixels.update(np.array([[0.8], [0.0]], np.float32), np.array([[255], [0]]))
    pixels.update(np.array([[0.05]], np.float32))  # a normal image without a mask
    # Of 2 x 4 pairs only 0.35 against 0.4 is ranked wrongly.
    assert (pixels.maps, pixels.normal_pixels, pixels.abnormal_pixels, pixels.regions) == (3, 4, 2, 2)
    assert pixels.auroc() == pytest.approx(7 / 8)
    assert pixels.average_precision() == pytest.approx((1 + 2 / 3) / 2)
    assert pixels.best_dice() == BestF1(0.8, pytest.approx(0.35))


@pytest.mark.parametrize("buffers", [{}, TINY], ids=["in memory", "on disk"])
@pytest.mark.parametrize("levels", [None, 7, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_streaming_equals_the_whole(buffers, levels, dtype):
    maps = _maps(0, levels, dtype)
    pixels, (labels, scores) = _collect(maps, dtype=dtype, **buffers), _flat(maps)
    assert pixels.auroc() == pytest.approx(ranking.auroc(labels, scores), abs=1e-12)
    assert pixels.average_precision() == pytest.approx(ranking.average_precision(labels, scores), abs=1e-12)
    best, expected = pixels.best_dice(), ranking.best_f1(labels, scores)
    assert isinstance(best, BestF1)
    assert isinstance(expected, BestF1)
    assert best.value == pytest.approx(expected.value, abs=1e-12)
    assert best.threshold == expected.threshold


def test_measures_can_be_taken_while_maps_still_come():
    maps = _maps(1)
    pixels = PixelScores(**TINY)
    for count, (heatmap, mask) in enumerate(maps, 1):
        pixels.update(heatmap, mask)
        assert pixels.auroc() == pytest.approx(ranking.auroc(*_flat(maps[:count])), abs=1e-12)


def test_blocks_hold_every_distinct_score_once():
    maps = _maps(2, levels=50)
    labels, scores = _flat(maps)
    blocks = list(_collect(maps, **TINY).blocks())
    assert len(blocks) > 2 or len(np.unique(scores)) < 2 * TINY["block_entries"]
    thresholds = np.concatenate([block.thresholds for block in blocks])
    expected = ranking.operating_points(labels, scores)
    assert thresholds.tolist() == expected.thresholds.tolist()
    assert np.concatenate([block.true_positives for block in blocks]).tolist() == expected.true_positives.tolist()
    assert np.concatenate([block.false_positives for block in blocks]).tolist() == expected.false_positives.tolist()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("buffers", [{}, TINY], ids=["in memory", "on disk"])
def test_counts_at_any_thresholds(strict, buffers):
    maps = _maps(3, levels=20)
    labels, scores = _flat(maps)
    at = np.array([0.5, 2.0, -1.0, 0.55, 0.500001], np.float32)
    false_positives, true_positives, _ = _collect(maps, **buffers).counts(at, strict=strict)
    for threshold, false, true in zip(at, false_positives, true_positives, strict=True):
        predicted = scores > threshold if strict else scores >= threshold
        assert false == (predicted & ~labels).sum()
        assert true == (predicted & labels).sum()


def test_only_pixels_inside_count():
    maps = _maps(4)
    inside = [np.random.default_rng(9).random(mask.shape) > 0.5 for _, mask in maps]
    pixels = PixelScores()
    for (heatmap, mask), counted in zip(maps, inside, strict=True):
        pixels.update(heatmap, mask, counted)
    labels, scores = (
        np.concatenate([pair[index][counted] for pair, counted in zip(maps, inside, strict=True)]) for index in (1, 0)
    )
    assert pixels.auroc() == pytest.approx(ranking.auroc(labels, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [(None, "no abnormal pixel"), (np.ones((2, 3)), "no normal pixel")],
)
def test_undefined_values_have_a_reason(mask, reason):
    pixels = PixelScores()
    pixels.update(np.zeros((2, 3), np.float32), mask)
    for value in (pixels.auroc(), pixels.average_precision(), pixels.best_dice(), pixels.curves()):
        assert value == Undefined(reason)
    assert PixelScores(of="voxel").auroc() == Undefined("no voxel")


def test_the_curves_lie_on_the_exact_ones():
    maps = _maps(5)
    pixels = _collect(maps, **TINY)
    curves = pixels.curves(points=40)
    assert isinstance(curves, Curves)
    assert curves.region_overlap is not None
    assert 20 < curves.thresholds.size < 90
    false_positives, true_positives, covered = pixels.counts(curves.thresholds)
    assert curves.false_positive_rate == pytest.approx(false_positives / pixels.normal_pixels)
    assert curves.recall == pytest.approx(true_positives / pixels.abnormal_pixels)
    assert curves.precision == pytest.approx(true_positives / (true_positives + false_positives))
    assert curves.region_overlap == pytest.approx(covered / pixels.regions)
    assert np.diff(curves.false_positive_rate, prepend=0).max() < 0.1


def test_a_refused_map_leaves_nothing_behind():
    pixels = PixelScores()
    heatmap = np.zeros((2, 2), np.float32)
    heatmap[0, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 4 scores are not finite"):
        pixels.update(heatmap, heatmap == 0)
    with pytest.raises(ValueError, match="mask"):
        pixels.update(np.zeros((2, 2), np.float32), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="inside"):
        pixels.update(np.zeros((2, 2), np.float32), None, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="float64 scores do not fit float32"):
        PixelScores(dtype=np.float32).update(np.full((2, 2), 0.1))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        pixels.update(np.zeros((2, 2, 2), np.float32))
    assert (pixels.maps, pixels.regions, pixels.normal_pixels) == (0, 0, 0)
    with pytest.raises(ValueError, match="float16"):
        PixelScores(dtype=np.float16)


@pytest.mark.parametrize(
    ("given", "kept"),
    [(np.float16, np.float32), (np.float32, np.float32), (np.float64, np.float64), (np.uint8, np.float32)],
)
def test_the_first_map_decides_the_precision(given, kept):
    pixels = PixelScores()
    pixels.update(np.array([[0, 1, 2]]).astype(given), [[0, 0, 1]])
    assert pixels.dtype == kept
    pixels.update(np.array([[0.0, 1.0]]))  # these doubles fit either
    assert pixels.auroc() == 1.0
    if kept == np.float32:
        with pytest.raises(ValueError, match="do not fit"):
            pixels.update(np.array([[0.1]]))


def test_equal_to_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    maps = _maps(6, levels=30)
    pixels, (labels, scores) = _collect(maps, **TINY), _flat(maps)
    assert pixels.auroc() == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=1e-12)
    assert pixels.average_precision() == pytest.approx(sklearn.average_precision_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("buffers", [{}, TINY | {"memory_bytes": 20000}], ids=["in memory", "on disk"])
def test_equal_to_the_published_code(golden: Path, buffers):
    with np.load(golden / "metrics_0.npz") as expected:
        pixels = _collect(list(zip(expected["maps"], expected["masks"], strict=True)), **buffers)
        assert pixels.auroc() == pytest.approx(float(expected["pixel_auroc"]), abs=1e-9)
        assert paper_pro(pixels) == pytest.approx(float(expected["pixel_aupro"]), abs=1e-9)


MEMORY_SCRIPT = """
import resource
import numpy as np
from anomalyclip_monai.metrics import PixelScores, exact_pro
random, pixels = np.random.default_rng(0), PixelScores(memory_bytes=32 << 20)
mask = np.zeros((518, 518), bool)
mask[100:200, 50:180] = True
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _ in range(400):
    pixels.update(random.random((518, 518), dtype=np.float32), mask)
assert abs(pixels.auroc() - 0.5) < 1e-3 and abs(exact_pro(pixels) - 0.15) < 1e-3
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_maps():
    # 430 MB of scores; the buffers take about 250 MB.
    finished = subprocess.run([sys.executable, "-c", MEMORY_SCRIPT], capture_output=True, text=True, check=True)
    assert int(finished.stdout) < 400


def test_exact_measures_agree_on_and_off_disk():
    maps = _maps(7)
    assert exact_pro(_collect(maps, **TINY)) == pytest.approx(exact_pro(_collect(maps)), abs=1e-12)
