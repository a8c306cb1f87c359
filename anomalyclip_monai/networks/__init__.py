"""AnomalyCLIP over open_clip towers, its checkpoints, and nothing that knows of files of images."""

from anomalyclip_monai.networks.anomaly_clip import AnomalyCLIP
from anomalyclip_monai.networks.checkpoints import (
    clip_from_state_dict,
    load_backbone,
    named_config,
    prompts_from_authors,
    read_state_dict,
)
from anomalyclip_monai.networks.ensemble import AnomalyCLIPEnsemble
from anomalyclip_monai.networks.hand_written import HandWrittenCLIP

__all__ = [
    "AnomalyCLIP",
    "AnomalyCLIPEnsemble",
    "HandWrittenCLIP",
    "clip_from_state_dict",
    "load_backbone",
    "named_config",
    "prompts_from_authors",
    "read_state_dict",
]
