"""Progress streams of a real server: they resume, end, and leave no task running."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from tests.progress.serving import serving
from tests.unit.progress.events import Events
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK

from reel_modal.contrib.starlette import progress_events, progress_socket
from reel_modal.errors import ConfigError
from reel_modal.progress import ProgressEvent, ProgressPlan, ProgressUpdate, WorkPhase, progress_of

PLAN = ProgressPlan.weighted(startup_seconds=1, work=[WorkPhase("fetch", 1), WorkPhase("render", 8)])


class Host:
    """An app with one job that the test controls."""

    def __init__(self) -> None:
        self.events = Events()
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._started_at = asyncio.get_running_loop().time()
        self.app = Starlette(
            routes=[Route("/progress", self._stream), WebSocketRoute("/socket", self._socket)],
        )

    def updates(self) -> AsyncIterator[ProgressUpdate]:
        return progress_of(self.events, self.done, started_at=self._started_at, plan=PLAN, interval_seconds=0.02)

    def render(self, done: int) -> None:
        """Report `done` of 100 frames."""
        self.events.send(ProgressEvent("render", done, 100, done / 10, done + 1))

    async def _stream(self, request: Request) -> Response:
        return progress_events(request, self.updates(), retry_seconds=0.25)

    async def _socket(self, websocket: WebSocket) -> None:
        await progress_socket(websocket, self.updates())


@pytest.fixture
async def host() -> Host:
    return Host()


@pytest.fixture
async def server(host: Host) -> AsyncIterator[str]:
    async with serving(host.app) as port:
        yield f"127.0.0.1:{port}"


class Stream:
    """Server-Sent Events as a browser reads them."""

    def __init__(self, server: str, last_id: str | None = None) -> None:
        self._url = f"http://{server}/progress"
        self._headers = {} if last_id is None else {"Last-Event-ID": last_id}
        self.headers = httpx.Headers()
        self.status_code = 0
        self.last_id = ""
        self.retry = ""

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        async with (
            httpx.AsyncClient(timeout=30) as client,
            client.stream("GET", self._url, headers=self._headers) as response,
        ):
            self.status_code, self.headers = response.status_code, response.headers
            async for line in response.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "id":
                    self.last_id = value
                elif field == "retry":
                    self.retry = value
                elif field == "data":
                    yield json.loads(value)

    async def until(self, condition: Any) -> list[dict[str, Any]]:
        """Read until an event meets the condition, then disconnect."""
        seen = []
        async with aclosing(aiter(self)) as events:  # type: ignore[type-var]
            async for event in events:
                seen.append(event)
                if condition(event):
                    break
        return seen


async def first_id(response: httpx.Response) -> str:
    return await anext(line.removeprefix("id: ") async for line in response.aiter_lines() if line.startswith("id: "))


def check_forward(events: list[dict[str, Any]]) -> None:
    assert all(later["sequence"] > earlier["sequence"] for earlier, later in pairwise(events))
    assert all(later["progress_exact"] >= earlier["progress_exact"] for earlier, later in pairwise(events))
    assert all(type(event["progress"]) is int for event in events)


async def test_stream_is_simulated_then_measured_then_complete(host: Host, server: str) -> None:
    stream, seen = Stream(server), list[dict[str, Any]]()
    async for event in stream:
        seen.append(event)
        if event["source"] == "simulated":
            host.render(40)
        elif event["status"] == "processing" and not host.done.done():
            host.done.set_result("reel.mp4")
    check_forward(seen)
    assert (seen[0]["status"], seen[0]["source"]) == ("processing", "simulated")
    assert seen[0]["message"] in {"Sending the video...", "Starting the renderer..."}  # a busy machine may be late
    assert [event["status"] for event in seen[-2:]] == ["processing", "complete"]
    assert (seen[-1]["progress"], seen[-2]["done"], seen[-2]["total"]) == (100, 40, 100)
    assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert stream.headers["cache-control"] == "no-store"
    assert stream.headers["x-accel-buffering"] == "no"
    assert (stream.last_id, stream.retry) == (f"{len(seen)}-100.00-end", "250")


async def test_stream_reconnect_resumes_at_last_event_id(host: Host, server: str) -> None:
    host.render(60)
    first = Stream(server)
    before = await first.until(lambda event: event["sequence"] >= 3)
    await host.events.deserted.wait()
    second = Stream(server, first.last_id)
    after = await second.until(lambda event: event["sequence"] >= 8)
    check_forward(before + after)
    assert after[0]["sequence"] == before[-1]["sequence"] + 1
    host.done.set_result("reel.mp4")
    third = Stream(server, second.last_id)
    rest = await third.until(lambda event: event["status"] == "complete")
    check_forward(before + after + rest)


async def test_stream_after_server_restart_does_not_go_back(host: Host, server: str) -> None:
    stream = Stream(server, "70-88.25")
    seen = await stream.until(lambda event: event["sequence"] >= 74)
    assert [event["sequence"] for event in seen] == [71, 72, 73, 74]
    assert {event["progress_exact"] for event in seen} == {88.25}
    host.done.set_exception(ValueError("secret words of a log"))
    host.done.exception()
    (failed,) = await Stream(server, stream.last_id).until(bool)
    assert (failed["status"], failed["progress"], failed["message"]) == ("error", 88, "The job failed.")


async def test_stream_reconnect_after_the_end_gets_204(host: Host, server: str) -> None:
    host.done.set_result("reel.mp4")
    stream = Stream(server)
    await stream.until(lambda event: event["status"] == "complete")
    reconnected = Stream(server, stream.last_id)
    assert [event async for event in reconnected] == []
    assert reconnected.status_code == 204


async def test_stream_last_event_id_in_query_is_used(host: Host, server: str) -> None:
    async with httpx.AsyncClient(timeout=30) as client:
        url = f"http://{server}/progress?last_event_id="
        async with client.stream("GET", f"{url}7-40.00") as response:
            assert await first_id(response) == "8-40.00"
        # The header that the browser sends is newer than the query.
        async with client.stream("GET", f"{url}7-40.00", headers={"Last-Event-ID": "9-50.00"}) as response:
            assert await first_id(response) == "10-50.00"
        assert (await client.get(f"{url}9-100.00-end")).status_code == 204


@pytest.mark.parametrize(
    "last_id",
    ["", "7", "x-50.00", "7-101.00", "7-50", "-1-50.00", "7-50.00-END", "7-nan", "9" * 13 + "-1.00", "\u0667-50.00"],
)
async def test_stream_invalid_last_event_id_is_ignored(host: Host, server: str, last_id: str) -> None:
    url, raw = f"http://{server}/progress", last_id.encode()
    async with httpx.AsyncClient() as client, client.stream("GET", url, headers={b"Last-Event-ID": raw}) as response:
        assert response.status_code == 200
        lines = response.aiter_lines()
        while not (line := await anext(lines)).startswith("id: "):
            pass
        assert line.startswith("id: 1-")


async def test_stream_100_percent_of_other_job_is_capped_at_99(server: str) -> None:
    seen = await Stream(server, "7-100.00").until(bool)
    assert (seen[0]["status"], seen[0]["progress"]) == ("processing", 99)


async def test_stream_disconnect_ends_only_that_stream(host: Host, server: str) -> None:
    seen = await Stream(server).until(lambda event: event["sequence"] >= 2)
    assert seen
    await host.events.deserted.wait()
    assert not host.done.done()


async def test_stream_many_browsers_each_get_the_end(host: Host, server: str) -> None:
    async def watch() -> list[dict[str, Any]]:
        return [event async for event in Stream(server)]

    watching = [asyncio.ensure_future(watch()) for _ in range(20)]
    for done in range(0, 101, 20):
        host.render(done)
        await Stream(server).until(lambda event, done=done: event.get("done") == done)
    host.done.set_result("reel.mp4")
    for seen in await asyncio.gather(*watching):
        check_forward(seen)
        assert [event["status"] for event in seen].count("complete") == 1
        assert seen[-1]["progress"] == 100


async def test_socket_resumes_and_ends_like_a_stream(host: Host, server: str) -> None:
    seen: list[dict[str, Any]] = []
    async with connect(f"ws://{server}/socket") as socket:
        await socket.send("what a page says is ignored")
        while len(seen) < 3:
            seen.append(json.loads(await socket.recv()))
    await host.events.deserted.wait()
    assert seen[-1]["id"] == f"3-{seen[-1]['progress_exact']:.2f}"
    host.render(50)
    async with connect(f"ws://{server}/socket?last_event_id={seen[-1]['id']}") as socket:
        async for message in socket:
            seen.append(json.loads(message))
            if seen[-1]["source"] == "measured" and not host.done.done():
                host.done.set_result("reel.mp4")
        assert socket.close_code == 1000
    check_forward(seen)
    assert (seen[-1]["status"], seen[-1]["progress"]) == ("complete", 100)
    async with connect(f"ws://{server}/socket?last_event_id={seen[-1]['id']}") as socket:
        with pytest.raises(ConnectionClosedOK):
            await socket.recv()


async def test_socket_lost_connection_is_detected(host: Host, server: str) -> None:
    socket = await connect(f"ws://{server}/socket")
    await socket.recv()
    socket.transport.abort()  # a lost connection sends no close frame
    await host.events.deserted.wait()
    assert not host.done.done()


def test_missing_starlette_names_the_extra() -> None:
    code = "import sys; sys.modules['starlette'] = None; import reel_modal.contrib.starlette"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "MissingDependencyError: starlette cannot be imported" in done.stderr
    assert 'pip install "reel-modal[starlette]"' in done.stderr


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
async def test_stream_invalid_retry_seconds_is_refused(host: Host, seconds: float) -> None:
    with pytest.raises(ConfigError, match="retry_seconds"):
        progress_events(
            Request({"type": "http", "headers": [], "query_string": b""}), host.updates(), retry_seconds=seconds
        )
