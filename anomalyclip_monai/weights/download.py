"""Bring a published model together: from a folder, caches on this machine, its publishers or a mirror."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import torch
from huggingface_hub import constants

from anomalyclip_monai import resources
from anomalyclip_monai.exceptions import NoInputError, UsageError, WeightsError
from anomalyclip_monai.files import whole_file
from anomalyclip_monai.text import printable
from anomalyclip_monai.types import PathLike
from anomalyclip_monai.weights import store
from anomalyclip_monai.weights.backbone import check_backbone, convert_backbone, is_half
from anomalyclip_monai.weights.digests import matches
from anomalyclip_monai.weights.fetch import NotServedError, Patience, Progress, fetch
from anomalyclip_monai.weights.offline import offline
from anomalyclip_monai.weights.prompts import read_prompts, recognise
from anomalyclip_monai.weights.published import PublishedFile, PublishedModel, PublishedPrompts

logger = logging.getLogger(__name__)

_HUB = "https://huggingface.co"
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True)
class Obtained:
    """A file that is among the weights.

    Attributes:
        path: where it is.
        what: what it is, in words.
        source: where it came from, in words.
    """

    path: Path
    what: str
    source: str


@dataclass(frozen=True)
class Missing:
    """What is not among the weights: any one of ``files`` would do.

    Attributes:
        files: the preferred one first.
        target: where it goes.
    """

    files: tuple[PublishedFile, ...]
    target: Path


def download(
    model: PublishedModel,
    prompts: Sequence[str],
    *,
    folder: PathLike | None = None,
    mirror: str | None = None,
    half: bool = False,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Iterator[Obtained]:
    """Put backbone and prompts among the weights, yielding each; what is there already stays.

    Args:
        model: what is published.
        prompts: their short names.
        folder: searched first, with the folders in it. Prompts are told by their content, a backbone by its names
            and sizes: ``.safetensors``, a plain state dict, or OpenAI's own archive.
        mirror: base address below which the files lie by their names, instead of the publishers.
        half: store the backbone in float16.
        progress: called as bytes arrive.
        patience: with servers that cut or stall.

    Raises:
        UsageError: the mirror is no web address (``E_OPTION``).
        NoInputError: there is no such folder (``E_NOT_FOUND``) or none of the files in it (``E_NO_WEIGHTS``).
        WeightsError: a connection is needed and forbidden (``E_OFFLINE``) or fails (``E_DOWNLOAD``), a file is
            damaged or of another model (``E_WEIGHTS``, ``E_BACKBONE``, ``E_PROMPTS``), or weights in place are not
            those of the first load (``E_WEIGHTS_CHANGED``).
        OutputError: the weights cannot be written (``E_WRITE``).
    """
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        todo = "give http://... or https://..., or a folder with --from"
        raise UsageError("E_OPTION", f"{mirror} is no web address", None, todo)
    given = _Given(model, Path(folder)) if folder is not None else None

    if backbone := _backbone_on_disk(model, given, half):
        yield backbone
    for name in prompts:
        if found := _prompts_on_disk(model, name, given):
            yield found

    needed = missing(model, prompts)
    if needed and (variable := offline(mirror=mirror)):
        count = "1 file is" if len(needed) == 1 else f"{len(needed)} files are"
        todo = f"unset {variable}, or give a folder with --from"
        raise WeightsError("E_OFFLINE", f"{count} missing and {variable} is set", store.folder(model.name), todo)
    for wanted in needed:
        file, fetched = _fetch_first(wanted, mirror, progress, patience)
        origin = f"from {_address(file, mirror)}"
        if isinstance(file, PublishedPrompts):
            obtained = _take_prompts(fetched, wanted.target, model, origin)
        else:
            obtained = _take_backbone(fetched, model, half, origin)
        if obtained.path != fetched:
            fetched.unlink()
        yield obtained


def missing(model: PublishedModel, prompts: Sequence[str]) -> list[Missing]:
    """What of a model is not among the weights."""
    folder = store.folder(model.name)
    backbone = [] if store.find_backbone(model.name) else [Missing(model.backbone, folder / model.backbone[0].name)]
    targets = [(model.prompts[name], store.prompts_path(name, model.name)) for name in prompts]
    return backbone + [Missing((file,), target) for file, target in targets if not target.is_file()]


class _Given:
    """The files in a folder that a user gave, told apart."""

    def __init__(self, model: PublishedModel, folder: Path) -> None:
        if not folder.is_dir():
            raise NoInputError("E_NOT_FOUND", "there is no such folder", folder, "give the folder that holds the files")
        paths = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
        # Only what is about the size of a checkpoint of prompts is hashed to see whether it is one.
        limit = 4 * max(file.size for file in model.prompts.values())
        names = [file.name for file in model.backbone]
        small = [path for path in paths if path.stat().st_size <= limit and path.name not in names]
        self.prompts = {known[0]: path for path in small if (known := recognise(path, model))}
        self.backbones = sorted(set(paths) - set(small), key=lambda path: (path.name not in names, path))
        if not self.prompts and not self.backbones:
            looked = ", ".join([*names, *(file.name for file in model.prompts.values())])
            raise NoInputError("E_NO_WEIGHTS", f"none of these files is here: {looked}", folder, "put them there")


def _backbone_on_disk(model: PublishedModel, given: _Given | None, half: bool) -> Obtained | None:
    if present := store.find_backbone(model.name):
        return _keep_backbone(present, model, half)
    if given and given.backbones:
        return _first_that_fits(given.backbones, model, half)
    for path in _cached(model):
        if _is_intact(path, model):
            try:
                return _take_backbone(path, model, half, f"from the cache {path.parent}")
            except WeightsError as error:
                logger.warning("a file in a cache is not used: %s", error)
        else:
            logger.warning("a file in a cache is not used, its bytes are not those published: %s", printable(path))
    return None


def _keep_backbone(present: Path, model: PublishedModel, half: bool) -> Obtained:
    store.verify(present)
    converted = store.folder(model.name) / store.CONVERTED
    check_backbone(present, model)
    if not half or (present.suffix == ".safetensors" and is_half(present)):
        return Obtained(present, "backbone", "there already")
    convert_backbone(present, converted, model, torch.float16)
    store.record(converted, f"{present.name} in float16")
    spare = f"; {present.name} can be deleted" if present != converted else ""
    return Obtained(converted, "backbone, float16", f"from {present.name}{spare}")


def _first_that_fits(paths: Iterable[Path], model: PublishedModel, half: bool) -> Obtained:
    errors = []
    for path in paths:
        try:
            return _take_backbone(path, model, half, f"from {path}")
        except WeightsError as error:
            errors.append(error)
    raise errors[0]


def _take_backbone(source: Path, model: PublishedModel, half: bool, origin: str) -> Obtained:
    """Put a file among the weights as it is if its form allows, else converted."""
    folder = store.folder(model.name)
    known = next((file for file in model.backbone if file.sha256 == resources.sha256(source)), None)
    if source.suffix == ".safetensors" and not half:
        target = folder / (known.name if known else store.CONVERTED)
        check_backbone(source, model)
        if source != target:
            _place(source, target)
    else:
        target = folder / store.CONVERTED
        convert_backbone(source, target, model, torch.float16 if half else None)
    store.record(target, known.title if known else "not one of the published files")
    return Obtained(
        target, f"backbone{', float16' if half else ''}", origin if known else f"{origin}, not as published"
    )


def _place(source: Path, target: Path) -> None:
    """A second name for the file where the disk allows, which costs no space, else a copy."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source.resolve(), target)
    except OSError:
        with whole_file(target) as temporary:
            shutil.copyfile(source, temporary)


