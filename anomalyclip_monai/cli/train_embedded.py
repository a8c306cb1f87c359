"""``anomalyclip train-embedded``: train the backbone of the embedded model from the data folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalyclip_monai.cli.console import EXIT_DONE, say

if TYPE_CHECKING:
    from anomalyclip_monai.cli.console import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    train = commands.add_parser(
        "train-embedded", help="train the backbone of the embedded model", description=run.__doc__
    )
    train.add_argument("data", metavar="DATA", help="folder with the training sets (kvasir_256, normal_volumes, ...)")
    train.add_argument("-o", "--output", required=True, metavar="OUT", help="folder of the run; gone on with if begun")
    train.add_argument("--seed", type=int, default=0, help="of crops and lesions (default: %(default)s)")
    train.add_argument(
        "--leave-out",
        choices=("colonoscopy", "brain_mr", "head_ct", "ultrasound"),
        help="train without this organ, to measure on it what an organ means that was never seen",
    )
    train.add_argument(
        "--init",
        help="bundle, imagenet, or a backbone's file (default: bundle; imagenet where an organ is left out)",
    )
    length = train.add_mutually_exclusive_group()
    length.add_argument("--crops", type=int, help="length of the training (default: 60000)")
    length.add_argument("--minutes", type=float, help="length in time instead; the schedule then follows the clock")
    train.add_argument("--threads", type=int, default=2, help="of the processor (default: %(default)s)")
    train.add_argument("--bf16", action="store_true", help="compute in bfloat16, faster on a processor that has it")
    train.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    train.add_argument("-q", "--quiet", action="store_true", help="no lines but the last")
    train.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train the image side on real and synthetic lesions against fixed text features.

    OUT gets backbone.safetensors, the curve, the last checkpoints, report.json, and sheets of crops to look at. A run
    that was stopped goes on when the same command is given again.
    """
    from anomalyclip_monai.api import resolve_device
    from anomalyclip_monai.embedded.report import write_report
    from anomalyclip_monai.embedded.sheets import write_sheets
    from anomalyclip_monai.embedded.sources import read_subjects
    from anomalyclip_monai.embedded.start import starting_network
    from anomalyclip_monai.embedded.training import Plan, Training

    # The shipped weights have seen every organ; what is left out must be unknown from the start.
    init = arguments.init or ("imagenet" if arguments.leave_out else "bundle")
    plan = Plan.starting_from(
        init,
        leave_out=arguments.leave_out,
        seed=arguments.seed,
        minutes=arguments.minutes,
        threads=arguments.threads,
        bfloat16=arguments.bf16,
        **({"crops": arguments.crops} if arguments.crops else {}),
    )
    subjects = read_subjects(arguments.data, leave_out=arguments.leave_out)
    network = starting_network(init, seed=arguments.seed).to(resolve_device(arguments.device))

    def tell(line: dict[str, Any]) -> None:
        if not arguments.quiet:
            say(_sentence(line))

    training = Training(network, subjects, plan, Path(arguments.output), log=tell)
    for sheet in write_sheets(training.crops, Path(arguments.output)):
        if not arguments.quiet:
            say(f"look at {sheet}")
    training.run()
    say(f"{write_report(training, arguments.data)}: {training.step} steps of {plan.batch} crops")
    return EXIT_DONE


def _sentence(line: dict[str, Any]) -> str:
    values = line.get("validation") or {"loss": line["loss"]}
    return f"{line['crops']} crops, {line['seconds']:.0f} s: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items())
