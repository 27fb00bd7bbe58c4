"""The example page in a real browser: the bar only goes forward, also after lost connections and reloads."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import pytest
from examples.progress_page.app import create_app
from playwright.async_api import Page, expect
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send
from tests.jobs import overlay, rendered
from tests.progress.serving import serving

from reel_modal import FunctionRegistry, Job, ProgressEvent, RenderResult, Settings
from reel_modal.errors import InvalidMediaError
from reel_modal.testing import InMemoryBackend, ManualClock, Script, make_clip

pytestmark = pytest.mark.asyncio(loop_scope="module")

RECORD = """
window.seen = [];
document.addEventListener("DOMContentLoaded", () => {
  const bar = document.querySelector("progress");
  window.seen.push(bar.value);
  new MutationObserver(() => window.seen.push(bar.value)).observe(bar, {attributes: true});
});
"""
"""Records every value of the bar in this document."""


@dataclass
class Wire:
    """The app, with a network in between that a test can cut."""

    app: ASGIApp
    streams: list[asyncio.Event] = field(default_factory=list)
    resumed_from: list[str] = field(default_factory=list)
    opened: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].endswith("/progress"):
            await self.app(scope, receive, send)
            return
        cut = asyncio.Event()
        self.streams.append(cut)
        self.resumed_from.append(Request(scope).headers.get("last-event-id", ""))
        async with self.opened:
            self.opened.notify_all()
        answering = asyncio.ensure_future(self.app(scope, receive, send))
        cutting = asyncio.ensure_future(cut.wait())
        await asyncio.wait({answering, cutting}, return_when=asyncio.FIRST_COMPLETED)
        cutting.cancel()
        if cut.is_set():
            answering.cancel()
            await asyncio.wait({answering})
            # Closes the connection without the end of the response, as a lost network connection does.
            return
        await answering

    async def stream(self, number: int) -> None:
        """Return when the browser has requested the stream `number` times."""
        async with self.opened, asyncio.timeout(60):
            await self.opened.wait_for(lambda: len(self.streams) >= number)


@dataclass
class Host:
    """A job on a manual clock, its page, and the connection between them."""

    clock: ManualClock
    job: Job[RenderResult]
    wire: Wire
    url: str

    async def advance(self, seconds: float) -> None:
        """Advance the job's clock and let the server run."""
        await self.clock.advance(seconds)


@asynccontextmanager
async def hosting(**script: object) -> AsyncIterator[Host]:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    events = [ProgressEvent("render", 30 * beat, 600, 2.0 * beat, beat + 1) for beat in range(20)]
    values: dict[str, object] = {"result": rendered, "queue_seconds": 4.0, "seconds": 42.0, "events": events}
    backend.script("render_overlay", Script(**values | script))  # type: ignore[arg-type]
    registry = FunctionRegistry(Settings(), backend=backend, clock=clock)
    job = await registry["render_overlay"].submit(overlay())
    wire = Wire(create_app(registry, overlay))
    async with serving(wire) as port:
        yield Host(clock, job, wire, f"http://127.0.0.1:{port}/jobs/{job.id}")
    await job.cancel()


async def bar(page: Page) -> float:
    return float(await page.locator("progress").evaluate("bar => bar.value"))


async def check_forward(page: Page) -> list[float]:
    seen: list[float] = await page.evaluate("window.seen")
    assert all(later >= earlier for earlier, later in pairwise(seen)), seen
    return seen


