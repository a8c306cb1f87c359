"""One run for mask, bands, heatmap and any threshold."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import anomalyclip_monai as ac
from anomalyclip_monai.api import Pipeline
from anomalyclip_monai.data.cases import the_case
from anomalyclip_monai.exceptions import AnomalyCLIPError
from anomalyclip_monai.label import results as module
from anomalyclip_monai.label.results import Results
from anomalyclip_monai.options import CaseOptions, ModelOptions

FAST = ModelOptions(fast=True)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = []
    for seed in range(3):
        data = np.random.default_rng(seed).normal(300, 9, (30 + seed, 26, 3)).astype(np.float32)
        found.append(tmp_path / f"case{seed}.nii.gz")
        nib.save(nib.Nifti1Image(data, np.diag([2, 2, 5, 1.0])), found[-1])
    return found


@pytest.fixture
def runs(monkeypatch) -> list[str]:
    """Names of the cases that the network saw."""
    seen: list[str] = []
    score = Pipeline.score

    def counted(self, record, progress=None):
        seen.append(record["case"])
        return score(self, record, progress)

    monkeypatch.setattr(Pipeline, "score", counted)
    return seen


def test_another_threshold_is_no_other_run(paths, runs):
    results, case = Results(), the_case(paths[0])
    loose, strict = CaseOptions(threshold=0.1, min_volume=0), CaseOptions(threshold="0.9")
    first = results.of(case, FAST, loose)
    assert results.of(case, FAST, loose) is first
    assert results.of(case, FAST, strict).threshold.value == 0.9
    assert runs == ["case0"]
    for options, again in ((loose, results.of(case, FAST, loose)), (strict, results.of(case, FAST, strict))):
        assert again == ac.localize(paths[0], fast=True, **options.given())


def test_what_changes_the_heatmap_is_another_run(paths, runs):
    results, case = Results(), the_case(paths[0])
    for options in (CaseOptions(), CaseOptions(preset="mr_body"), CaseOptions(smooth_mm=1)):
        results.of(case, FAST, options)
    assert runs == ["case0"] * 3


def test_a_file_that_was_written_anew_is_another_run(paths, runs):
    results = Results()
    results.of(the_case(paths[0]), FAST, CaseOptions())
    paths[0].write_bytes(paths[1].read_bytes())
    assert results.of(the_case(paths[0]), FAST, CaseOptions()).heatmap.shape[1] == 31
    assert runs == ["case0", "case0"]


def test_few_cases_are_kept(paths, runs):
    results = Results()
    cases = [the_case(path) for path in paths]
    for case in (*cases, cases[2], cases[1], cases[0]):
        results.of(case, FAST, CaseOptions())
    assert len(results._kept) == module.KEPT == 2
    assert runs == ["case0", "case1", "case2", "case0"]


def test_work_behind_keeps_nothing_and_ends_with_the_server(paths, runs):
    results = Results()
    found = results.behind(the_case(paths[0]), FAST, CaseOptions())
    assert found == results.of(the_case(paths[0]), FAST, CaseOptions())
    assert len(runs) == 2
    results.turns.stop()
    with pytest.raises(AnomalyCLIPError, match="E_STOPPED"):
        results.behind(the_case(paths[0]), FAST, CaseOptions())
