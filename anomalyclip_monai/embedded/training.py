"""The training of the image side against fixed text features: resumable, the same from the same seed."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader

from anomalyclip_monai.embedded.average import mean_weights
from anomalyclip_monai.embedded.crops import Crops
from anomalyclip_monai.embedded.objective import objective, targets
from anomalyclip_monai.embedded.sources import Subject
from anomalyclip_monai.embedded.sparse import SparseTower, choose_tokens
from anomalyclip_monai.embedded.validation import best_threshold, held_out_cases, measure, predict
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.networks import AnomalyCLIP
from anomalyclip_monai.networks.dual_path import encode_image
from anomalyclip_monai.networks.towers import vision_tower

Log = Callable[[dict[str, Any]], None]

FROZEN = ("conv_stem", "bn1", "blocks.0.", "blocks.1.")
"""First stages of the encoder, whose edges and colours suit every picture: kept, which also saves their gradients."""

KEPT = 3
"""Number of last checkpoints that are kept, and whose mean the run ends with."""


@dataclass(frozen=True, slots=True)
class Plan:
    """From what, how long and how fast to learn.

    Attributes:
        init: what the image side starts from, see :func:`~anomalyclip_monai.embedded.start.starting_network`.
        leave_out: the organ that is kept from it.
        crops: length of the training; the schedule follows it, and so every run with a seed is the same.
        minutes: length in time instead, for a machine of unknown speed; the schedule then follows the clock.
        batch: crops per step.
        seed: of the crops.
        encoder_rate: learning rate of the encoder that came with ImageNet weights.
        stem_rate: of the neck.
        block_rate: of the transformer blocks.
        weight_decay: of AdamW.
        warmup: steps over which the rates rise.
        average: decay of the moving average of the weights, which is what is kept.
        validate_every: steps.
        save_every: seconds between saved states.
        early_size: side of the crops ...
        early_until: ... up to this part of the training, after which they have that of the network: small crops teach
            most of it at half of the cost.
        tokens: share of the tokens that a step sees ...
        sparse_until: ... up to this part of the training; then it sees all.
        threads: parts of a batch that are learned from at the same time on a processor.
        workers: processes that draw crops; 0 draws them in this one.
        bfloat16: layers compute in bfloat16, which is faster on a processor that has it; on a GPU they always do.
    """

    init: str = "bundle"
    leave_out: str | None = None
    crops: int = 60_000
    minutes: float | None = None
    batch: int = 16
    seed: int = 0
    encoder_rate: float = 1.5e-4
    stem_rate: float = 3e-4
    block_rate: float = 4e-4
    weight_decay: float = 0.02
    warmup: int = 100
    average: float = 0.995
    validate_every: int = 400
    save_every: float = 180
    early_size: int = 192
    early_until: float = 0.0
    tokens: float = 0.5
    sparse_until: float = 0.9
    threads: int = 2
    workers: int = 1
    bfloat16: bool = False

    @classmethod
    def starting_from(cls, init: str, **options: Any) -> Plan:
        """The plan for a start; where all but the encoder is random, it learns faster."""
        if init == "imagenet":
            options = {"encoder_rate": 2e-4, "stem_rate": 1e-3, "block_rate": 1e-3, "early_until": 0.6, **options}
        return cls(init=init, **options)


class Training:
    """A run in a folder: ``state.pt`` to go on from, ``curve.jsonl``, checkpoints, at the end ``backbone.safetensors``.

    Args:
        network: what to start from, see :func:`~anomalyclip_monai.embedded.start.starting_network`.
        subjects: training and held-out subjects.
        plan: how long and how fast.
        folder: of the run; an unfinished one there is gone on with.
        log: called with every line of the curve.

    Raises:
        UsageError: the folder holds a run with another plan (``E_RESUME``).
    """

    def __init__(
        self,
        network: AnomalyCLIP,
        subjects: Sequence[Subject],
        plan: Plan,
        folder: Path,
        log: Log | None = None,
    ) -> None:
        self.network, self.plan, self.folder, self.log = network, plan, folder, log or (lambda line: None)
        self.device = next(network.clip.parameters()).device
        with torch.no_grad():
            self.text = network.text_features().float()
        self.patch = int(network.clip.visual.patch_size[0])
        self.crops = Crops([s for s in subjects if not s.validates], seed=plan.seed, size=network.image_size[0])
        self.held_out = held_out_cases([s for s in subjects if s.validates], network.image_size[0])
        visual = network.clip.visual.float()
        self.average = copy.deepcopy(visual).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(_groups(visual, plan), weight_decay=plan.weight_decay, betas=(0.9, 0.98))
        self.learned = [parameter for parameter in visual.parameters() if parameter.requires_grad]
        self.pool = ThreadPoolExecutor(plan.threads, initializer=_one_thread)
        self.step, self.seconds = 0, 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    @property
    def progress(self) -> float:
        """From 0 at the start to 1 at the end."""
        if self.plan.minutes is not None:
            return min(1.0, self.seconds / (60 * self.plan.minutes))
        return min(1.0, self.step * self.plan.batch / self.plan.crops)

    def run(self, until: int | None = None) -> None:
        """Train to the end, or until a step, and save."""
        saved, last = time.monotonic(), time.monotonic()
        sums: dict[str, float] = {}
        since = self.step
        for labels, images in self._batches():
            if self.progress >= 1 or (until is not None and self.step >= until):
                break
            for name, value in self._learn(images, labels).items():
                sums[name] = sums.get(name, 0.0) + value
            self.step += 1
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            if self.step % 50 == 0:
                means = {name: round(value / (self.step - since), 4) for name, value in sums.items()}
                self._note({"rate": round(self._rate(), 4), **means})
                sums, since = {}, self.step
            if self.step % self.plan.validate_every == 0:
                self._validate()
            if now - saved > self.plan.save_every:
                self.save()
                saved = time.monotonic()
        self.save()
        if self.progress >= 1:
            self._validate()
            self._average_checkpoints()

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Labels and images of the batches from the present step on, drawn by another process."""
        batch = self.plan.batch

        def numbers() -> Iterator[list[int]]:
            step = self.step
            while True:
                yield list(range(step * batch, (step + 1) * batch))
                step += 1

        while True:
            size = self._size()
            loader = DataLoader(
                self.crops.of_size(size),
                batch_sampler=_Endless(numbers()),
                num_workers=self.plan.workers,
                worker_init_fn=_one_thread,
            )
            for crop in loader:
                yield crop.label.to(self.device), crop.image.to(self.device)
                if self._size() != size:
                    break

    def _size(self) -> int:
        """Side of the crops at present."""
        return self.plan.early_size if self.progress < self.plan.early_until else self.crops.size

    def _learn(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        """One step; the batch is shared out over threads, which on a busy processor beats threads within layers."""
        share = self.plan.tokens if self.progress < self.plan.sparse_until else 1.0
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.step)
        patches = (images.shape[-2] // self.patch) * (images.shape[-1] // self.patch)
        kept = choose_tokens(len(images), patches, share, generator).to(self.device)
        parts = self.plan.threads if self.device.type == "cpu" else 1
        results = list(self.pool.map(self._gradients, images.chunk(parts), labels.chunk(parts), kept.chunk(parts)))
        for index, parameter in enumerate(self.learned):
            parameter.grad = sum((gradients[index] for gradients, _ in results)) / len(results)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * self._rate()
        nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.optimiser.step()
        decay = min(self.plan.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, new in zip(self.average.parameters(), self.network.clip.visual.parameters(), strict=True):
                if new.requires_grad:
                    mean.lerp_(new, 1 - decay)
        return {name: sum(part[name] for _, part in results) / len(results) for name in results[0][1]}

    def _gradients(self, images: Tensor, labels: Tensor, kept: Tensor) -> tuple[tuple[Tensor, ...], dict[str, float]]:
        """The gradients of part of a batch, and its loss."""
        network = self.network
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.bfloat16 or self.device.type != "cpu"):
            features = encode_image(
                SparseTower(vision_tower(network.clip.visual), kept),
                (images.float() / 255 - network.mean) / network.std,
                local_blocks=network.local_blocks,
                feature_layers=network.feature_layers,
                local_attention=network.local_attention,
            )
        loss, parts = objective(
            [tokens[:, 1:] for tokens in features.patches.values()],
            features.image,
            self.text,
            targets(labels, self.patch).of(kept),
            temperature=network.temperature,
        )
        return torch.autograd.grad(loss, self.learned), {"loss": float(loss.detach()), **parts}

    def _rate(self) -> float:
        """Share of the peak rate: a linear rise, then a half cosine."""
        return min(1.0, (self.step + 1) / self.plan.warmup) * (
            0.01 + 0.99 * (1 + math.cos(math.pi * self.progress)) / 2
        )

    def _validate(self) -> None:
        """Measure the averaged weights on the held-out subjects and keep them as a checkpoint."""
        if not self.held_out:
            return
        self._measure()
        self.export(self.folder / f"checkpoint_{self.step:06d}.safetensors")
        for old in sorted(self.folder.glob("checkpoint_*.safetensors"))[:-KEPT]:
            old.unlink()

    def held_out_maps(self) -> NDArray[np.float32]:
        """-> (cases, S, S) maps of the held-out pictures by the averaged weights."""
        network = copy.copy(self.network)
        network._modules = dict(network._modules)
        network.clip = copy.copy(self.network.clip)
        network.clip._modules = {**self.network.clip._modules, "visual": self.average}
        return predict(network, self.held_out)

    def _measure(self) -> None:
        maps = self.held_out_maps()
        found = measure(maps, self.held_out)
        self._note(
            {
                "validation": {name: round(value, 4) for name, value in sorted(found.items())},
                "best_threshold": best_threshold(maps, self.held_out),
            }
        )

    def _average_checkpoints(self) -> None:
        """The mean of the last checkpoints is what the run ends with: calmer than any one of them."""
        files = sorted(self.folder.glob("checkpoint_*.safetensors"))[-KEPT:]
        if not files:
            return
        mean = mean_weights(files)
        for key, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.copy_(mean[f"visual.{key}"])
        self._measure()
        self.export(self.folder / "backbone.safetensors")

    def export(self, file: Path) -> None:
        """Write the averaged image side and the text side as one half-precision backbone."""
        state = {key: value for key, value in self.network.clip.state_dict().items() if not key.startswith("visual.")}
        state.update({f"visual.{key}": value for key, value in self.average.state_dict().items()})
        half = {
            key: (value.half() if value.is_floating_point() else value).contiguous().cpu()
            for key, value in state.items()
        }
        _replace(file, lambda path: safetensors.torch.save_file(half, path))

    def save(self) -> None:
        """Write all that a later run needs to go on as if there had been no break."""
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "plan": asdict(self.plan),
            "visual": self.network.clip.visual.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        _replace(self.folder / "state.pt", lambda path: torch.save(state, path))
        self.export(self.folder / "backbone.safetensors")

    def _resume(self) -> None:
        file, curve = self.folder / "state.pt", self.folder / "curve.jsonl"
        if not file.is_file():
            curve.unlink(missing_ok=True)
            return
        state = torch.load(file, map_location=self.device, weights_only=True)
        plan = asdict(self.plan)
        if others := [name for name, value in state["plan"].items() if plan[name] != value]:
            what = f"a run with another {', '.join(others)} is there"
            raise UsageError("E_RESUME", what, self.folder, "give the same options, or another folder")
        self.network.clip.visual.load_state_dict(state["visual"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        lines = curve.read_text(encoding="utf-8").splitlines() if curve.is_file() else []
        kept = [line for line in lines if json.loads(line)["step"] <= self.step]
        curve.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def _note(self, values: dict[str, Any]) -> None:
        line = {"step": self.step, "crops": self.step * self.plan.batch, "seconds": round(self.seconds, 1), **values}
        with open(self.folder / "curve.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.log(line)


class _Endless:
    """A batch sampler of unknown length."""

    def __init__(self, batches: Iterator[list[int]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return self.batches


def _one_thread(worker: int = 0) -> None:
    torch.set_num_threads(1)


def _groups(visual: nn.Module, plan: Plan) -> list[dict[str, Any]]:
    """Parameters by learning rate; vectors do not decay; the first stages do not learn."""
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in visual.named_parameters():
        in_encoder = name.startswith("conv1.encoder.")
        frozen = in_encoder and name.removeprefix("conv1.encoder.").startswith(FROZEN)
        parameter.requires_grad_(not frozen)
        if not frozen:
            rate = plan.encoder_rate if in_encoder else plan.stem_rate if "conv1." in name else plan.block_rate
            groups.setdefault((rate, parameter.ndim < 2), []).append(parameter)
    return [
        {"params": parameters, "peak": rate, **({"weight_decay": 0.0} if vectors else {})}
        for (rate, vectors), parameters in groups.items()
    ]


def _replace(file: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, then take its place: a kill leaves the old one."""
    partial = file.with_name(f"{file.name}.partial")
    write(partial)
    partial.replace(file)
