"""The ``anomalyclip`` command. The only module that prints; everything it does is also in the Python API."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalyclip_monai import __version__, resources
from anomalyclip_monai.exceptions import AnomalyCLIPError, NoInputError, UsageError, WeightsError

if TYPE_CHECKING:
    from anomalyclip_monai.data.phantom import Phantom
    from anomalyclip_monai.outputs import Result

EXIT_DONE, EXIT_CASE_FAILED, EXIT_NOT_STARTED = 0, 1, 2
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; -> 0 all cases done, 1 at least one failed, 2 nothing could start."""
    arguments = _parser().parse_args(argv)
    # What libraries log may hold values of headers; only this package's own warnings reach the terminal.
    logging.basicConfig(level=logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.getLogger("anomalyclip_monai").setLevel(logging.WARNING)
    try:
        return arguments.run(arguments)
    except (UsageError, NoInputError, WeightsError) as error:
        return _fail(error, EXIT_NOT_STARTED)
    except AnomalyCLIPError as error:
        return _fail(error, EXIT_CASE_FAILED)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_CASE_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="anomalyclip",
        description="Zero-shot lesion localisation in medical images. Research use only, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"anomalyclip-monai {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    localize = commands.add_parser(
        "localize", help="find lesions in volumes, DICOM series and photos", description=_localize.__doc__
    )
    localize.add_argument("inputs", nargs="+", metavar="INPUT", help="NIfTI, DICOM folder, PNG/JPEG/TIFF, or folders")
    localize.add_argument("-o", "--output", required=True, metavar="OUT", help="results go to OUT/<case>/")
    _add_model_options(localize)
    localize.add_argument("--preset", default="auto", help=f"auto, {', '.join(resources.presets())}, or a YAML file")
    localize.add_argument("--roi", metavar="MASK", help="organ mask on the same grid; or a folder, named as the cases")
    localize.add_argument("--threshold", help="auto, a value above 0 up to 1, or quantile:Q of the case's heatmap")
    localize.add_argument("--min-volume", type=float, metavar="MM3", help="drop smaller lesions (default 20; photos 0)")
    localize.add_argument("--slice-axis", help="auto, axial, coronal, sagittal, 0, 1 or 2")
    localize.add_argument("--slice-batch", type=int, metavar="N", help="slices per call of the network (default 16)")
    localize.add_argument("--smooth", type=float, metavar="MM", dest="smooth_mm", help="Gaussian across the planes")
    localize.add_argument("--series", metavar="N", help="only the DICOM series with this number or UID")
    localize.add_argument("--volume", type=int, metavar="N", help="which volume of a 4D file, counted from 0")
    localize.add_argument(
        "--per-slice",
        action="store_true",
        default=None,
        help="score a DICOM series with missing or uneven slices one by one; results as DICOM only",
    )
    localize.add_argument("--no-dicom", action="store_true", help="no heatmap.dcm and mask.dcm for DICOM input")
    localize.set_defaults(run=_localize)

    demo = commands.add_parser("demo", help="find a lesion in a synthetic head, end to end", description=_demo.__doc__)
    demo.add_argument("-o", "--output", default="anomalyclip-demo", metavar="OUT", help="default: %(default)s")
    _add_model_options(demo)
    demo.set_defaults(run=_demo)

    info = commands.add_parser("info", help="versions, models and presets", description=_info.__doc__)
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=_info)
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", help="name or folder of a bundle (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars, only errors")


def _localize(arguments: argparse.Namespace) -> int:
    """Find lesions in every case of the inputs and write heatmap, mask, scores and preview of each."""
    from anomalyclip_monai.api import Pipeline, localize_many

    options = {name: getattr(arguments, name) for name in Pipeline.OPTIONS}
    failed = 0
    with _progress(arguments.quiet) as (slices, cases):
        results = localize_many(
            arguments.inputs,
            model=arguments.model,
            preset=arguments.preset,
            device=arguments.device,
            roi=arguments.roi,
            series=arguments.series,
            progress=slices,
            **options,
        )
        told: set[str] = set()
        for result in cases(results):
            try:
                folder = result.save(arguments.output, dicom=not arguments.no_dicom)
            except AnomalyCLIPError as error:
                failed += 1
                _say(f"{result.case}: {error}", to=sys.stderr)
                continue
            if not arguments.quiet:
                for line in _describe(result, folder, told):
                    _say(line)
    return EXIT_CASE_FAILED if failed else EXIT_DONE


def _describe(result: Result, folder: Path, told: set[str]) -> Iterator[str]:
    """Lines about a result; what was said of an earlier case of this run, in ``told``, is not said again."""
    count = len(result.lesions)
    found = _count(count)
    if count and (volume := result.lesions[0].volume_mm3) is not None:
        total = sum(lesion.volume_mm3 or 0 for lesion in result.lesions)
        found += f", {total / 1000:.1f} ml" + (f" (highest peak: {volume / 1000:.1f} ml)" if count > 1 else "")
    yield f"{result.case}: score {result.score:.2f}, {found}, {result.seconds:.1f} s -> {folder}"
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
            yield f"  {remark}"


def _demo(arguments: argparse.Namespace) -> int:
    """Make a synthetic head with a known lesion, the same as DICOM, and its lesion-free twin; run and check all."""
    from anomalyclip_monai.api import localize_many
    from anomalyclip_monai.data.phantom import head_phantom
    from anomalyclip_monai.outputs.dicom_series import write_mr_series
    from anomalyclip_monai.outputs.nifti import write_nifti

    made = Path(arguments.output) / "input"
    lesion, healthy = head_phantom(lesion=True), head_phantom(lesion=False)
    write_nifti(made / "lesion.nii.gz", lesion.data, lesion.affine)
    write_nifti(made / "healthy.nii.gz", healthy.data, healthy.affine)
    write_mr_series(made / "lesion_dicom", lesion.data, lesion.affine)
    phantoms = {"lesion": lesion, "lesion_dicom": lesion, "healthy": healthy}
    inputs = [made / "lesion.nii.gz", made / "lesion_dicom", made / "healthy.nii.gz"]
    _say(f"Synthetic heads, no patient's data: {made}")
    as_expected = True
    with _progress(arguments.quiet) as (slices, cases):
        results = localize_many(
            inputs, model=arguments.model, preset="mr_brain", device=arguments.device, progress=slices
        )
        for result in cases(results):
            folder = result.save(arguments.output)
            right, lines = _compare(result, phantoms[result.case])
            as_expected &= right
            for line in [*lines, f"  look at {folder / 'preview.png'}"]:
                _say(line)
    return EXIT_DONE if as_expected else EXIT_CASE_FAILED


def _compare(result: Result, phantom: Phantom) -> tuple[bool, list[str]]:
    """Whether the result is what the phantom holds, and lines that say so. Positions are compared in RAS mm."""
    import numpy as np

    from anomalyclip_monai.metrics import dice, is_defined

    heatmap, mask = np.asarray(result.heatmap)[0], np.asarray(result.mask)[0] > 0
    lines = [f"{result.case}: score {result.score:.2f}, {_count(len(result.lesions))}, {result.seconds:.1f} s"]
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


def _count(lesions: int) -> str:
    return f"{lesions} lesion{'' if lesions == 1 else 's'}"


def _millimetres(point: Any) -> str:
    return "(" + ", ".join(f"{value:.0f}" for value in point) + ")"


def _info(arguments: argparse.Namespace) -> int:
    """Print versions, models with their weights, presets and folders."""
    names = ("monai", "torch", "open_clip_torch", "nibabel", "pydicom")
    models: dict[str, dict[str, str]] = {}
    for name in resources.bundles():
        root = resources.bundle_root(name)
        models[name] = {"folder": str(root), **resources.fingerprint(root)}
    versions = {name: resources.installed_version(name) for name in names}
    content = {
        "anomalyclip-monai": __version__,
        "versions": versions,
        "models": models,
        "presets": resources.presets(),
        "home": str(resources.home()),
    }
    if arguments.json:
        _say(json.dumps(content, indent=2))
        return EXIT_DONE
    _say(f"anomalyclip-monai {__version__}")
    _say("  ".join(f"{name} {version}" for name, version in versions.items()))
    for name, model in models.items():
        _say(f"model {name.removeprefix(resources.BUNDLE_PREFIX)}: {model['folder']}")
        for key in ("weights_sha256", "prompts_sha256"):
            _say(f"  {key} {model.get(key, 'missing')}")
    _say(f"presets: {', '.join(resources.presets())}")
    _say(f"home: {resources.home()}")
    return EXIT_DONE


@contextmanager
def _progress(
    quiet: bool,
) -> Iterator[tuple[Callable[[int, int], None], Callable[[Iterator[Result]], Iterator[Result]]]]:
    """A bar over the slices of a case and, for several cases, one over cases; none unless on a terminal."""
    from tqdm import tqdm

    off = quiet or not sys.stderr.isatty()
    slice_bar = tqdm(desc="slices", unit="slice", leave=False, disable=off, position=1)

    def slices(done: int, total: int) -> None:
        if done <= slice_bar.n or slice_bar.total != total:  # another case has begun
            slice_bar.reset(total)
        slice_bar.update(done - slice_bar.n)

    def cases(results: Iterator[Result]) -> Iterator[Result]:
        total = len(results) if isinstance(results, Sized) else None
        yield from tqdm(results, desc="cases", unit="case", leave=False, disable=off or total == 1, total=total)

    try:
        yield slices, cases
    finally:
        slice_bar.close()


def _say(text: str, to: Any = None) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=to or sys.stdout)


def _fail(error: AnomalyCLIPError, code: int) -> int:
    print(error, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
