"""Scores of any number, sorted within a bounded memory: the sort under every exact pixel measure.

Scores are collected into runs. A full run is sorted, equal scores become one entry with a count if some score is
frequent, and once the runs outgrow the budget they go to one temporary file. Reading back goes from the highest score
down, in blocks that hold a slice of every run.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

RUN_ENTRIES = 1 << 21
"""Scores that are sorted at once: 8 MB of float32."""
MEMORY_BYTES = 256 << 20
"""What sorted runs may hold before they move to disk."""
BLOCK_ENTRIES = 1 << 20
"""About how many entries are read back at once."""
SAMPLE_STEP = 1 << 10
"""Every how many entries of a run one stays in memory, to find a score in the file."""
FREQUENT = 1 << 8
"""A run in which a score occurs more often is stored with counts; otherwise these cost more than they save."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Scores in ascending order, each once.

    Attributes:
        values: (E,) distinct scores.
        counts: (E,) how often each occurred.
        weights: (E,) sum of their weights, float64; None where scores carry none.
    """

    values: NDArray[Any]
    counts: NDArray[np.integer[Any]]
    weights: NDArray[np.float64] | None


@dataclass(frozen=True, slots=True)
class _OnDisk:
    """A column of a run in the temporary file; slices like the array it was."""

    file: BinaryIO
    offset: int
    dtype: np.dtype[Any]

    def __getitem__(self, span: slice) -> NDArray[Any]:
        self.file.seek(self.offset + span.start * self.dtype.itemsize)
        return np.fromfile(self.file, self.dtype, span.stop - span.start)


@dataclass(slots=True)
class _Run:
    columns: list[Any]
    length: int
    samples: NDArray[Any]

    def lower_bound(self, score: Any, stop: int) -> int:
        """The first entry at or above ``score``, looked for below entry ``stop``."""
        sample = int(np.searchsorted(self.samples, score))
        start = max(sample - 1, 0) * SAMPLE_STEP
        end = min(sample * SAMPLE_STEP, stop)
        return stop if start >= stop else start + int(np.searchsorted(self.columns[0][start:end], score))

    def read(self, start: int, stop: int) -> list[NDArray[Any]]:
        return [column[start:stop] for column in self.columns]


class SortedScores:
    """A multiset of scores, each with an optional weight, that reads back in descending order.

    Args:
        weighted: whether scores come with weights.
        dtype: float32 or float64, in which scores are kept and compared.
        run_entries: scores sorted at once.
        memory_bytes: what sorted runs may hold before they move to disk (in the folder for temporary files).
    """

    def __init__(
        self,
        *,
        weighted: bool = False,
        dtype: np.dtype[Any] | type[np.floating[Any]] = np.float32,
        run_entries: int = RUN_ENTRIES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.weighted = weighted
        self.dtype = np.dtype(dtype)
        self.count = 0
        self.lowest = np.inf
        self.highest = -np.inf
        self._run_entries = run_entries
        self._memory_bytes = memory_bytes
        self._pending = np.empty(run_entries, self.dtype)
        self._pending_weights = np.empty(run_entries) if weighted else None
        self._pending_entries = 0
        self._runs: list[_Run] = []
        self._bytes_held = 0
        self._file: BinaryIO | None = None

    def add(self, scores: NDArray[Any], weights: NDArray[np.float64] | None = None) -> None:
        """(N,) finite scores, which the caller must not change afterwards."""
        if not scores.size:
            return
        self.count += scores.size
        self.lowest = min(self.lowest, float(scores.min()))
        self.highest = max(self.highest, float(scores.max()))
        start = 0
        while start < scores.size:
            stop = min(start + self._run_entries - self._pending_entries, scores.size)
            place = slice(self._pending_entries, self._pending_entries + stop - start)
            self._pending[place] = scores[start:stop]
            if weights is not None and self._pending_weights is not None:
                self._pending_weights[place] = weights[start:stop]
            self._pending_entries, start = place.stop, stop
            if self._pending_entries == self._run_entries:
                self._sort_pending()

    def _sort_pending(self) -> None:
        if not self._pending_entries:
            return
        scores = self._pending[: self._pending_entries]
        weights = None if self._pending_weights is None else self._pending_weights[: self._pending_entries]
        self._pending_entries = 0
        columns: list[Any]
        if weights is None and _sort_without_frequent(scores):
            columns = [scores.copy()]
        else:
            entries = merge(scores, weights)
            smallest = np.min_scalar_type(int(entries.counts.max()))  # most often one byte
            columns = [entries.values, entries.counts.astype(smallest, copy=False)]
            if entries.weights is not None:
                columns.append(entries.weights)
        self._runs.append(_Run(columns, columns[0].size, columns[0][::SAMPLE_STEP].copy()))
        self._bytes_held += sum(column.nbytes for column in columns)
        if self._bytes_held > self._memory_bytes:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as this object
            weakref.finalize(self, self._file.close)
        offset = self._file.seek(0, 2)
        for run in self._runs:
            for index, column in enumerate(run.columns):
                if isinstance(column, np.ndarray):
                    column.tofile(self._file)
                    run.columns[index] = _OnDisk(self._file, offset, column.dtype)
                    offset += column.nbytes
        self._file.flush()
        self._bytes_held = 0

    def samples(self) -> NDArray[Any]:
        """One of every 1024 entries of each run, unsorted; where to cut the scores into blocks."""
        self._sort_pending()
        return np.concatenate([run.samples for run in self._runs]) if self._runs else np.array([], self.dtype)

    def descending(self, cuts: NDArray[Any]) -> Iterator[Entries]:
        """Entries between one cut and the next, from the highest cut down; within a block scores ascend.

        Args:
            cuts: descending scores; block i holds what is at or above cut i and below cut i - 1. The last cut must
                be at or below the lowest score.
        """
        self._sort_pending()
        ends = [run.length for run in self._runs]
        for cut in cuts.astype(self.dtype):
            columns = []
            for index, run in enumerate(self._runs):
                start = run.lower_bound(cut, ends[index])
                if start < ends[index]:
                    columns.append(run.read(start, ends[index]))
                ends[index] = start
            if not columns:
                empty = np.array([], self.dtype)
                yield Entries(empty, empty.astype(np.int64), empty.astype(np.float64) if self.weighted else None)
            elif len(columns) == 1 and len(columns[0]) > 1:
                yield Entries(columns[0][0], columns[0][1], columns[0][2] if self.weighted else None)
            else:
                values = np.concatenate([column[0] for column in columns])
                counts = weights = None
                if any(len(column) > 1 for column in columns):
                    counted = (
                        column[1] if len(column) > 1 else np.ones(column[0].size, np.uint8) for column in columns
                    )
                    counts = np.concatenate(list(counted))
                if self.weighted:
                    weights = np.concatenate([column[2] for column in columns])
                yield merge(values, weights, counts)


def _sort_without_frequent(scores: NDArray[Any]) -> bool:
    """Sorts in place; whether no score occurs more than ``FREQUENT`` times."""
    scores.sort()
    return not (scores[FREQUENT:] == scores[:-FREQUENT]).any()


def merge(
    scores: NDArray[Any], weights: NDArray[np.float64] | None, counts: NDArray[np.integer[Any]] | None = None
) -> Entries:
    """(N,) scores, which may be sorted in place -> new arrays of the distinct ones with counts and summed weights."""
    if counts is not None and weights is None and counts.sum(dtype=np.int64) <= 2 * scores.size:
        # Sorting twice as many scores is faster than sorting indices and gathering counts by them.
        scores, counts = np.repeat(scores, counts), None
    order = None
    if weights is None and counts is None:
        scores.sort()
    else:
        order = np.argsort(scores)
        scores = scores[order]
    is_first = np.empty(scores.size, bool)
    is_first[:1] = True
    np.not_equal(scores[1:], scores[:-1], out=is_first[1:])
    first = np.flatnonzero(is_first)
    if counts is None:
        number = np.empty(first.size, np.uint32)
        np.subtract(first[1:], first[:-1], out=number[:-1], casting="unsafe")
        number[-1:] = scores.size - first[-1:]
    else:
        number = np.add.reduceat(counts[order], first, dtype=np.int64)
    summed = None if weights is None else np.add.reduceat(weights[order], first)
    return Entries(scores[first], number, summed)


def cuts(stores: list[SortedScores], block_entries: int = BLOCK_ENTRIES) -> NDArray[Any]:
    """Descending scores that cut the union of ``stores`` into blocks of about ``block_entries``."""
    samples = np.sort(np.concatenate([store.samples() for store in stores]))[::-1]
    step = max(block_entries // SAMPLE_STEP, 1)
    lowest = min(store.lowest for store in stores)
    inner = samples[step::step]
    return np.unique(np.append(inner, lowest))[::-1]
