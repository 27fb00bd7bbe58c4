"""A headless Chromium for tests of pages, controlled with the DevTools protocol over a WebSocket.

If Chromium is not found, `find_chromium` skips the test, or fails it in CI.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_START_SECONDS = 60
_END_SECONDS = 10
_COMMAND_SECONDS = 60


def find_chromium() -> str:
    """Return the browser's path; if it is not found, skip the test, or fail it in CI."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        missing = "there is no Chromium here; Debian's is installed by: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


class Page:
    """One tab; collects the errors that its scripts raise."""

    def __init__(self, socket: ClientConnection) -> None:
        self.errors: list[str] = []
        self._socket = socket
        self._session: str | None = None
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._reading = asyncio.ensure_future(self._read())

    async def open(self) -> None:
        """Create the tab."""
        target = await self._call("Target.createTarget", url="about:blank")
        attached = await self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime"):
            await self._call(f"{domain}.enable")

    async def at_each_start(self, script: str) -> None:
        """Run `script` in each document before its own scripts."""
        await self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[None]:
        """Wait after the block until a document is loaded, for example after a click on a link."""
        self._loaded.clear()
        yield
        await asyncio.wait_for(self._loaded.wait(), _COMMAND_SECONDS)

    async def go(self, url: str) -> None:
        """Load `url` and wait until it is loaded."""
        async with self.loading():
            answer = await self._call("Page.navigate", url=url)
            assert "errorText" not in answer, answer

    async def reload(self) -> None:
        """Reload the page and wait until it is loaded."""
        async with self.loading():
            await self._call("Page.reload")

    async def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited if it is a promise."""
        answer = await self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a JavaScript condition on the document is true; it is evaluated after each change of the
        document."""
        await self.run(
            f"""new Promise((resolve) => {{
              const look = () => {{ if ({condition}) {{ watch.disconnect(); resolve(true); }} }};
              const watch = new MutationObserver(look);
              watch.observe(document, {{subtree: true, childList: true, attributes: true, characterData: true}});
              look();
            }})"""
        )

    async def resize(self, width_px: int, height_px: int) -> None:
        """Set the size of the screen."""
        await self._call(
            "Emulation.setDeviceMetricsOverride", width=width_px, height=height_px, deviceScaleFactor=1, mobile=False
        )

    async def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        """Scroll to an element and click it at the given fractions of its width and height."""
        x, y = await self.run(
            f"""(() => {{
              const node = document.querySelector({json.dumps(selector)});
              node.scrollIntoView({{block: "center", behavior: "instant"}});
              const box = node.getBoundingClientRect();
              return [box.left + box.width * {across}, box.top + box.height * {down}];
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def press(self, key: str) -> None:
        """Press and release a key, by its DOM name, on the focused element."""
        text = {"text": "\r"} if key == "Enter" else {}
        await self._call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, **text)
        await self._call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    async def screenshot(self, path: Path) -> None:
        """Write a screenshot as PNG."""
        answer = await self._call("Page.captureScreenshot", format="png")
        await asyncio.to_thread(path.write_bytes, base64.b64decode(answer["data"]))

    async def close(self) -> None:
        """Close the browser."""
        self._session = None
        with suppress(Exception):  # it may exit before it responds; if it does not exit, it is killed
            await asyncio.wait_for(self._call("Browser.close"), _END_SECONDS)
        self._reading.cancel()

    async def _call(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        waiting = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps(message))
        answer = await asyncio.wait_for(waiting, _COMMAND_SECONDS)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            waiting = self._answers.pop(message.get("id"), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
            elif message.get("method") == "Page.loadEventFired":
                self._loaded.set()
            elif message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(message["params"]["exceptionDetails"]))


@asynccontextmanager
async def browser_page() -> AsyncIterator[Page]:
    """Yield an empty page of a new browser; fail if a script raised an error."""
    command = [find_chromium(), "--headless=new", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu"]
    command += [
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--mute-audio",
        "--window-size=900,600",
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            *command,
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        draining: asyncio.Future[bytes] | None = None
        try:
            address = await asyncio.wait_for(_address(process), _START_SECONDS)
            assert process.stderr is not None
            draining = asyncio.ensure_future(process.stderr.read())
            async with connect(address, max_size=None) as socket:
                page = Page(socket)
                try:
                    await page.open()
                    yield page
                finally:
                    await page.close()
            assert page.errors == []
        finally:
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _END_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()
            if draining is not None:
                await draining


async def _address(process: asyncio.subprocess.Process) -> str:
    """Return the DevTools address, which the browser prints on stderr."""
    output = b""
    assert process.stderr is not None
    while line := await process.stderr.readline():
        output += line
        if b"DevTools listening on " in line:
            return line.split()[-1].decode()
    raise AssertionError(f"Chromium did not start: {output.decode(errors='replace')}")
