"""Everything about weights: which network runs, where its files lie, how they are read, fetched and checked."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalyclip_monai.weights.backbone import load_backbone
    from anomalyclip_monai.weights.choice import ModelChoice, choose_model
    from anomalyclip_monai.weights.reading import read_state_dict

__all__ = ["ModelChoice", "choose_model", "load_backbone", "read_state_dict"]

_HOMES = {"ModelChoice": "choice", "choose_model": "choice", "load_backbone": "backbone", "read_state_dict": "reading"}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: the table of what is published needs no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
