"""The page of the example app in a real browser: mouse, keyboard, phone screen, reload."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Locator, Page, expect
from tests.examples.fastapi_app import App, app

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICTURES = os.environ.get("REEL_MODAL_PICTURES")
"""A folder to put screenshots into, for people who would rather look."""

RECORD = """
window.seen = [];
new MutationObserver((changes) => {
  for (const {target} of changes) if (target.tagName === "PROGRESS") window.seen.push(target.value);
}).observe(document, {subtree: true, attributes: true, attributeFilter: ["value"]});
"""
"""Every value that a bar had in this document."""

TOO_FAINT = """[...document.querySelectorAll("body *")].filter((node) => {
  const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!text || !node.getClientRects().length || ["OPTION", "SCRIPT", "STYLE"].includes(node.tagName)) return false;
  const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  let ground = node;
  while (ground && getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  const [a, b] = [getComputedStyle(node).color, getComputedStyle(ground ?? document.body).backgroundColor].map(light);
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
}).map((node) => node.outerHTML.slice(0, 120))"""
"""Texts with less contrast than WCAG 2.2 AA asks for, 4.5 to 1."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    with app(tmp_path_factory.mktemp("app")) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def page(page: Page, running: App) -> Page:
    await page.add_init_script(RECORD)
    await page.goto(running.url)
    await expect(page.locator("html")).to_have_attribute("data-ready", "true")
    await page.wait_for_function("video.readyState > 1")
    return page


async def click(place: Locator, across: float, down: float) -> None:
    """Click an element at the given fractions of its width and height."""
    box = await place.bounding_box()
    assert box is not None
    await place.click(position={"x": box["width"] * across, "y": box["height"] * down})


async def look(page: Page, name: str) -> None:
    if PICTURES:
        await page.screenshot(path=Path(PICTURES, f"{name}.png"))


async def test_page_click_on_player_makes_reel(page: Page) -> None:
    await page.set_viewport_size({"width": 1200, "height": 900})
    for moment, across in ((0.4, 0.3), (2.0, 0.35)):
        await page.locator("#seek").fill(str(moment))
        await expect(page.locator("#now")).to_have_text(f"{moment:.2f} s")
        await click(page.locator("#marks"), across, 0.55)
    await expect(page.locator("#keys > *")).to_have_text(["0.40 s ✕", "2.00 s ✕"])
    await page.locator("#framing").select_option("9:16")
    await look(page, "marked")
    await page.locator("#start").click()
    percent = page.locator(".export[data-status=processing] .percent")
    await expect(percent).to_have_text(re.compile(r"\d\d %|[6-9] %"))
    await look(page, "rendering")
    await page.reload()
    pair = page.locator(".export[data-status=complete] .pair")
    await expect(pair).to_be_visible()
    progress_values = await page.evaluate("seen")
    assert all(before <= after for before, after in pairwise(progress_values))
    assert (progress_values[0] > 0, progress_values[-1]) == (True, 100)
    for name, width in ((".before", 1280), (".after", 404)):
        await expect(pair.locator(name)).to_have_js_property("videoWidth", width)
        await expect(pair.locator(name)).to_have_js_property("videoHeight", 720)
    await pair.scroll_into_view_if_needed()
    await look(page, "made")


async def test_page_cancelled_export_is_shown(page: Page) -> None:
    await page.locator("#marks").click()
    await page.locator("#start").click()
    export = page.locator(".export").first  # the newest
    await expect(export).to_have_attribute("data-status", "processing")
    await export.locator(".cancel").click()
    await expect(export).to_have_attribute("data-status", "error")
    await expect(export.locator(".message.bad")).to_have_text("Cancelled.")
    await expect(export.locator(".cancel")).to_be_hidden()


async def test_page_fits_phone_and_works_by_keyboard(page: Page) -> None:
    await page.set_viewport_size({"width": 390, "height": 844})
    assert await page.evaluate("document.documentElement.scrollWidth === document.documentElement.clientWidth")
    small = "all => all.filter((one) => one.offsetHeight && one.offsetHeight < 44).length"
    assert await page.locator("button, select, input").evaluate_all(small) == 0
    await page.keyboard.press("Tab")
    await expect(page.locator("#marks")).to_be_focused()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "Enter"):
        await page.keyboard.press(key)
    await expect(page.locator("#keys > *")).to_have_count(1)
    await look(page, "phone")
    reached = [""]
    while reached[-1] != "start":
        assert len(reached) < 20, reached
        await page.keyboard.press("Tab")
        reached.append(await page.evaluate("document.activeElement.id"))
    controls = ["play", "seek", "clip", "upload", "radius", "effect", "framing", "scale", "start"]
    assert [name for name in reached if name] == controls
    await page.keyboard.press("Enter")
    await expect(page.locator("#said")).to_have_text("It is being made, below.")
    assert await page.evaluate(TOO_FAINT) == []
    export = page.locator(".export").first
    await export.locator(".cancel").click()
    await expect(export).to_have_attribute("data-status", "error")
    assert await page.evaluate(TOO_FAINT) == []


async def test_page_refusal_is_shown(page: Page, page_errors: list[str]) -> None:
    status = page.locator("#said")
    await page.locator("#start").click()
    await expect(status).to_have_class("bad")
    await expect(status).to_contain_text("nothing to do")
    await page.locator("#upload").set_input_files({"name": "bad.mp4", "mimeType": "video/mp4", "buffer": b"no video"})
    await expect(status).to_contain_text("cannot be read as a video")
    assert [error for error in page_errors if "422" not in error] == []
    page_errors.clear()
