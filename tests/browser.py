"""Fixtures for tests of pages: a headless Chromium, controlled with Playwright.

Playwright is imported only by the fixtures, since the unit tests run without it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str:
    """Return the browser's path; if it is not found, skip the test, or fail it in CI."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        missing = "there is no Chromium here; Debian's is installed by: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for the tests of a file, which need the mark `asyncio(loop_scope="module")`."""
    chromium = find_chromium()
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=100_000)
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=chromium, args=["--disable-gpu"]) as launched,
    ):
        yield launched


@pytest.fixture
def page_errors() -> list[str]:
    """Return the errors that scripts of `page` raised, or that the browser wrote to its console."""
    return []


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, page_errors: list[str]) -> AsyncIterator[Page]:
    """An empty page without cookies or storage; the test fails if `page_errors` is not empty at its end."""
    async with await browser.new_page(viewport={"width": 900, "height": 600}) as opened:
        opened.on("pageerror", lambda error: page_errors.append(str(error)))
        opened.on(
            "console",
            lambda line: page_errors.append(f"{line.text} {line.location}") if line.type == "error" else None,
        )
        yield opened
    assert page_errors == [], page_errors
