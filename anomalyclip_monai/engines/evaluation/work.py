"""What a run leaves while it goes on, so that a killed one continues where it stopped: the heatmaps."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from monai.data import MetaTensor

from anomalyclip_monai.data.benchmarks import Sample
from anomalyclip_monai.files import whole_file, write_text
from anomalyclip_monai.folders.work_folder import owned_folder, owned_place, remove_owned
from anomalyclip_monai.text import name_bytes

logger = logging.getLogger(__name__)

_META = "meta_"
"""Begins the names of what the inferer wrote beside the heatmap."""


class WorkFolder:
    """Heatmaps of the samples done so far, one file each, written whole or not at all.

    Args:
        folder: where they lie, made by :meth:`start`; beside it, as ``work-2``, where a folder of others has its name.
        key: everything that a heatmap depends on. Files of another key are removed.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder = owned_place(folder)
        self._key = json.dumps(key, sort_keys=True, default=str)

    def start(self) -> None:
        """Make the folder, without what belongs to another run."""
        owned_folder(self.folder)
        key = self.folder / "key.json"
        kept = key.read_text(encoding="utf-8") if key.is_file() else None
        if kept != self._key:
            if kept is not None:
                logger.warning("%s: work of a run with other settings or another model was discarded", self.folder)
                self.remove()
                owned_folder(self.folder)
            write_text(key, self._key)

    def remove(self) -> None:
        """Remove the folder."""
        remove_owned(self.folder)

    def recall(
        self, sample: Sample, run: str, inputs: MetaTensor, compute: Callable[[], MetaTensor]
    ) -> tuple[MetaTensor, float]:
        """The heatmap of a sample, computed and kept if it is not there yet, and the seconds that took.

        Args:
            sample: whose heatmap; one whose file has changed since is computed again.
            run: name of the pass.
            inputs: (1, C, X, Y, Z) that the heatmap is of.
            compute: gives it, (1, 1, X, Y, Z) with the meta data of ``inputs`` and the inferer's own.
        """
        path = self.path(sample, run)
        stamp = stamp_of(sample.image)
        if (done := _load(path, stamp, inputs)) is not None:
            return done
        started = time.monotonic()
        heatmap = compute()
        seconds = time.monotonic() - started
        with whole_file(path) as temporary, open(temporary, "wb") as file:
            added = heatmap.meta.keys() - inputs.meta.keys()
            kept: dict[str, Any] = {f"{_META}{key}": np.asarray(heatmap.meta[key]) for key in sorted(added)}
            kept |= {"heatmap": np.asarray(heatmap.as_tensor().cpu()), "stamp": np.array(stamp)}
            np.savez(file, **kept, seconds=np.array(seconds))
        return heatmap, seconds

    def heatmap(self, sample: Sample, run: str) -> np.ndarray:
        """(X, Y, Z) that was kept."""
        with np.load(self.path(sample, run)) as kept:
            return np.asarray(kept["heatmap"][0, 0])

    def path(self, sample: Sample, run: str) -> Path:
        """The file of a sample."""
        return self.folder / f"{hashlib.sha256(name_bytes(f'{run}|{sample.name}')).hexdigest()[:24]}.npz"


def stamp_of(image: Path) -> list[int]:
    """Size and time of change of a file."""
    try:
        stat = image.stat()
    except OSError:
        return [0, 0]
    return [stat.st_size, stat.st_mtime_ns]


def _load(path: Path, stamp: list[int], inputs: MetaTensor) -> tuple[MetaTensor, float] | None:
    try:
        with open(path, "rb") as file, np.load(file) as kept:  # numpy leaves a damaged file open
            if kept["stamp"].tolist() != stamp:
                return None
            added = {name.removeprefix(_META): torch.from_numpy(kept[name]) for name in kept if name.startswith(_META)}
            heatmap = MetaTensor(torch.from_numpy(kept["heatmap"]), meta={**inputs.meta, **added})
            heatmap.is_batch = inputs.is_batch
            return heatmap, float(kept["seconds"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
