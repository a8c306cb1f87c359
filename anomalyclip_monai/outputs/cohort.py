"""One run over many cases of an output folder: which are done already, who is at them, and the table of all.

Runs with the same settings may go over one folder at a time and share its cases; a run with other settings is refused
as long as one goes on. What a run holds goes with its process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from anomalyclip_monai.data.cases import Case
from anomalyclip_monai.data.content import files_of, sha256_of
from anomalyclip_monai.exceptions import AnomalyCLIPError, OutputError, UsageError, unforeseen
from anomalyclip_monai.files import cannot_write, read_json, undisturbed
from anomalyclip_monai.folders.case_folder import BUSY, CaseFolder, hold, recover
from anomalyclip_monai.folders.cohort_table import (
    COHORT,
    Row,
    cell,
    cohort_text,
    is_begun_cohort,
    is_cohort,
    read_cohort,
)
from anomalyclip_monai.folders.locks import lock_file, share, unshare
from anomalyclip_monai.folders.marker import MARKER, note_of, of_others, own_files
from anomalyclip_monai.options import OutputOptions
from anomalyclip_monai.outputs.places import check_folders
from anomalyclip_monai.outputs.report.viewer import REPORT, page_of_files
from anomalyclip_monai.outputs.result import Result
from anomalyclip_monai.types import Record

ROOM = ".anomalyclip-run"
"""Folder below the output for the locks of the runs that go on."""

_LOCKS = ("run.lock", "table.lock")

TABLE_SECONDS = 1.0
"""The table is written at most so often, and at the end."""

_OF_DICOM = frozenset({"dicom", "seg_type"})
"""Settings that change the results of DICOM cases only."""

_PATIENCE = 10.0
"""Seconds to wait for other runs that come and go."""

_GONE = 1.0
"""Seconds in which the room is made again where others remove it."""


class Cohort:
    """A run over an output folder, entered as a context: clears up what killed runs left, keeps ``cohort.csv``.

    Args:
        out: the output folder.
        settings: all that decides on the files of a case beside its input and mask; JSON types. ``dicom`` and
            ``seg_type`` count for cases of DICOM only.
        go_on: leave cases whose results of the same input and settings are there.

    Raises:
        UsageError: a run with other settings is at it (``E_BUSY``), or ``cohort.csv`` is of others (``E_WRITE``).
    """

    def __init__(self, out: Path, settings: Mapping[str, Any], *, go_on: bool = False) -> None:
        self.out = out
        self._settings = dict(settings)
        self._go_on = go_on
        self._started = time.time_ns()
        self._rows: dict[str, Row] = {}
        self._written = -TABLE_SECONDS
        self._lock: int | None = None

    def __enter__(self) -> Cohort:
        table = self.out / COHORT
        if os.path.lexists(table) and (table.is_symlink() or not is_cohort(table)):
            raise UsageError(*of_others(table))
        _check_room(self.out / ROOM)
        try:
            with contextlib.suppress(OSError):  # the cases will say why nothing can be written there
                with undisturbed():
                    self._lock = self._join()
                recover(self.out)
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with undisturbed():
            try:
                if self._lock is not None and self._rows:
                    self._write_table()
            except OSError as refused:
                if error is None:
                    raise cannot_write(self.out / COHORT, refused) from refused
            finally:
                self._leave()

    @contextlib.contextmanager
    def turn(self, record: Record) -> Iterator[Turn]:
        """A case for this run alone; what happens in the block is noted in the table.

        Args:
            record: with ``case``, ``image`` and, where there is a mask, ``roi``.

        Raises:
            OutputError: another run is at it (``E_BUSY``), or its place cannot be written (``E_WRITE``).
        """
        name = record["case"]
        try:
            with hold(self.out / name) as place:
                turn = Turn(name, place, self._digest(record))
                if self._go_on or _younger(place.folder, self._started):
                    turn.there = _same(place.folder, turn.settings, record["image"])
                yield turn
                if turn.row is not None:
                    self._note(turn.row)
        except AnomalyCLIPError as error:
            if error.code != BUSY:
                self._note(Row(cell(name), "failed", error=cell(str(error))))
            raise

    def _digest(self, record: Record) -> str:
        """Hash of all that decides on a case's files beside its input; of a mask counts its content."""
        roi = record.get("roi")
        mask = "" if roi is None else sha256_of(files_of(Path(roi))) or f"unknown {time.time_ns()}"
        dicom = record["image"].series is not None
        deciding = {name: value for name, value in self._settings.items() if dicom or name not in _OF_DICOM}
        return hashlib.sha256(f"{_canonical(deciding)}\n{mask}".encode()).hexdigest()

    def _note(self, row: Row) -> None:
        self._rows[row.case] = row
        if self._lock is not None and time.monotonic() - self._written >= TABLE_SECONDS:
            with contextlib.suppress(OSError):  # it is tried again, and at the end said
                self._write_table()
                self._written = time.monotonic()

    def _write_table(self) -> None:
        """Put the rows into the table, beside those of other runs, which may write it as well."""
        room, until = self.out / ROOM, time.monotonic() + _PATIENCE
        while (lock := lock_file(room / "table.lock")) is None and time.monotonic() < until:
            time.sleep(0.02)
        try:
            rows = {**read_cohort(self.out / COHORT), **self._rows}
            made = room / f"{os.getpid()}.csv"
            made.write_text(cohort_text(rows.values()), encoding="utf-8")
            made.replace(self.out / COHORT)
        finally:
            if lock is not None:
                os.close(lock)

    def _join(self) -> int:
        """Come to the runs that go on in this folder, if there are any: -> the shared lock.

        Raises:
            UsageError: they have other settings.
        """
        mine = hashlib.sha256(_canonical(self._settings).encode()).hexdigest().encode()
        room, until = self.out / ROOM, time.monotonic() + _PATIENCE
        gone: FileNotFoundError | None = None
        while time.monotonic() < until:
            lock, theirs = None, b""
            try:
                room.mkdir(parents=True, exist_ok=True)
                lock = lock_file(room / "run.lock")
                if lock is not None:  # nobody is there
                    os.ftruncate(lock, 0)
                    os.write(lock, mine)
                    share(lock)
                else:
                    lock = lock_file(room / "run.lock", shared=True)
                theirs = b"" if lock is None else (room / "run.lock").read_bytes()
                if lock is not None and theirs == mine:
                    return lock
                gone = None
            except FileNotFoundError as error:  # the last one to leave has just removed it
                gone = error
            except OSError:
                if lock is not None:
                    os.close(lock)
                raise
            if lock is not None:
                os.close(lock)
            if theirs or (gone is not None and until - time.monotonic() < _PATIENCE - _GONE):
                break
            time.sleep(0.02)
        if gone is not None:  # no folder can be made here
            raise gone
        todo = "wait until it has ended, or choose another folder"
        raise UsageError(BUSY, "a run with other settings is at this folder", self.out, todo)

    def _leave(self) -> None:
        if self._lock is None:
            return
        room = self.out / ROOM
        with contextlib.suppress(OSError):
            unshare(self._lock)  # fails where others are there
            for path in room.iterdir():
                if _is_of_a_run(path):
                    path.unlink()
            room.rmdir()
        os.close(self._lock)
        self._lock = None


