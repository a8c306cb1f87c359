"""What differs between left and right enters the score of a slice, and nothing else does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from anomalyclip_monai.networks import AnomalyCLIP, AnomalyCLIPEnsemble, Symmetry
from anomalyclip_monai.networks.symmetry import SIDE, asymmetry

pytestmark = pytest.mark.usefixtures("one_thread")


def bright_or_dim(views: torch.Tensor) -> torch.Tensor:
    """(B, 3, 192, 192) -> (B, 2, 12, 12): one direction where a token is bright, the other where it is not."""
    assert views.shape[1:] == (3, SIDE, SIDE)
    bright = (F.avg_pool2d(views.mean(dim=1, keepdim=True), 16) > 0.6).float()
    return torch.cat([bright, 1 - bright], dim=1)


def head(*spots: tuple[slice, slice]) -> torch.Tensor:
    """(1, 60, 48): a grey head of 36 x 24 pixels, off the middle, with bright spots given in its own pixels."""
    image = torch.zeros(1, 60, 48)
    inside = image[:, 12:48, 20:44]
    inside += 0.4
    for rows, columns in spots:
        inside[:, rows, columns] = 0.9
    return image


LEFT, RIGHT = (slice(9, 18), slice(2, 6)), (slice(9, 18), slice(18, 22))


def test_weighing_by_hand() -> None:
    scores, found = torch.tensor([0.5, 0.8, 0.3]), torch.tensor([0.7, 0.2, math.nan])
    # logit(.5) = 0 and 2 * (.7 - .45) = .5; logit(.8) = log 4 and 2 * (.2 - .45) = -.5; the third has none
    expected = [1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(-math.log(4) + 0.5)), 0.3]
    assert Symmetry(weight=2, usual=0.45).weigh(scores, found).tolist() == pytest.approx(expected)


def test_weight_0_leaves_scores_as_they_are() -> None:
    scores = torch.tensor([0.25, 0.75])
    torch.testing.assert_close(Symmetry(0, 0.45).weigh(scores, torch.tensor([2.0, 0.0])), scores)


def test_one_side_alone_counts_and_both_do_not() -> None:
    images = torch.stack([head(LEFT), head(LEFT, RIGHT), head(), head(RIGHT)])
    # A spot of 1.5 x 2 tokens has no like on the other side: the cosine is 0 for 3 of 144 tokens, the top 2 %.
    assert asymmetry(bright_or_dim, images).tolist() == pytest.approx([1, 0, 0, 1])


def test_two_tokens_of_shift_are_forgiven_and_four_are_not() -> None:
    near, far = (slice(9, 18), slice(14, 18)), (slice(9, 18), slice(10, 14))
    assert asymmetry(bright_or_dim, torch.stack([head(LEFT, near), head(LEFT, far)])).tolist() == pytest.approx([0, 1])


def test_nothing_to_compare() -> None:
    assert asymmetry(bright_or_dim, torch.zeros(1, 1, 20, 30)).tolist() == [0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Symmetry(value, 0)
    with pytest.raises(ValueError, match="finite"):
        Symmetry(1, value)


def test_a_network_without_a_stem_has_nothing_to_compare(tiny_clip: nn.Module) -> None:
    network = AnomalyCLIP(tiny_clip, image_size=56, feature_layers=(3, 4), dpam_layer=3, n_ctx=4, depth=3, t_n_ctx=2)
    assert AnomalyCLIPEnsemble([network], symmetry=Symmetry(1, 0)).symmetry is None
