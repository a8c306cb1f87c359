"""Whether a connection may be made: asked in one place, answered in one way."""

from __future__ import annotations

import os

_YES = ("1", "true", "yes", "on")


def offline(*, mirror: str | None = None) -> str | None:
    """Name of the environment variable that forbids a connection, if one does.

    ``ANOMALYCLIP_OFFLINE`` forbids all of them, ``HF_HUB_OFFLINE`` all but to a mirror that the user names.
    """
    names = ["ANOMALYCLIP_OFFLINE"] if mirror else ["ANOMALYCLIP_OFFLINE", "HF_HUB_OFFLINE"]
    return next((name for name in names if os.environ.get(name, "").lower() in _YES), None)
