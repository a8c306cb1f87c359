from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import Page, browser, chromium


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A tab of Chromium without a graphics card, 1280 x 900."""
    if (path := chromium()) is None:
        pytest.skip("Chromium is not installed")
    with browser(path) as opened:
        opened.resize(1280, 900)
        yield opened


@pytest.fixture
def page_without_webgl() -> Iterator[Page]:
    """The same in a browser that cannot draw volumes."""
    if (path := chromium()) is None:
        pytest.skip("Chromium is not installed")
    with browser(path, "--disable-3d-apis") as opened:
        yield opened
