"""``anomalyclip calibrate``: fit the threshold on normal cases."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from anomalyclip_monai.cli.console import (
    add_options,
    add_quiet,
    given_options,
    inputs_of,
    model_options,
    path_of,
    progress,
    say,
)
from anomalyclip_monai.cli.exits import EXIT_CASE_FAILED, EXIT_DONE
from anomalyclip_monai.options import CaseOptions, ModelOptions
from anomalyclip_monai.text import counted, printable

if TYPE_CHECKING:
    from anomalyclip_monai.cli.console import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    calibrate = commands.add_parser(
        "calibrate", help="fit the threshold on your own normal cases", description=run.__doc__
    )
    calibrate.add_argument("inputs", nargs="+", metavar="FOLDER", help="normal cases, as localize takes them")
    calibrate.add_argument("-o", "--output", required=True, metavar="FILE", help="such as calibration.json")
    wanted = calibrate.add_mutually_exclusive_group()
    wanted.add_argument("--false-alarm-ml", type=float, metavar="ML", help="mask allowed in a normal case (default 1)")
    wanted.add_argument("--false-alarm-share", type=float, metavar="S", help="the same as a share of the picture")
    calibrate.add_argument("--quantile", type=float, metavar="Q", help="in this share of the cases, not on average")
    calibrate.add_argument(
        "--lesions",
        nargs=2,
        metavar=("SET", "PATH"),
        help="cases with lesion masks, as evaluate takes them: fit the threshold of the outlines on them",
    )
    for options in (ModelOptions, CaseOptions):
        add_options(calibrate, options, "calibrate")
    add_quiet(calibrate)
    calibrate.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Find the smallest threshold that keeps the mask in normal cases as small as wanted.

    With --lesions a second one, at or below it, down to which lesions are outlined.

    The file holds for the same model, preset and settings: localize --threshold FILE refuses others.
    """
    model, case = model_options(arguments), given_options(arguments, CaseOptions)
    inputs, output = inputs_of(arguments.inputs), path_of(arguments.output, "the output")
    from anomalyclip_monai.api import Pipeline, fit_threshold
    from anomalyclip_monai.data.benchmarks import find_samples
    from anomalyclip_monai.engines.calibration import Wanted
    from anomalyclip_monai.files import write_text
    from anomalyclip_monai.folders.marker import has_schema, keep_others

    keep_others(output.parent, [output.name], ours=has_schema(output, "anomalyclip-calibration"))

    if (share := arguments.false_alarm_share) is not None:
        wanted = Wanted(share, "share", arguments.quantile)
    else:
        ml = arguments.false_alarm_ml
        wanted = Wanted(1.0 if ml is None else ml, "ml", arguments.quantile)
    lesions = find_samples(*arguments.lesions) if arguments.lesions else ()
    with progress(arguments.quiet) as (slices, cases):
        found = fit_threshold(inputs, wanted, Pipeline(model, case), lesions=lesions, progress=slices, cases=cases)
    write_text(output, found.to_json())
    for failure in found.details["failed"]:
        say(f"{printable(failure['case'])}: {failure['error']}", to=sys.stderr)
    if not arguments.quiet:
        count, reached = len(found.details["cases"]), found.details["reached"]
        say(f"threshold {found.threshold.said}: {wanted.said(reached)}, of {count} normal cases -> {printable(output)}")
        if ill := found.details["with_lesions"]:
            mean, one = (sum(case[name] for case in ill) / len(ill) for name in ("dice", "dice_of_one_threshold"))
            say(f"  mean Dice of {counted(len(ill), 'case')} with lesions: {mean:.2f}, with one threshold {one:.2f}")
        say(f"  with the threshold so far: {wanted.said(found.details['before'])}")
        say(f"  use it: anomalyclip localize INPUT -o OUT --preset {found.preset} --threshold {printable(output)}")
    return EXIT_CASE_FAILED if found.details["failed"] else EXIT_DONE
