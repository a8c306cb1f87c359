"""Find the image series in a DICOM file or folder: walk, drop what is no image, group the rest."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from anomalyclip_monai.data.dicom_headers import (
    CROSS_SECTIONAL,
    SECONDARY_CAPTURE,
    ImageObject,
    Problem,
    SliceHeader,
    read_object,
)
from anomalyclip_monai.data.frame import Frame
from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.types import PathLike

MAX_SCOUT_PLANES = 64
"""Most planes of one scout series."""


@dataclass(frozen=True, slots=True)
class Series:
    """One readable volume candidate, or one object without patient geometry, found by the header scan.

    Attributes:
        uid: Series Instance UID where it is a valid one (PS3.5 9.1), else a running number.
        number: Series Number, or a running number where that is absent or taken; unique within one scan.
        path: the file or folder that the user gave.
        frames: the stored frames, in the order of file names; :func:`read_series` sorts them by position.
        modality: DICOM modality code, empty if the file does not say.
        body_part: Body Part Examined in upper case, empty if absent or not plain words.
        localizer: whether this is a scout.
        headers: one per frame.
        warnings: what the scan noticed.
    """

    uid: str
    number: int
    path: Path
    frames: tuple[Frame, ...]
    modality: str = ""
    body_part: str = ""
    localizer: bool = False
    headers: tuple[SliceHeader, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()


def scan(path: PathLike) -> tuple[list[Series], Counter[str]]:
    """Find the image series in a file or a folder with everything below it.

    A link to a file is that file, unless the folder holds it anyway. Links to folders and hidden folders are counted
    and not entered, what is no file (a FIFO, a device) is counted and not opened. What is no image (junk, DICOMDIR,
    SEG, SR, RTSTRUCT, PR, KO) is counted by reason, and so are scouts beside other series. An object without patient
    geometry (ultrasound, endoscopy, radiograph) is a series of its own.

    Returns:
        The series in the order of their folders and numbers, and how many files were skipped for each reason.

    Raises:
        CaseError: ``E_NOT_FOUND``; or the path is one file that is a DICOM object but no image
            (``E_NOT_IMAGE``) or that is too damaged to parse (``E_TRUNCATED``).
    """
    root = Path(path)
    if not root.exists():
        raise CaseError("E_NOT_FOUND", "no such file or folder", root)
    skipped: Counter[str] = Counter()
    objects: list[ImageObject] = []
    unreadable: Counter[Path] = Counter()
    lost: Counter[Path] = Counter()
    for file in _walk(root, skipped, lost):
        found = read_object(file)
        if isinstance(found, ImageObject):
            objects.append(found)
            continue
        if root.is_file() and found != "junk":
            if found == "unreadable":
                raise CaseError("E_TRUNCATED", "the DICOM header is damaged", root, "copy the file again")
            raise CaseError("E_NOT_IMAGE", f"this is a DICOM object without an image to score: {found}", root)
        skipped[found] += 1
        if found == "unreadable":
            unreadable[file.parent] += 1
    objects, copies = _without_copies(objects)
    if copies:
        skipped["duplicate file"] += copies.total()
    left_out = _LeftOut(unreadable, lost, copies)
    return _number_series(_group(objects, skipped), root, left_out), skipped


def _walk(root: Path, skipped: Counter[str], lost: Counter[Path]) -> list[Path]:
    """Files to look at; counts what is left out by reason, and links to nothing by folder."""
    if root.is_file():
        return [root]
    files: list[Path] = []
    links: list[Path] = []
    for parent, folders, names in os.walk(root, followlinks=False):
        folder = Path(parent)
        for name in folders:
            if (folder / name).is_symlink():
                skipped["symbolic link"] += 1
            elif name.startswith("."):
                skipped["hidden folder"] += 1
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not (folder / name).is_symlink())
        for name in sorted(names):
            file = folder / name
            if file.is_symlink():
                links.append(file)
            elif file.is_file():
                files.append(file)
            else:
                skipped["special file"] += 1
    seen = {file.resolve() for file in files} if links else set()
    for link in links:
        target = _target(link)
        if target is None:
            skipped["broken link"] += 1
            lost[link.parent] += 1
        elif target in seen or not target.is_file():
            skipped["symbolic link"] += 1
        else:
            seen.add(target)
            files.append(link)
    return files


def _target(link: Path) -> Path | None:
    """What a link stands for; None if it leads nowhere or in a circle."""
    try:
        return link.resolve(strict=True)
    except (OSError, RuntimeError):
        return None


def _without_copies(objects: list[ImageObject]) -> tuple[list[ImageObject], Counter[str]]:
    """Drop files that repeat another one byte for byte; count them by Series Instance UID."""
    by_uid: dict[str, list[ImageObject]] = defaultdict(list)
    for item in objects:
        by_uid[item.headers[0].sop_uid or f"@{item.path}"].append(item)
    copies: Counter[str] = Counter()
    kept: list[ImageObject] = []
    for same in by_uid.values():
        unique = {_digest(item.path): item for item in reversed(same)} if len(same) > 1 else {b"": same[0]}
        kept.extend(unique.values())
        copies[same[0].series_uid] += len(same) - len(unique)
    return sorted(kept, key=lambda item: item.path), +copies


def _digest(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _group(members: Sequence[ImageObject], skipped: Counter[str]) -> list[list[ImageObject]]:
    """Part objects into candidates for a volume, and set scouts and screen captures aside."""
    placed = {item.series_uid for item in members if any(h.has_geometry for h in item.headers)}
    members = _mark_scouts(members)
    groups: dict[tuple[object, ...], list[ImageObject]] = defaultdict(list)
    for item in members:
        first = item.headers[0]
        key: tuple[object, ...] = (item.series_uid, first.channels, item.localizer)
        if item.localizer:
            rounded = tuple(round(value, 2) for value in first.orientation or ())
            key += (rounded, first.rows, first.columns)
        elif not first.has_geometry and first.problem is None:
            is_capture = f"{item.sop_class}.".startswith(f"{SECONDARY_CAPTURE}.")
            if is_capture and item.series_uid in placed:
                skipped["secondary capture"] += 1
                continue
            if is_capture or item.modality not in CROSS_SECTIONAL:
                key += (item.path,)
        groups[key].append(item)
    if any(not key[2] for key in groups):
        for key in [key for key in groups if key[2]]:
            skipped["localiser"] += len(groups.pop(key))
    return [_mark_same_uid(part) for group in groups.values() for part in _by_folder(group)]


def _mark_scouts(members: Sequence[ImageObject]) -> list[ImageObject]:
    """Treat three or more images, each in a plane of its own (pilots, rotating projections), as scouts."""
    planes: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for item in members:
        planes[item.series_uid] += [header.orientation or () for header in item.headers]
    scouts = {series for series, orientations in planes.items() if _all_differ(orientations)}
    return [replace(item, localizer=item.localizer or item.series_uid in scouts) for item in members]


def _all_differ(orientations: Sequence[tuple[float, ...]]) -> bool:
    """Whether no two of at least three planes are within half a degree of each other."""
    if not 3 <= len(orientations) <= MAX_SCOUT_PLANES or not all(orientations):
        return False
    return all(
        max(abs(x - y) for x, y in zip(a, b, strict=True)) > 0.01 for a, b in itertools.combinations(orientations, 2)
    )


def _by_folder(group: list[ImageObject]) -> list[list[ImageObject]]:
    """Part a series by folder where its folders hold slices at the same places: copies, or time points.

    A series whose slices are spread over folders stays together, be a few of them there twice.
    """
    folders: dict[Path, list[ImageObject]] = defaultdict(list)
    for item in group:
        folders[item.path.parent].append(item)
    held = [
        {(h.position, h.orientation) for item in items for h in item.headers if h.position is not None}
        for items in folders.values()
    ]
    shared = sum(count > 1 for count in Counter(place for places in held for place in places).values())
    return list(folders.values()) if shared and 2 * shared >= min(map(len, held)) else [group]


def _mark_same_uid(group: list[ImageObject]) -> list[ImageObject]:
    """Refuse files that have the SOP Instance UID of another one but not its content."""
    counts = Counter(item.headers[0].sop_uid for item in group)
    problem = Problem("E_DUPLICATE_UID", "different files of a series have the same SOP Instance UID")
    return [
        replace(item, headers=tuple(replace(h, problem=h.problem or problem) for h in item.headers))
        if item.headers[0].sop_uid and counts[item.headers[0].sop_uid] > 1
        else item
        for item in group
    ]


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """What may be missing from a series.

    Attributes:
        unreadable: damaged files, by folder.
        lost: links that lead nowhere, by folder.
        copies: files that repeat another one, by Series Instance UID.
    """

    unreadable: Counter[Path]
    lost: Counter[Path]
    copies: Counter[str]

    def notes(self, folders: set[Path], uid: str) -> tuple[str, ...]:
        """Sentences for a series with that UID in these folders."""
        notes = []
        if damaged := sum(self.unreadable[folder] for folder in folders):
            notes.append(f"{damaged} damaged DICOM file(s) in the same folder could not be parsed and were left out.")
        if lost := sum(self.lost[folder] for folder in folders):
            notes.append(f"{lost} link(s) in the same folder lead nowhere and were left out.")
        if copies := self.copies[uid]:
            notes.append(f"{copies} file(s) that repeat another one byte for byte were left out.")
        return tuple(notes)


def _number_series(groups: Iterable[list[ImageObject]], root: Path, left_out: _LeftOut) -> list[Series]:
    ordered = sorted(groups, key=lambda g: (str(g[0].path.parent), _or_last(g[0].series_number), g[0].path))
    own = Counter(group[0].series_number for group in ordered)
    free = (number for number in itertools.count(1) if number not in own)
    series = []
    for group in ordered:
        number, uid = group[0].series_number, group[0].series_uid
        if number is None or own[number] > 1 or not 0 <= number < 2**31:  # PS3.5 6.2, IS
            number = next(free)
        headers = tuple(header for item in group for header in item.headers)
        series.append(
            Series(
                uid=uid if re.fullmatch(r"[0-9.]{1,64}", uid) else str(number),
                number=number,
                path=root,
                frames=tuple(header.frame for header in headers),
                modality=group[0].modality,
                body_part=group[0].body_part,
                localizer=group[0].localizer,
                headers=headers,
                warnings=left_out.notes({item.path.parent for item in group}, uid),
            )
        )
    return series


def _or_last(number: int | None) -> float:
    return math.inf if number is None else number
