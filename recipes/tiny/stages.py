"""The stages in which the shipped weights were made, each from those before it, and one function that runs them.

What the records of the shipped weights (``models/training.json``, ``models/320/training.json`` of the bundle) say of
crops, seeds and rates, as a table. The lengths are the crops that were learned from, not the minutes that it took, so
that the result does not depend on the speed of a machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeAlias

import torch

from anomalyclip_monai import resources
from anomalyclip_monai.types import PathLike
from anomalyclip_monai.weights import read_state_dict
from recipes.tiny.average import mean_of, write_weights
from recipes.tiny.report import write_report
from recipes.tiny.sources import Subject
from recipes.tiny.start import described, starting_network, with_grid_of
from recipes.tiny.training import OF_THE_MACHINE, Log, Plan, Training


@dataclass(frozen=True, slots=True)
class Stage:
    """A training.

    Attributes:
        name: of its folder.
        start: ``imagenet``, or the name of the training or mean that it starts from.
        seed: of the crops, and of the weights that ImageNet leaves random.
        crops: number of crops that are learned from.
        image_size: side of the squares in pixels.
        settings: other numbers of the plan than those that :class:`~recipes.tiny.training.Plan` has by itself.
    """

    name: str
    start: str
    seed: int
    crops: int
    image_size: int = 256
    settings: Mapping[str, float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of trainings that have a start in common.

    Attributes:
        name: of its file, without suffix.
        of: the names of the trainings.
        image_size: side of the squares; positions of trainings on other squares are resized to it.
        image_side: leave out the text side, as for the second network of an ensemble.
    """

    name: str
    of: tuple[str, ...]
    image_size: int = 256
    image_side: bool = False


Step: TypeAlias = Stage | Mean

HALF: Mapping[str, float | bool] = {"bfloat16": True}
LOW: Mapping[str, float | bool] = {
    **HALF,
    "encoder_rate": 6e-5,
    "stem_rate": 1.2e-4,
    "block_rate": 1.6e-4,
    "validate_every": 150,
}

FIRST: tuple[Step, ...] = (
    Stage("first", "imagenet", seed=0, crops=30_000, image_size=192),
    Stage("first_a", "first", seed=0, crops=23_200, image_size=192),
    Stage("first_b", "first_a", seed=0, crops=48_800, image_size=192, settings={"validate_every": 500}),
    Stage("first_c0", "first_b", seed=0, crops=28_464, settings=HALF),
    Stage("first_c1", "first_b", seed=1, crops=28_560, settings=HALF),
    Mean("backbone", ("first_b", "first_c0", "first_c1")),
)
"""The network on squares of 256 pixels."""

SECOND: tuple[Step, ...] = (
    Stage("a", "imagenet", seed=2, crops=50_496, settings=HALF),
    Stage("b3", "a", seed=3, crops=28_000, settings=HALF),
    Stage("b4", "a", seed=4, crops=28_000, settings=HALF),
    Mean("b", ("a", "b3", "b4")),
    Stage("c6", "b", seed=6, crops=24_976, image_size=320, settings=HALF),
    Stage("c7", "b", seed=7, crops=25_104, image_size=320, settings=HALF),
    Mean("c", ("c6", "c7"), image_size=320),
    Stage("d8", "c", seed=8, crops=7_216, image_size=320, settings=LOW),
    Stage("d9", "c", seed=9, crops=7_168, image_size=320, settings=LOW),
    Mean("image_encoder", ("d8", "d9"), image_size=320, image_side=True),
)
"""The network on squares of 320 pixels."""

NETWORKS: Mapping[str, tuple[Step, ...]] = {"first": FIRST, "second": SECOND}


def reproduce(
    steps: Sequence[Step],
    data: PathLike,
    subjects: Sequence[Subject],
    out: Path,
    *,
    device: torch.device,
    threads: int = 1,
    workers: int = 1,
    log: Callable[[str], Log] = lambda name: lambda line: None,
) -> Path:
    """Run the steps one after the other; -> the file of the last.

    A training that came to its end is not done again, one that was stopped goes on. Means are always taken anew.

    Args:
        steps: each after those whose names it uses.
        data: the data folder, for the reports.
        subjects: what was read from it.
        out: gets a folder for every training and a file for every mean.
        device: to train on.
        threads: of the processor.
        workers: processes that draw crops.
        log: name of a training -> called with every line of its curve.

    Raises:
        UsageError: ``out`` holds a training by another plan (``E_RESUME``), or ImageNet's weights are not installed
            (``E_EXTRA``).
    """
    files: dict[str, Path] = {}
    for step in steps:
        if isinstance(step, Mean):
            files[step.name] = write_mean(step, files, out / f"{step.name}.safetensors")
            continue
        init = str(files[step.start].resolve()) if step.start in files else step.start
        plan = Plan.starting_from(
            init,
            image_size=step.image_size,
            seed=step.seed,
            crops=step.crops,
            threads=threads,
            workers=workers,
            **step.settings,
        )
        folder = out / step.name
        files[step.name] = folder / "backbone.safetensors"
        if not is_done(plan, folder):
            network = starting_network(plan.init, bundle=plan.model, seed=plan.seed, image_size=plan.image_size)
            training = Training(network.to(device), subjects, plan, folder, log=log(step.name))
            training.run()
            write_report(training, data)
    return files[steps[-1].name]


def is_done(plan: Plan, folder: Path) -> bool:
    """Whether a folder holds a training by this plan that came to its end."""
    file = folder / "report.json"
    if not file.is_file():
        return False
    there = json.loads(file.read_text(encoding="utf-8"))["plan"]
    return all(there[name] == value for name, value in asdict(plan).items() if name not in OF_THE_MACHINE)


def write_mean(mean: Mean, files: Mapping[str, Path], file: Path) -> Path:
    """Write the mean of trainings, which may have seen squares of different sides; -> the file."""
    description = described(resources.bundle_root(resources.DEFAULT_BUNDLE), mean.image_size)
    states = [with_grid_of(description, read_state_dict(files[name])) for name in mean.of]
    write_weights(mean_of(states, [files[name] for name in mean.of]), file, image_side=mean.image_side)
    return file
