"""A case in a notebook: planes and 3D by ipyniivue, which is optional."""

from __future__ import annotations

import importlib
from typing import Any

from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.outputs.preview import OPAQUE_FROM, STRONGEST
from anomalyclip_monai.outputs.report.display import ShownVolume

HEIGHT = 520
"""Of the widget, in pixels."""


def show_in_notebook(volume: ShownVolume) -> Any:
    """-> an ``ipyniivue.NiiVue`` with the image and the heatmap over it, in radiological convention.

    Raises:
        UsageError: ipyniivue is not installed (``E_EXTRA``).
    """
    try:
        ipyniivue = importlib.import_module("ipyniivue")
    except ImportError as error:
        todo = 'pip install "anomalyclip-monai[notebook]"'
        raise UsageError("E_EXTRA", "volumes in notebooks need ipyniivue", None, todo) from error
    widget = ipyniivue.NiiVue(height=HEIGHT, is_radiological_convention=True, sagittal_nose_left=True)
    grey = {"name": "image.nii.gz", "data": volume.image, "colormap": "gray", "cal_min": 0, "cal_max": 255}
    warm = {"name": "heatmap.nii.gz", "data": volume.heatmap, "colormap": "inferno", "opacity": STRONGEST}
    widget.load_volumes([grey, {**warm, "cal_min": OPAQUE_FROM, "cal_max": 1}])
    return widget
