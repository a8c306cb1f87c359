"""Which network runs: a bundle's own, or its definition with other prompts, another precision or another backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from anomalyclip_monai import resources
from anomalyclip_monai.definition import configured, read_definition
from anomalyclip_monai.exceptions import UsageError, WeightsError, innermost, known_cause
from anomalyclip_monai.networks.checkpoints import floating_type
from anomalyclip_monai.networks.ensemble import Network
from anomalyclip_monai.options import ModelOptions
from anomalyclip_monai.types import UNCALIBRATED, PathLike
from anomalyclip_monai.weights import bundle
from anomalyclip_monai.weights.hub import network_definition
from anomalyclip_monai.weights.reading import read_state_dict

INFERENCE = "inference.json"

BACKBONE_BUNDLE = "vitl14_336"
"""The bundle whose definition runs a backbone that is given by name."""


@dataclass(frozen=True)
class ModelChoice:
    """A bundle's definition and what is put into the place of its own network.

    Attributes:
        root: folder of the bundle.
        values: id in the bundle's configuration -> value.
        components: id -> definition, see :func:`~anomalyclip_monai.definition.configured`.
        prompts: see :func:`~anomalyclip_monai.weights.bundle.prompts_file`.
        backbone: open_clip's name of another backbone.
        weights: file of that backbone.
    """

    root: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    components: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prompts: PathLike | None = None
    backbone: str | None = None
    weights: str | None = None

    @property
    def fast(self) -> bool:
        """Whether the first network of an ensemble runs alone."""
        return bool(self.values.get("fast", False))

    @property
    def ensemble(self) -> bool:
        """Whether there is more than one network to run."""
        return self.backbone is None and "fast" in _definition(self.root)

    def configured(self, *files: str, values: Mapping[str, Any]) -> ConfigParser:
        """Configuration files of the bundle with what was chosen and further values, by id.

        Args:
            files: names in the bundle's folder ``configs``, the later over the earlier.
            values: id -> value, over those of the choice.

        Raises:
            UsageError: the bundle lacks a file (``E_MODEL``).
        """
        paths = [self.root / "configs" / file for file in files]
        return configured(paths, {"bundle_root": str(self.root), **self.values, **values}, self.components)

    def prompts_file(self) -> Path:
        """File of the learned prompts.

        Raises:
            WeightsError: there is none.
        """
        if self.backbone and self.prompts is None:
            todo = f"learn them: anomalyclip train --backbone {self.backbone}, and give them: --prompts FILE"
            raise WeightsError("E_PROMPTS", f"nothing was learned for the backbone {self.backbone}", None, todo)
        return bundle.prompts_file(self.root, self.prompts)

    def fingerprint(self) -> dict[str, str]:
        """Names and hashes of what runs, see :func:`~anomalyclip_monai.weights.bundle.fingerprint`."""
        named = {"backbone": self.backbone} if self.backbone else {}
        return {**bundle.fingerprint(self.root, self.prompts, self.weights, fast=self.fast), **named}

    def first_network(self) -> ModelChoice:
        """The first network of an ensemble alone, as for learning prompts; itself where there is no other."""
        if not self.ensemble:
            return self
        return replace(self, values={**self.values, "fast": True})

    def for_learning(self) -> ModelChoice:
        """The first network, in float32 where no other precision was chosen: what a bundle's ``train.json`` has."""
        first = self.first_network()
        if self.backbone is not None or "precision" not in _definition(self.root):
            return first
        return replace(first, values={"precision": "fp32", **first.values})


