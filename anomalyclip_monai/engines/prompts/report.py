"""What a training leaves behind: the prompts, and a report of how they came about."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Events

from anomalyclip_monai import resources
from anomalyclip_monai.engines.prompts.items import TrainingData
from anomalyclip_monai.engines.prompts.trainer import LOSSES, PromptTrainer
from anomalyclip_monai.files import whole_file, write_json
from anomalyclip_monai.folders.marker import has_schema, keep_others
from anomalyclip_monai.types import PathLike
from anomalyclip_monai.weights.bundle import fingerprint

SCHEMA = "anomalyclip-training/1"


class TrainingReport:
    """Handler that writes ``model.pt`` and ``training.json`` when training has ended.

    Args:
        output_dir: the folder of both.
        data: what was learned from.
        options: what the result depends on.
        bundle_root: the bundle whose network learned.
    """

    def __init__(
        self, output_dir: PathLike, data: TrainingData, options: Mapping[str, Any], bundle_root: PathLike
    ) -> None:
        self.output_dir = Path(output_dir)
        self.data = data
        self.options = dict(options)
        self.bundle_root = Path(bundle_root)

    def attach(self, engine: PromptTrainer) -> None:
        """Write when training has ended."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: PromptTrainer) -> None:
        """Write both files, on the first process."""
        if idist.get_rank() > 0:
            return
        prompts = {key: value.detach().cpu().clone() for key, value in engine.network.state_dict().items()}
        # Given a name instead of a file torch writes it into the archive: the hash would be another each time.
        with whole_file(self.output_dir / "model.pt") as temporary, open(temporary, "wb") as file:
            torch.save(prompts, file)
        write_json(self.output_dir / "training.json", self.content(engine))

    def content(self, engine: PromptTrainer) -> dict[str, Any]:
        """The report as it is written. Names no path."""
        names = ("torch", "monai", "open_clip_torch", "anomalyclip-monai")
        model = fingerprint(self.bundle_root, fast=True)
        model.pop("prompts_sha256", None)  # learning does not start from those
        return {
            "schema": SCHEMA,
            "model": model,
            "options": self.options,
            "data": {"images": len(self.data), "sets": self.data.sets, "sha256": self.data.sha256},
            "curve": engine.curve,
            "seconds": round(sum(epoch["seconds"] for epoch in engine.curve), 3),
            "device": str(engine.state.device),
            "processes": idist.get_world_size(),
            "versions": {name: resources.installed_version(name) for name in names},
        }


def check_training_folder(folder: Path) -> None:
    """Refuse a folder in which files of others have the names of a training's.

    Raises:
        OutputError: one is there, and neither a report of ours nor a training that is not finished (``E_WRITE``).
    """
    ours = has_schema(folder / "training.json", "anomalyclip-training") or (folder / "checkpoint.pt").is_file()
    keep_others(folder, ("model.pt", "training.json"), ours=ours)


def summarise(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of the losses of the last epoch."""
    finals = [report["curve"][-1] for report in reports]
    return {
        "schema": SCHEMA,
        "seeds": [report["options"]["seed"] for report in reports],
        "final": {
            name: {
                "mean": statistics.mean(final[name] for final in finals),
                "sd": statistics.stdev(final[name] for final in finals) if len(finals) > 1 else None,
                "values": [final[name] for final in finals],
            }
            for name in LOSSES
        },
        "seconds": round(sum(report["seconds"] for report in reports), 3),
    }
