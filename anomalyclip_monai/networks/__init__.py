"""AnomalyCLIP over open_clip towers, on tensors: nothing here knows of files or of a hub."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from anomalyclip_monai.networks.anomaly_clip import AnomalyCLIP
from anomalyclip_monai.networks.checkpoints import (
    clip_from_state_dict,
    named_config,
    prompts_from_authors,
)
from anomalyclip_monai.networks.ensemble import AnomalyCLIPEnsemble
from anomalyclip_monai.networks.fusion import Fusion
from anomalyclip_monai.networks.hand_written import HandWrittenCLIP
from anomalyclip_monai.networks.settings import NetworkSettings
from anomalyclip_monai.networks.symmetry import Symmetry

__all__ = [
    "AnomalyCLIP",
    "AnomalyCLIPEnsemble",
    "Fusion",
    "HandWrittenCLIP",
    "NetworkSettings",
    "Symmetry",
    "clip_from_state_dict",
    "named_config",
    "prompts_from_authors",
]

_MOVED = {"load_backbone": "anomalyclip_monai.weights", "read_state_dict": "anomalyclip_monai.weights"}


def __getattr__(name: str) -> Any:
    """Names that moved to another package; they are found here until 0.3."""
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"{__name__}.{name} has moved to {_MOVED[name]}", FutureWarning, stacklevel=2)
    return getattr(importlib.import_module(_MOVED[name]), name)
