"""Scores of the work list: kept, forgotten where they no longer hold, found one after the other."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from monai.data import MetaTensor

from anomalyclip_monai.exceptions import CaseError
from anomalyclip_monai.label import worklist
from anomalyclip_monai.label.worklist import Scored, Scorer, Scores, ordered
from anomalyclip_monai.outputs import Result
from anomalyclip_monai.transforms.findings import Findings, Lesion, Threshold


def lesion(volume: float) -> Lesion:
    corner = (0, 0, 0)
    return Lesion(volume, 1, corner, corner, (corner, (1, 1, 1)), corner, corner, peak=1.0, mean=1.0)


def test_a_score_is_told_with_lesions_and_their_volume():
    findings = Findings(
        0.912345, np.ones(2, np.float32), (2,), Threshold(0.5, 0.5, "given"), [lesion(1500.0), lesion(250)]
    )
    result = Result("a", heatmap=MetaTensor(np.zeros((1, 2, 3, 4))), findings=findings)
    scored = Scored.of(result, "stamp")
    assert scored == Scored("stamp", 0.9123, 2, 1.75)
    assert scored.info() == {"anomaly_score": 0.9123, "lesions": 2, "volume_ml": 1.75}
    assert Scored("stamp", error="E_4D: several").info() == {"lesions": 0, "error": "E_4D: several"}


def test_the_most_suspicious_comes_first_and_what_has_no_score_last():
    scores = {"a": None, "b": 0.2, "c": 0.9, "d": 0.2, "e": 0.0}
    assert ordered(scores, scores.get) == ["c", "b", "d", "e", "a"]


def test_scores_are_kept_for_the_same_settings_and_files(tmp_path: Path):
    file = tmp_path / "scores.json"
    Scores(file, {"fast": True}).put("a", Scored("1", 0.5))
    again = Scores(file, {"fast": True})
    assert again.get("a", "1") == Scored("1", 0.5)
    assert again.get("a", "2") is None  # the file has changed
    assert again.get("b", "1") is None
    assert Scores(file, {"fast": False}).get("a", "1") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"settings": 1, "cases": 2}'])
def test_a_file_of_others_has_no_scores(tmp_path: Path, content):
    file = tmp_path / "scores.json"
    file.write_text(content)
    scores = Scores(file, {})
    scores.put("a", Scored("1", 0.5))
    assert list(json.loads(file.read_text())["cases"]) == ["a"]


def test_without_a_file_scores_last_as_long_as_the_server():
    scores = Scores(None, {})
    scores.put("a", Scored("1", 0.5))
    assert scores.get("a", "1") == Scored("1", 0.5)


@pytest.mark.timeout(30)
def test_the_scorer_looks_again_and_survives_a_server_that_does_not_answer(monkeypatch, caplog):
    monkeypatch.setattr(worklist, "PAUSE", 0.01)
    answers = iter([["a", "b"], CaseError("E_DICOMWEB", "no answer"), ValueError("odd"), ["c"]])
    done: list[str] = []

    def pending() -> list[str]:
        answer = next(answers, [])
        if isinstance(answer, Exception):
            raise answer
        return answer

    scorer = Scorer(pending, done.append)
    scorer.start()
    end = time.monotonic() + 10
    while done != ["a", "b", "c"] and time.monotonic() < end:
        time.sleep(0.01)
    scorer.stop()
    scorer.join()
    assert done == ["a", "b", "c"]
    assert "E_DICOMWEB: no answer" in caplog.text
    assert "E_INTERNAL: unexpected ValueError: odd" in caplog.text
