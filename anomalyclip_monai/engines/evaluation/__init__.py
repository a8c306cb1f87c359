"""Measuring a bundle's model on a data set: protocols, baselines, intervals, a report."""

from anomalyclip_monai.engines.evaluation import handlers
from anomalyclip_monai.engines.evaluation.bundle import bundle_evaluator
from anomalyclip_monai.engines.evaluation.evaluation import Evaluation, preset_of
from anomalyclip_monai.engines.evaluation.methods import METHODS
from anomalyclip_monai.engines.evaluation.organs import TrainedOrgans, trained_organs
from anomalyclip_monai.engines.evaluation.samples import PrepareSampled
from anomalyclip_monai.engines.evaluation.set_evaluator import SetEvaluator
from anomalyclip_monai.weights.published import paper_prompts

__all__ = [
    "METHODS",
    "Evaluation",
    "PrepareSampled",
    "SetEvaluator",
    "TrainedOrgans",
    "bundle_evaluator",
    "handlers",
    "paper_prompts",
    "preset_of",
    "trained_organs",
]
