"""The page of the example app in a real browser: mouse, keyboard, phone screen, reload."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.browser import Page, browser_page
from tests.examples.fastapi_app import App, app

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


@pytest.fixture
async def page(running: App) -> AsyncIterator[Page]:
    async with browser_page() as opened:
        await opened.at_each_start(RECORD)
        await opened.go(running.url)
        await ready(opened)
        yield opened


async def ready(page: Page) -> None:
    await page.until("document.documentElement.dataset.ready")
    await page.run(
        "new Promise((resolve) => video.readyState > 1 ? resolve() : video.addEventListener('loadeddata', resolve))"
    )


async def seek(page: Page, seconds: float) -> None:
    """Move to a time in the clip with the slider."""
    await page.run(
        f"""new Promise((resolve) => {{
          video.addEventListener("seeked", resolve, {{once: true}});
          seek.value = {seconds}; seek.dispatchEvent(new Event("input"));
        }})"""
    )


async def look(page: Page, name: str) -> None:
    if PICTURES:
        await page.screenshot(Path(PICTURES, f"{name}.png"))


async def test_page_click_on_player_makes_reel(page: Page) -> None:
    await page.resize(1200, 900)
    for moment, across in ((0.4, 0.3), (2.0, 0.35)):
        await seek(page, moment)
        await page.click("#marks", across, 0.55)
    assert await page.run("[...keys.children].map((item) => item.textContent)") == ["0.40 s ✕", "2.00 s ✕"]
    await page.run("framing.value = '9:16'")
    await look(page, "marked")
    await page.click("#start")
    await page.until("document.querySelector('.export[data-status=processing] progress')?.value > 5")
    await look(page, "rendering")
    await page.reload()
    await page.until("document.querySelector('.export[data-status=complete] .pair:not([hidden])')")
    progress_values = await page.run("seen")
    assert all(before <= after for before, after in pairwise(progress_values))
    assert (progress_values[0] > 0, progress_values[-1]) == (True, 100)
    sizes = await page.run(
        """Promise.all([...document.querySelectorAll(".pair video")].map((one) => new Promise((resolve, refuse) => {
          const told = () => resolve([one.videoWidth, one.videoHeight]);
          one.onerror = () => refuse(new Error(one.error.message));
          one.readyState > 1 ? told() : one.addEventListener("loadeddata", told);
        })))"""
    )
    assert sizes == [[1280, 720], [404, 720]]
    await page.run("document.querySelector('.pair').scrollIntoView()")
    await look(page, "made")


async def test_page_cancelled_export_is_shown(page: Page) -> None:
    await page.click("#marks")
    await page.click("#start")
    await page.until("document.querySelector('.export[data-status=processing]')")
    await page.click(".export .cancel")
    await page.until("document.querySelector('.export[data-status=error] .message.bad')")
    assert await page.run("document.querySelector('.export .message').textContent") == "Cancelled."
    assert await page.run("document.querySelector('.export .cancel').hidden")


async def test_page_fits_phone_and_works_by_keyboard(page: Page) -> None:
    await page.resize(390, 844)
    assert await page.run("document.documentElement.scrollWidth === document.documentElement.clientWidth")
    small = "[...document.querySelectorAll('button, select, input')].filter((one) => one.offsetHeight && one.offsetHeight < 44).length"
    assert await page.run(small) == 0
    await page.run("document.body.focus()")
    await page.press("Tab")
    assert await page.run("document.activeElement.id") == "marks"
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "Enter"):
        await page.press(key)
    assert await page.run("keys.children.length") == 1
    await look(page, "phone")
    reached = [""]
    while reached[-1] != "start":
        assert len(reached) < 20, reached
        await page.press("Tab")
        reached.append(await page.run("document.activeElement.id"))
    controls = ["play", "seek", "clip", "upload", "radius", "effect", "framing", "scale", "start"]
    assert [name for name in reached if name] == controls
    await page.press("Enter")
    await page.until("said.textContent && document.querySelector('.export')")
    assert await page.run(TOO_FAINT) == []
    await page.click(".export .cancel")
    await page.until("document.querySelector('.export[data-status=error]')")
    assert await page.run(TOO_FAINT) == []


async def test_page_refusal_is_shown(page: Page) -> None:
    await page.click("#start")
    await page.until("said.className === 'bad'")
    assert "nothing to do" in await page.run("said.textContent")
    await page.run(
        """(() => {
          const files = new DataTransfer();
          files.items.add(new File(["no video"], "bad.mp4"));
          upload.files = files.files; upload.dispatchEvent(new Event("change"));
        })()"""
    )
    await page.until("said.textContent.includes('cannot be read as a video')")
