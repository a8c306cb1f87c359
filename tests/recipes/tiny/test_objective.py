import pytest
import torch

from anomalyclip_monai.networks.similarity import state_probabilities
from recipes.tiny.crops import UNKNOWN
from recipes.tiny.objective import dice_loss, logits, objective, targets


def labels(*squares):
    label = torch.zeros(1, 32, 48, dtype=torch.uint8)
    for value, top, bottom, left, right in squares:
        label[0, top:bottom, left:right] = value
    return label


def test_shares_of_large_lesions_are_areas():
    wanted = targets(labels((1, 0, 16, 4, 16)), 8)
    expected = torch.zeros(4, 6)
    expected[:2, 0], expected[:2, 1] = 0.5, 1.0
    torch.testing.assert_close(wanted.tokens[0].view(4, 6), expected)
    assert wanted.area.item() == pytest.approx(16 * 12 / (32 * 48))


def test_small_lesions_are_grown_for_the_tokens_but_not_in_their_area():
    wanted = targets(labels((1, 18, 22, 26, 30)), 8)  # 4 x 4 pixels in the middle of a token of 8 x 8
    tokens = wanted.tokens[0].view(4, 6)
    assert tokens[2, 3].item() == 1
    assert tokens.sum().item() == 1
    assert wanted.area.item() == pytest.approx(16 / (32 * 48))


def test_unknown_pixels_have_no_say():
    wanted = targets(labels((1, 0, 8, 0, 8), (UNKNOWN, 0, 8, 0, 6)), 8)
    assert wanted.known[0, 0].item() == pytest.approx(0.25)
    assert wanted.tokens[0, 0].item() == pytest.approx(1)
    assert wanted.image_known.item()
    assert not targets(labels((UNKNOWN, 0, 8, 0, 8)), 8).image_known.item()
    assert targets(labels(), 8).image_known.item()


def test_some_tokens():
    wanted = targets(labels((1, 0, 8, 0, 8)), 8).of(torch.tensor([[0, 5]]))
    assert wanted.tokens.tolist() == [[1, 0]]


def test_dice_by_hand():
    probabilities, target = torch.tensor([0.5, 1.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    # 1 - (2 * 1.5 + 1) / (1.5 + 2 + 1)
    assert dice_loss(probabilities, target, torch.ones(3)).item() == pytest.approx(1 - 4 / 4.5)
    assert dice_loss(torch.zeros(3), torch.zeros(3), torch.ones(3)).item() == 0


def test_logits_are_those_of_the_product():
    torch.manual_seed(0)
    features, text = torch.randn(5, 16), torch.nn.functional.normalize(torch.randn(2, 16), dim=-1)
    torch.testing.assert_close(logits(features, text, 0.07).sigmoid(), state_probabilities(features, text)[:, 1])


def test_right_features_cost_little_and_wrong_ones_much():
    text = torch.eye(2, 8)
    wanted = targets(labels((1, 0, 16, 0, 16)), 8)
    sign = 2 * wanted.tokens - 1
    right = torch.stack([-sign, sign, *[torch.zeros_like(sign)] * 6], dim=-1)
    image = torch.tensor([[-1.0, 1.0, 0, 0, 0, 0, 0, 0]])
    good, parts = objective([right, right], image, text, wanted)
    bad, _ = objective([-right, -right], -image, text, wanted)
    assert good.item() < 0.01
    assert bad.item() > 5
    assert good.item() == pytest.approx(sum(map(float, parts.values())), abs=1e-5)


def test_a_healthy_image_is_taught_by_its_brightest_tokens():
    text = torch.eye(2, 8)
    wanted = targets(labels(), 8)
    quiet = torch.zeros(1, 24, 8)
    quiet[..., 0] = 1
    loud = quiet.clone()
    loud[0, 7, :2] = torch.tensor([0.0, 1.0])
    image = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]])
    assert objective([loud], image, text, wanted)[1]["image"] > 1
    assert objective([quiet], image, text, wanted)[1]["image"] < 0.01
