"""The example app in a separate process, which a test may kill and restart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[2]


@dataclass
class App:
    """A running app."""

    process: subprocess.Popen[str]
    url: str
    http: httpx.Client

    def kill(self) -> None:
        """Kill the app without cleanup, like a power failure."""
        self.process.kill()
        self.process.wait()


@contextmanager
def app(folder: Path, **variables: str) -> Iterator[App]:
    """Start the app with its data in `folder`, and end it with the block."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MODAL_", "REEL_MODAL_"))
    } | {"REEL_MODAL_TIMINGS": "off", **variables}
    command = [sys.executable, "-m", "examples.fastapi_app", "--folder", str(folder), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        url = _url(process)
        with httpx.Client(base_url=url, timeout=60) as http:
            yield App(process, url, http)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    words = []
    for line in process.stderr:
        words.append(line)
        if (match := re.search(r"running on (http://\S+)", line)) is not None:
            return match[1]
    raise AssertionError("the app does not start: " + "".join(words))


def events(http: httpx.Client, export_id: str) -> Iterator[dict[str, Any]]:
    """Return the updates of an export, as a browser receives them."""
    with http.stream("GET", f"/exports/{export_id}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[len("data: ") :])