class Turn:
    """One case of a run.

    Attributes:
        case: its name.
        place: its folder.
        settings: hash of what the results depend on beside the input.
        there: whether they are there already; nothing has to be done then.
        row: for the table.
    """

    def __init__(self, case: str, place: CaseFolder, settings: str) -> None:
        self.case = case
        self.place = place
        self.settings = settings
        self.row: Row | None = None
        self._there = False

    @property
    def there(self) -> bool:
        """See above."""
        return self._there

    @there.setter
    def there(self, value: bool) -> None:
        self._there = value
        if value:
            self.row = row_of(self.case, read_json(self.place.folder / "scores.json") or {}, "there already")

    def save(self, result: Result, files: OutputOptions | None = None, *, dicom: bool) -> Path:
        """Write a result; -> the folder.

        Raises:
            AnomalyCLIPError: the error of a case that failed, or ``E_WRITE``, or ``E_INTERNAL``.
        """
        try:
            folder = result.save_in(self.place, files, dicom=dicom, settings=self.settings)
        except AnomalyCLIPError:
            raise
        except Exception as error:
            raise unforeseen(error) from error
        self.row = row_of(self.case, result.scores(), "replaced" if self.place.replaces else "done")
        return folder

    @property
    def lacks_report(self) -> bool:
        """Whether results are there that ``report.html`` could be made from, and it is not."""
        return "heatmap.nii.gz" in (files := own_files(self.place.folder)) and REPORT not in files

    def add_report(self, record: Record) -> None:
        """Make ``report.html`` of the results that are there.

        Args:
            record: the case behind the bundle's pre-processing.

        Raises:
            AnomalyCLIPError: it cannot be written (``E_WRITE``), or ``E_INTERNAL``.
        """
        try:
            page = page_of_files(self.place.folder, record)
        except Exception as error:
            raise unforeseen(error, self.place.folder) from error
        with self.place.extend() as new:
            (new / REPORT).write_text(page, encoding="utf-8")