def _prompts_on_disk(model: PublishedModel, name: str, given: _Given | None) -> Obtained | None:
    target = store.prompts_path(name, model.name)
    if target.is_file():
        return Obtained(target, f"prompts {name}", "there already")
    if given and (path := given.prompts.get(name)):
        return _take_prompts(path, target, model, f"from {path}")
    return None


def _take_prompts(source: Path, target: Path, model: PublishedModel, origin: str) -> Obtained:
    converted = read_prompts(source, model)
    converted.save(target)
    trained_on = f", trained on {converted.published.trained_on}" if converted.published else ""
    return Obtained(target, f"prompts {converted.name}{trained_on}", origin)


def _cached(model: PublishedModel) -> Iterator[Path]:
    """Files of the backbone that other programs have fetched: the hub's cache, and that of OpenAI's own code."""
    repository = Path(constants.HF_HUB_CACHE) / f"models--{model.hub_repository.replace('/', '--')}"
    for name in _HUB_FILES:
        yield from sorted(repository.glob(f"snapshots/*/{name}"))
    for file in model.backbone:
        if (path := Path.home() / ".cache" / "clip" / file.name).is_file():
            yield path


def _is_intact(path: Path, model: PublishedModel) -> bool:
    """Whether a cached file is a published one; the hub's cache also names large files by their sha256."""
    return any(matches(path, file) for file in model.backbone) or path.resolve().name == resources.sha256(path)


def _fetch_first(
    wanted: Missing, mirror: str | None, progress: Progress | None, patience: Patience | None
) -> tuple[PublishedFile, Path]:
    """Fetch the first of the files that is served; -> it, and where it lies now."""
    refused: NotServedError | None = None
    for file in wanted.files:
        prompts = isinstance(file, PublishedPrompts)
        target = wanted.target.with_suffix(".pth") if prompts else wanted.target.with_name(file.name)
        try:
            fetch(file, target, address=_address(file, mirror), progress=progress, patience=patience)
        except NotServedError as error:
            refused = refused or error
        else:
            return file, target
    assert refused is not None, "something is wanted"
    raise refused


def _address(file: PublishedFile, mirror: str | None) -> str:
    """Where to fetch a file: below the mirror, or below HF_ENDPOINT if it is on the hub, or from its publisher."""
    if mirror:
        return f"{mirror.rstrip('/')}/{quote(file.name)}"
    if file.address.startswith(_HUB):
        return constants.ENDPOINT + file.address.removeprefix(_HUB)
    return file.address
