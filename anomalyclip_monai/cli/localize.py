"""``anomalyclip localize``: find lesions in volumes, DICOM series and photos."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalyclip_monai import __version__, resources
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
from anomalyclip_monai.exceptions import AnomalyCLIPError
from anomalyclip_monai.options import CaseOptions, InputOptions, ModelOptions, OutputOptions, check_together
from anomalyclip_monai.text import counted, printable

if TYPE_CHECKING:
    from anomalyclip_monai.api import Pipeline
    from anomalyclip_monai.cli.console import Commands
    from anomalyclip_monai.folders.case_folder import CaseFolder
    from anomalyclip_monai.outputs import Result


def add(commands: Commands) -> None:
    """Add the command."""
    localize = commands.add_parser(
        "localize", help="find lesions in volumes, DICOM series and photos", description=run.__doc__
    )
    localize.add_argument("inputs", nargs="+", metavar="INPUT", help="NIfTI, DICOM folder, PNG/JPEG/TIFF, or folders")
    localize.add_argument("-o", "--output", required=True, metavar="OUT", help="results go to OUT/<case>/")
    for options in (ModelOptions, CaseOptions, InputOptions, OutputOptions):
        add_options(localize, options, "localize")
    localize.add_argument("--no-dicom", action="store_true", help="no DICOM files for DICOM input")
    localize.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="leave cases whose results, of the same input and settings, are there already",
    )
    add_quiet(localize)
    localize.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Find lesions in every case of the inputs and write heatmap, mask, scores and preview of each.

    A result of ours that is there already is replaced as a whole. OUT/cohort.csv has a line for every case.
    """
    model, case = model_options(arguments), given_options(arguments, CaseOptions)
    which = given_options(arguments, InputOptions)
    files = given_options(arguments, OutputOptions)
    report = bool(files.report)
    check_together(case, has_roi=which.roi is not None)
    inputs, out = inputs_of(arguments.inputs), path_of(arguments.output, "the output")
    from anomalyclip_monai.api import Pipeline, ResultIterator
    from anomalyclip_monai.data import datalist
    from anomalyclip_monai.folders.case_folder import BUSY
    from anomalyclip_monai.outputs.cohort import Cohort, check_places
    from anomalyclip_monai.outputs.report.index import check_index, find_entries, write_index

    records = datalist(inputs, which.roi, which.series)
    check_places(out, records)
    if report:
        check_index(out)
    pipeline = Pipeline(model, case)
    settings = _settings(pipeline, files, dicom=not arguments.no_dicom)
    failed = 0
    told: set[str] = set()
    with progress(arguments.quiet) as (slices, cases), Cohort(out, settings, go_on=arguments.go_on) as cohort:
        for record in cases(records):
            name = printable(record["case"])
            lines: list[str] = []
            try:
                with cohort.turn(record) as turn:
                    if turn.there:
                        lines.append(f"{name}: there already -> {printable(turn.place.folder)}")
                        if report and turn.lacks_report:
                            turn.add_report(pipeline.read(record))
                            lines.append("  report.html added")
                    else:
                        result = next(ResultIterator(pipeline, [record], slices))
                        turn.save(result, files, dicom=not arguments.no_dicom)
                        lines += _describe(result, turn.place, told)
            except AnomalyCLIPError as error:
                if error.code == BUSY:
                    lines.append(f"{name}: another run is at it, left to that")
                else:
                    failed += 1
                    say(f"{name}: {error}", to=sys.stderr)
            for line in () if arguments.quiet else lines:
                say(line)
    if report and len(find_entries(out)) > 1:
        page, entries = write_index(out)
        if not arguments.quiet:
            say(f"{counted(len(entries), 'case')} -> {printable(page)}")
    return EXIT_CASE_FAILED if failed else EXIT_DONE


def _settings(pipeline: Pipeline, files: OutputOptions, *, dicom: bool) -> dict[str, Any]:
    """All that decides on the results of a case beside its input, for ``--continue``.

    Of a file counts its content, and of an option its value, whether it was given or is the bundle's own.
    """
    from anomalyclip_monai.data.content import sha256_of
    from anomalyclip_monai.definition import read_definition
    from anomalyclip_monai.transforms.calibration import plain_conditions
    from anomalyclip_monai.weights.choice import INFERENCE

    definition = pipeline.choice.root / "configs" / INFERENCE
    entries = read_definition(definition)
    values = {**entries, **entries.get("displayable_configs", {}), **pipeline.options.given()}
    values |= resources.preset_values(str(values.get("preset")))
    options = {known.name: values.get(known.name) for known in CaseOptions.known() if known.changes != "speed"}
    if Path(str(options.get("threshold", ""))).is_file():
        options["threshold"] = sha256_of([Path(str(options["threshold"]))])
    return {
        "version": __version__,
        "definition": sha256_of([definition]),
        "conditions": plain_conditions(pipeline.conditions),
        "network": {**pipeline.choice.values, **pipeline.choice.components},
        **plain_conditions(options),
        "dicom": dicom,
        "seg_type": files.seg_type or "binary",
        "prompts_out": bool(files.prompts_out),
    }


def _describe(result: Result, place: CaseFolder, told: set[str]) -> Iterator[str]:
    """Lines about a result; what was said of an earlier case of this run, in ``told``, is not said again."""
    count = len(result.lesions)
    found = counted(count, "lesion")
    if count and (volume := result.lesions[0].volume_mm3) is not None:
        total = sum(lesion.volume_mm3 or 0 for lesion in result.lesions)
        found += f", {total / 1000:.1f} ml" + (f" (highest peak: {volume / 1000:.1f} ml)" if count > 1 else "")
    replaced = " (replaced)" if place.replaces else ""
    where = f"{printable(place.folder)}{replaced}"
    yield f"{printable(result.case)}: score {result.score:.2f}, {found}, {result.seconds:.1f} s -> {where}"
    preset = result.preset
    remarks = [
        f"preset {preset['name']} ({preset['chosen']})",
        f"this model on such images: {preset['evidence']}",
        f"threshold {result.threshold.said}, {result.threshold.origin}",
        *(warning for warning in result.warnings if result.threshold.origin not in warning),
    ]
    for remark in remarks:
        if remark not in told:
            told.add(remark)
            yield f"  {printable(remark)}"
