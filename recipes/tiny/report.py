"""The record of a training beside its weights: from what, how long, how well."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from anomalyclip_monai import resources
from anomalyclip_monai.types import PathLike
from recipes.tiny import sources
from recipes.tiny.curves import draw_curve
from recipes.tiny.sheets import draw_maps
from recipes.tiny.start import bundle_weights, described
from recipes.tiny.training import Training

SCHEMA = "anomalyclip-training/1"


def write_report(training: Training, data: PathLike) -> Path:
    """Write ``report.json``, the curve and held-out maps as pictures, and the backbone's description; -> the report.

    Args:
        training: a run, finished or not.
        data: the data folder.
    """
    folder, plan = training.folder, training.plan
    root = resources.bundle_root(plan.model)
    description = described(root, plan.image_size)
    (folder / "open_clip_config.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    started_from = bundle_weights(root, plan.image_size) if plan.init == "bundle" else Path(plan.init)
    curve = training.curve()
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "plan": asdict(plan),
        "init_sha256": resources.sha256(started_from) if started_from.is_file() else None,
        "data_sha256": sources.fingerprint(data),
        "steps": training.step,
        "crops": training.step * plan.batch,
        "seconds": round(training.seconds, 1),
        "device": str(training.device),
        "processor": platform.processor() or platform.machine(),
        "versions": {name: resources.installed_version(name) for name in ("torch", "timm", "open_clip_torch", "numpy")},
        "torch_threads": torch.get_num_threads(),
        "weights_sha256": resources.sha256(folder / "backbone.safetensors"),
        "validation": next((line for line in reversed(curve) if "validation" in line), None),
        "curve": curve,
    }
    file = folder / "report.json"
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw_curve(curve, folder / "curve.png")
    if training.held_out:
        draw_maps(training.held_out_maps(), training.held_out, folder / "held_out.png")
    return file
