from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from anomalyclip_monai.inferers import SliceAnomalyInferer
from anomalyclip_monai.inferers.body import body_window


def body(rows: slice, columns: slice, shape: tuple[int, int] = (100, 80), count: int = 3) -> torch.Tensor:
    """Slices of a box in air."""
    slices = torch.full((count, 1, *shape), 0.04)
    slices[:, :, rows, columns] = 0.5
    return slices


def test_the_window_is_the_body_and_a_twentieth_of_its_length_on_both_sides():
    # 60 rows and 50 columns: 3 and, rounded up, 3 more on each side.
    assert body_window(body(slice(20, 80), slice(10, 60))) == (slice(17, 83), slice(7, 63))


def test_it_ends_at_the_border():
    assert body_window(body(slice(0, 99), slice(1, 80))) == (slice(0, 100), slice(0, 80))


def test_all_slices_count():
    slices = body(slice(20, 80), slice(10, 60))
    slices[1] = 0.0
    slices[2, :, 85:95, 30:40] = 0.5
    assert body_window(slices)[0] == slice(16, 99)  # 20 to 95, and 4 more


def test_specks_of_noise_are_not_the_body():
    slices = body(slice(20, 80), slice(10, 60), shape=(1000, 800), count=10)
    slices[:] = 0.0
    slices[:, :, 200:800, 100:700] = 0.5
    slices[3, :, 5, 7] = 0.9
    assert body_window(slices) == (slice(170, 830), slice(70, 730))


def test_nothing_is_enlarged_more_than_twice():
    # A box of 20 x 20 in the middle of 100 x 80: half of the field of view about its middle.
    assert body_window(body(slice(40, 60), slice(30, 50))) == (slice(25, 75), slice(20, 60))
    # In a corner: half of the field of view from there on.
    assert body_window(body(slice(0, 10), slice(70, 80))) == (slice(0, 50), slice(40, 80))


def test_the_longer_side_is_at_most_half_as_long_again_in_millimetres():
    # 98 x 50 px with margins: 98 rows of 1 mm ask for 65.3 columns of 1 mm, and so for 66.
    assert body_window(body(slice(5, 94), slice(15, 60), shape=(100, 100))) == (slice(0, 99), slice(4, 70))
    # With columns of 2 mm 50 of them are long enough already.
    window = body_window(body(slice(5, 94), slice(15, 60), shape=(100, 100)), (1.0, 2.0))
    assert window == (slice(0, 99), slice(12, 63))


def test_where_there_is_only_air_nothing_is_cut():
    assert body_window(torch.full((2, 3, 31, 44), 0.04)) == (slice(0, 31), slice(0, 44))


class Shapes(nn.Module):
    """Keeps the shapes that it is shown; its map is the picture, or ``value`` everywhere."""

    def __init__(self, value: float | None = None) -> None:
        super().__init__()
        self.value = value
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(tuple(images.shape[2:]))
        maps = images.mean(1, keepdim=True)
        return torch.cat([1 - maps, maps if self.value is None else torch.full_like(maps, self.value)], dim=1)


def head(**meta: object) -> MetaTensor:
    """(1, 1, 40, 52, 30): a box of 24 x 30 x 20 voxels whose values are all different, in air."""
    volume = torch.zeros(1, 1, 40, 52, 30)
    volume[0, 0, 9:33, 12:42, 5:25] = torch.rand(24, 30, 20, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.3
    return MetaTensor(volume, affine=torch.from_numpy(np.diag([-1.0, 1, 1, 1])), meta=meta)


@pytest.mark.parametrize("axes", ["axial", "coronal", "sagittal", "axial,coronal,sagittal"])
def test_maps_come_back_at_their_place_and_outside_is_zero(axes):
    network, volume = Shapes(), head()
    heatmap = SliceAnomalyInferer(axes=axes, crop=True)(volume, network).as_tensor()
    np.testing.assert_allclose(heatmap[0, 0].numpy(), volume.as_tensor()[0, 0].numpy(), atol=1e-6)
    everywhere = SliceAnomalyInferer(axes=axes, crop=True)(head(), Shapes(1.0)).as_tensor()[0, 0]
    assert everywhere[9:33, 12:42, 5:25].min() == 1
    assert everywhere[0].max() == 0


def test_the_network_sees_the_window():
    for crop, shape in ((True, (34, 28)), (False, (52, 40))):
        network = Shapes()
        SliceAnomalyInferer("axial", crop=crop)(head(), network)
        # 24 columns and 30 rows with 2 more on each side.
        assert set(network.seen) == {shape}


def test_photos_are_shown_as_they_are():
    network = Shapes()
    SliceAnomalyInferer("axial", crop=True)(head(physical_size=0), network)
    assert set(network.seen) == {(52, 40)}
