"""Data sets told by where their images lie."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from anomalyclip_monai.data.benchmarks.labels import lesion_labels
from anomalyclip_monai.data.benchmarks.layouts import DEEPER, LAYOUTS, PHOTO, Tree
from anomalyclip_monai.data.benchmarks.naming import listed, stem_of
from anomalyclip_monai.data.benchmarks.sample import Sample
from anomalyclip_monai.data.masks import MaskRule
from anomalyclip_monai.exceptions import NoInputError, UsageError

_LISTS = ("dataset.json", "labels.csv")
"""Files that are read though they are no image."""

_Key: TypeAlias = tuple[str, ...]
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _File:
    """A file that fits a pattern: the set's folder and the path below it, and the pattern's named groups."""

    root: str
    path: str
    groups: dict[str, str | None]


def samples_of_tree(
    tree: Tree, dataset: str, folder: Path, files: Sequence[str], split: str
) -> tuple[Path, list[Sample]] | None:
    """The set's folder and its images; None where nothing lies like the set.

    Args:
        tree: how images and masks lie.
        dataset: category of images without a class of their own.
        folder: where to look.
        files: paths of all files below it.
        split: see :func:`~anomalyclip_monai.data.benchmarks.find_samples`, also for the errors.
    """
    images, masks = _fitting(tree, files)
    root = _one_root(tree, images, dataset, folder)
    if root is None:
        return None
    home = folder / root
    images = [file for file in images if file.root == root]
    masks = [file for file in masks if file.root == root]
    key = _pairing(tree)
    _name_masks_alone(masks, {key(file) for file in images}, key, home)
    images = _of_split(images, split, home)
    masks_of: dict[_Key, list[Path]] = defaultdict(list)
    for file in masks:
        masks_of[key(file)].append(folder / file.path)
    if tree.mask:
        _check_masks(tree, images, masks_of, key, home)
    rule: MaskRule = lesion_labels(home) if tree.mask_rule == "dataset.json" else tree.mask_rule
    by_category = "category" in re.compile(tree.image).groupindex
    samples = []
    for file in images:
        own = tuple(sorted(masks_of.get(key(file), ())))
        name = stem_of(file.path.removeprefix(root))
        category = file.groups.get("category") or (home.resolve().name if by_category else dataset)
        samples.append(
            Sample(
                name=name,
                image=folder / file.path,
                label=_label(tree, file, own),
                masks=own,
                category=category,
                group=file.groups.get("group") or name,
                volume=not re.search(PHOTO + "$", file.path, re.IGNORECASE),
                mask_rule=rule,
            )
        )
    return home, samples


def fits_tree(tree: Tree, files: Iterable[str]) -> bool:
    """Whether files lie like the set."""
    return bool(_roots(tree, _fitting(tree, files)[0]))


def files_beside(tree: Tree, files: Iterable[str]) -> list[str]:
    """Files that are neither images nor masks of the set, wherever they lie, nor the list of its labels."""
    images, masks = _fitting(tree, files)
    fitting = {file.path for file in (*images, *masks)}
    return [path for path in files if path not in fitting and path.rpartition("/")[2] not in _LISTS]


def _fitting(tree: Tree, files: Iterable[str]) -> tuple[list[_File], list[_File]]:
    """Images and masks among the files."""
    root = rf"(?P<root>(?:[^/]+/){{0,{DEEPER}}}?)"
    image = re.compile(root + tree.image, re.IGNORECASE)
    mask = re.compile(root + tree.mask, re.IGNORECASE) if tree.mask else None
    images: list[_File] = []
    masks: list[_File] = []
    for path in files:
        for pattern, kept in ((mask, masks), (image, images)):
            if pattern is not None and (match := pattern.fullmatch(path)):
                groups = match.groupdict()
                kept.append(_File(groups.pop("root"), path, groups))
                break
    return images, masks


def _roots(tree: Tree, images: Iterable[_File]) -> list[str]:
    """The folders that hold the set, those least deep."""
    if tree.label == "kind" and tree.needs_normal:
        roots = {file.root for file in images if _kind(file) in tree.normal}
    else:
        roots = {file.root for file in images}
    least = min((root.count("/") for root in roots), default=0)
    return sorted(root for root in roots if root.count("/") == least)


def _one_root(tree: Tree, images: Iterable[_File], dataset: str, folder: Path) -> str | None:
    roots = _roots(tree, images)
    if len(roots) > 1:
        what = f"several folders are laid out like {LAYOUTS[dataset].title}: {listed(roots)}"
        raise NoInputError("E_LAYOUT", what, folder, "give one of them")
    return roots[0] if roots else None


def _of_split(images: list[_File], split: str, home: Path) -> list[_File]:
    there = {value.lower() for file in images if (value := file.groups.get("split"))}
    if split == "all" or (not there and split == "test"):
        return images
    chosen = [file for file in images if (file.groups.get("split") or "").lower().startswith(split.lower())]
    if not chosen:
        choices = ", ".join([*sorted(there or {"test"}), "all"])
        raise UsageError("E_SPLIT", f"the data set has no split {split!r}", home, f"choose from: {choices}")
    return chosen


def _pairing(tree: Tree) -> Callable[[_File], _Key]:
    """What an image and its masks have in common; a normal image has a mask only if its folder of masks says so."""
    shared = sorted(set(re.compile(tree.image).groupindex) & set(re.compile(tree.mask).groupindex))

    def key(file: _File) -> _Key:
        if tree.label == "kind" and "kind" not in shared and _kind(file) in tree.normal:
            return (file.path,)
        return tuple((file.groups[name] or "").casefold() for name in shared)

    return key


def _name_masks_alone(masks: Iterable[_File], keys: set[_Key], key: Callable[[_File], _Key], home: Path) -> None:
    if alone := [file.path for file in masks if key(file) not in keys]:
        _logger.warning("%s: %d masks have no image and were left out: %s", home, len(alone), listed(alone))


def _check_masks(
    tree: Tree, images: Sequence[_File], masks_of: Mapping[_Key, list[Path]], key: Callable[[_File], _Key], home: Path
) -> None:
    """Refuse images that share a mask, and abnormal ones without."""
    counts = Counter(key(file) for file in images)
    if shared := [file.path for file in images if counts[key(file)] > 1 and key(file) in masks_of]:
        raise NoInputError("E_DUPLICATE", f"images share a mask: {listed(shared)}", home, "keep one of each name")
    missing = [file.path for file in images if key(file) not in masks_of and _needs_mask(tree, file)]
    if missing and not masks_of and tree.masks_optional:
        _logger.warning("%s: there are no masks, only image scores can be measured", home)
    elif missing:
        what = f"{len(missing)} of {len(images)} images have no mask: {listed(missing)}"
        raise NoInputError("E_MASK", what, home, "add the masks, or take the images out")


def _needs_mask(tree: Tree, file: _File) -> bool:
    return tree.label in ("mask", "abnormal") or (tree.label == "kind" and _kind(file) not in tree.normal)


def _kind(file: _File) -> str:
    return (file.groups.get("kind") or "").lower()


def _label(tree: Tree, file: _File, masks: tuple[Path, ...]) -> int | None:
    match tree.label:
        case "kind":
            return int(_kind(file) not in tree.normal)
        case "mask file":
            return int(bool(masks))
        case "mask":
            return None
        case fixed:
            return int(fixed == "abnormal")
