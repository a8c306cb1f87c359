"""The loss of prompt learning by hand, against MONAI's, and against the published code."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_network import Golden, rebuild
from monai.losses import DiceLoss, FocalLoss

from anomalyclip_monai.engines.prompts.prediction import encode_frozen, predict
from anomalyclip_monai.losses import PromptLoss, PromptPrediction, PromptTarget, focal_loss

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def maps() -> tuple[torch.Tensor, torch.Tensor]:
    """(3, 2, 5, 7) probabilities that sum to 1 and a mask."""
    random = torch.Generator().manual_seed(0)
    abnormal = torch.rand(3, 1, 5, 7, generator=random)
    mask = (torch.rand(3, 1, 5, 7, generator=random) > 0.6).float()
    return torch.cat([1 - abnormal, abnormal], dim=1), mask


def test_focal_loss_by_hand():
    abnormal = torch.tensor([[[[0.9, 0.2]]]])
    mask = torch.tensor([[[[1.0, 0.0]]]])
    # right with .9 and .8: -(.1^2 ln .9 + .2^2 ln .8) / 2
    expected = -(0.01 * math.log(0.9) + 0.04 * math.log(0.8)) / 2
    found = focal_loss(torch.cat([1 - abnormal, abnormal], dim=1), mask)
    assert float(found) == pytest.approx(expected, rel=1e-3)
    assert float(found) != pytest.approx(expected, rel=1e-6)  # the published smoothing is there


def test_focal_loss_is_finite_where_all_is_wrong_and_monais_is_not():
    wrong = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)  # surely normal, but it is lesion
    mask = torch.ones(1, 1, 1, 1)
    assert float(focal_loss(wrong, mask)) == pytest.approx(-math.log(2e-5), rel=1e-4)
    monai = FocalLoss(use_softmax=True, gamma=2.0)(wrong.log(), torch.cat([1 - mask, mask], dim=1))
    assert not torch.isfinite(monai)


def test_focal_loss_is_twice_monais_up_to_the_smoothing(maps):
    probabilities, mask = maps
    one_hot = torch.cat([1 - mask, mask], dim=1)
    # log p are logits of p; MONAI averages over both channels, of which one is always 0
    monai = 2 * FocalLoss(use_softmax=True, gamma=2.0)(probabilities.log(), one_hot)
    ours = focal_loss(probabilities, mask)
    assert float(ours) == pytest.approx(float(monai), rel=1e-3)
    assert float(ours) != pytest.approx(float(monai), rel=1e-6)
    assert float(focal_loss(probabilities, mask, smooth=0)) == pytest.approx(float(monai), rel=1e-6)


def test_dice_loss_is_monais(maps):
    probabilities, mask = maps
    p, m = probabilities[:, 1].flatten(1), mask[:, 0].flatten(1)
    published = (1 - (2 * (p * m).sum(1) + 1) / (p.sum(1) + m.sum(1) + 1)).mean()
    _, abnormal, normal = PromptLoss().map_losses(probabilities, mask)
    assert float(abnormal) == pytest.approx(float(published), rel=1e-6)
    assert float(DiceLoss(smooth_nr=1, smooth_dr=1)(probabilities[:, 1:], mask)) == float(abnormal)
    # MONAI's own smoothing is another one
    assert float(DiceLoss()(probabilities[:, 1:], mask)) != pytest.approx(float(abnormal), rel=1e-3)
    assert float(normal) != pytest.approx(float(abnormal), rel=1e-3)


def test_terms_alone_add_up(maps):
    probabilities, mask = maps
    logits = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 1.0]])
    prediction = PromptPrediction(logits, (probabilities, probabilities.flip(-1)))
    target = PromptTarget(torch.tensor([1, 0, 1]), mask)
    both, image, local = (PromptLoss(terms)(prediction, target) for terms in ("both", "global", "local"))
    assert float(image) == pytest.approx((math.log(1 + math.e) + 3.0485874 + math.log(2)) / 3, rel=1e-5)
    assert float(both) == pytest.approx(float(image + local), rel=1e-6)
    loss = PromptLoss(map_weight=1)
    loss(prediction, target)
    assert float(loss.parts.maps) == pytest.approx(float(local) / 4, rel=1e-6)
    with pytest.raises(ValueError, match="terms"):
        PromptLoss("none")  # type: ignore[arg-type]


@pytest.fixture
def case(golden: Path) -> Golden:
    return rebuild(golden)


def _step(case: Golden, loss: PromptLoss) -> torch.Tensor:
    features = encode_frozen(case.network, case.images)
    target = PromptTarget(
        torch.tensor(case.expected["label"]).long(), torch.tensor(case.expected["mask"]).float().unsqueeze(1)
    )
    return loss(predict(case.network, features), target)


def test_parts_of_the_loss_are_the_published_ones(case):
    loss = PromptLoss()
    features = encode_frozen(case.network, case.images)
    mask = torch.tensor(case.expected["mask"]).float().unsqueeze(1)
    parts = [torch.stack(loss.map_losses(layer, mask)) for layer in predict(case.network, features).maps]
    case.assert_equal("loss_parts", torch.stack(parts))


def test_gradients_are_the_published_ones(case):
    _step(case, PromptLoss()).backward()
    for index, side in enumerate(("pos", "neg")):
        case.assert_equal(f"grad.ctx_{side}", case.network.ctx.grad[index][None, None], 1e-5)
    for index, prompt in enumerate(case.network.deep):
        case.assert_equal(f"grad.compound_prompts_text.{index}", prompt.grad, 2e-3)


def test_three_steps_give_the_published_losses_and_prompts(case):
    network, loss, history = case.network, PromptLoss(), []
    optimizer = torch.optim.Adam([network.ctx, *network.deep], lr=1e-3, betas=(0.5, 0.999))
    for _ in range(3):
        total = _step(case, loss)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        history.append([float(loss.parts.image), float(loss.parts.maps), float(total.detach())])
    case.assert_equal("loss_history", torch.tensor(history))
    for index, side in enumerate(("pos", "neg")):
        expected = case.expected[f"after3.ctx_{side}"][0, 0]
        np.testing.assert_allclose(network.ctx[index].detach().numpy(), expected, atol=1e-5)
    for index, prompt in enumerate(network.deep):
        expected = case.expected[f"after3.compound_prompts_text.{index}"]
        np.testing.assert_allclose(prompt.detach().numpy(), expected, atol=1e-5)
