from __future__ import annotations

import numpy as np
import pytest

from anomalyclip_monai.metrics.baselines import (
    body_centre,
    body_field,
    box_share,
    brightness_map,
    centre_prior,
    centre_prior_volume,
    inside_body,
    lit_field,
    resized,
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


def made_body() -> np.ndarray:
    """An ellipse with a dark hole in a dark square, off the middle; a speck, and letters of one pixel."""
    rows, columns = np.mgrid[:256, :256]
    body = ((rows - 100) / 60) ** 2 + ((columns - 160) / 40) ** 2 < 1
    hole = (rows - 100) ** 2 + (columns - 160) ** 2 < 100
    return np.where(body & ~hole, 0.8, 0.0)


def test_the_field_is_the_body_with_its_holes_and_without_specks():
    photo = made_body()
    photo[20, 20] = 1.0
    field = body_field(np.repeat(photo[None], 3, axis=0))
    assert field.shape == (256, 256)
    assert field[100, 160]
    assert field[60:140, 140:180].all()
    assert not field[:30].any()
    assert field.sum() == pytest.approx(np.pi * 63 * 43, rel=0.03)  # seen 3 pixels wider, by the averaging
    assert box_share(field) == pytest.approx(126 * 86 / 256**2, rel=0.15)


def test_the_centre_of_the_body_is_that_of_its_field():
    field = np.zeros((256, 256), bool)
    field[50:151, 100:221] = True
    prior = body_centre(field)
    assert np.unravel_index(prior.argmax(), prior.shape) == (100, 160)
    assert prior.max() == pytest.approx(1.02)
    spread = np.arange(-60, 61).std()
    assert prior[100, 160 + 40] == pytest.approx(1.02 * np.exp(-((40 / spread) ** 2) / 4))
    spread = np.arange(-50, 51).std()
    assert prior[160, 160] == pytest.approx(0.02 * np.exp(-((60 / spread) ** 2) / 4))
    assert box_share(field) == 101 * 121 / 256**2


def test_without_a_body_its_centre_is_that_of_the_picture():
    assert np.array_equal(body_centre(np.zeros((256, 256), bool)), centre_prior(256, 256))
    assert not body_field(np.zeros((3, 40, 50))).any()
    assert box_share(np.zeros((256, 256), bool)) == 1.0


def test_a_picture_without_a_dark_surround_is_all_field():
    assert body_field(np.full((1, 30, 40), 0.4))[1:-1, 1:-1].all()


def test_resized_keeps_rows_and_columns():
    assert resized(np.arange(6.0).reshape(2, 3), 30, 20).shape == (20, 30)
    assert resized(np.zeros((7, 9)), 4).shape == (4, 4)
    assert resized(np.repeat([[0.0, 1.0]], 2, axis=0), 2) == pytest.approx(np.array([[0, 1], [0, 1]]))
