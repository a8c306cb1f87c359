"""``anomalyclip localize``: find lesions in volumes, DICOM series and photos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from anomalyclip_monai.cli.console import (
    EXIT_CASE_FAILED,
    EXIT_DONE,
    add_options,
    add_quiet,
    given_options,
    inputs_of,
    lesions,
    model_options,
    path_of,
    progress,
    say,
)
from anomalyclip_monai.exceptions import AnomalyCLIPError
from anomalyclip_monai.options import CaseOptions, InputOptions, ModelOptions
from anomalyclip_monai.text import printable

if TYPE_CHECKING:
    from anomalyclip_monai.cli.console import Commands
    from anomalyclip_monai.outputs import Result


def add(commands: Commands) -> None:
    """Add the command."""
    localize = commands.add_parser(
        "localize", help="find lesions in volumes, DICOM series and photos", description=run.__doc__
    )
    localize.add_argument("inputs", nargs="+", metavar="INPUT", help="NIfTI, DICOM folder, PNG/JPEG/TIFF, or folders")
    localize.add_argument("-o", "--output", required=True, metavar="OUT", help="results go to OUT/<case>/")
    for options in (ModelOptions, CaseOptions, InputOptions):
        add_options(localize, options, "localize")
    localize.add_argument("--no-dicom", action="store_true", help="no heatmap.dcm and mask.dcm for DICOM input")
    add_quiet(localize)
    localize.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Find lesions in every case of the inputs and write heatmap, mask, scores and preview of each."""
    model, case = model_options(arguments), given_options(arguments, CaseOptions)
    which = given_options(arguments, InputOptions)
    inputs, output = inputs_of(arguments.inputs), path_of(arguments.output, "the output")
    from anomalyclip_monai.api import Pipeline, ResultIterator
    from anomalyclip_monai.data.cases import datalist

    failed = 0
    with progress(arguments.quiet) as (slices, cases):
        records = datalist(inputs, which.roi, which.series)
        results = ResultIterator(Pipeline(model, case), records, slices)
        told: set[str] = set()
        for result in cases(results):
            try:
                folder = result.save(output, dicom=not arguments.no_dicom)
            except AnomalyCLIPError as error:
                failed += 1
                say(f"{printable(result.case)}: {error}", to=sys.stderr)
                continue
            if not arguments.quiet:
                for line in _describe(result, folder, told):
                    say(line)
    return EXIT_CASE_FAILED if failed else EXIT_DONE


def _describe(result: Result, folder: Path, told: set[str]) -> Iterator[str]:
    """Lines about a result; what was said of an earlier case of this run, in ``told``, is not said again."""
    count = len(result.lesions)
    found = lesions(count)
    if count and (volume := result.lesions[0].volume_mm3) is not None:
        total = sum(lesion.volume_mm3 or 0 for lesion in result.lesions)
        found += f", {total / 1000:.1f} ml" + (f" (highest peak: {volume / 1000:.1f} ml)" if count > 1 else "")
    yield f"{printable(result.case)}: score {result.score:.2f}, {found}, {result.seconds:.1f} s -> {printable(folder)}"
    preset = result.preset
    remarks = [
        f"preset {preset['name']} ({preset['chosen']})",
        f"this model on such images: {preset['evidence']}",
        f"threshold {result.threshold.value:g}, {result.threshold.origin}",
        *(warning for warning in result.warnings if result.threshold.origin not in warning),
    ]
    for remark in remarks:
        if remark not in told:
            told.add(remark)
            yield f"  {printable(remark)}"
