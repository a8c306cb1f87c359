"""Zero-shot lesion localisation in medical images with AnomalyCLIP.

>>> import anomalyclip_monai as ac
>>> result = ac.localize("case.nii.gz")  # doctest: +SKIP
"""

from __future__ import annotations

import contextlib
import getpass
import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from anomalyclip_monai.api import load_model, localize, localize_many
    from anomalyclip_monai.exceptions import AnomalyCLIPError
    from anomalyclip_monai.outputs import Result

__all__ = ["AnomalyCLIPError", "Result", "load_model", "localize", "localize_many"]

_HOMES = {"AnomalyCLIPError": "exceptions", "Result": "outputs"}


def __getattr__(name: str) -> Any:
    """Import public names when they are first used: torch and MONAI take seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def _name_the_user() -> None:
    """MONAI asks for the user's name when it is imported, and a container that runs as any number has none."""
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        with contextlib.suppress(AttributeError):  # where users have no numbers
            os.environ["USER"] = f"user{os.getuid()}"


_name_the_user()
