"""``anomalyclip train``: learn prompts from images with masks."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalyclip_monai import resources
from anomalyclip_monai.cli.console import add_options, add_quiet, given_options, model_options, path_of, say
from anomalyclip_monai.cli.exits import EXIT_DONE
from anomalyclip_monai.exceptions import UsageError
from anomalyclip_monai.options import CaseOptions, LearnOptions, ModelOptions
from anomalyclip_monai.text import printable

if TYPE_CHECKING:
    from anomalyclip_monai.cli.console import Commands
    from anomalyclip_monai.engines.prompts import PromptTrainer


def add(commands: Commands) -> None:
    """Add the command."""
    train = commands.add_parser("train", help="learn prompts from images with masks", description=run.__doc__)
    train.add_argument(
        "sets", nargs="+", metavar="DATASET PATH", help="data sets and their folders: mvtec DIR, folder DIR, csv FILE"
    )
    train.add_argument("-o", "--output", required=True, metavar="OUT", help="model.pt and training.json go here")
    add_options(train, ModelOptions, "train")
    train.add_argument("--seed", type=int, default=111, help="of prompts and order (default: %(default)s)")
    train.add_argument(
        "--seeds", type=_at_least(1), default=1, metavar="N", help="learn N sets of prompts, for their mean and spread"
    )
    for options in (LearnOptions, CaseOptions):
        add_options(train, options, "train")
    train.add_argument("--keep-features", action="store_true", help="leave features in OUT/work for further runs")
    add_quiet(train)
    train.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Learn prompts on the frozen model. A run that was stopped goes on where it was when started again."""
    model, learn = model_options(arguments), given_options(arguments, LearnOptions)
    case = given_options(arguments, CaseOptions)
    sets, output = _pairs(arguments.sets), path_of(arguments.output, "the output")
    for package, wanted in (("tensorboard", learn.tensorboard), ("mlflow", learn.mlflow)):
        if wanted and importlib.util.find_spec(package) is None:
            todo = f'pip install "anomalyclip-monai[{package}]"'
            raise UsageError("E_EXTRA", f"{package} is not installed", None, todo)
    preset = resources.preset_values(case.preset) if case.preset else {}

    import ignite.distributed as idist

    from anomalyclip_monai.api import resolve_device
    from anomalyclip_monai.engines.prompts import learn_prompts
    from anomalyclip_monai.engines.prompts.report import summarise
    from anomalyclip_monai.weights.choice import choose_model

    logging.getLogger("ignite").setLevel(logging.CRITICAL)  # it repeats an error that is reported here
    with _processes(model.device) as device, _bars(arguments.quiet or idist.get_rank() > 0) as watch:
        reports = learn_prompts(
            choose_model(model).first_network(),
            sets,
            output,
            seeds=range(arguments.seed, arguments.seed + arguments.seeds),
            device=resolve_device(device),
            options={**learn.given(), **case.given(), **preset, "log": False},  # bars show the losses
            keep_features=arguments.keep_features,
            watch=watch,
        )
        if arguments.quiet or idist.get_rank() > 0:
            return EXIT_DONE
    for report in reports:
        last = report["curve"][-1]
        say(
            f"seed {report['options']['seed']}: loss {last['loss']:.4f} (image {last['image_loss']:.4f}, maps "
            f"{last['map_loss']:.4f}), {report['data']['images']} images, {len(report['curve'])} epochs, "
            f"{report['seconds']:.0f} s"
        )
    if len(reports) > 1:
        for name, final in summarise(reports)["final"].items():
            say(f"{name.replace('_', ' ')}: mean {final['mean']:.4f}, standard deviation {final['sd']:.4f}")
    say(f"prompts: {printable(output)}/{'' if len(reports) == 1 else 'seed_*/'}model.pt")
    return EXIT_DONE


def _pairs(words: Sequence[str]) -> list[tuple[str, Path]]:
    if len(words) % 2:
        raise UsageError("E_DATASET", f"{len(words)} words are no pairs of DATASET PATH", None, "such as mvtec DIR")
    return [(name, path_of(path, "a data set")) for name, path in zip(words[::2], words[1::2], strict=True)]


@contextmanager
def _processes(device: str) -> Iterator[str]:
    """Join the other processes where torchrun has started several; -> the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    import ignite.distributed as idist
    import torch

    on_gpu = device != "cpu" and torch.cuda.is_available()
    idist.initialize("nccl" if on_gpu else "gloo")
    try:
        yield f"cuda:{idist.get_local_rank()}" if on_gpu else "cpu"
    finally:
        idist.finalize()


@contextmanager
def _bars(quiet: bool) -> Iterator[Callable[[PromptTrainer], None]]:
    """A bar over the images whose features are computed, and one over the epochs."""
    from ignite.engine import Events
    from tqdm import tqdm

    off = quiet or not sys.stderr.isatty()
    images = tqdm(desc="features", unit="image", leave=False, disable=off, position=1)
    epochs = tqdm(desc="epochs", unit="epoch", leave=False, disable=off)

    def encoded(done: int, total: int) -> None:
        images.total = total
        images.update(done - images.n)

    def watch(trainer: Any) -> None:
        if hasattr(trainer.data_loader.dataset, "progress"):
            trainer.data_loader.dataset.progress = encoded
        epochs.reset(trainer.state.max_epochs)

        @trainer.on(Events.EPOCH_COMPLETED)
        def _show(engine: Any) -> None:
            epochs.update(engine.state.epoch - epochs.n)
            epochs.set_postfix(loss=f"{engine.state.metrics['loss']:.4f}")

    try:
        yield watch
    finally:
        images.close()
        epochs.close()


def _at_least(low: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if value < low:
            raise argparse.ArgumentTypeError(f"{value} is below {low}")
        return value

    return number
