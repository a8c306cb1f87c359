"""Measuring: ranking, pixel and region measures, volumes, trivial baselines, confidence.

Everything works on arrays. A measure that the data do not define comes back as :class:`Undefined` with the reason.
"""

from anomalyclip_monai.metrics.bootstrap import mean_and_sd
from anomalyclip_monai.metrics.froc import FROC
from anomalyclip_monai.metrics.pixels import PixelScores
from anomalyclip_monai.metrics.pointing import pointing, slice_pointing
from anomalyclip_monai.metrics.pro import exact_pro, paper_pro
from anomalyclip_monai.metrics.ranking import auroc, average_precision, best_f1, dice
from anomalyclip_monai.metrics.undefined import Undefined, Value, is_defined
from anomalyclip_monai.metrics.volumes import VolumeMeasures, measure_volume

__all__ = [
    "FROC",
    "PixelScores",
    "Undefined",
    "Value",
    "VolumeMeasures",
    "auroc",
    "average_precision",
    "best_f1",
    "dice",
    "exact_pro",
    "is_defined",
    "mean_and_sd",
    "measure_volume",
    "paper_pro",
    "pointing",
    "slice_pointing",
]
