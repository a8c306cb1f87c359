"""The authors' checkpoints of learned prompts -> prompts of :class:`~anomalyclip_monai.networks.AnomalyCLIP`."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import WeightsError
from anomalyclip_monai.files import read_json, whole_file, write_json
from anomalyclip_monai.folders.marker import keep_others
from anomalyclip_monai.networks import prompts_from_authors
from anomalyclip_monai.networks.matching import describe_mismatch
from anomalyclip_monai.weights import store
from anomalyclip_monai.weights.digests import blob_id
from anomalyclip_monai.weights.published import VITL14_336, PublishedModel, PublishedPrompts

UNKNOWN = "unknown"
"""Stands for what is not known of a checkpoint that is not one of the published ones."""


@dataclass(frozen=True)
class Conversion:
    """Prompts read from a checkpoint.

    Attributes:
        state: as in ``AnomalyCLIP.state_dict()``, float32.
        blob_id: git's id of the checkpoint.
        name: short name of the published checkpoint, or ``unknown``.
        published: the published checkpoint that this is, if any.
        projections: bytes of the projections, which the model never uses.
        buffers: bytes of the token buffers, which are computed again.
    """

    state: dict[str, Tensor]
    blob_id: str
    name: str
    published: PublishedPrompts | None
    projections: int
    buffers: int

    @property
    def kept(self) -> int:
        """Bytes of the learned prompts."""
        return _bytes(self.state)

    def save(self, target: Path) -> None:
        """Write the prompts, and beside them, as ``.json``, which checkpoint they come from.

        Raises:
            OutputError: the folder cannot be written (``E_WRITE``).
        """
        with whole_file(target) as temporary:
            torch.save(self.state, temporary)
        origin = {
            "published": self.name,
            "trained_on": self.published.trained_on if self.published else UNKNOWN,
            "checkpoint_blob_id": self.blob_id,
            "checkpoint_address": self.published.address if self.published else None,
            "commit": self.published.commit if self.published else None,
            "prompts_sha256": resources.sha256(target),
        }
        write_json(store.origin_path(target), origin)


def check_target(target: Path) -> None:
    """Refuse to write converted prompts over files of others.

    Raises:
        OutputError: one is there, and no note beside it says that it is of an earlier conversion (``E_WRITE``).
    """
    note = store.origin_path(target)
    said = read_json(note) or {}
    ours = {"checkpoint_blob_id", "prompts_sha256"} <= said.keys()
    if ours and target.is_file():
        ours = said["prompts_sha256"] == resources.sha256(target)
    keep_others(target.parent, (target.name, note.name), ours=ours)


def recognise(path: Path, model: PublishedModel = VITL14_336) -> tuple[str, PublishedPrompts] | None:
    """Short name and facts of the published checkpoint that a file is, whatever it is called."""
    found = blob_id(path)
    return next(((name, known) for name, known in model.prompts.items() if known.blob_id == found), None)


def read_prompts(path: Path, model: PublishedModel = VITL14_336) -> Conversion:
    """Read a checkpoint of the authors, or one that their code saved, never running code from it.

    Args:
        path: such as ``epoch_15.pth``.
        model: the published model whose prompts they must fit.

    Raises:
        WeightsError: the file is missing, damaged or unsafe (``E_WEIGHTS``), or holds other prompts (``E_PROMPTS``).
    """
    content = _load(path)
    if not isinstance(content, Mapping):
        raise WeightsError("E_PROMPTS", "not a prompt checkpoint of the authors", path, "give their epoch_15.pth")
    given = content.get("prompt_learner", content)
    try:
        if not isinstance(given, Mapping):
            raise WeightsError("E_PROMPTS", "not a prompt checkpoint of the authors", path, "give their epoch_15.pth")
        state = {key: value.clone() for key, value in prompts_from_authors(given).items()}
    except WeightsError as error:
        raise WeightsError(error.code, error.what, path, error.todo) from error
    expected = {key: torch.empty(shape, device="meta") for key, shape in model.prompt_shapes.items()}
    if mismatch := describe_mismatch(expected, state):
        what = f"these prompts do not fit {model.name}: {mismatch}"
        raise WeightsError("E_PROMPTS", what, path, "give prompts learned on this backbone with these lengths")
    if broken := [key for key, value in state.items() if not value.isfinite().all()]:
        raise WeightsError("E_PROMPTS", f"{broken[0]} holds values that are not finite", path, "give another epoch")
    known = recognise(path, model)
    return Conversion(
        state=state,
        blob_id=blob_id(path),
        name=known[0] if known else UNKNOWN,
        published=known[1] if known else None,
        projections=_bytes({key: value for key, value in given.items() if "projections" in key}),
        buffers=_bytes({key: value for key, value in given.items() if key.startswith("token")}),
    )


def _load(path: Path) -> Any:
    if not path.is_file():
        raise WeightsError("E_WEIGHTS", "there is no such file", path, "give the authors' epoch_15.pth")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # parsers of damaged files raise whatever they meet
        what, todo = _what_is_wrong(path, error)
        raise WeightsError("E_WEIGHTS", what, path, todo) from error


def _what_is_wrong(path: Path, error: Exception) -> tuple[str, str]:
    """What is wrong with a file that cannot be read, and what to do about it."""
    with open(path, "rb") as file:
        start = file.read(2)
    size = f"{path.stat().st_size:,} bytes"
    if start == b"PK" and not zipfile.is_zipfile(path):
        return f"the checkpoint is cut off after {size}", "get the file again"
    if start == b"PK" and isinstance(error, pickle.UnpicklingError):
        return "the file holds Python objects beside tensors, which could run code; it was not run", "do not trust it"
    return f"{size} that are no checkpoint ({type(error).__name__})", "get the file again, as a raw download"


def _bytes(tensors: Mapping[str, Any]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values() if isinstance(value, Tensor))
