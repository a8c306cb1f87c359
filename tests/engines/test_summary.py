"""Means over classes and their intervals, small enough to be worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from anomalyclip_monai.engines.evaluation.measured import ClassMeasures
from anomalyclip_monai.engines.evaluation.summary import (
    class_interval,
    draws_of,
    shortfalls,
    summarise,
    without_spread,
)
from anomalyclip_monai.metrics import Undefined
from anomalyclip_monai.metrics.weighted import Rows, mean_rows
from anomalyclip_monai.outputs.report.content import MeasuredSample


def samples(category: str, groups: str) -> list[MeasuredSample]:
    return [MeasuredSample(f"{category}{index}", 1, category, group, 0.5, 0.5) for index, group in enumerate(groups)]


def means(values: Sequence[float]) -> ClassMeasures:
    """The measure is the mean over the samples, one value for each; NaN of a sample that does not define it."""

    def resampled(draws: NDArray[Any]) -> Mapping[str, Rows]:
        return {"dice": mean_rows(values, draws)}

    return ClassMeasures({"dice": float(np.nanmean(values))}, resampled)


def test_a_class_with_one_group_stays_in_the_mean_with_its_value():
    """Class a: two groups of .2 and .4, drawn means .2, .3, .4 with chances 1/4, 1/2, 1/4. Class b: one group, 1.

    Of the mean over both, (.2 + 1) / 2 = .6 to (.4 + 1) / 2 = .7 with .65 in the middle; without b the interval was
    [.2, .4], which its value .65 is not in.
    """
    found = {"a": samples("a", "xy"), "b": samples("b", "zz")}
    draws = draws_of(found, repeats=400, seed=0)
    summary = summarise([{"a": means([0.2, 0.4]), "b": means([1.0, 1.0])}], draws)
    dice = summary.measures["dice"]
    assert (dice.value, dice.low, dice.high) == pytest.approx((0.65, 0.6, 0.7))
    assert np.unique(summary.rows["dice"].round(6)).tolist() == [0.6, 0.65, 0.7]
    alone = summary.by_category["b"]["dice"]
    assert (alone.value, alone.low, alone.high) == (1.0, None, None)
    assert without_spread(found) == ["b"]


def test_a_class_stays_where_a_resampled_set_does_not_define_it():
    """Class a has its measure in one of two groups: a quarter of the draws misses it, and .9 stands for it there."""
    found = {"a": samples("a", "xy"), "b": samples("b", "xy")}
    draws = draws_of(found, repeats=400, seed=0)
    summary = summarise([{"a": means([0.9, np.nan]), "b": means([0.1, 0.1])}], draws)
    assert np.isnan(means([0.9, np.nan]).resampled(draws["a"])["dice"]).any()
    assert summary.rows["dice"] == pytest.approx(0.5)


def test_nothing_is_said_of_a_spread_where_no_class_has_one():
    draws = draws_of({"a": samples("a", "xx"), "b": samples("b", "z")}, repeats=50, seed=0)
    summary = summarise([{"a": means([0.2, 0.4]), "b": means([1.0])}], draws)
    assert (summary.measures["dice"].low, summary.measures["dice"].high) == (None, None)
    assert "dice" not in summary.rows


def test_classes_that_are_sets_are_resampled_too_and_have_means_of_their_parts():
    """Three classes of one value each: means of three draws go from .1 to .7."""
    found = {name: samples(name, "xy") for name in "abc"}
    draws = draws_of(found, repeats=2000, seed=0)
    classes = {name: means([value, value]) for name, value in (("a", 0.1), ("b", 0.4), ("c", 0.7))}
    summary = summarise([classes], draws, subsets={"some": ["a", "b"]}, over_classes=True)
    dice = summary.measures["dice"]
    assert (dice.low, dice.value, dice.high) == pytest.approx((0.4, 0.4, 0.4))
    assert (dice.classes_low, dice.classes_high) == pytest.approx((0.1, 0.7))  # each end has a chance of 1 in 27
    part = summary.parts["some"].measures["dice"]
    assert part.value == pytest.approx(0.25)
    assert (part.classes_low, part.classes_high) == pytest.approx((0.1, 0.4))
    assert summarise([classes], draws).measures["dice"].classes_low is None


def test_an_interval_over_classes_needs_two_of_them():
    assert class_interval([0.5, None], 100) == (None, None)
    assert class_interval([0.5, 0.7], 0) == (None, None)
    assert class_interval([0.5, None, 0.7], 500) == pytest.approx((0.5, 0.7))


def image_auroc(value: float) -> ClassMeasures:
    return ClassMeasures({"image_auroc": value}, lambda draws: {"image_auroc": np.full(len(draws), value)})


@pytest.mark.parametrize(
    ("own", "baseline", "short"),
    [(0.9, 0.5, None), (0.6, 0.7, -0.1), (0.6, 0.3, -0.1), (0.8, 0.3, None), (0.7, 0.7, 0.0)],
)
def test_a_baseline_that_is_right_the_other_way_round_counts(own, baseline, short):
    draws = draws_of({"a": samples("a", "xyz")}, repeats=20, seed=0)
    this, other = (summarise([{"a": image_auroc(value)}], draws) for value in (own, baseline))
    found = shortfalls(["image_auroc"], this, {"body": other})
    assert [entry.difference.value for entry in found] == ([] if short is None else [pytest.approx(short)])
    assert all(not entry.beaten for entry in found)


def test_what_is_ahead_within_the_interval_is_not_surely_better():
    """Ahead by .1 in one patient and by -.05 in the other, .025 in the mean."""
    found = {"a": samples("a", "xy")}
    draws = draws_of(found, repeats=200, seed=0)
    this, other = summarise([{"a": means([0.6, 0.5])}], draws), summarise([{"a": means([0.5, 0.55])}], draws)
    (entry,) = shortfalls(["dice"], this, {"centre": other})
    assert entry.beaten
    assert (entry.difference.value, entry.difference.low) == pytest.approx((0.025, -0.05))
    assert shortfalls(["dice"], this, {"centre": summarise([{"a": means([0.1, 0.2])}], draws)}) == []


def test_measures_of_all_samples_take_the_place_of_means_over_classes():
    found = {"a": samples("a", "xy"), "b": samples("b", "xyz")}
    draws = draws_of(found, repeats=100, seed=0)
    classes = {"a": means([1.0, 1.0]), "b": ClassMeasures({"dice": Undefined("no lesion")}, lambda _: {})}
    summary = summarise([classes], draws, overall=[means([1.0, 1.0, 0.0, 0.0, 0.0])])
    assert summary.measures["dice"].value == pytest.approx(0.4)
    assert summary.rows["dice"] == pytest.approx(0.4)  # two of a and three of b in every draw
    assert summary.by_category["b"]["dice"].undefined == "no lesion"
