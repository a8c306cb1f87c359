"""MONAI Label: a server for 3D Slicer, OHIF and other clients of its protocol, see ``docs/serve.md``.

The packages that it needs are not those of the rest of this one: see :data:`INSTALL`.
"""

from __future__ import annotations

import importlib.util

from anomalyclip_monai.exceptions import UsageError

INSTALL = (
    'pip install "anomalyclip-monai[label]"',
    "pip install --no-deps monailabel==0.8.5 pydicom-seg==0.4.1",
)
"""What installs MONAI Label. It and pydicom-seg ask for numpy < 2 in their metadata, not in their code, and for
packages that no part of it needs which runs here: installed with what they ask for, they would break this package."""

_NEEDED = ("monailabel", "pydicom_seg", "fastapi", "uvicorn", "dicomweb_client", "nrrd", "itk", "SimpleITK")


def check_installed() -> None:
    """Nothing, where MONAI Label can be imported.

    Raises:
        UsageError: a package is missing (``E_EXTRA``).
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        what = f"packages that serving needs are not installed: {', '.join(missing)}"
        raise UsageError("E_EXTRA", what, None, " && ".join(INSTALL))
