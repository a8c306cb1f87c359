"""Which network runs: a bundle's own, or its definition with other prompts, another precision or another backbone."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from anomalyclip_monai import resources
from anomalyclip_monai.data.loading import innermost, known_cause
from anomalyclip_monai.exceptions import UsageError, WeightsError
from anomalyclip_monai.networks import AnomalyCLIP, read_state_dict
from anomalyclip_monai.networks.backbones import network_definition
from anomalyclip_monai.networks.checkpoints import floating_type
from anomalyclip_monai.types import PathLike

BACKBONE_BUNDLE = "vitl14_336"
"""The bundle whose definition runs a backbone that is given by name."""

CHOICE = ("prompts", "precision", "backbone", "pretrained", "weights", "fast")
"""What can be chosen beside the bundle, the options of :func:`choose_model`."""


@dataclass(frozen=True)
class ModelChoice:
    """A bundle's definition and what is put into the place of its own network.

    Attributes:
        root: folder of the bundle.
        overrides: id in the bundle's configuration -> value.
        prompts: see :func:`~anomalyclip_monai.resources.prompts_file`.
        backbone: open_clip's name of another backbone.
        weights: file of that backbone.
    """

    root: Path
    overrides: dict[str, Any]
    prompts: PathLike | None = None
    backbone: str | None = None
    weights: str | None = None

    @property
    def fast(self) -> bool:
        """Whether the first network of an ensemble runs alone."""
        return bool(self.overrides.get("fast", False))

    @property
    def ensemble(self) -> bool:
        """Whether there is more than one network to run."""
        return self.backbone is None and "fast" in resources.read_definition(self.root)

    def own_overrides(self) -> dict[str, Any]:
        """A copy of ``overrides`` to give away: MONAI writes what is below an entry into the entry itself."""
        return copy.deepcopy(self.overrides)

    def prompts_file(self) -> Path:
        """File of the learned prompts.

        Raises:
            WeightsError: there is none.
        """
        if self.backbone and self.prompts is None:
            todo = f"learn them: anomalyclip train --backbone {self.backbone}, and give them: --prompts FILE"
            raise WeightsError("E_PROMPTS", f"nothing was learned for the backbone {self.backbone}", None, todo)
        return resources.prompts_file(self.root, self.prompts)

    def fingerprint(self) -> dict[str, str]:
        """Names and hashes of what runs, see :func:`~anomalyclip_monai.resources.fingerprint`."""
        named = {"backbone": self.backbone} if self.backbone else {}
        return {**resources.fingerprint(self.root, self.prompts, self.weights, fast=self.fast), **named}

    def first_network(self) -> ModelChoice:
        """The first network of an ensemble alone, as for learning prompts; itself where there is no other."""
        if not self.ensemble:
            return self
        own = {key: value for key, value in self.overrides.items() if not key.startswith("network_def#others")}
        return replace(self, overrides={**own, "fast": True})


def choose_model(
    model: str = resources.DEFAULT_BUNDLE,
    *,
    prompts: PathLike | None = None,
    precision: str | None = None,
    backbone: str | None = None,
    pretrained: str | None = None,
    weights: PathLike | None = None,
    fast: bool | None = None,
) -> ModelChoice:
    """Which network runs, before any of it is loaded.

    Args:
        model: name or folder of a bundle. A ``backbone`` takes its place.
        prompts: file of learned prompts, or the name of published ones; by default the bundle's own.
        precision: of the backbone in memory: ``fp32``, ``bf16`` or ``fp16``; by default as the bundle has it.
        backbone: open_clip's name of another CLIP, which runs in the published configuration with ``prompts`` that
            were learned for it.
        pretrained: open_clip's tag of its weights.
        weights: file of its weights, in the place of published ones.
        fast: only the first network of an ensemble, in a third of the time.

    Raises:
        AnomalyCLIPError: one line with what is wrong and what to do.
    """
    if backbone is None:
        if pretrained or weights:
            raise UsageError("E_OPTION", "weights are chosen for a backbone, and none is named", None, "add --backbone")
        root = resources.bundle_root(model)
        choice = ModelChoice(root, {} if precision is None else _in_precision(root, precision), prompts)
        if fast and not choice.ensemble:
            raise UsageError("E_OPTION", "this model is no ensemble", root, "leave out fast")
        return choice.first_network() if fast else choice
    if fast:
        raise UsageError("E_OPTION", "a backbone by name is no ensemble", None, "leave out fast")
    definition = network_definition(backbone, pretrained=pretrained, weights=weights, precision=precision or "fp32")
    return ModelChoice(
        root=resources.bundle_root(BACKBONE_BUNDLE),
        overrides={"network_def": definition, "evidence": {}},
        prompts=prompts,
        backbone=backbone,
        weights=definition["clip"]["weights"],
    )


def _in_precision(root: Path, precision: str) -> dict[str, Any]:
    """The precision of every network of a bundle."""
    floating_type(precision)
    others = resources.read_definition(root)["network_def"].get("others", ())
    clips = ["network_def#clip", *(f"network_def#others#{index}#clip" for index in range(len(others)))]
    return {f"{clip}#precision": precision for clip in clips}


def bundle_config(choice: ModelChoice, overrides: dict[str, Any]) -> ConfigParser:
    """The bundle's inference definition with what was chosen and further overrides, by id."""
    parser = ConfigParser()
    parser.read_config(resources.inference_config(choice.root))
    parser.update({"bundle_root": str(choice.root), **choice.own_overrides(), **overrides})
    return parser


def load_network(choice: ModelChoice, device: torch.device) -> AnomalyCLIP:
    """The network with its learned prompts and text features, in evaluation mode.

    Raises:
        WeightsError: weights or prompts are missing, damaged or do not fit.
    """
    prompts_file = choice.prompts_file()
    prompts = read_state_dict(prompts_file)
    try:
        network: AnomalyCLIP = bundle_config(choice, {}).get_parsed_content("network_def")
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


_kept: tuple[tuple[ModelChoice, torch.device], AnomalyCLIP] | None = None


def kept_network(choice: ModelChoice, device: torch.device) -> AnomalyCLIP:
    """The network of the last call if it is the same; never two of them are kept."""
    global _kept
    if _kept is None or _kept[0] != (choice, device):
        _kept = None
        _kept = (choice, device), load_network(choice, device)
    return _kept[1]
