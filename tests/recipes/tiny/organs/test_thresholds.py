"""The shipped thresholds: quiet on healthy heads, close to held-out lesions."""

from __future__ import annotations

import numpy as np
import pytest

from anomalyclip_monai.exceptions import UsageError
from recipes.tiny.organs.thresholds import Seen, choose


def _head(peak: float) -> Seen:
    heatmap = np.zeros((5, 6, 7), dtype=np.float32)
    heatmap[1:4, 2:4, 3:6] = peak  # 18 voxels of 2 mm3
    return Seen("head", heatmap, None, 2.0)


def _photo() -> Seen:
    """A lesion of six pixels, of which two are found at .6 and four more at .3; and a rim of six at .2."""
    heatmap = np.zeros((4, 5), dtype=np.float32)
    heatmap[0:3, 0:4] = 0.2
    heatmap[0:2, 0:3] = 0.3
    heatmap[0, 0:2] = 0.6
    lesion = np.zeros((4, 5), dtype=bool)
    lesion[0:2, 0:3] = True
    return Seen("skin", heatmap, lesion, 0.0)


def test_the_outline_may_be_lower_than_what_is_quiet() -> None:
    choice = choose([_head(0.5), _photo()])
    assert choice.false_ml["head"][0.5] == pytest.approx(0.036)  # 18 voxels of 2 mm3
    assert choice.false_ml["head"][0.55] == 0
    assert (choice.value, choice.low) == (0.6, 0.3)  # the highest of equals
    assert choice.dice == 1
    assert choice.table[0.6][0.6] == pytest.approx(2 * 2 / (2 + 6))
    assert choice.table[0.6][0.15] == pytest.approx(2 * 6 / (12 + 6))
    assert choice.groups == {"skin": 1.0}


def test_specks_below_the_least_volume_are_quiet() -> None:
    head = _head(0.0)
    head.heatmap[2, 2, 2:5] = 0.9  # 6 mm3
    assert choose([head, _photo()]).false_ml["head"][0.1] == 0


def test_no_threshold_is_quiet() -> None:
    with pytest.raises(UsageError, match="E_THRESHOLD"):
        choose([_head(0.99), _photo()])
