"""A bundle's evaluation, from its two configuration files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anomalyclip_monai.engines.evaluation.set_evaluator import SetEvaluator
from anomalyclip_monai.exceptions import UsageError, unwrapped
from anomalyclip_monai.weights.choice import INFERENCE, ModelChoice


def bundle_evaluator(choice: ModelChoice, overrides: Mapping[str, Any]) -> SetEvaluator:
    """The evaluator that ``inference.json`` and ``evaluate.json`` of a bundle define, ready to run.

    Args:
        choice: the bundle, and what is put into the place of its own network.
        overrides: values in place of those in the files.

    Raises:
        UsageError: the bundle has no evaluation (``E_MODEL``), or an option is wrong.
        NoInputError: the data set is not there.
        WeightsError: weights are missing or damaged.
    """
    overlay = choice.root / "configs" / "evaluate.json"
    if not overlay.is_file():
        raise UsageError("E_MODEL", "this bundle has no evaluate.json", choice.root, "choose another one")
    values: dict[str, Any] = {}
    if choice.prompts or choice.backbone:  # these take the place of the checkpoint that the bundle's handlers load
        values = {"fingerprint": choice.fingerprint(), "seeds": [str(choice.prompts_file())], "handlers": []}
    parser = choice.configured(INFERENCE, overlay.name, values={**values, **overrides})
    with unwrapped():
        parser.get_parsed_content("initialize")
        evaluator: SetEvaluator = parser.get_parsed_content("evaluator")
    return evaluator