def choose_model(model: PathLike | ModelOptions = resources.DEFAULT_BUNDLE, **chosen: Any) -> ModelChoice:
    """Which network runs, before any of it is loaded.

    Args:
        model: all of the options, or name or folder of a bundle.
        **chosen: the other :class:`~anomalyclip_monai.options.ModelOptions`.

    A ``backbone`` takes the place of ``model`` and runs in the published configuration with ``prompts`` that were
    learned for it. Paths become absolute.

    Raises:
        AnomalyCLIPError: one line with what is wrong and what to do.
    """
    options = model if isinstance(model, ModelOptions) else ModelOptions(**{"model": model, **chosen})
    prompts = None if options.prompts is None else _file_or_name(options.prompts)
    if options.backbone is None:
        if options.pretrained or options.weights:
            raise UsageError("E_OPTION", "weights are chosen for a backbone, and none is named", None, "add --backbone")
        root = resources.bundle_root(options.model)
        values = {} if options.precision is None else _in_precision(root, options.precision)
        if prompts is not None and os.path.isabs(prompts):
            values |= _of_other_prompts(root, Path(prompts))
        choice = ModelChoice(root, values, prompts=prompts)
        if options.fast and not choice.ensemble:
            raise UsageError("E_OPTION", "this model is no ensemble", root, "leave out fast")
        return choice.first_network() if options.fast else choice
    if options.fast:
        raise UsageError("E_OPTION", "a backbone by name is no ensemble", None, "leave out fast")
    weights = None if options.weights is None else os.path.abspath(options.weights)
    definition = network_definition(
        options.backbone, pretrained=options.pretrained, weights=weights, precision=options.precision or "fp32"
    )
    return ModelChoice(
        root=resources.bundle_root(BACKBONE_BUNDLE),
        values={"evidence": {}},
        components={"network_def": definition},
        prompts=prompts,
        backbone=options.backbone,
        weights=definition["clip"]["weights"],
    )


def _file_or_name(prompts: str) -> str:
    """Prompts by name stay as they are, a file that is there becomes absolute."""
    return os.path.abspath(prompts) if os.path.isfile(prompts) else prompts


def _of_other_prompts(root: Path, prompts: Path) -> dict[str, Any]:
    """What a bundle says of its own prompts does not hold for others: no evidence, a threshold not fitted to them."""
    own = root / "models" / "model.pt"
    if own.is_file() and resources.sha256(own) == resources.sha256(prompts):
        return {}
    definition = _definition(root)
    unknown = dict.fromkeys(resources.presets(), "not measured with these prompts")
    values: dict[str, Any] = {name: unknown for name in ("evidence", "evidence_fast") if name in definition}
    for name in ("shipped_threshold", "shipped_threshold_fast"):
        if (shipped := definition.get(name)) and shipped["origin"] != UNCALIBRATED:
            values[name] = {**shipped, "origin": "fitted to the shipped prompts, not to these"}
    return values


def _definition(root: Path) -> dict[str, Any]:
    return read_definition(root / "configs" / INFERENCE)


def _in_precision(root: Path, precision: str) -> dict[str, Any]:
    """The entry of a bundle's configuration to which all of its backbones refer."""
    floating_type(precision)
    if "precision" not in _definition(root):
        raise UsageError("E_OPTION", "this model has one precision", root, "leave out precision")
    return {"precision": precision}


def load_network(choice: ModelChoice, device: torch.device) -> Network:
    """The network with its learned prompts and text features, in evaluation mode.

    Raises:
        WeightsError: weights or prompts are missing, damaged or do not fit.
    """
    prompts_file = choice.prompts_file()
    prompts = read_state_dict(prompts_file)
    if broken := [key for key, value in prompts.items() if not value.isfinite().all()]:
        what = f"{broken[0]} holds values that are not finite"
        raise WeightsError("E_PROMPTS", what, prompts_file, "learn them again, or give others")
    try:
        network: Network = choice.configured(INFERENCE, values={}).get_parsed_content("network_def")
    except Exception as error:
        known = known_cause(error)
        raise known or WeightsError("E_WEIGHTS", innermost(error), choice.root, "reinstall the bundle") from error
    try:
        network.load_state_dict(prompts)
    except WeightsError as error:
        raise WeightsError(error.code, error.what, prompts_file, error.todo) from error
    network = network.to(device).eval()
    with torch.no_grad():
        network.text_features()
    return network


_kept: tuple[tuple[ModelChoice, torch.device], Network] | None = None


def kept_network(choice: ModelChoice, device: torch.device) -> Network:
    """The network of the last call if it is the same; never two of them are kept."""
    global _kept
    if _kept is None or _kept[0] != (choice, device):
        _kept = None
        _kept = (choice, device), load_network(choice, device)
    return _kept[1]
