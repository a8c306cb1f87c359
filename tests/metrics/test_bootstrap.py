from __future__ import annotations

import numpy as np
import pytest

from anomalyclip_monai.metrics.bootstrap import draw_groups, mean_and_sd
from anomalyclip_monai.metrics.undefined import Undefined


def test_groups_are_drawn_whole_and_the_same_every_time():
    groups = ["b", "a", "b", "c", "a", "b"]
    draws = draw_groups(groups, replicates=200, seed=3)
    assert draws.shape == (200, 6)
    assert (draws[:, 0] == draws[:, 2]).all()
    assert (draws[:, 1] == draws[:, 4]).all()
    assert (draws[:, [0, 1, 3]].sum(axis=1) == 3).all()  # three groups are drawn each time
    assert (draws == draw_groups(groups, replicates=200, seed=3)).all()
    assert (draws != draw_groups(groups, replicates=200, seed=4)).any()


def test_a_group_is_one_name_for_each_case():
    with pytest.raises(ValueError, match="one name for each case"):
        draw_groups(np.zeros((2, 2)), replicates=3)
    assert draw_groups([], replicates=3).shape == (3, 0)


def test_mean_and_sd_over_seeds():
    spread = mean_and_sd([0.8, 0.9, Undefined("no normal image")])
    assert not isinstance(spread, Undefined)
    assert spread.mean == pytest.approx(0.85)
    assert spread.sd == pytest.approx(0.1 / np.sqrt(2))
    one = mean_and_sd([0.8])
    assert not isinstance(one, Undefined)
    assert one.sd == Undefined("one seed only")
    assert mean_and_sd([]) == Undefined("no seed")
    assert mean_and_sd([Undefined("why")]) == Undefined("why")
