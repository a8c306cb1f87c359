from __future__ import annotations

import numpy as np
import pytest

from anomalyclip_monai.metrics import auroc, average_precision, best_f1
from anomalyclip_monai.metrics.weighted import (
    auroc_rows,
    average_precision_rows,
    best_f1_rows,
    counts_at_scores,
    exact_pro_rows,
    mean_rows,
    median_rows,
    paper_pro_rows,
)

LABELS = np.array([0, 1, 1, 0, 1, 0, 1])
SCORES = np.array([0.2, 0.7, 0.4, 0.4, 0.9, 0.8, 0.1])
DRAWS = np.array([[1, 1, 1, 1, 1, 1, 1], [2, 0, 1, 3, 0, 1, 0], [0, 1, 1, 0, 2, 0, 3]], np.float32)


def test_rows_equal_the_measure_of_repeated_images():
    counts = counts_at_scores(LABELS, SCORES, DRAWS)
    for rows, measure in (
        (auroc_rows(*counts), auroc),
        (average_precision_rows(*counts), average_precision),
        (best_f1_rows(*counts), lambda labels, scores: best_f1(labels, scores).value),
    ):
        for row, draws in zip(rows[:2], DRAWS[:2].astype(int), strict=True):
            assert row == pytest.approx(measure(np.repeat(LABELS, draws), np.repeat(SCORES, draws)))
        assert np.isnan(rows[2])  # no normal image was drawn


def test_no_image_at_all_is_undefined():
    counts = counts_at_scores([], [], np.zeros((2, 0), np.float32))
    assert np.isnan(auroc_rows(*counts)).all()
    assert np.isnan(best_f1_rows(*counts)).all()


def test_means_and_medians_count_an_image_as_often_as_it_was_drawn():
    values = [0.5, np.nan, 0.1]
    draws = np.array([[1, 1, 1], [3, 5, 1], [0, 2, 0]], np.float32)
    np.testing.assert_allclose(mean_rows(values, draws), [0.3, 0.4, np.nan])
    np.testing.assert_allclose(mean_rows(values, draws, [1, 1, 3]), [0.2, 0.3, np.nan])  # weights 1:3 and 3:3
    np.testing.assert_allclose(median_rows(values, draws), [0.3, 0.5, np.nan])


def test_pro_by_hand():
    rate, overlap = np.array([[0.0, 0.2, 0.4, 1.0]]), np.array([[0.2, 0.6, 1.0, 1.0]])
    # exact: 0.8 at a rate of 0.3; trapezoids (0.2 + 0.6) / 2 * 0.2 + (0.6 + 0.8) / 2 * 0.1, over 0.3
    assert exact_pro_rows(rate, overlap)[0] == pytest.approx((0.08 + 0.07) / 0.3)
    # paper: points 0 and 0.2 only, stretched to [0, 1]
    assert paper_pro_rows(rate, overlap)[0] == pytest.approx(0.4)
    assert np.isnan(paper_pro_rows(rate + 0.3, overlap)[0])
