"""The page over all cases of an output folder."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from made_result import PHOTO, blob, made_result
from PIL import Image

from anomalyclip_monai import cli
from anomalyclip_monai.exceptions import NoInputError, UsageError
from anomalyclip_monai.folders.cohort_table import Row, cohort_text
from anomalyclip_monai.outputs.report.all_sets import check_all_sets_folder
from anomalyclip_monai.outputs.report.index import find_entries, write_index

NAMES = ("b 'quoted' <i>", "sub/a&b", "=c#1?x")


def fill(out: Path) -> None:
    """Three photos with rising scores, the first with a report, and a case that failed."""
    for index, name in enumerate(NAMES):
        heatmap = blob((30, 20, 1), (9, 5, 0), 0.5 + 0.2 * index, 3)
        result = made_result(heatmap, np.diag([-1.0, -1, 1, 1]), case=name, source=PHOTO)
        result.save(out, report=index == 0)
    rows = [Row("'=c#1?x", "done", "0.900000"), Row("d", "failed", error="E_PIXELS: <b>broken</b> (d.png) - copy it")]
    (out / "cohort.csv").write_text(cohort_text(rows))


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.tags: set[str] = set()
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("href", "src") and value:
                (self.links if tag == "a" else self.pictures).append(unquote(value))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_highest_score_comes_first_and_failures_last(tmp_path: Path) -> None:
    fill(tmp_path)
    entries = find_entries(tmp_path)
    assert [entry.name for entry in entries] == [*reversed(NAMES), "d"]
    assert [entry.score for entry in entries] == [0.9, 0.7, 0.5, None]
    assert [entry.lesions for entry in entries] == [1, 1, 0, 0]
    assert [entry.report for entry in entries] == [False, False, True, False]
    assert entries[-1].error.startswith("E_PIXELS")


def test_links_lead_to_files_whatever_they_are_called(tmp_path: Path) -> None:
    fill(tmp_path)
    path, _ = write_index(tmp_path)
    page = Links(path.read_text())
    assert page.links == [f"{NAMES[2]}/preview.png", f"{NAMES[1]}/preview.png", f"{NAMES[0]}/report.html"]
    assert page.pictures == [f"{name}/preview.png" for name in reversed(NAMES)]
    assert all((tmp_path / link).is_file() for link in page.links + page.pictures)
    assert not page.tags & {"i", "b", "link", "iframe"}
    assert "4 cases, 1 failed" in page.words
    assert "E_PIXELS: <b>broken</b> (d.png) - copy it" in page.words


def test_a_case_that_failed_again_keeps_its_earlier_results(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "cohort.csv").write_text(cohort_text([Row("sub/a&b", "failed", error="E_READ: gone")]))
    write_index(tmp_path)
    words = Links((tmp_path / "index.html").read_text()).words
    assert "E_READ: gone (results of an earlier run)" in words


def test_a_page_of_others_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "index.html").write_text("<!DOCTYPE html> of others")
    with pytest.raises(UsageError, match=r"^E_WRITE: a file is there that was not written by this program"):
        write_index(tmp_path)
    assert (tmp_path / "index.html").read_text() == "<!DOCTYPE html> of others"
    (tmp_path / "index.html").unlink()
    write_index(tmp_path)
    write_index(tmp_path)  # ours is replaced
    check_all_sets_folder(tmp_path / "nothing")


def test_where_there_is_nothing_a_line_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NoInputError, match="E_NOT_FOUND"):
        write_index(tmp_path)
    assert cli.main(["report", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("E_NOT_FOUND: no results of localize are there")
    assert list(tmp_path.iterdir()) == []


def test_the_command_names_cases_without_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path)
    assert cli.main(["report", str(tmp_path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"4 cases -> {tmp_path / 'index.html'}"
    assert said[1].startswith("  2 cases without report.html: their images are in the input alone; localize INPUT")


def test_localize_writes_pages_and_adds_them_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    for name in "ab":
        Image.new("L", (40, 30), ord(name)).save(inputs / f"{name}.png")
    (inputs / "c.png").write_text("no picture")
    asked = ["localize", str(inputs), "-o", str(out), "--fast", "--no-mirror"]
    assert cli.main(asked) == 1
    assert not (out / "index.html").exists()
    written = (out / "a" / "heatmap.nii.gz").stat().st_mtime_ns
    capsys.readouterr()
    assert cli.main([*asked, "--continue", "--report"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == [f"a: there already -> {out / 'a'}", "  report.html added"]
    assert said[-1] == f"3 cases -> {out / 'index.html'}"
    assert (out / "a" / "heatmap.nii.gz").stat().st_mtime_ns == written  # not scored again
    assert [entry.report for entry in find_entries(out)] == [True, True, False]
    assert cli.main([*asked, "--continue", "--report", "-q"]) == 1
    (out / "index.html").write_text("of others")
    assert cli.main([*asked, "--report"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("E_WRITE: a file is there")


def test_a_single_case_needs_no_page_over_all(tmp_path: Path) -> None:
    Image.new("L", (40, 30), 90).save(tmp_path / "a.png")
    out = tmp_path / "out"
    assert cli.main(["localize", str(tmp_path / "a.png"), "-o", str(out), "--fast", "-q", "--report"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a", "cohort.csv"]
    assert (out / "a" / "report.html").is_file()
