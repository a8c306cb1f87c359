from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from anomalyclip_monai.inferers import SliceAnomalyInferer
from anomalyclip_monai.inferers.glare import fill_glare

MUCOSA = torch.tensor([0.7, 0.35, 0.3])


def frame(height: int = 240, width: int = 300) -> torch.Tensor:
    """(1, 3, H, W): mucosa of one colour within the black frame of an endoscope."""
    picture = torch.zeros(1, 3, height, width)
    picture[..., 20:-20, 30:-30] = MUCOSA[:, None, None]
    return picture


def spot(picture: torch.Tensor, row: int, column: int, side: int, value: float = 0.95) -> torch.Tensor:
    """The picture with a white square about a place."""
    shown = picture.clone()
    shown[..., row - side // 2 : row + side // 2, column - side // 2 : column + side // 2] = value
    return shown


def test_a_reflection_gets_the_colour_of_what_is_around_it():
    # 6 pixels of a picture of 300, and 3 on each side of it.
    filled = fill_glare(spot(frame(), 100, 150, 6))
    torch.testing.assert_close(filled, frame(), atol=0.01, rtol=0)


def test_all_other_pixels_stay_as_they_are():
    given = frame() * torch.linspace(0.5, 1, 300)
    shown = spot(given, 100, 150, 6)
    away = torch.ones(240, 300, dtype=torch.bool)
    away[100 - 8 : 100 + 8, 150 - 8 : 150 + 8] = False
    assert torch.equal(fill_glare(shown)[..., away], given[..., away])
    assert (fill_glare(shown) - given).abs().max() < 0.03


@pytest.mark.parametrize("scale", [0.5, 3])
def test_pictures_are_filled_at_their_own_size(scale):
    def scaled(length: int) -> int:
        return round(length * scale)

    picture = frame(scaled(240), scaled(300))
    filled = fill_glare(spot(picture, scaled(100), scaled(150), scaled(8)))
    assert filled.shape == picture.shape
    torch.testing.assert_close(filled, picture, atol=0.02, rtol=0)


def test_a_large_bright_thing_stays():
    # 40 x 40 of 240 x 300 pixels are 2.2 %.
    shown = spot(frame(), 100, 150, 40)
    assert torch.equal(fill_glare(shown), shown)


@pytest.mark.parametrize(("value", "stays"), [(0.45, True), (0.6, False)])
def test_a_spot_must_be_brighter_than_its_surroundings_in_every_channel(value, stays):
    # The mucosa's darkest channel is .3: .45 is not more than .15 above it, whatever the others are.
    shown = spot(frame(), 100, 150, 6, value)
    assert torch.equal(fill_glare(shown), shown) == stays


def test_the_edge_of_the_black_frame_is_no_reflection():
    bright = frame().clamp_max(0.9)
    bright[..., 20:-20, 30:-30] = torch.tensor([0.9, 0.6, 0.5])[:, None, None]
    assert torch.equal(fill_glare(bright), bright)


def test_grey_pictures_stay_in_one_channel_or_three():
    grey = spot(frame().mean(dim=1, keepdim=True), 100, 150, 6)
    assert torch.equal(fill_glare(grey), grey)
    three = grey.expand(-1, 3, -1, -1)
    assert torch.equal(fill_glare(three), three)
    faint = three + torch.tensor([0.04, 0.0, 0.0])[:, None, None]  # the colours of a saved grey picture
    assert torch.equal(fill_glare(faint), faint)


def test_each_picture_is_judged_by_itself():
    shown = spot(frame(), 100, 150, 6)
    grey = shown.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    both = fill_glare(torch.cat([shown, grey]))
    assert torch.equal(both[:1], fill_glare(shown))
    assert torch.equal(both[1:], grey)


def test_what_is_all_dark_or_all_bright_stays():
    for value in (0.0, 1.0):
        picture = torch.full((1, 3, 31, 44), value)
        assert torch.equal(fill_glare(picture), picture)


class Keeps(nn.Module):
    """Keeps what it is shown; its map is the first channel."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return torch.cat([1 - images[:, :1], images[:, :1]], dim=1)


def test_the_network_sees_the_filled_picture_and_the_given_one_is_not_changed():
    shown = spot(frame(), 100, 150, 6)
    photo = MetaTensor(shown.transpose(2, 3)[..., None].clone(), meta={"physical_size": 0})
    before = photo.as_tensor().clone()
    with_glare, without = Keeps(), Keeps()
    SliceAnomalyInferer("2")(photo, with_glare)
    SliceAnomalyInferer("2", fill_glare=True)(photo, without)
    assert with_glare.seen[0].amin(dim=1).max() == pytest.approx(0.95)
    assert without.seen[0].amin(dim=1).max() < 0.32
    assert torch.equal(photo.as_tensor(), before)
