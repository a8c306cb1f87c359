from __future__ import annotations

import numpy as np
import pytest

from anomalyclip_monai.metrics.baselines import (
    brightness_map,
    centre_prior,
    centre_prior_volume,
    inside_body,
    lit_field,
)


def test_brightness_is_the_mean_of_channels():
    image = np.array([[[0.0, 0.3]], [[0.6, 0.3]], [[0.0, 0.9]]], np.float32)
    assert brightness_map(image) == pytest.approx(np.array([[0.2, 0.5]]))
    assert brightness_map(image).dtype == np.float32


def test_centre_prior_is_in_quarters_of_width_and_height():
    prior = centre_prior(5, 9)
    assert prior.shape == (5, 9)
    assert prior[2, 4] == 1.0
    # dx = 4 / (9 / 4), dy = 2 / (5 / 4)
    assert prior[0, 8] == pytest.approx(np.exp(-((16 / 9) ** 2 + 1.6**2) / 2))
    assert prior == pytest.approx(prior[::-1, ::-1])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_centre_prior_of_a_volume_is_that_of_each_slice(axis):
    shape = (4, 5, 7)
    prior = centre_prior_volume(shape, axis)
    assert prior.shape == shape
    sides = [size for other, size in enumerate(shape) if other != axis]
    for index in range(shape[axis]):
        assert np.array_equal(prior.take(index, axis), centre_prior(*sides))


def test_inside_body_is_above_five_percent_of_the_maximum():
    volume = np.array([[[0.0, 5.0, 5.1, 100.0]]])
    assert inside_body(volume).tolist() == [[[False, False, True, True]]]
    assert not inside_body(np.zeros((2, 2, 2))).any()


def test_lit_field_is_above_twenty():
    photo = np.array([[[0, 20, 21]], [[0, 20, 20]], [[59, 20, 22]]], np.uint8)
    assert lit_field(photo).tolist() == [[False, False, True]]
