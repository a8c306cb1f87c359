"""Several trainings as one: the mean of weights that came from the same start (model soup, Wortsman et al., ICML 2022).

Each training errs in places of its own; what all agree on stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.networks.checkpoints import IMAGE_SIDE
from anomalyclip_monai.networks.matching import describe_mismatch
from anomalyclip_monai.weights import read_state_dict


def mean_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """:func:`mean_of` the states in these files.

    Raises:
        WeightsError: a file is missing, or of other sizes than the first (``E_WEIGHTS``).
    """
    return mean_of([read_state_dict(file) for file in files], files)


def mean_of(states: Sequence[Mapping[str, Tensor]], files: Sequence[Path]) -> dict[str, Tensor]:
    """-> the mean of every tensor, in the precision of the first state.

    Args:
        states: of trainings from one start.
        files: where each came from, for the error.

    Raises:
        WeightsError: a state has other keys or sizes than the first (``E_WEIGHTS``).
    """
    for file, state in zip(files, states, strict=True):
        if mismatch := describe_mismatch(states[0], state):
            raise WeightsError("E_WEIGHTS", f"not like the first file: {mismatch}", file, "average runs of one start")
    return {
        key: torch.stack([state[key].float() for state in states]).mean(dim=0).to(first.dtype)
        if first.is_floating_point()
        else first
        for key, first in states[0].items()
    }


def write_weights(weights: Mapping[str, Tensor], file: Path, *, image_side: bool = False) -> None:
    """Write tensors as a safetensors file; ``image_side``: those of the image side alone."""
    kept = {key: value.contiguous() for key, value in weights.items() if not image_side or key.startswith(IMAGE_SIDE)}
    safetensors.torch.save_file(kept, file)
