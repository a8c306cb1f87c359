from __future__ import annotations

import numpy as np
import pytest

from anomalyclip_monai.metrics.bootstrap import Interval, bootstrap_interval, mean_and_sd, paired_bootstrap
from anomalyclip_monai.metrics.ranking import auroc
from anomalyclip_monai.metrics.undefined import Undefined, Value


def _mean(values: object):
    array = np.asarray(values, float)
    return lambda indices: float(array[indices].mean())


def test_groups_are_drawn_whole():
    values, groups = np.arange(9.0), np.array(["a", "b", "a", "c", "c", "c", "b", "a", "d"])
    members = {name: np.flatnonzero(groups == name).tolist() for name in "abcd"}
    drawn = []
    bootstrap_interval(lambda indices: drawn.append(indices) or float(values[indices].mean()), groups, replicates=50)
    assert drawn[0].tolist() == list(range(9))
    for indices in drawn[1:]:
        left = indices.tolist()
        for _ in range(4):
            whole = members[groups[left[0]]]
            assert left[: len(whole)] == whole
            left = left[len(whole) :]
        assert not left


def test_the_interval_of_a_mean_is_the_known_one():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    interval = bootstrap_interval(_mean(values), np.arange(400))
    assert isinstance(interval, Interval)
    half = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + half, abs=0.03)
    assert (interval.replicates, interval.undefined, interval.level) == (2000, 0, 0.95)


def test_cases_of_one_patient_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    alone = bootstrap_interval(_mean(values), np.arange(200), replicates=300)
    grouped = bootstrap_interval(_mean(values), np.repeat(np.arange(20), 10), replicates=300)
    assert isinstance(alone, Interval)
    assert isinstance(grouped, Interval)
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)


def test_the_seed_decides():
    values = np.random.default_rng(0).random(30)
    first, again, other = (bootstrap_interval(_mean(values), np.arange(30), seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_undefined_resampled_sets_are_counted_and_left_out():
    labels, scores = np.array([0, 1, 1]), np.array([0.1, 0.5, 0.9])
    interval = bootstrap_interval(lambda at: auroc(labels[at], scores[at]), np.arange(3), replicates=500)
    assert isinstance(interval, Interval)
    assert interval.value == interval.low == interval.high == 1.0
    # Without the only normal case (2/3)^3, with nothing else (1/3)^3: a third of the sets.
    assert interval.undefined == pytest.approx(500 / 3, abs=40)
    assert interval.replicates == 500 - interval.undefined


def test_undefined_values_have_a_reason():
    def no_value(_: np.ndarray) -> Value:
        return Undefined("no normal image")

    assert bootstrap_interval(no_value, np.arange(3)) == Undefined("no normal image")
    assert bootstrap_interval(_mean([1, 2]), ["a", "a"]) == Undefined("one group only")
    assert bootstrap_interval(_mean([]), []) == Undefined("no case")
    assert paired_bootstrap(_mean([1, 2]), no_value, [0, 1]) == Undefined("no normal image")


def test_paired_test_sees_a_small_difference_that_all_cases_share():
    random = np.random.default_rng(0)
    base = random.normal(size=100)
    better = paired_bootstrap(_mean(base + 0.1 + 0.01 * random.normal(size=100)), _mean(base), np.arange(100))
    assert not isinstance(better, Undefined)
    assert better.difference.value == pytest.approx(0.1, abs=0.01)
    assert better.difference.low > 0.09
    assert better.p_value == pytest.approx(2 / 2001)


def test_paired_test_of_equal_models():
    values = np.random.default_rng(0).random(20)
    same = paired_bootstrap(_mean(values), _mean(values), np.arange(20), replicates=100)
    assert not isinstance(same, Undefined)
    assert (same.difference.value, same.p_value) == (0.0, 1.0)


def test_mean_and_sd_over_seeds():
    spread = mean_and_sd([0.8, 0.9, Undefined("no normal image")])
    assert not isinstance(spread, Undefined)
    assert (spread.mean, spread.count) == (pytest.approx(0.85), 2)
    assert spread.sd == pytest.approx(0.1 / np.sqrt(2))
    one = mean_and_sd([0.8])
    assert not isinstance(one, Undefined)
    assert one.sd == Undefined("one seed only")
    assert mean_and_sd([]) == Undefined("no seed")
    assert mean_and_sd([Undefined("why")]) == Undefined("why")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"level": 1.0}, "level"), ({"replicates": 0}, "replicates"), ({"groups": np.zeros((2, 2))}, "groups")],
)
def test_wrong_arguments_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        bootstrap_interval(_mean([1, 2]), **({"groups": [0, 1]} | arguments))
