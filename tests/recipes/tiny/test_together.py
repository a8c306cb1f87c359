import copy
import itertools

import pytest
import torch

from recipes.tiny.sources import without
from recipes.tiny.together import train_together
from recipes.tiny.training import Plan, Training


@pytest.fixture
def start(tiny_network, subjects, tmp_path, one_thread):
    """Begins or goes on with a run in a folder, of a network of its own."""

    def begin(folder, **options):
        plan = Plan(crops=24, batch=4, warmup=1, validate_every=1000, workers=0, **options)
        found = without([subject for subject in subjects if not subject.validates], plan.leave_out)
        return Training(copy.deepcopy(tiny_network), found, plan, tmp_path / folder)

    return begin


def weights(training):
    return torch.cat([parameter.detach().flatten() for parameter in training.learned])


def test_on_the_same_crops_a_training_ends_as_by_itself(start):
    alone = start("alone")
    alone.run()
    first, second = start("first"), start("second", seed=1)
    train_together([first, second], first.crops)
    assert torch.equal(weights(first), weights(alone))
    assert not torch.equal(weights(second), weights(first))  # other tokens are dropped
    assert second.step == first.step == 6


def test_an_organ_that_is_left_out_is_not_shown(start, monkeypatch):
    everything, most = start("everything"), start("most", leave_out="colonoscopy")
    batches = list(itertools.islice(everything.batches(everything.crops), 6))
    monkeypatch.setattr(everything, "batches", lambda crops: iter([*batches, batches[0]]))
    seen = []
    monkeypatch.setattr(most, "_learn", lambda images, labels: seen.append(images) or {})
    train_together([everything, most], everything.crops)
    allowed = [batch.image[[domain != "colonoscopy" for domain in batch.domain]] for batch in batches]
    assert sum(map(len, allowed)) < 24
    assert torch.equal(torch.cat(seen), torch.cat(allowed))


def test_one_that_was_saved_earlier_catches_up(start):
    first, second = start("first"), start("second", seed=1)
    train_together([first, second], first.crops)
    start("early", seed=1).run(until=2)
    start("late").run(until=4)
    late, early = start("late"), start("early", seed=1)
    assert (late.step, early.step) == (4, 2)
    train_together([late, early], late.crops)
    assert torch.equal(weights(late), weights(first))
    assert early.step == 6
