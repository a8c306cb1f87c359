"""Several trainings as one: the mean of weights that came from the same start (model soup, Wortsman et al., ICML 2022).

Each training errs in places of its own; what all agree on stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.networks import read_state_dict
from anomalyclip_monai.networks.matching import describe_mismatch


def mean_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """-> the mean of every tensor, in the precision of the first file.

    Raises:
        WeightsError: a file is missing, or of other sizes than the first (``E_WEIGHTS``).
    """
    states = [read_state_dict(file) for file in files]
    for file, state in zip(files, states, strict=True):
        if mismatch := describe_mismatch(states[0], state):
            raise WeightsError("E_WEIGHTS", f"not like the first file: {mismatch}", file, "average runs of one start")
    return {
        key: torch.stack([state[key].float() for state in states]).mean(dim=0).to(first.dtype)
        if first.is_floating_point()
        else first
        for key, first in states[0].items()
    }
