"""What commands share: exit codes, options, lines and progress bars on the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import AnomalyCLIPError

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

_Step = TypeVar("_Step")

EXIT_DONE, EXIT_CASE_FAILED, EXIT_NOT_STARTED = 0, 1, 2


def add_model_options(parser: argparse.ArgumentParser, *, learned: bool = True) -> None:
    """Options of every command that runs a model; ``learned``: with prompts that exist already."""
    network = parser.add_mutually_exclusive_group()
    network.add_argument(
        "--model",
        default=resources.DEFAULT_BUNDLE,
        help="name or folder of a bundle (default: %(default)s)",
    )
    network.add_argument("--backbone", metavar="NAME", help="another CLIP by its name in open_clip, with --prompts")
    parser.add_argument("--pretrained", metavar="TAG", help="open_clip's tag of the backbone's weights")
    parser.add_argument("--weights", metavar="FILE", help="the backbone's weights, in the place of published ones")
    parser.add_argument("--precision", help="of the backbone in memory: fp32, bf16 or fp16 (default: the bundle's)")
    if learned:
        parser.add_argument(
            "--fast",
            action="store_true",
            default=None,
            help="only the first of the model's two networks: a third of the time",
        )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: %(default)s)")
    if learned:
        parser.add_argument("--prompts", metavar="FILE", help="learned prompts, or the name of published ones (mvtec)")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress bars, only errors")


def model_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_model_options` added, as arguments of :func:`~anomalyclip_monai.api.localize`."""
    from anomalyclip_monai.weights.choice import CHOICE

    chosen = {name: getattr(arguments, name, None) for name in CHOICE}
    return {"model": arguments.model, "device": arguments.device, **chosen}


def add_slice_options(parser: argparse.ArgumentParser) -> None:
    """:data:`~anomalyclip_monai.types.SLICE_OPTIONS`, for every command that scores volumes."""
    parser.add_argument("--slice-axis", help="of volumes: auto, axial, coronal, sagittal, 0, 1 or 2")
    parser.add_argument(
        "--axes",
        metavar="N",
        help="of volumes: auto (three planes where pixels allow it, else one), mean of N planes (1 to 3), or a list: "
        "axial,sagittal (default: the bundle's; auto of tiny, 1 of vitl14_336)",
    )
    parser.add_argument("--slice-batch", type=int, metavar="N", help="slices per call of the network (default 16)")
    parser.add_argument("--smooth", type=float, metavar="MM", dest="smooth_mm", help="Gaussian across the planes")
    parser.add_argument("--smooth-slices", type=float, metavar="N", help="the same in slices (default: the bundle's)")
    parser.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="also score mirrored slices of photos and of volumes along one axis (default: the bundle's)",
    )
    parser.add_argument(
        "--crop",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show the network only the part of a volume's slices that holds the body (default: the bundle's)",
    )
    parser.add_argument(
        "--fill-glare",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="of colour pictures fill the reflections before the network sees them (default: the bundle's)",
    )


@contextmanager
def progress(
    quiet: bool,
) -> Iterator[tuple[Callable[[int, int], None], Callable[[Iterable[_Step]], Iterator[_Step]]]]:
    """A bar over the slices of a case and, for several cases, one over cases; none unless on a terminal."""
    from tqdm import tqdm

    off = quiet or not sys.stderr.isatty()
    slice_bar = tqdm(desc="slices", unit="slice", leave=False, disable=off, position=1)

    def slices(done: int, total: int) -> None:
        if done <= slice_bar.n or slice_bar.total != total:  # another case has begun
            slice_bar.reset(total)
        slice_bar.update(done - slice_bar.n)

    def cases(steps: Iterable[_Step]) -> Iterator[_Step]:
        total = len(steps) if isinstance(steps, Sized) else None
        yield from tqdm(steps, desc="cases", unit="case", leave=False, disable=off or total == 1, total=total)

    try:
        yield slices, cases
    finally:
        slice_bar.close()


def say(text: str, to: Any = None) -> None:
    """Print a line, above the progress bars."""
    from tqdm import tqdm

    tqdm.write(text, file=to or sys.stdout)


def lesions(count: int) -> str:
    """-> ``1 lesion``, ``2 lesions``."""
    return f"{count} lesion{'' if count == 1 else 's'}"


def fail(error: AnomalyCLIPError, code: int) -> int:
    """Print the one line of an error; -> the exit code."""
    print(error, file=sys.stderr)
    return code
