"""Engines that run a bundle."""

from anomalyclip_monai.engines.evaluator import CaseEvaluator

__all__ = ["CaseEvaluator"]
