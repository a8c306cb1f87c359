"""Find the cases in what a user gave: files, folders, DICOM series."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anomalyclip_monai.data import dicom_series
from anomalyclip_monai.data.archive import open_archive
from anomalyclip_monai.data.content import files_of, sha256_of, stamps_of
from anomalyclip_monai.data.geometry import check_plausible
from anomalyclip_monai.data.itk import SUFFIXES as ITK_SUFFIXES
from anomalyclip_monai.data.itk import is_itk, read_itk
from anomalyclip_monai.data.nifti import SUFFIXES as NIFTI_SUFFIXES
from anomalyclip_monai.data.nifti import header_file, is_nifti, read_nifti
from anomalyclip_monai.data.photo import SUFFIXES as PHOTO_SUFFIXES
from anomalyclip_monai.data.photo import is_photo, read_photo
from anomalyclip_monai.data.volume import Volume
from anomalyclip_monai.data.walk import counted, files_below, kind_of, special_kind, tell
from anomalyclip_monai.exceptions import AnomalyCLIPError, CaseError, NoInputError
from anomalyclip_monai.files import absolute
from anomalyclip_monai.folders.cohort_table import COHORT
from anomalyclip_monai.folders.marker import DICOM_FILES
from anomalyclip_monai.types import PathLike, Record

_KINDS = {"heatmap": "parametric map", "mask": "SEG", "measurements": "SR"}
_OWN_DICOM = {name: f"DICOM: {_KINDS[kind]}" for kind, name in DICOM_FILES.items()}
"""How the scan of DICOM files counts those of earlier results, which are counted as such already."""

MAX_NAME_BYTES = 255
"""Longest name of a folder on the file systems in use."""

_unpacked = contextlib.ExitStack()
atexit.register(_unpacked.close)


@dataclass(frozen=True, slots=True)
class Case:
    """One volume, photo or DICOM series to be scored.

    Attributes:
        name: where its results go below the output folder; unique in a list of cases.
        path: the file, or the folder of a DICOM series.
        series: for DICOM, which series of ``path``.
        error: why nothing can be read here, if that is known already.
    """

    name: str
    path: Path
    series: dicom_series.Series | None = None
    error: AnomalyCLIPError | None = None

    def read(self, volume: int | None = None, per_slice: bool = False, keep_nan: bool = False) -> Volume:
        """Read the volume.

        Args:
            volume: which volume of a 4D file or series, counted from 0.
            per_slice: read a DICOM series whose slices lie on no grid one by one.
            keep_nan: leave NaN and infinity as they are; for masks, where they mean nothing else than outside.

        Raises:
            CaseError: it cannot be read.
        """
        if self.error is not None:
            raise self.error
        files = self.files()
        before = stamps_of(files)
        read = self._read(volume, per_slice, keep_nan)
        # Only just now were the bytes read, so that they come out of the system's memory.
        sha256 = sha256_of(files)
        unchanged = stamps_of(files) == before
        return replace(read, source=replace(read.source, sha256=sha256 if unchanged else ""))

    def files(self) -> list[Path]:
        """The files that it is made of; those of a series in the order of its frames."""
        if self.series is not None:
            return list(dict.fromkeys(frame.path for frame in self.series.frames))
        return files_of(self.path)

    def _read(self, volume: int | None, per_slice: bool, keep_nan: bool) -> Volume:
        if (kind := special_kind(self.path)) is not None and not self.path.is_dir():
            raise CaseError("E_NOT_IMAGE", f"this is a {kind}", self.path, "give a file")
        if self.series is not None:
            read = dicom_series.read_series(self.series, volume=volume, per_slice=per_slice)
            if read.source.has_physical_size:
                check_plausible(read.affine, read.data.shape[1:], self.path)
            return read
        if is_photo(self.path):
            return read_photo(self.path)
        if is_nifti(self.path):
            return read_nifti(self.path, volume, keep_nan)
        if is_itk(self.path):
            return read_itk(self.path, volume, keep_nan)
        raise CaseError("E_NOT_IMAGE", "not an image that can be read", self.path, "give NIfTI, DICOM, PNG or JPEG")


def find_cases(inputs: Sequence[PathLike], series: str | None = None) -> list[Case]:
    """All cases in files and folders, in the order given, those of a folder by name.

    A file is one case, a folder all of its images, below it as well, and every DICOM series there. Names are paths
    below the given folder without suffix, with it where two would be the same; with several inputs, below their
    common parent. What a folder holds beside its images is counted, in one line of the log.

    Args:
        inputs: files and folders.
        series: only the DICOM series with this Series Number or Series Instance UID.

    Raises:
        NoInputError: nothing was found: ``E_NOT_FOUND`` or ``E_NO_IMAGES`` with what was skipped.
    """
    paths = list(dict.fromkeys(header_file(absolute(path)) for path in inputs))
    missing = [path for path in paths if not path.exists()]
    if len(missing) == len(paths):
        raise NoInputError("E_NOT_FOUND", "no such file or folder", missing[0] if missing else None, "check the path")
    root = _common_root(paths)
    found: list[Case] = []
    skipped: Counter[str] = Counter()
    for path in paths:
        if path in missing:
            error = CaseError("E_NOT_FOUND", "no such file or folder", path, "check the path")
            found.append(Case(_relative(path, root), path, error=error))
        else:
            found += _cases_of_folder(path, root, skipped) if path.is_dir() else _cases_of_file(path, root, skipped)
    if not found:
        what = f"no image found ({counted(skipped) or 'it is empty'})"
        raise NoInputError("E_NO_IMAGES", what, paths[0], "give NIfTI, DICOM, PNG or JPEG")
    tell(skipped)
    found = _with_unique_names(found)
    return found if series is None else _only_series(found, str(series), paths[0])


def _only_series(cases: list[Case], wanted: str, path: Path) -> list[Case]:
    chosen = [case for case in cases if case.series and wanted in (str(case.series.number), case.series.uid)]
    if not chosen:
        numbers = ", ".join(str(case.series.number) for case in cases if case.series) or "none"
        raise NoInputError("E_NO_IMAGES", f"no series {wanted}; the numbers there are: {numbers}", path, "choose one")
    return chosen


def the_case(path: PathLike, series: str | None = None) -> Case:
    """The one case in a file or folder, see :func:`find_cases`.

    Raises:
        NoInputError: there is none.
        CaseError: there are several (``E_MULTI_SERIES``).
    """
    cases = find_cases([path], series)
    if len(cases) > 1:
        names = ", ".join(case.name for case in cases[:6]) + (" ..." if len(cases) > 6 else "")
        raise CaseError("E_MULTI_SERIES", f"{len(cases)} cases are there: {names}", path, "give one, or score them all")
    return cases[0]


def roi_of(case: Case, roi: PathLike, cases: int) -> Path:
    """The mask that belongs to a case: the file itself, or in a folder the one with the case's name.

    NIfTI and ITK files come first, for a photo then photos, PNG before others.

    Raises:
        NoInputError: there is no such file or folder.
        CaseError: the folder has none for this case (``E_ROI``), or one file was given for several cases.
    """
    path = Path(roi)
    if not path.exists():
        raise NoInputError("E_NOT_FOUND", "no such mask", path, "check the path of --roi")
    if path.is_file():
        if cases > 1:
            raise CaseError(
                "E_ROI", f"one mask for {cases} cases", path, "give a folder of masks with the cases' names"
            )
        return path
    of_photo = case.series is None and is_photo(case.path)
    for suffix in (*NIFTI_SUFFIXES, *ITK_SUFFIXES, *(PHOTO_SUFFIXES if of_photo else ())):
        for name in dict.fromkeys((f"{case.name}{suffix}", f"{case.name}{suffix.upper()}")):
            if (candidate := path / name).is_file():
                return candidate
    if of_photo and (candidate := path / case.name).is_file():  # a name that keeps its suffix
        return candidate
    wanted = f"{case.name}.png" if of_photo else f"{case.name}.nii.gz"
    raise CaseError("E_ROI", f"the folder has no mask {wanted}", path, "name masks as their cases")


def datalist(
    dataset_dir: PathLike | Sequence[PathLike], roi: PathLike | None = None, series: str | None = None
) -> list[Record]:
    """Cases as records for MONAI: ``{"image": Case, "case": name}`` and ``roi`` where a mask was given.

    Raises:
        NoInputError: there is nothing to read; a bundle would otherwise end well without a result.
    """
    inputs = [dataset_dir] if isinstance(dataset_dir, (str, os.PathLike)) else dataset_dir
    cases = find_cases(inputs, series)
    records: list[Record] = []
    for case in cases:
        record: Record = {"image": case, "case": case.name}
        if roi is not None:
            try:
                record["roi"] = roi_of(case, roi, len(cases))
            except CaseError as error:
                record["image"] = Case(case.name, case.path, error=error)
        records.append(record)
    return records


def _common_root(paths: Sequence[Path]) -> Path:
    """The folder below which cases are named."""
    if len(paths) == 1:
        return paths[0] if paths[0].is_dir() else paths[0].parent
    return Path(os.path.commonpath([path.parent for path in paths]))


def _relative(path: Path, root: Path) -> str:
    """The path below ``root`` without an image suffix; the folder's own name for ``root`` itself."""
    relative = path.relative_to(root)
    if relative == Path():
        return _visible(path.name)
    last = relative.name if path.is_dir() else _stem(relative)
    return "/".join(map(_visible, [*relative.parts[:-1], last if last.strip(".") else relative.name]))


