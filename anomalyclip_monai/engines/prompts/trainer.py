"""MONAI's supervised trainer for prompts on a frozen CLIP, on one process or on several."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events
from monai.engines import IterationEvents, SupervisedTrainer

from anomalyclip_monai.engines.prompts.batches import GlobalBatches
from anomalyclip_monai.engines.prompts.datasets import prepare_batch
from anomalyclip_monai.engines.prompts.prediction import learned
from anomalyclip_monai.losses import PromptLoss

LOSSES = ("loss", "image_loss", "map_loss")
"""Of a batch, in the engine's output; their means over an epoch are in the curve and in ``state.metrics``."""


class PromptTrainer(SupervisedTrainer):
    """A ``SupervisedTrainer`` whose only parameters are the prompts.

    Takes the arguments of ``SupervisedTrainer``. The data loader's batch sampler is a :class:`GlobalBatches`. On
    several processes each computes its share of a batch; gradients are averaged over the samples of the whole batch,
    so that the result is that of a single process. ``DistributedDataParallel`` is not used: it averages over
    processes, which is not the same where shares differ.

    Attributes:
        curve: per epoch ``epoch``, :data:`LOSSES` and ``seconds``.
    """

    def __init__(self, *args: Any, train_handlers: Sequence[Any] = (), **kwargs: Any) -> None:
        self.curve: list[dict[str, float]] = []
        self._sums = torch.zeros(3, dtype=torch.float64)
        self._since = 0.0
        super().__init__(*args, prepare_batch=prepare_batch, decollate=False, train_handlers=train_handlers, **kwargs)
        if not isinstance(self.loss_function, PromptLoss):
            raise TypeError(f"loss_function is a {type(self.loss_function).__name__}, it must be a PromptLoss")
        self._batches: GlobalBatches = self.data_loader.batch_sampler

    def _register_handlers(self, handlers: Sequence[Any]) -> None:
        """Before the handlers that were given: what these save of an epoch holds its losses."""
        self.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        self.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._average_gradients)
        self.add_event_handler(IterationEvents.MODEL_COMPLETED, self._add_losses)
        self.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        super()._register_handlers(handlers)

    def _start_epoch(self) -> None:
        for part in (self._batches, self.data_loader.dataset):
            if hasattr(part, "set_epoch"):
                part.set_epoch(self.state.epoch)
        self._sums.zero_()
        self._since = time.monotonic()

    def _average_gradients(self) -> None:
        if idist.get_world_size() == 1:
            return
        mine, whole = self._batches.share(self.state.iteration)
        for prompt in learned(self.network):
            if prompt.grad is not None:
                prompt.grad.copy_(idist.all_reduce(prompt.grad * mine) / whole)

    def _add_losses(self) -> None:
        mine, _ = self._batches.share(self.state.iteration)
        image, maps = self.loss_function.parts
        self.state.output |= {"image_loss": image, "map_loss": maps}
        self._sums += mine * torch.tensor(list(batch_losses(self.state.output).values()), dtype=torch.float64)

    def _end_epoch(self) -> None:
        means = (idist.all_reduce(self._sums.clone()) / self._batches.count).tolist()
        self.state.metrics.update(zip(LOSSES, means, strict=True))
        seconds = round(time.monotonic() - self._since, 3)
        self.curve.append({"epoch": self.state.epoch, **dict(zip(LOSSES, means, strict=True)), "seconds": seconds})


def batch_losses(output: Mapping[str, Any]) -> dict[str, float]:
    """The losses in an engine's output, for MONAI's logging handlers; apart from those of an epoch by their names."""
    return {f"batch_{name}": output[name].item() for name in LOSSES}
