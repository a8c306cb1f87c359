"""Image features of a frozen CLIP, computed once and kept in files that are mapped into memory."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import ignite.distributed as idist
import numpy as np
import torch
from torch import Tensor

from anomalyclip_monai.engines.prompts.prediction import encode_frozen
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.files import read_json, write_json
from anomalyclip_monai.networks import AnomalyCLIP
from anomalyclip_monai.text import name_bytes
from anomalyclip_monai.types import PathLike

logger = logging.getLogger(__name__)

Precision = Literal["fp32", "fp16", "bf16"]

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

FILES = ("features", "patches", "label", "mask")
"""What is kept of an image, one file each, all rows of the same length."""


class PreparedImages(Protocol):
    """Where images come from: ``image`` (3, H, W), ``label`` () and ``mask`` (1, H, W) by index."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> dict[str, Any]: ...


class FeatureMaps:
    """Features of N images on disk; a row is read when it is asked for, and nothing is held in memory.

    Each process computes a contiguous part of the rows, in a folder of its own; all read all parts, so the folder
    must be one that all processes see.

    Args:
        folder: made by :meth:`compute`.
    """

    def __init__(self, folder: Path) -> None:
        layout = json.loads((folder / "layout.json").read_text(encoding="utf-8"))
        self.shape = tuple(layout["mask_shape"])
        shapes, dtypes = _row_shapes(layout), _row_dtypes(layout["precision"])
        self._parts: list[dict[str, Tensor]] = []
        self._rows: list[tuple[int, int]] = []  # part, row in the part
        for number, count in enumerate(layout["parts"]):
            place = _part_folder(folder, number, len(layout["parts"]))
            self._rows += [(number, row) for row in range(count)]
            self._parts.append(
                {name: _map(place / f"{name}.bin", (count, *shapes[name]), dtypes[name]) for name in FILES if count}
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """``features`` (D,) and ``patches`` (L, N, D) as stored, ``label`` () and ``mask`` (1, H, W) float32."""
        number, row = self._rows[index]
        found = {name: values[row] for name, values in self._parts[number].items()}
        bits = np.unpackbits(found["mask"].numpy(), count=math.prod(self.shape))
        found["mask"] = torch.from_numpy(bits).view(1, *self.shape).float()
        return found

    @classmethod
    def compute(
        cls,
        images: PreparedImages,
        network: AnomalyCLIP,
        folder: PathLike,
        data_key: str,
        precision: Precision,
        *,
        batch_size: int = 8,
        progress: Callable[[int, int], None] | None = None,
    ) -> FeatureMaps:
        """Compute what is not there yet; a run that was killed goes on behind the last whole row.

        Args:
            images: where images come from.
            network: whose image side encodes them.
            folder: files go here; those of other images, another network or another precision are replaced.
            data_key: says which images these are.
            precision: of the features.
            batch_size: images encoded at a time.
            progress: called with (images encoded, images in all) of this process.

        Raises:
            UsageError: features are beyond what ``fp16`` can hold (``E_PRECISION``).
        """
        folder = Path(folder)
        rank, world = idist.get_rank(), idist.get_world_size()
        part = range(rank * len(images) // world, (rank + 1) * len(images) // world)
        layout = _layout(network, data_key, precision, len(images), world)
        if rank == 0:
            _start_or_go_on(folder, layout)
        idist.barrier()
        place = _part_folder(folder, rank, world)
        place.mkdir(parents=True, exist_ok=True)
        shapes, dtypes = _row_shapes(layout), _row_dtypes(precision)
        row_bytes = {name: math.prod(shapes[name]) * dtypes[name].itemsize for name in FILES}
        done = _whole_rows(place, row_bytes)
        with _Appender(place, row_bytes, done) as append:
            for batch in _batches(part[done:], batch_size):
                samples = [images[index] for index in batch]
                encoded = encode_frozen(network, torch.stack([sample["image"] for sample in samples]))
                append(
                    features=encoded.image.to(dtypes["features"]),
                    patches=encoded.patches.to(dtypes["patches"]),
                    label=torch.stack([sample["label"] for sample in samples]),
                    mask=torch.stack([_pack(sample["mask"]) for sample in samples]),
                )
                done += len(batch)
                if progress:
                    progress(done, len(part))
        idist.barrier()
        return cls(folder)


class _Appender:
    """Writes rows behind those that are whole, all files in step."""

    def __init__(self, place: Path, row_bytes: dict[str, int], done: int) -> None:
        self._files = {}
        for name in FILES:
            file = self._files[name] = open(place / f"{name}.bin", "ab")  # noqa: SIM115 # closed in __exit__
            file.truncate(done * row_bytes[name])

    def __enter__(self) -> _Appender:
        return self

    def __call__(self, **rows: Tensor) -> None:
        for name, values in rows.items():
            if values.is_floating_point() and not values.isfinite().all():
                raise UsageError("E_PRECISION", "features are too large for fp16", None, "use --features bf16 or fp32")
            self._files[name].write(values.contiguous().cpu().view(torch.uint8).numpy().data)
        for file in self._files.values():
            file.flush()

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()


def _layout(network: AnomalyCLIP, data_key: str, precision: Precision, count: int, world: int) -> dict[str, Any]:
    height, width = network.settings.size
    blank = torch.zeros(1, 3, height, width, device=network.mean.device)
    _, layers, patches, channels = encode_frozen(network, blank).patches.shape
    return {
        "data": data_key,
        "image_side": image_side_sha256(network),
        "precision": precision,
        "parts": [(rank + 1) * count // world - rank * count // world for rank in range(world)],
        "patches_shape": [layers, patches, channels],
        "mask_shape": [height, width],
    }


def image_side_sha256(network: AnomalyCLIP) -> str:
    """Of all that decides what features an image has: weights of the vision tower and how it is walked."""
    settings = (
        network.settings.size,
        network.settings.feature_layers,
        network.settings.local_blocks,
        network.settings.local_attention,
        network.mean.flatten().tolist(),
        network.std.flatten().tolist(),
    )
    digest = hashlib.sha256(repr(settings).encode())
    tower: Any = network.clip.visual
    for name, value in tower.state_dict().items():
        digest.update(name_bytes(name))
        digest.update(value.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _start_or_go_on(folder: Path, layout: dict[str, Any]) -> None:
    path = folder / "layout.json"
    if read_json(path) == layout:
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    for old in folder.glob("part_*/*.bin"):
        old.unlink()
    write_json(path, layout)


def _part_folder(folder: Path, rank: int, world: int) -> Path:
    return folder / f"part_{rank + 1}_of_{world}"


def _row_shapes(layout: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    patches = tuple(layout["patches_shape"])
    packed = -(-math.prod(layout["mask_shape"]) // 8)
    return {"features": patches[-1:], "patches": patches, "label": (), "mask": (packed,)}


def _row_dtypes(precision: Precision) -> dict[str, torch.dtype]:
    dtype = DTYPES[precision]
    return {"features": dtype, "patches": dtype, "label": torch.int64, "mask": torch.uint8}


def _whole_rows(place: Path, row_bytes: dict[str, int]) -> int:
    files = {name: place / f"{name}.bin" for name in FILES}
    return min(file.stat().st_size // row_bytes[name] if file.is_file() else 0 for name, file in files.items())


def _map(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.from_file(str(path), shared=False, size=math.prod(shape), dtype=dtype).view(shape)


def _pack(mask: Tensor) -> Tensor:
    return torch.from_numpy(np.packbits(mask.numpy().astype(bool)))


def _batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (indices[start : start + size] for start in range(0, len(indices), size))
