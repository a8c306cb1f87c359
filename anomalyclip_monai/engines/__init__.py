"""Engines that run a bundle."""

from anomalyclip_monai.engines.case_evaluator import CaseEvaluator

__all__ = ["CaseEvaluator"]
