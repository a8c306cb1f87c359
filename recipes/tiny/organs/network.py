"""The third network from kept features: its members, its files and the record of its training."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from anomalyclip_monai import resources
from anomalyclip_monai.files import read_json, write_json
from anomalyclip_monai.networks.neck import NeckMember
from anomalyclip_monai.weights.bundle import OTHER_ENCODER
from recipes.tiny.organs.learning import Plan, train_member
from recipes.tiny.organs.sets import DOMAIN_SETS, left_out, not_shipped, with_domains
from recipes.tiny.organs.store import Features
from recipes.tiny.organs.weights import write_network
from recipes.tiny.start import starting_network

RECORD = "training.json"
"""Beside the weights."""

NOTED = 25
"""Steps of which the mean loss is a number of the curve."""


def text_features() -> Tensor:
    """(2, D), what the shipped prompts say: the anchors of the training."""
    with torch.no_grad():
        return starting_network().text_features().float()


def make_network(
    features: Features,
    trunk: Mapping[str, Tensor],
    text: Tensor,
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3),
    measured: Collection[str] = (),
    plan: Plan | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train the members, write ``image_encoder.safetensors``, its description and ``training.json``; -> the record.

    A folder that has the network of just this training stays as it is.

    Args:
        features: what to learn from.
        trunk: timm's tensors of the backbone.
        text: see :func:`text_features`.
        folder: of the network, below a bundle's ``models``.
        seeds: of the members.
        measured: sets of :data:`~recipes.tiny.organs.sets.RELATIVES` whose relatives are left out. Those that may not
            be shipped always are.
        plan: of a member, but for its seed.
        log: is told of every member.
    """
    plan = plan or Plan()
    squares = features.squares
    without = left_out(measured) | not_shipped()
    chosen = squares.without(without)
    asked = {
        "schema": "anomalyclip-training-record/1",
        "plan": {key: value for key, value in asdict(plan).items() if key != "seed"},
        "seeds": list(seeds),
        "left_out": sorted(without),
        "squares": dict(sorted(Counter(squares.of[chosen].tolist()).items())),
        "features": dict(features.record),
    }
    known = read_json(folder / RECORD)
    if known is not None and asked.items() <= known.items() and _is_of(folder, known):
        return known
    members, stages = [], []
    for seed in seeds:
        started = time.monotonic()
        with _one_thread():
            member, losses = train_member(squares, chosen, text, replace(plan, seed=seed))
        members.append(member)
        stages.append(_stage(member, seed, losses, time.monotonic() - started))
        log(f"seed {seed}: loss {stages[-1]['curve'][0]:.3f} -> {stages[-1]['curve'][-1]:.3f}")
    size, layers = features.record["size"], features.record["layers"]
    write_network(folder, trunk, features.reduction, members, hidden=plan.hidden, layers=layers, size=size)
    gone = with_domains(without)
    record = {
        **asked,
        "weights_sha256": resources.sha256(folder / OTHER_ENCODER),
        "made_of": f"DINOv2 ViT-S/14 as it is, and {len(members)} members of a neck whose maps are averaged",
        "reduction": "fitted without labels on tokens of all sets that may be shipped, "
        "relatives of the measured ones as well",
        "data_sha256": {
            name: digest
            for name, digest in features.record["data_sha256"].items()
            if not gone & {name, DOMAIN_SETS.get(name, name)}
        },
        "stages": stages,
    }
    write_json(folder / RECORD, record)
    return record


def _stage(member: NeckMember, seed: int, losses: Sequence[float], seconds: float) -> dict[str, Any]:
    return {
        "name": f"member of seed {seed}",
        "weights_sha256": sha256(safetensors.torch.save(member.state_dict())).hexdigest(),
        "seconds": round(seconds, 1),
        "curve": [round(fmean(losses[start : start + NOTED]), 4) for start in range(0, len(losses), NOTED)],
    }


def _is_of(folder: Path, record: Mapping[str, Any]) -> bool:
    file = folder / OTHER_ENCODER
    return file.is_file() and resources.sha256(file) == record["weights_sha256"]


@contextmanager
def _one_thread() -> Iterator[None]:
    """As the shipped members were trained: with several the last bits differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
