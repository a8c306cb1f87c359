"""The paper's ablation table: networks that differ from a bundle's own in one thing each."""

from anomalyclip_monai.engines.ablation.ablation import Ablation
from anomalyclip_monai.engines.ablation.content import AblationReport, MeasuredRow, NotBuilt, RowReport
from anomalyclip_monai.engines.ablation.rows import GROUPS
from anomalyclip_monai.engines.ablation.table import short_table, write_ablation

__all__ = [
    "GROUPS",
    "Ablation",
    "AblationReport",
    "MeasuredRow",
    "NotBuilt",
    "RowReport",
    "short_table",
    "write_ablation",
]