def _canonical(settings: Mapping[str, Any]) -> str:
    """One text for equal settings, for a hash."""
    return json.dumps(settings, sort_keys=True, default=str)


def check_places(out: Path, records: Sequence[Record]) -> None:
    """Refuse an output folder in which results would lie among the inputs, before anything is written.

    Raises:
        UsageError: they would (``E_WRITE``).
    """
    cases: list[Case] = [record["image"] for record in records]
    dicom = {file.parent for case in cases if case.series is not None for file in case.files()}
    files = {case.path.parent for case in cases if case.series is None}
    for case in cases:
        try:
            check_folders(out / case.name, dicom, files)
        except OutputError as error:
            raise _refused(error) from error


def _check_room(room: Path) -> None:
    """Refuse a folder of others that has the room's name.

    Raises:
        UsageError: there is one, or a file or a link (``E_WRITE``).
    """
    foreign = [path for name in _LOCKS if os.path.lexists(path := room / name) and not _is_of_a_run(path)]
    if os.path.islink(room) or (os.path.exists(room) and not os.path.isdir(room)):
        foreign = [room]
    if foreign:
        raise UsageError(*of_others(foreign[0]))


def _refused(error: OutputError) -> UsageError:
    """What would be wrong with each case, before any of them starts."""
    return UsageError(error.code, error.what, error.path, error.todo)


def _is_of_a_run(path: Path) -> bool:
    """Whether a file in the room is a lock or a table in the making."""
    if path.name not in _LOCKS:
        return re.fullmatch(r"\d+\.csv", path.name) is not None and is_begun_cohort(path)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with open(path, "rb") as file:
            return re.fullmatch(rb"[0-9a-f]{64}|", file.read(65)) is not None
    except OSError:
        return False


def _younger(folder: Path, started: int) -> bool:
    """Whether another run, with the same settings or it would not be there, has written a case since this one began."""
    try:
        return (folder / MARKER).stat().st_mtime_ns > started
    except OSError:
        return False


def _same(folder: Path, settings: str, case: Case) -> bool:
    """Whether the results in a folder are whole and of just this input and these settings."""
    note = note_of(folder)
    if note.get("settings") != settings or not {*note.get("files", ()), MARKER} <= own_files(folder):
        return False
    known = (read_json(folder / "scores.json") or {}).get("input_sha256")
    return case.error is None and bool(known) and known == sha256_of(case.files())


def row_of(case: str, scores: Mapping[str, Any], state: str) -> Row:
    """A line of the table out of the content of ``scores.json``."""
    lesions = scores.get("lesions")
    volumes = [
        _number(lesion.get("volume_mm3") if isinstance(lesion, dict) else None)
        for lesion in (lesions if isinstance(lesions, list) else [None])
    ]
    known = [volume for volume in volumes if volume is not None]
    whole = bool(scores.get("physical_size")) and len(known) == len(volumes)
    score, seconds = _number(scores.get("score")), _number(scores.get("seconds"))
    return Row(
        case=cell(case),
        state=state,
        score="" if score is None else f"{score:.6f}",
        ml=f"{sum(known) / 1000:.3f}" if whole else "",
        seconds="" if seconds is None else f"{seconds:.3f}",
    )


def _number(value: Any) -> float | None:
    """A finite number out of a file that others may have changed."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None
