"""Run a bundle's ``configs/train.json``, for one seed or for several over the same features."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from monai.utils import set_determinism

from anomalyclip_monai.engines.prompts.report import check_training_folder, summarise
from anomalyclip_monai.engines.prompts.trainer import PromptTrainer
from anomalyclip_monai.exceptions import OutputError, UsageError, known_cause
from anomalyclip_monai.files import absolute, write_json
from anomalyclip_monai.folders.work_folder import owned_folder, remove_owned
from anomalyclip_monai.types import PathLike
from anomalyclip_monai.weights.choice import ModelChoice

TRAIN = "train.json"

Watch = Callable[[PromptTrainer], None]
"""Called with each trainer before it runs."""


def learn_prompts(
    choice: ModelChoice,
    sets: Sequence[tuple[str, PathLike]],
    output_dir: PathLike,
    *,
    seeds: Sequence[int] = (111,),
    device: torch.device | str = "cpu",
    options: Mapping[str, Any] | None = None,
    keep_features: bool = False,
    watch: Watch | None = None,
) -> list[dict[str, Any]]:
    """Learn prompts; -> one report a seed, the content of its ``training.json``.

    A run that was killed goes on where its folder left off. With several seeds each has a folder ``seed_111`` ...,
    and ``training.json`` above them holds mean and standard deviation of the losses of the last epoch.

    Args:
        choice: the bundle whose network learns, the first one of an ensemble, or a backbone in its place.
        sets: (name of the data set, its folder) one or more.
        output_dir: results go here.
        seeds: of prompts and order.
        device: of the network.
        options: values for entries of ``train.json``, such as ``epochs``; those that are None keep the bundle's.
        keep_features: leave features and slices of volumes in ``work`` for further runs; in ``work-2`` where a
            folder of others has that name.
        watch: see :data:`Watch`.

    Raises:
        AnomalyCLIPError: one line with what is wrong, where, and what to do.
    """
    if not (choice.root / "configs" / TRAIN).is_file():
        raise UsageError("E_MODEL", "this model has no training definition", choice.root, "choose another model")
    output_dir = absolute(output_dir)
    for folder in {output_dir, *_folders(output_dir, seeds)}:
        check_training_folder(folder)
    work = owned_folder(output_dir / "work")
    reports = []
    for seed, folder in zip(seeds, _folders(output_dir, seeds), strict=True):
        overrides = {key: value for key, value in (options or {}).items() if value is not None}
        overrides |= {
            "sets": [[name, str(absolute(root))] for name, root in sets],
            "output_dir": str(folder),
            "work_dir": str(work),
            "seed": seed,
            "device": torch.device(device),
        }
        _run(choice, overrides, watch)
        idist.barrier()  # the first process has written its report
        reports.append(json.loads((folder / "training.json").read_text(encoding="utf-8")))
    if idist.get_rank() == 0:
        if len(seeds) > 1:
            write_json(output_dir / "training.json", summarise(reports))
        if not keep_features:
            remove_owned(work)
    return reports


def _folders(output_dir: Path, seeds: Sequence[int]) -> list[Path]:
    return [output_dir] if len(seeds) == 1 else [output_dir / f"seed_{seed}" for seed in seeds]


def _run(choice: ModelChoice, overrides: Mapping[str, Any], watch: Watch | None) -> None:
    parser = choice.configured(TRAIN, values=overrides)
    set_determinism(overrides["seed"])
    try:
        trainer: PromptTrainer = parser.get_parsed_content("train#trainer")
        if watch:
            watch(trainer)
        trainer.run()
    except Exception as error:
        known = known_cause(error) or _cannot_write(error)
        if known is None:
            raise
        raise known from None


def _cannot_write(error: BaseException | None) -> OutputError | None:
    """What the operating system refused, in a chain of causes: readers of images name their own errors."""
    while error is not None:
        if isinstance(error, OSError) and error.strerror:
            place, todo = error.filename, "free space, or choose a folder you can write to"
            return OutputError("E_WRITE", f"cannot write: {error.strerror}", place, todo)
        error = error.__cause__ or error.__context__
    return None