def _visible(name: str) -> str:
    """A name as one of a folder that is neither hidden nor ``.`` or ``..``."""
    return name.lstrip(".") or "case"


def _stem(path: Path) -> str:
    for suffix in sorted(NIFTI_SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)]
    return path.stem or path.name


def _is_one_file(path: Path) -> bool:
    """Whether the name is that of a format in which a file is a case."""
    return is_nifti(path) or is_itk(path) or is_photo(path)


def _cases_of_file(path: Path, root: Path, left_out: Counter[str]) -> list[Case]:
    if (kind := special_kind(path)) is not None:  # before anything is opened
        error = CaseError("E_NOT_IMAGE", f"this is a {kind}", path, "give a file")
        return [Case(_relative(path, root), path, error=error)]
    if _is_one_file(path):
        return [Case(_relative(path, root), path)]
    try:
        if path.suffix.lower() == ".zip":
            return _cases_of_archive(path, root, left_out)
        if dicom_series.is_dicom(path):
            return _dicom_cases(path, root, Counter())
    except CaseError as known:
        return [Case(_relative(path, root), path, error=known)]
    error = CaseError("E_NOT_IMAGE", "not an image that can be read", path, "give NIfTI, DICOM, PNG, JPEG or TIFF")
    return [Case(_relative(path, root), path, error=error)]


