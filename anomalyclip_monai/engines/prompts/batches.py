"""Which samples make up a batch, on one process or on several."""

from __future__ import annotations

from collections.abc import Iterator

import ignite.distributed as idist
import numpy as np
from torch.utils.data import Sampler


class GlobalBatches(Sampler[list[int]]):
    """This process's share of each batch; all shares together are the batch that a single process sees.

    The order depends on seed and epoch alone, so that a resumed run and a run on several processes see the same
    batches.

    Args:
        count: number of samples.
        batch_size: samples of a batch over all processes.
        seed: of the order.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size ({batch_size}) must be at least 1")
        self.count = count
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 1
        self.rank, self.world = idist.get_rank(), idist.get_world_size()

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch, counted from 1."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count).tolist()
        for start in range(0, self.count, self.batch_size):
            batch = order[start : start + self.batch_size]
            # Where the last batch has no sample left for this process it computes one that does not count.
            yield batch[self.rank :: self.world] or batch[:1]

    def share(self, iteration: int) -> tuple[int, int]:
        """Samples that count, of this process and of all, in the batch of an iteration counted from 1."""
        start = (iteration - 1) % len(self) * self.batch_size
        whole = min(self.batch_size, self.count - start)
        return len(range(self.rank, whole, self.world)), whole
