"""MONAI transforms before and after the network; the writing one is in ``outputs``."""

from anomalyclip_monai.transforms.findings import Findings, Lesion, Threshold
from anomalyclip_monai.transforms.load import LoadImageCase, LoadImageCased
from anomalyclip_monai.transforms.post import FindLesionsd
from anomalyclip_monai.transforms.preset import ApplyPreset, ApplyPresetd, Preset

__all__ = [
    "ApplyPreset",
    "ApplyPresetd",
    "FindLesionsd",
    "Findings",
    "Lesion",
    "LoadImageCase",
    "LoadImageCased",
    "Preset",
    "Threshold",
]
