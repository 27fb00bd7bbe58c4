"""Jobs in local worker processes, and the check that they leave nothing."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.clips import made_clip
from tests.processes import children, command, family

from reel_modal import FunctionRegistry, Job, OverlayRequest, RemoteFunction, RenderResult, Settings
from reel_modal.backends.local import LocalBackend

PROMPT_SECONDS = 8.0
"""Limit for the report of a crash, or a cancellation between two frames, on a busy machine; force comes later."""

SLOW = "veryslow"
"""x264's preset that makes seconds of work out of a short clip."""

STUBBORN = """
subprocess.Popen(['sleep', '600'])
with context.reporter.phase('render'):
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass
"""
"""A body that ignores its cancellation and has a child process."""

Render = RemoteFunction[[OverlayRequest], RenderResult]
UseBody = Callable[[str], None]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary directory."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The store, with a clip of 500 frames."""
    folder = tmp_path / "store"
    folder.mkdir()
    made_clip(folder / "in.mp4", seconds=20)
    return folder


@pytest.fixture
def backend(store: Path) -> LocalBackend:
    return LocalBackend(Settings(store_url=store.as_uri()))


@pytest.fixture
def render(backend: LocalBackend) -> Render:
    return FunctionRegistry(Settings(), backend=backend)["render_overlay"]


@pytest.fixture(autouse=True)
def check_processes() -> Iterator[None]:
    """Fail a test that leaves a process."""
    before = children()
    yield
    assert children() == before


@pytest.fixture(autouse=True)
def check_leftovers(scratch: Path, store: Path) -> Iterator[None]:
    """Fail a test that leaves a process, a thread, a temporary file or a partial output."""
    before = children()
    yield
    assert children() == before
    assert list(scratch.iterdir()) == []
    assert list(store.rglob(".*")) == []
    for thread in threading.enumerate():
        if thread.name.startswith("reel_modal-") and thread.name != "reel_modal-loop":
            thread.join(10)
            assert not thread.is_alive(), thread.name


@pytest.fixture
def use_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UseBody:
    """Make the workers run a text as the body of render_overlay, for behavior that no real body has on demand."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)

    def use(text: str) -> None:
        lines = "".join(f"        {line}\n" for line in text.strip().splitlines())
        (folder / "sitecustomize.py").write_text(
            "import os, signal, subprocess, sys, time\n"
            "if 'reel_modal.functions.worker' in sys.orig_argv:\n"
            "    from reel_modal.functions import render_overlay\n"
            "    class Unknown(Exception):\n"
            "        pass\n"
            "    def body(request, context):\n"
            f"{lines}"
            "    render_overlay.run = body\n"
        )

    return use


async def until(job: Job[RenderResult], phase: str) -> None:
    """Wait until the job reports `phase`; if it counts frames, until it has written some."""
    async for event in job.events():
        if event.phase == phase and (event.done or not event.total):
            return
    raise AssertionError(f"the job has ended without {phase}")


def worker() -> int:
    """Return the id of the only running worker."""
    (pid,) = (pid for pid in children() if "reel_modal.functions.worker" in command(pid))
    return pid


def ffmpeg_of(pid: int) -> int:
    (ffmpeg_pid,) = (child for child in family(pid) if "ffmpeg" in command(child))
    return ffmpeg_pid
