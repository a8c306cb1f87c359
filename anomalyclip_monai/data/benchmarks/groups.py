"""Whose an image is: patients, sequences and copies, the units of the bootstrap."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from anomalyclip_monai.data.benchmarks.layouts import Layout
from anomalyclip_monai.data.benchmarks.lists import read_rows
from anomalyclip_monai.data.benchmarks.naming import listed
from anomalyclip_monai.data.benchmarks.sample import Sample
from anomalyclip_monai.exceptions import NoInputError

GROUPS_FILE = "groups.csv"
"""File in a set's folder with the columns ``name`` (of a sample, or the last part of it) and ``group``."""

PEEK = 4096
"""Bytes from the middle of a file that tell most files of one size apart, without reading all of a large set."""


def with_groups(samples: Sequence[Sample], layout: Layout, folder: Path) -> list[Sample]:
    """The samples with their groups: of ``groups.csv``, else known sequences, else equal files together.

    Raises:
        NoInputError: ``groups.csv`` leaves an image out (``E_CSV``).
    """
    if (path := folder / GROUPS_FILE).is_file():
        return _from_file(samples, path)
    if layout.block:
        return [replace(sample, group=_sequence(sample, layout)) for sample in samples]
    return _copies_together(samples)


def _from_file(samples: Sequence[Sample], path: Path) -> list[Sample]:
    group_of = {row["name"]: row["group"] for _, row in read_rows(path, ("name", "group"))}
    groups = [group_of.get(sample.name) or group_of.get(PurePosixPath(sample.name).name) for sample in samples]
    if missing := [sample.name for sample, group in zip(samples, groups, strict=True) if not group]:
        what = f"{len(missing)} images have no group: {listed(missing)}"
        raise NoInputError("E_CSV", what, path, "give each name and its group")
    return [replace(sample, group=str(group)) for sample, group in zip(samples, groups, strict=True)]


def _sequence(sample: Sample, layout: Layout) -> str:
    """The known sequence of a frame; after the last of them, blocks of the sequences' mean length."""
    number = re.search(r"(\d+)$", sample.name)
    if number is None:
        return sample.group
    frame = int(number[1])
    for first, last in layout.sequences:
        if first <= frame <= last:
            return f"frames {first}-{last}"
    start = layout.sequences[-1][1] + 1
    first = start + (frame - start) // layout.block * layout.block
    return f"frames {first}-{first + layout.block - 1}"


def _copies_together(samples: Sequence[Sample]) -> list[Sample]:
    """Photos with the same bytes share the group of the first of them, where the layout knows no other group."""
    alike = [[sample for sample in samples if sample.group == sample.name and not sample.volume]]
    for fingerprint in (_size, _middle, _whole):  # from cheap to dear, each for those that are still alike
        alike = [same for some in alike for same in _with_the_same(fingerprint, some)]
    group_of = {copy.name: copies[0].group for copies in alike for copy in copies}
    return [replace(sample, group=group_of.get(sample.name, sample.group)) for sample in samples]


def _with_the_same(fingerprint: Callable[[Path], object], samples: Sequence[Sample]) -> list[list[Sample]]:
    """Samples that share a fingerprint with another one, together with it."""
    together: dict[object, list[Sample]] = defaultdict(list)
    for sample in samples:
        together[fingerprint(sample.image)].append(sample)
    return [same for same in together.values() if len(same) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(path.stat().st_size // 2)
        return file.read(PEEK)


def _whole(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
