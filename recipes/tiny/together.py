"""Several trainings on the same crops, each drawn once: a GPU learns faster than processors draw."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from recipes.tiny.crops import Crops
from recipes.tiny.sources import DOMAIN_OF
from recipes.tiny.training import Training


def train_together(trainings: Sequence[Training], crops: Crops) -> None:
    """Train to the end; every training learns from the crops whose organ it does not leave out.

    They take the same steps. One that was saved earlier than the others when a run was stopped catches up first.

    Args:
        trainings: of one device and one length, with seeds or left-out organs of their own.
        crops: of all organs.
    """
    first = min(trainings, key=lambda training: training.step)
    step = first.step
    for training in trainings:
        training.start_clock()
    for drawn in first.batches(crops):
        if min(training.progress for training in trainings) >= 1:
            break
        for training in trainings:
            if training.step == step:
                left_out = DOMAIN_OF.get(training.plan.leave_out or "")
                seen = torch.tensor([domain != left_out for domain in drawn.domain], device=drawn.image.device)
                training.learn_from(drawn.image[seen], drawn.label[seen])
        step += 1
    for training in trainings:
        training.finish()
