"""``anomalyclip demo``: a synthetic head with a known lesion, end to end."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from anomalyclip_monai.cli.console import add_options, add_quiet, given_options, model_options, path_of, progress, say
from anomalyclip_monai.cli.exits import EXIT_CASE_FAILED, EXIT_DONE
from anomalyclip_monai.options import CaseOptions, ModelOptions, OutputOptions
from anomalyclip_monai.text import counted, printable

if TYPE_CHECKING:
    from anomalyclip_monai.cli.console import Commands
    from anomalyclip_monai.data.phantom import Phantom
    from anomalyclip_monai.outputs import Result


def add(commands: Commands) -> None:
    """Add the command."""
    demo = commands.add_parser("demo", help="find a lesion in a synthetic head, end to end", description=run.__doc__)
    demo.add_argument("-o", "--output", default="anomalyclip-demo", metavar="OUT", help="default: %(default)s")
    for options in (ModelOptions, OutputOptions):
        add_options(demo, options, "demo")
    add_quiet(demo)
    demo.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make a synthetic head with a known lesion, the same as DICOM, and its lesion-free twin; run and check all."""
    from anomalyclip_monai.api import Pipeline, ResultIterator
    from anomalyclip_monai.data.cases import datalist
    from anomalyclip_monai.data.phantom import head_phantom
    from anomalyclip_monai.folders.work_folder import owned_folder
    from anomalyclip_monai.outputs.dicom_series import write_mr_series
    from anomalyclip_monai.outputs.nifti import write_nifti
    from anomalyclip_monai.outputs.report.index import check_index, write_index

    model, output = model_options(arguments), path_of(arguments.output, "the output")
    report = bool(given_options(arguments, OutputOptions).report)
    if report:
        check_index(output)
    made = owned_folder(output / "input")
    lesion, healthy = head_phantom(lesion=True), head_phantom(lesion=False)
    write_nifti(made / "lesion.nii.gz", lesion.data, lesion.affine)
    write_nifti(made / "healthy.nii.gz", healthy.data, healthy.affine)
    write_mr_series(made / "lesion_dicom", lesion.data, lesion.affine)
    phantoms = {"lesion": lesion, "lesion_dicom": lesion, "healthy": healthy}
    inputs = [made / "lesion.nii.gz", made / "lesion_dicom", made / "healthy.nii.gz"]
    say(f"Synthetic heads, no patient's data: {printable(made)}")
    as_expected, look = True, "report.html" if report else "preview.png"
    with progress(arguments.quiet) as (slices, cases):
        pipeline = Pipeline(model, CaseOptions(preset="mr_brain"))
        for result in cases(ResultIterator(pipeline, datalist(inputs), slices)):
            folder = result.save(output, report=report)
            right, lines = _compare(result, phantoms[result.case])
            as_expected &= right
            for line in [*lines, f"  look at {printable(folder / look)}"]:
                say(line)
    if report:
        say(f"All cases: {printable(write_index(output)[0])}")
    return EXIT_DONE if as_expected else EXIT_CASE_FAILED


def _compare(result: Result, phantom: Phantom) -> tuple[bool, list[str]]:
    """Whether the result is what the phantom holds, and lines that say so. Positions are compared in RAS mm."""
    import numpy as np

    from anomalyclip_monai.metrics import dice, is_defined

    heatmap, mask = np.asarray(result.heatmap)[0], np.asarray(result.mask)[0] > 0
    lines = [
        f"{result.case}: score {result.score:.2f}, {counted(len(result.lesions), 'lesion')}, {result.seconds:.1f} s"
    ]
    if not phantom.lesion.any():
        return not mask.any(), [
            *lines,
            f"  the mask is {'NOT empty: a false alarm' if mask.any() else 'empty, as it should be'}",
        ]
    peak = np.append(np.unravel_index(int(heatmap.argmax()), heatmap.shape), 1)
    found = result.affine @ peak
    truth = phantom.affine @ np.append(np.argwhere(phantom.lesion).mean(axis=0), 1)
    voxel = np.round(np.linalg.inv(phantom.affine) @ found).astype(int)[:3]
    inside = bool(phantom.lesion[tuple(voxel)])
    lines += [
        f"  lesion made at {_millimetres(truth[:3])}, brightest voxel at {_millimetres(found[:3])} (RAS mm)",
        f"  the peak lies {'inside' if inside else 'OUTSIDE'} the lesion",
    ]
    same_grid = result.source.kind == "nifti"
    if same_grid and is_defined(overlap := dice(phantom.lesion, mask, 1)):
        lines.append(f"  Dice of the mask {overlap:.2f}")
    return inside, lines


def _millimetres(point: Any) -> str:
    return "(" + ", ".join(f"{value:.0f}" for value in point) + ")"
