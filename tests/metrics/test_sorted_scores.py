from __future__ import annotations

import gc
import itertools
import tempfile

import numpy as np
import pytest

from anomalyclip_monai.metrics import sorted_scores
from anomalyclip_monai.metrics.sorted_scores import SortedScores, cuts


def _scores(dtype: type) -> list[np.ndarray]:
    """Parts of any length; some all distinct, some full of ties, one a single value."""
    random = np.random.default_rng(0)
    parts = [random.random(150), random.integers(0, 5, 333) / 8, np.full(500, 0.25), random.random(1), np.array([])]
    return [part.astype(dtype) for part in parts * 2]


@pytest.mark.parametrize("frequent", [3, 10**6], ids=["with counts where tied", "never with counts"])
@pytest.mark.parametrize("memory_bytes", [0, 3000, 10**9], ids=["disk", "both", "memory"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_score_comes_back_once_and_in_order(monkeypatch, frequent, memory_bytes, dtype, weighted):
    monkeypatch.setattr(sorted_scores, "FREQUENT", frequent)
    monkeypatch.setattr(sorted_scores, "SAMPLE_STEP", 8)
    store = SortedScores(weighted=weighted, dtype=dtype, run_entries=128, memory_bytes=memory_bytes)
    parts = _scores(dtype)
    for part in parts:
        store.add(part, np.arange(part.size, dtype=float) if weighted else None)
    blocks = list(store.descending(cuts([store], block_entries=64)))
    assert len(blocks) > 3
    for higher, lower in itertools.pairwise(blocks):
        assert not higher.values.size or not lower.values.size or higher.values[0] > lower.values[-1]
    values, number = np.unique(np.concatenate(parts), return_counts=True)
    assert np.concatenate([block.values for block in blocks[::-1]]).tolist() == values.tolist()
    assert np.concatenate([block.counts for block in blocks[::-1]]).tolist() == number.tolist()
    assert (store.count, store.lowest, store.highest) == (number.sum(), values[0], values[-1])
    if weighted:
        every = np.concatenate([np.arange(part.size) for part in parts])
        expected = [every[np.concatenate(parts) == value].sum() for value in values]
        found = np.concatenate([block.weights for block in blocks[::-1] if block.weights is not None])
        assert found == pytest.approx(np.array(expected))


def test_given_scores_are_left_as_they_are():
    scores = np.array([0.3, 0.1, 0.2], np.float32)
    store = SortedScores(run_entries=2)
    store.add(scores)
    assert next(store.descending(cuts([store]))).values == pytest.approx([0.1, 0.2, 0.3])
    assert scores == pytest.approx([0.3, 0.1, 0.2])


def test_the_temporary_file_goes_with_the_scores(monkeypatch):
    opened = []
    make = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: opened.append(make()) or opened[-1])
    store = SortedScores(run_entries=4, memory_bytes=0)
    store.add(np.arange(9, dtype=np.float32))
    assert [file.closed for file in opened] == [False]
    del store
    gc.collect()
    assert opened[0].closed