async def test_page_bar_survives_lost_connection_and_reload(page: Page, page_errors: list[str]) -> None:
    source = page.locator("#source")
    async with hosting() as host:
        await page.add_init_script(RECORD)
        await page.goto(host.url)
        await host.wire.stream(1)
        await host.advance(2.0)
        await expect(source).to_have_text("estimated")
        await host.advance(12.0)
        await expect(source).to_have_text("150 of 600")
        before = await bar(page)
        assert 10 < before < 50

        host.wire.streams[0].set()
        await host.wire.stream(2)  # the browser reconnects automatically
        assert host.wire.resumed_from[1].startswith(tuple("123456789"))
        await host.advance(8.0)
        await expect(source).to_have_text("270 of 600")
        assert await bar(page) > before
        assert len(await check_forward(page)) > 20
        assert all("Failed to load resource" in error for error in page_errors)
        page_errors.clear()

        before = await bar(page)
        await page.reload()
        await host.wire.stream(3)
        assert await bar(page) >= before  # immediately, before the first event
        await host.advance(8.0)
        await expect(source).to_have_text("390 of 600")

        await host.advance(60.0)
        await expect(page.locator("body")).to_have_attribute("data-status", "complete")
        seen = await check_forward(page)
        assert seen[-1] == 100
        assert [value for value in seen if value == 100] == [100]
        await expect(page.locator("#percent")).to_have_text("100 %")
        # After the end, a reloaded page shows the complete bar and requests the stream once.
        await page.reload()
        await host.wire.stream(4)
        assert await bar(page) == 100
        assert (await host.job.result()).job_id == "job"


async def test_page_stuck_job_shows_message_and_failure_keeps_bar(page: Page) -> None:
    events = [ProgressEvent("render", 30, 600, 2.0, 1)]
    broken = InvalidMediaError("it ends in the middle")
    message = page.locator("#message")
    async with hosting(events=events, seconds=80.0, error=broken) as host:
        await page.add_init_script(RECORD)
        await page.goto(host.url)
        await host.wire.stream(1)
        await host.advance(46.2)
        await expect(message).to_contain_text("no update for 40 s")
        before = await bar(page)
        await host.advance(60.0)
        await expect(page.locator("body")).to_have_attribute("data-status", "error")
        assert before <= await bar(page) < 100
        await expect(message).to_contain_text("cannot be rendered")
        await check_forward(page)


async def test_page_resumed_job_names_its_segment_and_does_not_run_ahead(page: Page) -> None:
    """300 of 600 frames are found in the store; the others take 40 s."""
    counts = [0, *range(300, 601, 15)]
    events = [
        ProgressEvent("render", done, 600, 2.0 * beat, beat + 1, detail=f"segment {min(done // 60 + 1, 10)} of 10")
        for beat, done in enumerate(counts)
    ]
    message = page.locator("#message")
    async with hosting(events=events) as host:
        await page.add_init_script(RECORD)
        await page.goto(host.url)
        await host.wire.stream(1)
        await host.advance(6.5)
        await expect(message).to_have_text("Rendering the video... (segment 6 of 10)")
        assert await bar(page) < 50  # a seventh of the time is over
        await host.advance(20.0)
        await expect(message).to_have_text("Rendering the video... (segment 8 of 10)")
        await host.advance(60.0)
        await expect(page.locator("body")).to_have_attribute("data-status", "complete")
        assert (await check_forward(page))[-1] == 100


async def test_page_unknown_job_shows_a_message(page: Page, page_errors: list[str]) -> None:
    async with hosting() as host:
        await page.goto(host.url.rpartition("/")[0] + "/nonsense")
        await expect(page.locator("#message")).to_have_text("There is no such job.")
    assert all("404" in error for error in page_errors)
    page_errors.clear()


async def test_page_starts_a_real_job_and_shows_its_end(page: Page, tmp_path: Path) -> None:
    await asyncio.to_thread(make_clip, tmp_path / "in.mp4", seconds=4)

    def new_request() -> object:
        number = uuid.uuid4().hex
        return replace(overlay(number), output_key=f"out/{number}.mp4")

    async with FunctionRegistry(Settings(store_url=tmp_path.as_uri())) as registry:
        app = create_app(registry, new_request)  # type: ignore[arg-type]
        async with serving(app) as port:
            await page.add_init_script(RECORD)
            await page.goto(f"http://127.0.0.1:{port}/")
            await page.get_by_role("button", name="Render the clip").click()
            await expect(page.locator("body")).to_have_attribute("data-status", "complete")
            assert (await check_forward(page))[-1] == 100
    (output,) = await asyncio.to_thread(lambda: list((tmp_path / "out").glob("*.mp4")))
    assert output.stat().st_size > 0