def _cases_of_archive(path: Path, root: Path, left_out: Counter[str]) -> list[Case]:
    """Cases in a zip archive, unpacked into a temporary folder that lasts as long as the process."""
    try:
        folder = _unpacked.enter_context(open_archive(path))
    except OSError as error:  # there is no place for temporary files, or it is full
        what = f"cannot be unpacked: {error.strerror or error}"
        raise CaseError("E_ARCHIVE", what, path, "make room, or set TMPDIR") from error
    cases = _cases_of_folder(folder, folder, left_out, archives=False)  # an archive may hold itself
    name = _relative(path, root).removesuffix(".zip")
    if not cases:
        raise CaseError("E_NO_IMAGES", "the archive holds no image", path, "give NIfTI, DICOM, PNG or JPEG")
    if len(cases) == 1:
        return [Case(name, cases[0].path, cases[0].series)]
    return [Case(f"{name}/{case.name}", case.path, case.series) for case in cases]


def _cases_of_folder(folder: Path, root: Path, left_out: Counter[str], *, archives: bool = True) -> list[Case]:
    cases: list[Case] = []
    own: set[Path] = set()
    dicom_seen = False
    for path in files_below(folder, left_out, own):
        if _is_one_file(path):
            cases.append(Case(_relative(path, root), path))
        elif archives and path.suffix.lower() == ".zip":
            cases += _cases_of_file(path, root, left_out)
        elif dicom_series.is_dicom(path):
            dicom_seen = True
        else:
            left_out[kind_of(path)] += 1
    voxels = {file for case in cases for file in files_of(case.path)[1:]}
    for path in voxels - {case.path for case in cases}:
        left_out[kind_of(path)] -= 1  # of a header that is read
    if dicom_seen:
        cases += _dicom_cases(folder, root, left_out)
        left_out.subtract(_OWN_DICOM[path.name] for path in own if path.name in _OWN_DICOM)
    return cases


def _dicom_cases(path: Path, root: Path, left_out: Counter[str]) -> list[Case]:
    """One case per series, named by the folder that holds it, and by its number where a folder holds several."""
    series_found, reasons = dicom_series.scan(path)
    # What is no DICOM at all, and links, were counted on the way here.
    told = {reason: count for reason, count in reasons.items() if reason != "junk" and "link" not in reason}
    left_out.update({f"DICOM: {reason}": count for reason, count in told.items()})
    homes = [_home(series, path) for series in series_found]
    cases = []
    for series, home in zip(series_found, homes, strict=True):
        name = _relative(home, root)
        if homes.count(home) > 1:
            name = f"{name}/{series.number}"
        cases.append(Case(name, home, series=series))
    return cases


def _home(series: dicom_series.Series, path: Path) -> Path:
    """The folder, or the single file, that holds all frames of a series."""
    files = {Path(os.path.abspath(frame.path)) for frame in series.frames}
    if path.is_file() or not files:
        return path
    return Path(os.path.commonpath([file.parent for file in files]))


def _with_unique_names(cases: list[Case]) -> list[Case]:
    """Give every case its own name: suffixes stay where stems are the same, and what is left is numbered."""
    counts = Counter(_folded(case.name) for case in cases)
    named, used = [], {_folded(COHORT)}
    for case in cases:
        name = case.name
        if counts[_folded(case.name)] > 1 and case.series is None and case.path.suffix:
            name = (Path(name).parent / _visible(case.path.name)).as_posix()
        unique, number = _of_possible_length(name), 2
        while _folded(unique) in used:
            unique, number = _of_possible_length(f"{name}-{number}", f"-{number}"), number + 1
        used.add(_folded(unique))
        named.append(Case(unique, case.path, case.series, case.error))
    return named


def _folded(name: str) -> str:
    """What two names have in common that some file system takes for one: Windows, macOS or a network share."""
    return "/".join(part.rstrip(". ") for part in unicodedata.normalize("NFC", name).casefold().split("/"))


def _of_possible_length(name: str, end: str = "") -> str:
    """The name with every part that is too long for a folder cut, and told apart by a hash; ``end`` stays."""
    parts = name.split("/")
    for index, part in enumerate(parts):
        if len(os.fsencode(part)) > MAX_NAME_BYTES:
            kept = os.fsencode(part)[: MAX_NAME_BYTES - 40].decode(errors="ignore")
            parts[index] = f"{kept}~{hashlib.sha256(os.fsencode(part)).hexdigest()[:8]}{end}"
    return "/".join(parts)
