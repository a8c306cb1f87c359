"""The page over all cases in a real browser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chromium import Page
from made_result import PHOTO, blob, made_result

from anomalyclip_monai.folders.cohort_table import Row, cohort_text
from anomalyclip_monai.outputs.report.index import write_index

pytestmark = pytest.mark.browser

SHOWN = (
    "[...document.querySelectorAll('tbody tr')].filter(row => row.offsetHeight)"
    ".map(row => row.cells[0].innerText.trim())"
)


@pytest.fixture
def index(tmp_path: Path) -> Path:
    for name, peak in (("calm", 0.2), ("a/odd#1 %", 0.9), ("mild", 0.6)):
        result = made_result(blob((31, 21, 1), (9, 5, 0), peak, 3), np.diag([-1.0, -1, 1, 1]), case=name, source=PHOTO)
        result.save(tmp_path, report=True)
    (tmp_path / "cohort.csv").write_text(cohort_text([Row("bad", "failed", error="E_PIXELS: broken")]))
    return write_index(tmp_path)[0]


def test_it_sorts_and_filters_and_leads_to_the_cases(page: Page, index: Path) -> None:
    page.open(index)
    assert page.evaluate(SHOWN) == ["a/odd#1 %", "mild", "calm", "bad"]
    page.wait("[...document.images].every(image => image.complete && image.naturalWidth > 100)")
    page.click("thead th:nth-child(2)")
    assert page.evaluate(SHOWN) == ["calm", "mild", "a/odd#1 %", "bad"]  # no score: always last
    for field, value, shown in (("from", 0.5, ["mild", "a/odd#1 %"]), ("filter", "MIL", ["mild"])):
        page.evaluate(f"(box => {{box.value = '{value}'; box.dispatchEvent(new Event('input'))}})(field('{field}'))")
        assert page.evaluate(SHOWN) == shown
    assert page.evaluate("field('count').textContent") == "1 of 4 shown"
    page.evaluate("for (const name of ['from', 'filter']) field(name).value = ''")
    page.click("#failed")
    assert page.evaluate(SHOWN) == ["bad"]
    assert (page.requests, page.problems) == ([], [])
    page.click("#failed")
    page.click("a[href*='odd']")
    page.wait("window.report !== undefined")
    assert page.evaluate("window.report.ready") is True
    assert page.evaluate("document.querySelector('h1').textContent") == "a/odd#1 %"


def test_a_phone_scrolls_down_only(page: Page, index: Path) -> None:
    page.resize(390, 844)
    try:
        page.open(index)
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate(SHOWN) == ["a/odd#1 %", "mild", "calm", "bad"]
    finally:
        page.resize(1280, 900)
