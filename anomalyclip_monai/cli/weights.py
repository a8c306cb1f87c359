"""``anomalyclip download`` and ``anomalyclip convert-prompts``: what others publish, put in place."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from anomalyclip_monai.cli.console import say
from anomalyclip_monai.cli.exits import EXIT_DONE, EXIT_NOT_STARTED, fail
from anomalyclip_monai.exceptions import UsageError, WeightsError
from anomalyclip_monai.weights.published import DEFAULT_PROMPTS, MODELS

if TYPE_CHECKING:
    from anomalyclip_monai.cli.console import Commands
    from anomalyclip_monai.weights.download import Missing
    from anomalyclip_monai.weights.fetch import Progress
    from anomalyclip_monai.weights.published import PublishedFile


def add(commands: Commands) -> None:
    """Add the commands."""
    download = commands.add_parser(
        "download", help="fetch a published model, or take it from a folder", description=run_download.__doc__
    )
    download.add_argument("model", choices=sorted(MODELS), metavar="MODEL", help=", ".join(sorted(MODELS)))
    download.add_argument(
        "--prompts",
        choices=[*_prompt_names(), "both"],
        default=DEFAULT_PROMPTS,
        help="by the data set they were trained on (default: %(default)s; the paper's medical table: mvtec)",
    )
    download.add_argument("--from", dest="folder", metavar="DIR", help="a folder with the files, searched first")
    download.add_argument("--url", dest="mirror", metavar="MIRROR", help="address below which the files lie by name")
    download.add_argument("--half", action="store_true", help="store the backbone in float16, half the size")
    download.add_argument("-q", "--quiet", action="store_true", help="no progress bars, only errors")
    download.set_defaults(run=run_download)

    convert = commands.add_parser(
        "convert-prompts", help="make model.pt of the authors' checkpoint", description=run_convert.__doc__
    )
    convert.add_argument("checkpoint", metavar="CHECKPOINT", help="such as epoch_15.pth")
    convert.add_argument("-o", "--output", default="model.pt", metavar="FILE", help="default: %(default)s")
    convert.set_defaults(run=run_convert)


def run_download(arguments: argparse.Namespace) -> int:
    """Put backbone and prompts of a published model in place, from a folder, caches, its publishers or a mirror."""
    from anomalyclip_monai.weights.download import download, missing

    model = MODELS[arguments.model]
    prompts = list(model.prompts) if arguments.prompts == "both" else [arguments.prompts]
    try:
        with _bar(arguments.quiet) as progress:
            obtained = download(
                model,
                prompts,
                folder=arguments.folder,
                mirror=arguments.mirror,
                half=arguments.half,
                progress=progress,
            )
            for item in obtained:
                if not arguments.quiet:
                    say(f"{item.what}: {item.path}")
                    say(f"  {item.source}")
    except WeightsError as error:
        code = fail(error, EXIT_NOT_STARTED)
        if error.code in ("E_OFFLINE", "E_DOWNLOAD"):
            for line in _by_hand(arguments.model, missing(model, prompts)):
                say(line)
        return code
    return EXIT_DONE


def run_convert(arguments: argparse.Namespace) -> int:
    """Keep the learned prompts of a checkpoint that the authors' code saved, and note which published one it is."""
    from anomalyclip_monai.weights import store
    from anomalyclip_monai.weights.prompts import check_target, read_prompts

    source, target = Path(arguments.checkpoint), Path(arguments.output)
    if target.exists() and source.exists() and target.samefile(source):
        raise UsageError("E_OPTION", "the output is the checkpoint itself", target, "give another name with -o")
    prompts = read_prompts(source)
    check_target(target)
    prompts.save(target)
    if prompts.published:
        say(f"{source.name}: {prompts.published.title} (blob {prompts.blob_id[:12]})")
    else:
        say(f"{source.name}: not one of the published checkpoints (blob {prompts.blob_id[:12]}), recorded as unknown")
    say(f"  kept {prompts.kept / 1e3:.0f} kB of learned prompts: {target}, origin noted in {store.origin_path(target)}")
    say(
        f"  left out {prompts.projections / 1e6:.1f} MB of projections that the model never uses "
        f"and {prompts.buffers / 1e6:.1f} MB of tokens that are computed again"
    )
    return EXIT_DONE


def _prompt_names() -> list[str]:
    return sorted({name for model in MODELS.values() for name in model.prompts}, reverse=True)


def _by_hand(model: str, missing: list[Missing]) -> Iterator[str]:
    """Lines that say which files are to be fetched elsewhere, from where, and where they go."""
    yield "missing:"
    for item in missing:
        for index, file in enumerate(item.files):
            digest = f"sha256 {file.sha256}" if file.sha256 else f"git blob {file.blob_id}"
            yield f"  {'or ' if index else ''}{file.name}  {file.size:,} bytes  {file.title}"
            yield f"    address  {file.address}"
            yield f"    check    {digest}"
            converted = "" if file.name.endswith(".safetensors") else ", converted"
            name = {".pt": "backbone.safetensors"}.get(Path(file.name).suffix, item.target.name)
            yield f"    target   {item.target.with_name(name)}{converted}"
    yield "Fetch them where there is a connection, copy them into a folder (names and subfolders do not matter for"
    yield f"prompts), and run: anomalyclip download {model} --from FOLDER"


@contextmanager
def _bar(quiet: bool) -> Iterator[Progress]:
    """A bar over the bytes of each file in turn; none unless on a terminal."""
    from tqdm import tqdm

    off = quiet or not sys.stderr.isatty()
    bar = tqdm(unit="B", unit_scale=True, leave=False, disable=off)

    def progress(file: PublishedFile, done: int, total: int) -> None:
        if done < bar.n or bar.total != total:  # another file, or the same from its start
            bar.reset(total)
            bar.set_description(Path(file.name).name)
        bar.update(done - bar.n)

    try:
        yield progress
    finally:
        bar.close()
