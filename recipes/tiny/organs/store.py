"""Frozen features in a folder: computed set by set in half precision, reduced, and read again to learn from.

A training on them takes a minute. ``<part>.npz`` has targets, set and kind of every square of a part, ``<part>.npy``
the reduced tokens, ``<part>.raw.npy`` those that still have to be reduced, ``reduction.safetensors`` what reduces
them, and ``features.json`` what all of it was made of.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import NoInputError, UsageError
from anomalyclip_monai.files import read_json, whole_file, write_json
from recipes.tiny import sources
from recipes.tiny.objective import Targets
from recipes.tiny.organs import sets
from recipes.tiny.organs.features import PATCH, Amount, Square, Trunk, squares_of_set, squares_of_subjects
from recipes.tiny.organs.learning import Reduction, Squares, token_targets
from recipes.tiny.organs.trunk import read_trunk

RECORD, REDUCTION = "features.json", "reduction.safetensors"
"""Files beside those of the parts."""

SUBJECTS = "subjects_"
"""Begins the names of the parts with volumes and colonoscopy."""

CROP_PARTS = 4
"""Parts into which their crops are divided; one more has the held-out subjects."""

WITHOUT = "ultrasound"
"""Organ of :mod:`recipes.tiny.sources` that is not used: breast ultrasound comes from a set of its own."""

AT_ONCE, REDUCED_AT_ONCE = 8, 64
"""Squares that are computed and reduced at once."""

LARGEST = 60000.0
"""Below the largest number of half precision."""

SAMPLED_SQUARES, SAMPLED_TOKENS = 4.0, 9
"""The reduction is fitted on ``4 * sqrt(n)`` of the n squares of a part, and every ninth token of those."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What features are made of.

    Attributes:
        data: folder of the training sets.
        dinov2: package with the backbone, see :func:`read_trunk`.
        seed: of the squares.
        size: side of the squares in pixels.
        layers: blocks, counted from 1, whose tokens are joined.
        components: of a reduced token.
        amount: of squares.
    """

    data: Path
    dinov2: Path
    seed: int = 0
    size: int = 364
    layers: tuple[int, ...] = (3, 6, 9)
    components: int = 512
    amount: Amount = field(default_factory=Amount)

    def record(self) -> dict[str, Any]:
        """What is the same wherever the same features are made."""
        made = {key: value for key, value in asdict(self).items() if key not in ("data", "dinov2")}
        return {
            "schema": "anomalyclip-training-features/1",
            **made,
            "layers": list(self.layers),
            "dinov2_sha256": resources.sha256(self.dinov2),
            "data_sha256": {**sources.fingerprint(self.data), **sets.fingerprint(self.data)},
        }


class Features(NamedTuple):
    """What :func:`read_features` finds.

    Attributes:
        squares: of all parts, by their names in order.
        reduction: of their tokens.
        record: content of ``features.json``.
    """

    squares: Squares
    reduction: Reduction
    record: Mapping[str, Any]


def missing_sets(data: Path) -> list[str]:
    """The training sets that are not in a data folder."""
    folders = [name for name in sources.FOLDERS if sets.DOMAIN_SETS.get(name) != WITHOUT]
    return [name for name in folders if not (data / name).is_dir()] + [
        one.name for one in sets.SETS if not one.files(data)
    ]


def make_features(
    settings: Settings, folder: Path, *, workers: int = 2, log: Callable[[str], None] = lambda line: None
) -> None:
    """Compute, reduce and keep the features of all sets that are there; what was done is not done again.

    Args:
        settings: of what.
        folder: of the features.
        workers: processes that compute; 0 for this one alone.
        log: is told of every part.

    Raises:
        NoInputError: there are no training data (``E_NO_INPUT``).
        UsageError: the folder has features of something else (``E_OPTION``).
        WeightsError: the backbone is missing (``E_WEIGHTS``).
    """
    _trunk(settings.dinov2, settings.layers)  # fails before an hour of work, not after it
    record = settings.record()
    if (found := read_json(folder / RECORD)) not in (None, record):
        changed = next(key for key in record if (found or {}).get(key) != record[key])
        raise UsageError("E_OPTION", f"these features are of another {changed}", folder, "give another folder")
    write_json(folder / RECORD, record)
    names = [f"{SUBJECTS}{number}" for number in range(CROP_PARTS + 1)]
    names += [one.name for one in sets.SETS if one.files(settings.data)]
    todo = [name for name in names if not (folder / f"{name}.npz").is_file()]
    for name, count in _computed(settings, folder, todo, workers):
        log(f"{name}: {count} squares")
    parts = _parts(folder)
    if not (folder / REDUCTION).is_file():
        kept = [name for name in parts if name not in sets.not_shipped()]
        fitted = fit_reduction(folder, kept, settings.components)
        with whole_file(folder / REDUCTION) as file:
            safetensors.torch.save_file({"weight": fitted.weight, "bias": fitted.bias}, file)
    reduction = _read_reduction(folder)
    for name in parts:
        if not (folder / f"{name}.npy").is_file():
            _reduce(folder, name, reduction)
        (folder / f"{name}.raw.npy").unlink(missing_ok=True)
    log(f"{len(parts)} parts on {settings.components} components")


def read_features(folder: Path) -> Features:
    """Features in memory.

    Raises:
        NoInputError: there are none, or their making was stopped (``E_NO_INPUT``).
    """
    record, parts = read_json(folder / RECORD), _parts(folder)
    if record is None or not parts or any(not (folder / f"{name}.npy").is_file() for name in parts):
        todo = "run to its end: python -m recipes.tiny features DATA -o FEATURES"
        raise NoInputError("E_NO_INPUT", "no features of all sets", folder, todo)
    kept = [np.load(folder / f"{name}.npz") for name in parts]
    wanted = Targets(*(torch.from_numpy(np.concatenate([part[name] for part in kept])) for name in Targets._fields))
    of, kind = (np.concatenate([part[name] for part in kept]) for name in ("of", "kind"))
    reduced = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in parts]
    tokens = np.empty((len(of), *reduced[0].shape[1:]), dtype=np.float16)
    for part, start in zip(reduced, itertools.accumulate(map(len, reduced), initial=0), strict=False):
        tokens[start : start + len(part)] = part
    side = math.isqrt(tokens.shape[1] - 1)
    return Features(Squares(tokens, wanted, of, kind, (side, side)), _read_reduction(folder), record)


def squares_of(settings: Settings, part: str) -> Iterator[Square]:
    """The squares of a part, by its name."""
    if not part.startswith(SUBJECTS):
        one = next(known for known in sets.SETS if known.name == part)
        return squares_of_set(settings.data, one, settings.size, settings.amount, settings.seed)
    number = int(part.removeprefix(SUBJECTS))
    held_out, crops = number == CROP_PARTS, settings.amount.crops // CROP_PARTS
    subjects = sources.read_subjects(settings.data, leave_out=WITHOUT)
    return squares_of_subjects(
        [subject for subject in subjects if subject.validates == held_out],
        settings.size,
        replace(settings.amount, crops=0 if held_out else crops),
        settings.seed * 10 + number,
    )


def fit_reduction(folder: Path, parts: Sequence[str], components: int) -> Reduction:
    """Principal components of a sample of the tokens of these parts; no label enters."""
    rng = np.random.default_rng(0)
    samples = []
    for name in parts:
        tokens = np.load(folder / f"{name}.raw.npy", mmap_mode="r")
        count = min(len(tokens), int(SAMPLED_SQUARES * math.sqrt(len(tokens))))
        chosen = np.sort(rng.choice(len(tokens), count, replace=False))
        sample = tokens[chosen][:, ::SAMPLED_TOKENS]
        samples.append(torch.from_numpy(sample.reshape(-1, sample.shape[-1]).astype(np.float32)))
    return Reduction.fitted(torch.cat(samples), components)


def _computed(settings: Settings, folder: Path, parts: Sequence[str], workers: int) -> Iterator[tuple[str, int]]:
    """Name and number of squares of each part, as soon as it is kept."""
    if workers == 0:
        yield from ((name, _compute(settings, folder, name)) for name in parts)
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        running: dict[Future[int], str] = {pool.submit(_compute, settings, folder, name): name for name in parts}
        for done in as_completed(running):
            yield running[done], done.result()


def _compute(settings: Settings, folder: Path, part: str) -> int:
    trunk = _trunk(settings.dinov2, settings.layers)
    squares = squares_of(settings, part)
    tokens: list[NDArray[np.float16]] = []
    kept: list[tuple[NDArray[np.uint8], str, str]] = []
    while batch := list(itertools.islice(squares, AT_ONCE)):
        tokens.append(trunk(np.stack([square.image for square in batch])).half().numpy())
        kept += [(square.label, square.of, square.kind) for square in batch]
    if kept:
        labels, of, kind = zip(*kept, strict=True)
        with whole_file(folder / f"{part}.raw.npy") as file:
            np.save(file, np.concatenate(tokens))
        targets = token_targets(labels, PATCH)._asdict()
        with whole_file(folder / f"{part}.npz") as file:
            np.savez(file, of=of, kind=kind, **{name: value.numpy() for name, value in targets.items()})
    return len(kept)


def _reduce(folder: Path, part: str, reduction: Reduction) -> None:
    tokens = np.load(folder / f"{part}.raw.npy", mmap_mode="r")
    reduced = [
        reduction(torch.from_numpy(tokens[start : start + REDUCED_AT_ONCE].astype(np.float32))).clamp(-LARGEST, LARGEST)
        for start in range(0, len(tokens), REDUCED_AT_ONCE)
    ]
    with whole_file(folder / f"{part}.npy") as file:
        np.save(file, torch.cat([batch.half() for batch in reduced]).numpy())


def _parts(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("[!.]*.npz"))


def _read_reduction(folder: Path) -> Reduction:
    return Reduction(**safetensors.torch.load_file(folder / REDUCTION))


@functools.cache
def _trunk(dinov2: Path, layers: tuple[int, ...]) -> Trunk:
    return Trunk(read_trunk(dinov2), layers)
