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
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.networks import AnomalyCLIP
from anomalyclip_monai.networks.checkpoints import IMAGE_SIDE, with_text_side
from anomalyclip_monai.networks.dual_path import encode_image
from anomalyclip_monai.networks.towers import vision_tower
from recipes.tiny.average import mean_weights
from recipes.tiny.crops import Crop, Crops
from recipes.tiny.objective import objective, targets
from recipes.tiny.sources import Subject
from recipes.tiny.sparse import SparseTower, choose_tokens
from recipes.tiny.validation import best_threshold, held_out_cases, measure, predict

Log = Callable[[dict[str, Any]], None]

FROZEN = ("conv_stem", "bn1", "blocks.0.", "blocks.1.")
"""First stages of the encoder, whose edges and colours suit every picture: kept, which also saves their gradients."""

NOTED = 50
"""Steps for a line of the curve."""

OF_THE_MACHINE = ("workers", "save_every")
"""Parts of a plan that change nothing of what is learned: another machine may go on with others."""

KEPT = 3
"""Number of last checkpoints that are kept, and whose mean the run ends with."""


@dataclass(frozen=True, slots=True)
class Plan:
    """From what, how long and how fast to learn.

    Attributes:
        init: what the image side starts from, see :func:`~recipes.tiny.start.starting_network`.
        model: bundle whose network is trained.
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
        echo: steps that learn from a batch of the network's side, every second one from its mirror image: for a GPU
            that learns faster than processors draw (data echoing, Choi et al. 2019).
        tokens: share of the tokens that a step sees ...
        sparse_until: ... up to this part of the training; then it sees all.
        threads: parts of a batch that are learned from at the same time on a processor.
        workers: processes that draw crops; 0 draws them in this one.
        bfloat16: layers compute in bfloat16, which is faster on a processor that has it; on a GPU they always do.
    """

    init: str = "bundle"
    model: str = resources.DEFAULT_BUNDLE
    image_size: int | None = None
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
    echo: int = 1
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
        network: what to start from, see :func:`~recipes.tiny.start.starting_network`.
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
        self.crops = Crops([s for s in subjects if not s.validates], seed=plan.seed, size=network.settings.size[0])
        self.held_out = held_out_cases([s for s in subjects if s.validates], network.settings.size[0])
        visual = network.clip.visual.float()
        self.average = copy.deepcopy(visual).requires_grad_(False)
        groups = _groups(visual, plan)
        self.optimiser = torch.optim.AdamW(groups, weight_decay=plan.weight_decay, betas=(0.9, 0.98))
        pairs = zip(self.average.parameters(), visual.parameters(), strict=True)
        self.followers, self.learned = zip(*(pair for pair in pairs if pair[1].requires_grad), strict=True)
        self.pool = ThreadPoolExecutor(plan.threads, initializer=_one_thread)
        self.step, self.seconds = 0, 0.0
        self._sums: dict[str, Tensor] = {}
        self._waited = 0.0
        self.start_clock()
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        self._since = self.step

    @property
    def progress(self) -> float:
        """From 0 at the start to 1 at the end."""
        return self._progress(self.step)

    def _progress(self, step: int) -> float:
        if self.plan.minutes is not None:
            return min(1.0, self.seconds / (60 * self.plan.minutes))
        return min(1.0, step * self.plan.batch / self.plan.crops)

    def run(self, until: int | None = None) -> None:
        """Train to the end, or until a step, and save."""
        self.start_clock()
        for crops in self.batches(self.crops):
            if self.progress >= 1 or (until is not None and self.step >= until):
                break
            self.learn_from(crops.image, crops.label)
        self.finish()

    @property
    def _curve_file(self) -> Path:
        return self.folder / "curve.jsonl"

    def curve(self) -> list[dict[str, Any]]:
        """The lines of the curve so far."""
        if not self._curve_file.is_file():
            return []
        return [json.loads(line) for line in self._curve_file.read_text(encoding="utf-8").splitlines()]

    def start_clock(self) -> None:
        """Count seconds from now on."""
        self._last = self._saved = time.monotonic()

    def learn_from(self, images: Tensor, labels: Tensor) -> None:
        """Take the next step, with what is due then: a line of the curve, a checkpoint, a saved state.

        Args:
            images: (B, 3, S, S) uint8; where B is 0 the step passes without anything learned.
            labels: (B, S, S) uint8, as in a :class:`~recipes.tiny.crops.Crop`.
        """
        for name, value in (self._learn(images, labels) if len(images) else {}).items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self.step += 1
        now = time.monotonic()
        self.seconds, self._last = self.seconds + now - self._last, now
        if self.step % NOTED == 0:
            steps = self.step - self._since
            means = {name: round(float(value) / steps, 4) for name, value in self._sums.items()}
            self._note({"rate": round(self._rate(), 4), "waited": round(self._waited, 1), **means})
            self._sums, self._waited, self._since = {}, 0.0, self.step
        if self.step % self.plan.validate_every == 0:
            self._validate()
        if now - self._saved > self.plan.save_every:
            self.save()
            self._saved = time.monotonic()

    def finish(self) -> None:
        """Save; at the end of the training the mean of the last checkpoints as well."""
        self.save()
        if self.progress >= 1:
            self._validate()
            self._average_checkpoints()

    def batches(self, crops: Crops) -> Iterator[Crop]:
        """Batches of these crops from the present step on, drawn by other processes, with tensors on the device."""
        loader = DataLoader(
            _Sized(crops),
            batch_sampler=_Endless(self._numbers(self.step)),
            num_workers=self.plan.workers,
            worker_init_fn=_one_thread,
        )
        step, asked = self.step, time.monotonic()
        for drawn in loader:
            self._waited += time.monotonic() - asked
            there = drawn._replace(image=drawn.image.to(self.device), label=drawn.label.to(self.device))
            echo = self._echo(drawn.image.shape[-1])
            for turn in range(step % echo, echo):
                yield _mirrored(there) if turn % 2 else there
                step += 1
            asked = time.monotonic()

    def _numbers(self, step: int) -> Iterator[list[tuple[int, int]]]:
        """Number and side of the crops of every batch, from a step on."""
        while True:
            early = self._progress(step) < self.plan.early_until
            size = self.plan.early_size if early else self.crops.size
            step -= step % self._echo(size)
            yield [(number, size) for number in range(step * self.plan.batch, (step + 1) * self.plan.batch)]
            step += self._echo(size)

    def _echo(self, size: int) -> int:
        """Steps that learn from a batch of this side."""
        return self.plan.echo if size == self.crops.size else 1

    def _learn(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """One step; the batch is shared out over threads, which on a busy processor beats threads within layers."""
        share = self.plan.tokens if self.progress < self.plan.sparse_until else 1.0
        generator = torch.Generator().manual_seed(self.plan.seed * 1_000_003 + self.step)
        patches = (images.shape[-2] // self.patch) * (images.shape[-1] // self.patch)
        kept = choose_tokens(len(images), patches, share, generator).to(self.device)
        parts = self.plan.threads if self.device.type == "cpu" else 1
        results = list(self.pool.map(self._gradients, images.chunk(parts), labels.chunk(parts), kept.chunk(parts)))
        for parameter, *gradients in zip(self.learned, *(found for found, _ in results), strict=True):
            parameter.grad = gradients[0] if len(gradients) == 1 else sum(gradients) / len(gradients)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * self._rate()
        nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.optimiser.step()
        decay = min(self.plan.average, (1 + self.step) / (10 + self.step))
        get_ema_multi_avg_fn(decay)(self.followers, self.learned, None)
        return {name: torch.stack([part[name] for _, part in results]).mean() for name in results[0][1]}

    def _gradients(self, images: Tensor, labels: Tensor, kept: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """The gradients of part of a batch, and its loss."""
        network = self.network
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.plan.bfloat16 or self.device.type != "cpu"):
            features = encode_image(
                SparseTower(vision_tower(network.clip.visual), kept),
                (images.float() / 255 - network.mean) / network.std,
                local_blocks=network.settings.local_blocks,
                feature_layers=network.settings.feature_layers,
                local_attention=network.settings.local_attention,
            )
        loss, parts = objective(
            [tokens[:, 1:] for tokens in features.patches.values()],
            features.image,
            self.text,
            targets(labels, self.patch).of(kept),
            temperature=network.settings.temperature,
        )
        return torch.autograd.grad(loss, self.learned), {"loss": loss.detach(), **parts}

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
        line: dict[str, Any] = {"validation": {name: round(value, 4) for name, value in sorted(found.items())}}
        if self.progress >= 1:
            line["best_threshold"] = best_threshold(maps, self.held_out)
        self._note(line)

    def _average_checkpoints(self) -> None:
        """The mean of the last checkpoints is what the run ends with: calmer than any one of them."""
        files = sorted(self.folder.glob("checkpoint_*.safetensors"))[-KEPT:]
        if not files:
            return
        mean = mean_weights(files)
        for key, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.copy_(mean[f"{IMAGE_SIDE}{key}"])
        self._measure()
        self.export(self.folder / "backbone.safetensors")

    def export(self, file: Path) -> None:
        """Write the averaged image side and the text side as one half-precision backbone."""
        image = {f"{IMAGE_SIDE}{key}": value for key, value in self.average.state_dict().items()}
        state = with_text_side(image, self.network.clip.state_dict())
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
        file = self.folder / "state.pt"
        if not file.is_file():
            self._curve_file.unlink(missing_ok=True)
            return
        state = torch.load(file, map_location=self.device, weights_only=True)
        plan = asdict(self.plan)
        decisive = {name: value for name, value in state["plan"].items() if name not in OF_THE_MACHINE}
        if others := [name for name, value in decisive.items() if plan[name] != value]:
            what = f"a run with another {', '.join(others)} is there"
            raise UsageError("E_RESUME", what, self.folder, "give the same options, or another folder")
        self.network.clip.visual.load_state_dict(state["visual"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        kept = [line for line in self.curve() if line["step"] <= self.step]
        self._curve_file.write_text("".join(f"{json.dumps(line)}\n" for line in kept), encoding="utf-8")

    def _note(self, values: dict[str, Any]) -> None:
        line = {"step": self.step, "crops": self.step * self.plan.batch, "seconds": round(self.seconds, 1), **values}
        with open(self._curve_file, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.log(line)


class _Sized(Dataset[Crop]):
    """Crops by number and side, so that one set of processes draws them all."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops

    def __getitem__(self, key: tuple[int, int]) -> Crop:
        number, size = key
        return self.crops.of_size(size)[number]


class _Endless:
    """A batch sampler of unknown length."""

    def __init__(self, batches: Iterator[list[tuple[int, int]]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.batches


def _mirrored(crops: Crop) -> Crop:
    return crops._replace(image=crops.image.flip(-1), label=crops.label.flip(-1))


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
