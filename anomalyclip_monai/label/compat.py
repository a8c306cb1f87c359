"""Makes MONAI Label 0.8.5 importable beside pydicom 3, and does nothing where that is not needed."""

from __future__ import annotations

import importlib.util
import sys
import types

_MOVED = "pydicom._storage_sopclass_uids"
"""A module of pydicom 2 from which pydicom-seg 0.4.1 takes one name, which ``pydicom.uid`` has as well."""


def apply() -> None:
    """To be called before anything of MONAI Label is imported."""
    if _MOVED not in sys.modules and importlib.util.find_spec(_MOVED) is None:
        from pydicom.uid import SegmentationStorage

        module = types.ModuleType(_MOVED)
        module.__dict__["SegmentationStorage"] = SegmentationStorage
        sys.modules[_MOVED] = module
