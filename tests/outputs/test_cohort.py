"""A run over many cases: what is there already, who is at it, and the table."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalyclip_monai.data import datalist
from anomalyclip_monai.exceptions import CaseError, OutputError, UsageError
from anomalyclip_monai.folders.case_folder import CaseFolder
from anomalyclip_monai.folders.cohort_table import Row, cell, cohort_text, is_cohort, read_cohort
from anomalyclip_monai.folders.marker import MARKER
from anomalyclip_monai.outputs.cohort import ROOM, Cohort, check_places
from anomalyclip_monai.outputs.dicom_series import write_mr_series

SETTINGS = {"threshold": 0.5}


class FakeResult:
    """Writes the one file that a run looks at."""

    def __init__(self, case: Any, score: float = 0.25) -> None:
        self.name, self.sha256, self.score = case.name, case.read().source.sha256, score

    def scores(self) -> dict[str, Any]:
        lesions = [{"volume_mm3": 1500.0}, {"volume_mm3": 250.0}]
        return {
            "case": self.name,
            "input_sha256": self.sha256,
            "score": self.score,
            "lesions": lesions,
            "physical_size": True,
            "seconds": 2.0,
        }

    def save_in(self, place: CaseFolder, files: Any, *, dicom: bool, **note: Any) -> Path:
        with place.replace(**note) as new:
            (new / "scores.json").write_text(json.dumps(self.scores()))
        return place.folder


def picture(path: Path, grey: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (3, 2), grey).save(path)


def go(out: Path, inputs: Path, settings: Any = SETTINGS, roi: Path | None = None, **options: Any) -> list[str]:
    """Run over all cases; -> what was done with each."""
    done = []
    with Cohort(out, settings, **options) as cohort:
        for record in datalist(inputs, roi):
            try:
                with cohort.turn(record) as turn:
                    if not turn.there:
                        turn.save(FakeResult(record["image"]), dicom=True)  # type: ignore[arg-type]
                done.append(f"{record['case']} {turn.row.state}")
            except CaseError as error:
                done.append(f"{record['case']} {error.code}")
    return done


def table(out: Path) -> list[list[str]]:
    with open(out / "cohort.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_results_are_replaced_and_the_table_has_a_line_a_case(tmp_path: Path) -> None:
    out = tmp_path / "out"
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_text("no picture")
    assert go(out, tmp_path / "in") == ["a done", "b E_PIXELS"]
    assert go(out, tmp_path / "in") == ["a replaced", "b E_PIXELS"]
    header, first, second = table(out)
    assert header == ["case", "state", "score", "ml", "seconds", "error"]
    assert first == ["a", "replaced", "0.250000", "1.750", "2.000", ""]
    assert second[:5] == ["b", "failed", "", "", ""]
    assert second[5].startswith("E_PIXELS: not a readable image")
    assert sorted(path.name for path in out.iterdir()) == ["a", "cohort.csv"]  # no lock, no failed case


def test_rows_of_earlier_runs_are_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for name in "ab":
        picture(tmp_path / name / f"{name}.png")
        go(out, tmp_path / name)
    assert [row[0] for row in table(out)[1:]] == ["a", "b"]


def test_continue_leaves_what_is_of_the_same_input_and_settings(tmp_path: Path) -> None:
    out, inputs = tmp_path / "out", tmp_path / "in"
    for name in "abc":
        picture(inputs / f"{name}.png")
    go(out, inputs)
    picture(inputs / "b.png", 7)
    (out / "c" / "scores.json").unlink()
    assert go(out, inputs, go_on=True) == ["a there already", "b replaced", "c replaced"]
    assert go(out, inputs, go_on=True) == ["a there already", "b there already", "c there already"]
    assert table(out)[1] == ["a", "there already", "0.250000", "1.750", "2.000", ""]
    assert go(out, inputs, {"threshold": 0.6}, go_on=True) == ["a replaced", "b replaced", "c replaced"]


def test_continue_looks_into_masks(tmp_path: Path) -> None:
    out, inputs, masks = tmp_path / "out", tmp_path / "in", tmp_path / "masks"
    picture(inputs / "a.png")
    masks.mkdir()
    (masks / "a.nii").write_text("one")
    assert go(out, inputs, roi=masks) == ["a done"]
    assert go(out, inputs, roi=masks, go_on=True) == ["a there already"]
    (masks / "a.nii").write_text("two")
    assert go(out, inputs, roi=masks, go_on=True) == ["a replaced"]


def test_a_run_with_other_settings_is_refused_one_with_the_same_shares(tmp_path: Path) -> None:
    out, inputs = tmp_path / "out", tmp_path / "in"
    picture(inputs / "a.png")
    picture(inputs / "b.png")
    first, second = datalist(inputs)
    with Cohort(out, SETTINGS) as cohort:
        with pytest.raises(UsageError, match=r"^E_BUSY: a run with other settings is at this folder"):
            go(out, inputs, {"threshold": 0.6})
        with cohort.turn(first) as turn:
            assert go(out, inputs) == ["a E_BUSY", "b done"]
            turn.save(FakeResult(first["image"]), dicom=True)  # type: ignore[arg-type]
        with cohort.turn(second) as turn:
            assert turn.there  # the other has just done it
    assert go(out, inputs, {"threshold": 0.6}) == ["a replaced", "b replaced"]
    assert not (out / ROOM).exists()


def _share(out: Path, inputs: Path) -> None:
    go(out, inputs)


def test_two_processes_share_the_cases_and_the_table(tmp_path: Path) -> None:
    out, inputs = tmp_path / "out", tmp_path / "in"
    for index in range(12):
        picture(inputs / f"{index:02d}.png")
    fork = multiprocessing.get_context("fork")
    runs = [fork.Process(target=_share, args=(out, inputs)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0]
    assert sorted(row[0] for row in table(out)[1:]) == [f"{index:02d}" for index in range(12)]
    assert all((out / f"{index:02d}" / MARKER).is_file() for index in range(12))
    assert [path.name for path in out.rglob(".anomalyclip-*")] == []


def test_a_table_of_others_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "cohort.csv").write_text("name,age\nx,1\n")
    with pytest.raises(UsageError, match=r"^E_WRITE: .*cohort\.csv"):
        go(out, tmp_path)
    assert os.listdir(out) == ["cohort.csv"]


def test_cells_are_one_line_and_no_formula(tmp_path: Path) -> None:
    assert [cell(text) for text in ("=cmd|' /C calc'!A0", "+1", "-1", "@a", "'=a", "a\nb\x1b[1m", "raw\udcff")] == [
        "'=cmd|' /C calc'!A0",
        "'+1",
        "'-1",
        "'@a",
        "''=a",
        "a\\nb\\x1b[1m",
        "raw\\udcff",
    ]
    path = tmp_path / "cohort.csv"
    rows = {name: Row(name, "failed", error='a "quoted", line') for name in ("a,b", "'=c")}
    path.write_text(cohort_text(rows.values()), encoding="utf-8")
    assert is_cohort(path)
    assert read_cohort(path) == rows


# --- where results may go


@pytest.mark.parametrize("out", [".", "study", "study/out", "link", "link/study"])
def test_results_never_go_into_a_dicom_folder(tmp_path: Path, out: str) -> None:
    write_mr_series(tmp_path / "study", np.ones((6, 5, 3), np.float32), np.diag([-1.0, -1, 4, 1]))
    (tmp_path / "link").symlink_to(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"^E_WRITE: the results would lie inside the DICOM folder that is read"):
        check_places(tmp_path / out, datalist(tmp_path / "study"))
    assert sorted(tmp_path.rglob("*")) == before
    check_places(tmp_path / "out", datalist(tmp_path / "study"))


def test_results_beside_a_file_of_the_same_name(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "a.png")
    records = datalist(tmp_path / "a" / "a.png")
    with pytest.raises(UsageError, match="beside the file that is read"):
        check_places(tmp_path, records)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(UsageError, match="beside the file that is read"):
        check_places(link, records)
    check_places(tmp_path / "a", records)
    check_places(tmp_path / "a" / "out", records)


def test_a_case_that_is_in_the_way_of_another_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with Cohort(tmp_path, SETTINGS) as cohort:
        turn = cohort.turn({"case": "a/b", "image": None})
        with pytest.raises(OutputError, match="E_WRITE: cannot write: a file is where a folder should be"):
            turn.__enter__()


@pytest.mark.parametrize("name", ["run.lock", "table.lock", "notes.txt", "1.csv"])
def test_what_others_keep_where_runs_lock_stays(tmp_path: Path, name: str) -> None:
    out, inputs = tmp_path / "out", tmp_path / "in"
    picture(inputs / "a.png")
    (out / ROOM).mkdir(parents=True)
    (out / ROOM / name).write_text("of others")
    if name.endswith(".lock"):
        with pytest.raises(UsageError, match="E_WRITE: a file is there that was not written by this program"):
            go(out, inputs)
    else:
        assert go(out, inputs) == ["a done"]
    assert [(path.name, path.read_text()) for path in (out / ROOM).iterdir()] == [(name, "of others")]


@pytest.mark.parametrize("kind", ["link", "file", "pipe"])
def test_the_place_where_runs_lock_is_a_folder_or_nothing(tmp_path: Path, kind: str) -> None:
    out, inputs, others = tmp_path / "out", tmp_path / "in", tmp_path / "others"
    picture(inputs / "a.png")
    out.mkdir()
    others.mkdir()
    (others / "run.lock").write_text("")
    if kind == "link":
        (out / ROOM).symlink_to(others)
    elif kind == "file":
        (out / ROOM).write_text("of others")
    else:
        os.mkfifo(out / ROOM)
    with pytest.raises(UsageError, match="E_WRITE: a file is there that was not written by this program"):
        go(out, inputs)
    assert (others / "run.lock").is_file()


def test_what_killed_runs_left_where_runs_lock_goes(tmp_path: Path) -> None:
    out, inputs = tmp_path / "out", tmp_path / "in"
    picture(inputs / "a.png")
    (out / ROOM).mkdir(parents=True)
    for name, text in {"run.lock": "0" * 64, "table.lock": "", "12.csv": "case,sta", "13.csv": ""}.items():
        (out / ROOM / name).write_text(text)
    assert go(out, inputs) == ["a done"]
    assert not (out / ROOM).exists()


def test_where_no_folder_can_be_made_no_other_run_is_blamed(tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    picture(inputs / "a.png")
    (tmp_path / "out").symlink_to("nowhere")
    assert go(tmp_path / "out", inputs) == ["a E_WRITE"]
    assert go(Path("/proc/anomalyclip"), inputs) == ["a E_WRITE"]


@pytest.mark.parametrize("more", ["x" * 200_000, "x\0,done,,,,\n", '"x,done,,,,\n', "\udcff,done,,,,\n"])
def test_a_table_that_somebody_changed(tmp_path: Path, more: str) -> None:
    out, inputs = tmp_path / "out", tmp_path / "in"
    picture(inputs / "a.png")
    go(out, inputs)
    with open(out / "cohort.csv", "a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(more)
    assert go(out, inputs) == ["a replaced"]
    assert table(out)[1][:2] == ["a", "replaced"]


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ({"score": "high"}, ["a", "there already", "", "1.750", "2.000", ""]),
        ({"lesions": "x"}, ["a", "there already", "0.250000", "", "2.000", ""]),
        ({"lesions": [1, {"volume_mm3": "x"}]}, ["a", "there already", "0.250000", "", "2.000", ""]),
        ({"seconds": None, "case": "=1"}, ["a", "there already", "0.250000", "1.750", "", ""]),
        ({"score": float("inf")}, ["a", "there already", "", "1.750", "2.000", ""]),
    ],
)
def test_scores_that_somebody_changed_end_no_run(tmp_path: Path, change: dict[str, Any], row: list[str]) -> None:
    out, inputs = tmp_path / "out", tmp_path / "in"
    picture(inputs / "a.png")
    go(out, inputs)
    scores = json.loads((out / "a" / "scores.json").read_text())
    (out / "a" / "scores.json").write_text(json.dumps({**scores, **change}))
    assert go(out, inputs, go_on=True) == ["a there already"]
    assert table(out)[1] == row


def test_whether_dicom_is_written_decides_on_dicom_alone(tmp_path: Path) -> None:
    out, inputs = tmp_path / "out", tmp_path / "in"
    picture(inputs / "a.png")
    go(out, inputs, {"dicom": True})
    assert go(out, inputs, {"dicom": False}, go_on=True) == ["a there already"]
    assert go(out, inputs, {"dicom": False, "threshold": 1}, go_on=True) == ["a replaced"]
