"""Find the images of a data set in its folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from anomalyclip_monai.data.benchmarks.groups import with_groups
from anomalyclip_monai.data.benchmarks.layouts import DEEPER, LAYOUTS, Layout, Table, Tree
from anomalyclip_monai.data.benchmarks.lists import samples_of_table, table_in
from anomalyclip_monai.data.benchmarks.naming import listed, natural, unique_names
from anomalyclip_monai.data.benchmarks.sample import Sample
from anomalyclip_monai.data.benchmarks.trees import files_beside, fits_tree, samples_of_tree
from anomalyclip_monai.data.walk import RESULTS, UNREADABLE, is_leftover, kind_of, special_kind, tell
from anomalyclip_monai.exceptions import NoInputError, UsageError
from anomalyclip_monai.files import given_path
from anomalyclip_monai.folders.marker import own_files
from anomalyclip_monai.types import PathLike


def find_samples(dataset: str, root: PathLike, *, split: str = "test") -> list[Sample]:
    """The images of a data set, in the natural order of their paths.

    What its folder holds beside images and masks is counted in one line of the log; where a list names the images,
    only what cannot be looked at counts.

    Args:
        dataset: a key of :data:`LAYOUTS`.
        root: the set's folder, or one or two levels above it; for ``csv`` the file.
        split: ``test``, ``train``, ``valid`` or ``all``; sets without a split are given whole as ``test``.

    Raises:
        UsageError: no such set (``E_DATASET``) or split (``E_SPLIT``).
        NoInputError: no such folder (``E_NOT_FOUND``), it is not laid out like the set (``E_LAYOUT``, with the tree
            that was expected), an abnormal image has no mask (``E_MASK``), two images would share a mask
            (``E_DUPLICATE``), or a list of images is wrong (``E_CSV``).
    """
    if dataset not in LAYOUTS:
        raise UsageError("E_DATASET", f"no data set {dataset!r}", None, f"choose from: {', '.join(LAYOUTS)}")
    layout, root = LAYOUTS[dataset], Path(os.path.normpath(given_path(root)))
    if not root.exists():
        raise NoInputError("E_NOT_FOUND", "no such file or folder", root, "check the path")
    left_out: Counter[str] = Counter()
    files = list(_files(root, left_out)) if root.is_dir() else []
    for way in layout.ways:
        if isinstance(way, Tree):
            found = samples_of_tree(way, dataset, root, files, split) if files else None
            if found is not None:
                left_out.update(kind_of(root / path) for path in files_beside(way, files))
        else:
            found = samples_of_table(way, dataset, root, files, split)
        if found is not None:
            folder, samples = found
            tell(left_out)
            samples.sort(key=lambda sample: natural(sample.image.as_posix()))
            return with_groups(unique_names(samples), layout, folder)
    raise NoInputError("E_LAYOUT", f"not the layout of {layout.title}, {_seen(root)}", root, _expected(layout))


def find_all(root: PathLike) -> dict[str, Path]:
    """Data sets below a folder, by the names of folders and what lies in them -> set and its folder, in table order.

    Raises:
        NoInputError: there is no such folder (``E_NOT_FOUND``) or no set in it (``E_LAYOUT``).
    """
    root = given_path(root)
    if not root.is_dir():
        raise NoInputError("E_NOT_FOUND", "no such folder", root, "give the folder that holds the data sets")
    found: dict[str, Path] = {}
    for folder in _folders(root, DEEPER + 1):
        if any(folder.is_relative_to(other) for other in found.values()):
            continue
        name = re.sub("[^a-z0-9]", "", folder.name.lower())
        files: list[str] | None = None
        for dataset, layout in LAYOUTS.items():
            if dataset in found or not (layout.folder and re.fullmatch(layout.folder, name)):
                continue
            files = list(_files(folder)) if files is None else files
            if any(_fits(way, files) for way in layout.ways):
                found[dataset] = folder
                break
    if not found:
        what = "no folder there has the name and the layout of a data set"
        raise NoInputError("E_LAYOUT", what, root, "name folders after their sets (HeadCT, BrainMRI, CVC-ColonDB ...)")
    return {dataset: found[dataset] for dataset in LAYOUTS if dataset in found}


def _fits(way: Tree | Table, files: Sequence[str]) -> bool:
    return fits_tree(way, files) if isinstance(way, Tree) else table_in(way, files) is not None


def _files(folder: Path, left_out: Counter[str] | None = None) -> Iterable[str]:
    """Paths of all files below a folder, without hidden ones. Links to folders are followed, each folder once."""
    seen = set()
    left_out = Counter() if left_out is None else left_out

    def unreadable(_: OSError) -> None:
        left_out[UNREADABLE] += 1

    for parent, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_leftover(name))
        below = Path(parent).relative_to(folder)
        results = own_files(Path(parent))
        left_out[RESULTS] += bool(results)
        for name in sorted(name for name in files if name not in results and not is_leftover(name)):
            if (kind := special_kind(Path(parent, name))) is None:
                yield (below / name).as_posix()
            else:
                left_out[kind] += 1


def _folders(folder: Path, depth: int) -> Iterable[Path]:
    """A folder and those below it, the less deep ones first."""
    level = [folder]
    for _ in range(depth):
        yield from level
        level = [
            child for parent in level for child in _children(parent) if child.is_dir() and not is_leftover(child.name)
        ]


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # it cannot be read; the set's own walk says so
        return []


def _seen(root: Path) -> str:
    """What lies at the top of a folder, in words."""
    if root.is_file():
        return "it is a file"
    names = [child.name + "/" * child.is_dir() for child in _children(root) if not is_leftover(child.name)]
    return f"it holds {listed(names)}" if names else "it is empty"


def _expected(layout: Layout) -> str:
    return f"expected there: {'; '.join(layout.tree)}"
