"""The prior on a picture's own centre is the baseline that networks have to beat, on tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from anomalyclip_monai.metrics import baselines
from anomalyclip_monai.networks.centre import body_field, own_centre

pytestmark = pytest.mark.usefixtures("one_thread")


def ellipse(size: tuple[int, int] = (256, 256), brightness: float = 0.8) -> torch.Tensor:
    """(1, 1, H, W) one ellipse above and right of the middle, on black."""
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, side) for side in size), indexing="ij")
    return brightness * ((((rows - 0.4) / 0.25) ** 2 + ((columns - 0.6) / 0.15) ** 2) < 1).float()[None, None]


def test_a_lit_rectangle_by_hand() -> None:
    image = torch.zeros(1, 1, 256, 256)
    image[..., 50:110, 100:130] = 1
    # 3 pixels beyond a side a seventh of the 7 x 7 pixels is lit; at a corner 3 pixels see fewer than 3 lit ones of 49
    field = body_field(image)[0, 0]
    assert field[80, 96:134].tolist() == [0.0, *[1.0] * 36, 0.0]
    assert field[46:114, 115].tolist() == [0.0, *[1.0] * 66, 0.0]
    assert field.sum() == 66 * 36 - 4 * 3
    prior = own_centre(image)[0, 0]
    # centre: row 79.5, column 114.5; deviations nearly (the corners lack) those of 66 and 36, sqrt((n^2 - 1) / 12)
    assert np.unravel_index(int(prior.argmax()), prior.shape) in [(79, 114), (79, 115), (80, 114), (80, 115)]
    down, across = ((np.array([66, 36]) ** 2 - 1) / 12) ** 0.5
    for row, column, factor in ((79, 114, 1.02), (60, 105, 1.02), (35, 145, 0.02)):
        expected = factor * np.exp(-(((row - 79.5) / down) ** 2 + ((column - 114.5) / across) ** 2) / 4)
        assert prior[row, column].item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("size", [(256, 256), (190, 333)])
def test_it_is_the_baseline_where_nothing_has_to_be_filled(size: tuple[int, int]) -> None:
    image = ellipse(size).expand(-1, 3, -1, -1) * torch.tensor([1.0, 0.5, 0.3]).view(3, 1, 1)
    field = baselines.body_field(image[0].numpy())
    np.testing.assert_array_equal(body_field(image)[0, 0].numpy() > 0, field)
    np.testing.assert_allclose(own_centre(image)[0, 0].numpy(), baselines.body_centre(field), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("image", [torch.zeros(1, 1, 40, 30), torch.ones(1, 1, 40, 30)])
def test_dark_and_wholly_lit_pictures_have_their_own_middle(image: torch.Tensor) -> None:
    prior = own_centre(image)[0, 0]
    torch.testing.assert_close(prior, prior.flip(0))
    torch.testing.assert_close(prior, prior.flip(1))
    assert prior.max() > 0.99
    if image.any():  # deviation of 256 positions: 73.9; a corner is 127.5 away in both directions
        assert prior[0, 0].item() == pytest.approx(1.02 * np.exp(-((127.5 / 73.9) ** 2) / 2), rel=1e-3)
    else:
        np.testing.assert_allclose(prior.numpy(), baselines.centre_prior(256, 256), rtol=1e-5)


def test_images_of_a_batch_do_not_mix() -> None:
    batch = torch.cat([ellipse(), torch.zeros(1, 1, 256, 256), ellipse().mT, ellipse(brightness=0.1)])
    found = own_centre(batch)
    for one, image in zip(found, batch, strict=True):
        torch.testing.assert_close(one, own_centre(image[None])[0])
    torch.testing.assert_close(found[2], found[0].mT)
    torch.testing.assert_close(found[3], found[0])  # what is lit is a share of the brightest
