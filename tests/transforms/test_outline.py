"""Lesions found at one threshold and outlined down to a lower one, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_propagation

from anomalyclip_monai.transforms.outline import lesion_components, lesion_mask


def _volume(**rows: list[float]) -> np.ndarray:
    """(7, 3, 2) with values along the first axis at ``y0z0`` and the like."""
    heatmap = np.zeros((7, 3, 2), dtype=np.float32)
    for place, values in rows.items():
        heatmap[:, int(place[1]), int(place[3])] = values
    return heatmap


def test_an_outline_reaches_down_to_the_lower_threshold() -> None:
    heatmap = _volume(y1z0=[0.2, 0.3, 0.6, 0.5, 0.3, 0.2, 0])
    assert lesion_mask(heatmap, 0.6)[:, 1, 0].tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert lesion_mask(heatmap, 0.6, 0.3)[:, 1, 0].tolist() == [0, 1, 1, 1, 1, 0, 0]
    assert lesion_mask(heatmap, 0.6, 0)[:, 1, 0].tolist() == [1, 1, 1, 1, 1, 1, 0]  # 0 was not scored


def test_two_that_a_faint_bridge_joins_become_one() -> None:
    heatmap = _volume(y1z0=[0.9, 0.3, 0, 0.3, 0.8, 0, 0])
    heatmap[2, 2, 1] = 0.3  # touches both by corners
    assert lesion_components(heatmap, 0.8).max() == 2
    together = lesion_components(heatmap, 0.8, 0.3)
    assert together[:, 1, 0].tolist() == [1, 1, 0, 1, 1, 0, 0]
    assert together[2, 2, 1] == 1
    assert np.count_nonzero(together) == 5


def test_none_is_added_that_is_faint_throughout() -> None:
    heatmap = _volume(y0z0=[0.5, 0.5, 0.5, 0, 0, 0, 0], y2z1=[0, 0, 0, 0, 0, 0.5, 0.7])
    assert np.argwhere(lesion_components(heatmap, 0.7, 0.4) == 1).tolist() == [[5, 2, 1], [6, 2, 1]]
    assert lesion_components(heatmap, 0.7, 0.4).max() == 1


def test_the_smallest_size_counts_voxels_at_the_upper_threshold() -> None:
    # the left one is the larger one, but has one voxel of .7 only; the right one has two, with one of .5 between
    heatmap = _volume(y0z0=[0.7, 0.5, 0.5, 0.5, 0, 0, 0], y2z1=[0, 0, 0, 0, 0.7, 0.5, 0.7])
    heatmap[3, 0, 0] = 0
    found = lesion_components(heatmap, 0.7, 0.5, smallest=2)
    assert np.argwhere(found).tolist() == [[4, 2, 1], [5, 2, 1], [6, 2, 1]]
    assert found.max() == 1
    assert not lesion_mask(heatmap, 0.7, smallest=2).any()  # apart, each is too small
    assert not lesion_mask(heatmap, 0.7, 0.5, smallest=3).any()


def test_in_a_picture_corners_touch_and_one_pixel_is_enough() -> None:
    picture = np.array([[0.9, 0, 0, 0.4], [0, 0.4, 0, 0.4], [0, 0, 0.4, 0], [0.4, 0, 0, 0]], dtype=np.float32)
    expected = [[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]]
    for heatmap in (picture, picture[..., np.newaxis]):
        mask = lesion_mask(heatmap, 0.9, 0.4)
        assert mask.shape == heatmap.shape
        assert mask.reshape(4, 4).tolist() == expected


def test_one_threshold_is_what_is_at_or_above_it() -> None:
    heatmap = np.random.default_rng(0).random((9, 11, 7)).astype(np.float32)
    heatmap[heatmap < 0.1] = 0
    for low in (None, 0.6):
        np.testing.assert_array_equal(lesion_mask(heatmap, 0.6, low), heatmap >= 0.6)
        np.testing.assert_array_equal(lesion_components(heatmap, 0.6, low) > 0, heatmap >= 0.6)
    np.testing.assert_array_equal(lesion_mask(heatmap, 0), heatmap > 0)


@pytest.mark.parametrize("value", [0.85, 0.95, 0.99, 1.1])
def test_it_is_what_grows_from_the_upper_into_the_lower(value: float) -> None:
    heatmap = np.random.default_rng(1).random((9, 11, 7)).astype(np.float32)
    grown = binary_propagation(heatmap >= value, np.ones((3, 3, 3)), mask=heatmap >= 0.8)
    np.testing.assert_array_equal(lesion_mask(heatmap, value, 0.8), grown)
