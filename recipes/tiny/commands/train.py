"""``python -m recipes.tiny train``: train the backbone of an embedded model from the data folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalyclip_monai import resources
from recipes.tiny.commands.console import say, sentence

if TYPE_CHECKING:
    from recipes.tiny.commands.console import Commands
    from recipes.tiny.training import Plan

ORGANS = ("colonoscopy", "brain_mr", "head_ct", "ultrasound")


def add(commands: Commands) -> None:
    """Add the command."""
    train = commands.add_parser("train", help="train the backbone of an embedded model", description=run.__doc__)
    train.add_argument("data", metavar="DATA", help="folder with the training sets (kvasir_256, normal_volumes, ...)")
    train.add_argument("-o", "--output", required=True, metavar="OUT", help="folder of the run; gone on with if begun")
    train.add_argument(
        "--model",
        default=resources.DEFAULT_BUNDLE,
        help="name or folder of the bundle to train (default: %(default)s)",
    )
    train.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="side of the squares, a multiple of 32 (default: the bundle's)"
    )
    train.add_argument(
        "--seed",
        type=int,
        nargs="+",
        default=[0],
        help="of weights, crops and lesions (default: 0); several train side by side on the crops of the first",
    )
    organ = train.add_mutually_exclusive_group()
    organ.add_argument(
        "--leave-out",
        choices=ORGANS,
        help="train without this organ, to measure on it what an organ means that was never seen",
    )
    organ.add_argument(
        "--also-leave-out",
        choices=ORGANS,
        nargs="+",
        default=[],
        help="side by side with the others, train once more without each of these organs",
    )
    train.add_argument(
        "--init",
        help="bundle, imagenet, or a backbone's file (default: bundle; imagenet where an organ is left out)",
    )
    length = train.add_mutually_exclusive_group()
    length.add_argument("--crops", type=int, help="length of the training (default: 60000)")
    length.add_argument("--minutes", type=float, help="length in time instead; the schedule then follows the clock")
    train.add_argument("--threads", type=int, default=2, help="of the processor (default: %(default)s)")
    train.add_argument("--workers", type=int, default=1, help="processes that draw crops (default: %(default)s)")
    train.add_argument("--bf16", action="store_true", help="compute in bfloat16, faster on a processor that has it")
    train.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="another number of the plan, such as batch=128 or block_rate=0.0015 (all are in report.json)",
    )
    train.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    train.add_argument("-q", "--quiet", action="store_true", help="no lines but the last")
    train.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Train the image side on real and synthetic lesions against fixed text features.

    OUT gets backbone.safetensors, the curve, the last checkpoints, report.json, and sheets of crops to look at; of
    trainings side by side every one gets a folder in OUT. A run that was stopped goes on when the same command is
    given again.
    """
    from anomalyclip_monai.api import resolve_device
    from recipes.tiny.report import write_report
    from recipes.tiny.sheets import write_sheets
    from recipes.tiny.sources import read_subjects, without
    from recipes.tiny.start import starting_network
    from recipes.tiny.together import train_together
    from recipes.tiny.training import Training

    out, device = Path(arguments.output), resolve_device(arguments.device)
    plans = [_plan(arguments, seed, arguments.leave_out) for seed in dict.fromkeys(arguments.seed)]
    plans += [_plan(arguments, arguments.seed[0], organ) for organ in dict.fromkeys(arguments.also_leave_out)]
    subjects = read_subjects(arguments.data, leave_out=arguments.leave_out)

    def begin(plan: Plan) -> Training:
        name = f"seed{plan.seed}" if plan.leave_out == arguments.leave_out else f"without_{plan.leave_out}"

        def tell(line: dict[str, Any]) -> None:
            if not arguments.quiet:
                say(sentence(line) if len(plans) == 1 else f"{name}: {sentence(line)}")

        network = starting_network(plan.init, bundle=plan.model, seed=plan.seed, image_size=plan.image_size)
        folder = out if len(plans) == 1 else out / name
        return Training(network.to(device), without(subjects, plan.leave_out), plan, folder, log=tell)

    trainings = [begin(plan) for plan in plans]
    first = trainings[0]
    for sheet in write_sheets(first.crops, out):
        if not arguments.quiet:
            say(f"look at {sheet}")
    if len(trainings) == 1:
        first.run()
    else:
        train_together(trainings, first.crops)
    for training in trainings:
        report = write_report(training, arguments.data)
        say(f"{report}: {training.step} steps of {training.plan.batch} crops")


def _plan(arguments: argparse.Namespace, seed: int, leave_out: str | None) -> Plan:
    from recipes.tiny.training import Plan

    # The shipped weights have seen every organ; what is left out must be unknown from the start.
    init = arguments.init or ("imagenet" if arguments.leave_out or arguments.also_leave_out else "bundle")
    options = {
        "model": arguments.model,
        "image_size": arguments.image_size,
        "leave_out": leave_out,
        "seed": seed,
        "minutes": arguments.minutes,
        "threads": arguments.threads,
        "workers": arguments.workers,
        "bfloat16": arguments.bf16,
        **({"crops": arguments.crops} if arguments.crops else {}),
    }
    return Plan.starting_from(init, **options, **dict(arguments.set))


def _setting(text: str) -> tuple[str, float]:
    """``batch=128`` as a number of the plan."""
    from recipes.tiny.training import Plan

    kinds: dict[str, type[int] | type[float]] = {"int": int, "float": float}
    name, _, value = text.partition("=")
    known = {field: kinds[annotation] for field, annotation in Plan.__annotations__.items() if annotation in kinds}
    for own in ("seed", "crops", "threads", "workers"):  # options of the command
        del known[own]
    if name not in known:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    try:
        return name, known[name](value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{value!r} is no {known[name].__name__}") from None
