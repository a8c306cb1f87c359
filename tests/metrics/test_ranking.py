from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomalyclip_monai.metrics.ranking import BestF1, auroc, average_precision, best_f1, dice, operating_points
from anomalyclip_monai.metrics.undefined import Undefined, is_defined

LABELS = [0, 0, 1, 1]
SCORES = [0.1, 0.4, 0.35, 0.8]
"""Pairs ranked rightly: (0.35 > 0.1), (0.8 > 0.1), (0.8 > 0.4), so three of four."""


def _tied(seed: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, 200)
    return labels, (random.integers(0, 12, 200) + 2 * labels).astype(dtype) / 10


def test_counts_at_each_distinct_score():
    points = operating_points([0, 1, 1, 0], [0.5, 0.5, 0.9, 0.1])
    assert points.thresholds.tolist() == [0.9, 0.5, 0.1]
    assert points.false_positives.tolist() == [0, 1, 2]
    assert points.true_positives.tolist() == [1, 2, 2]


def test_worked_values():
    assert auroc(LABELS, SCORES) == pytest.approx(3 / 4)
    assert average_precision(LABELS, SCORES) == pytest.approx((1 + 2 / 3) / 2)
    # From 0.35 up: both found, one false alarm, so 2 * 2 / (3 + 2).
    assert best_f1(LABELS, SCORES) == BestF1(0.8, 0.35)


def test_a_tie_counts_half():
    assert auroc([0, 1], [0.5, 0.5]) == pytest.approx(0.5)
    assert auroc([0, 1, 1], [0.5, 0.5, 0.9]) == pytest.approx(0.75)
    assert average_precision([0, 1], [0.5, 0.5]) == pytest.approx(0.5)


def test_best_f1_takes_the_highest_of_equal_thresholds():
    # At 0.9: 2 * 1 / (1 + 2) = 2/3. At 0.1: 2 * 2 / (4 + 2) = 2/3.
    assert best_f1([1, 0, 0, 1], [0.9, 0.5, 0.4, 0.1]) == BestF1(pytest.approx(2 / 3), 0.9)


@pytest.mark.parametrize("measure", [auroc, average_precision, best_f1])
@pytest.mark.parametrize(
    ("labels", "reason"),
    [([], "no image"), ([0, 0], "no abnormal image"), ([1, 1, 1], "no normal image")],
)
def test_one_class_is_undefined_with_the_reason(measure, labels, reason):
    value = measure(labels, np.linspace(0, 1, len(labels)))
    assert value == Undefined(reason)
    assert not is_defined(value)
    assert str(value) == f"undefined ({reason})"


def test_the_reason_names_what_is_ranked():
    assert auroc([0], [0.3], of="slice") == Undefined("no abnormal slice")


@pytest.mark.parametrize(
    ("labels", "scores", "match"),
    [
        ([0, 1], [0.1], "equally many"),
        ([0, 2], [0.1, 0.2], "0 or 1"),
        ([0, 1], [0.1, np.nan], "1 of 2 scores are not finite"),
    ],
)
def test_wrong_input_is_refused(labels, scores, match):
    with pytest.raises(ValueError, match=match):
        auroc(labels, scores)


def test_dice_counts_the_threshold_itself():
    mask = np.array([[1, 1, 0], [0, 0, 0]])
    heatmap = np.array([[0.5, 0.2, 0.5], [0.1, 0.0, 0.9]], np.float32)
    # Predicted: three pixels, one of them right.
    assert dice(mask, heatmap, 0.5) == pytest.approx(2 * 1 / (2 + 3))
    assert dice(mask, heatmap, 2.0) == 0.0
    assert dice(np.zeros_like(mask), heatmap, 0.5) == Undefined("no abnormal pixel")
    with pytest.raises(ValueError, match="one shape"):
        dice(mask[:1], heatmap, 0.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(3))
def test_equal_to_scikit_learn_with_ties(seed, dtype):
    sklearn = pytest.importorskip("sklearn.metrics")
    labels, scores = _tied(seed, dtype)
    assert auroc(labels, scores) == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=1e-12)
    assert average_precision(labels, scores) == pytest.approx(
        sklearn.average_precision_score(labels, scores), abs=1e-12
    )
    best = best_f1(labels, scores)
    assert isinstance(best, BestF1)
    assert best.value == pytest.approx(sklearn.f1_score(labels, scores >= best.threshold), abs=1e-12)
    precision, recall, _ = sklearn.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert best.value == pytest.approx(f1.max(), abs=1e-12)


def test_equal_to_the_published_code(golden: Path):
    with np.load(golden / "metrics_0.npz") as expected:
        assert auroc(expected["labels"], expected["scores"]) == pytest.approx(float(expected["image_auroc"]), abs=1e-9)
        ap = average_precision(expected["labels"], expected["scores"])
        assert ap == pytest.approx(float(expected["image_ap"]), abs=1e-9)
