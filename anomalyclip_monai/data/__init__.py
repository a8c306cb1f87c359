"""Cases, readers and geometry."""

from anomalyclip_monai.data.cases import Case, datalist, find_cases, the_case
from anomalyclip_monai.data.frame import Frame
from anomalyclip_monai.data.loading import CaseDataset, collate_cases
from anomalyclip_monai.data.volume import Source, Volume

__all__ = [
    "Case",
    "CaseDataset",
    "Frame",
    "Source",
    "Volume",
    "collate_cases",
    "datalist",
    "find_cases",
    "the_case",
]
