"""Local worker processes: however one ends, nothing remains; its errors, output and imports."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from tests.clips import Clips
from tests.integration.local_jobs import (
    PROMPT_SECONDS,
    SLOW,
    Render,
    UseBody,
    backend,
    check_leftovers,
    ffmpeg_of,
    render,
    scratch,
    store,
    until,
    use_body,
    worker,
)
from tests.jobs import overlay
from tests.processes import await_end, family

from reel_modal.errors import FFmpegError, FunctionError, WorkerCrashedError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

__all__ = ["backend", "check_leftovers", "render", "scratch", "store", "use_body"]


async def test_worker_killed_is_reported_immediately_with_signal(store: Path, render: Render) -> None:
    job = await render.submit(overlay(preset=SLOW))
    await until(job, "render")
    killed = worker()
    remaining = family(killed)
    assert ffmpeg_of(killed) in remaining
    started_at = time.monotonic()
    os.kill(killed, signal.SIGKILL)
    with pytest.raises(WorkerCrashedError, match=r"ended by SIGKILL, .* out of memory"):
        await job.result()
    assert time.monotonic() - started_at < PROMPT_SECONDS
    await_end(remaining, PROMPT_SECONDS)
    assert await job.status() == "failed"
    assert not (store / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("phase", ["fetch", "render"])
async def test_worker_ended_by_signal_leaves_nothing(
    store: Path, scratch: Path, render: Render, number: signal.Signals, phase: str
) -> None:
    job = await render.submit(overlay(preset=SLOW))
    await until(job, phase)
    pid = worker()
    remaining = {pid, *family(pid)}
    started_at = time.monotonic()
    os.kill(pid, number)
    with pytest.raises(WorkerCrashedError, match=f"ended by {number.name}") as caught:
        await job.result()
    assert caught.value.retryable
    assert time.monotonic() - started_at < 2 + PROMPT_SECONDS
    await_end(remaining, PROMPT_SECONDS)
    assert not (store / "out").exists()


async def test_worker_signal_in_blocking_call_interrupts_it(render: Render, use_body: UseBody) -> None:
    use_body("with context.reporter.phase('render'):\n    time.sleep(600)")
    job = await render.submit(overlay())
    await until(job, "render")
    os.kill(worker(), signal.SIGTERM)
    with pytest.raises(WorkerCrashedError, match="ended by SIGTERM"):
        await job.result(timeout_seconds=2 + PROMPT_SECONDS)


async def test_worker_killed_without_waitid_is_reported(
    render: Render, use_body: UseBody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "waitid")  # as on macOS
    use_body("subprocess.Popen(['sleep', '600']); os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(WorkerCrashedError, match="ended by SIGKILL"):
        await render(overlay())


async def test_worker_ffmpeg_killed_fails_function(store: Path, render: Render) -> None:
    job = await render.submit(overlay(preset=SLOW))
    await until(job, "render")
    os.kill(ffmpeg_of(worker()), signal.SIGKILL)
    with pytest.raises(FunctionError, match="SIGKILL") as caught:
        await job.result()
    assert isinstance(caught.value.__cause__, FFmpegError)
    assert caught.value.retryable
    assert not (store / "out").exists()


@pytest.mark.parametrize(
    ("text", "retryable"),
    [
        ("from reel_modal.errors import StorageUnavailableError as E; raise E('the store does not answer')", True),
        ("from reel_modal.errors import FFmpegStalledError as E; raise E('no data moved')", True),
        ("raise OSError(28, 'No space left on device')", True),
        # The host cannot reconstruct this one.
        ("error = OSError(28, 'No space left on device'); error.made_by = lambda: 0; raise error", True),
        ("from reel_modal.errors import OutputMismatchError as E; raise E('another number of frames')", False),
        ("raise ZeroDivisionError('division by zero')", False),
    ],
)
async def test_worker_error_of_body_keeps_retryable(
    render: Render, use_body: UseBody, text: str, retryable: bool
) -> None:
    use_body(text)
    with pytest.raises(FunctionError) as caught:
        await render(overlay())
    assert caught.value.retryable is retryable


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("print('what went wrong', file=sys.stderr); os._exit(3)", "status 3 and no result\n.*\n    what went wrong"),
        ("sys.exit('no reason')", "status 1 and no result\n.*\n    no reason"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 1)", r"ended by (signal \d+|SIGRT)"),
    ],
)
async def test_worker_crash_error_has_cause_and_stderr(
    render: Render, use_body: UseBody, text: str, said: str
) -> None:
    use_body(text)
    with pytest.raises(WorkerCrashedError) as caught:
        await render(overlay())
    assert re.search(said, str(caught.value), re.DOTALL)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise ZeroDivisionError('division by zero')", "ZeroDivisionError: division by zero"),
        # Python cannot pickle the first, nor unpickle the second; the host does not have the class of the third.
        ("error = ValueError('a lambda'); error.made_by = lambda: 0; raise error", "ValueError: a lambda"),
        (
            "import urllib.error; raise urllib.error.ContentTooShortError('too short', b'')",
            "<urlopen error too short>",
        ),
        ("raise Unknown('to the host')", "Unknown: to the host"),
    ],
)
async def test_worker_any_error_of_body_keeps_its_message(
    render: Render, use_body: UseBody, text: str, said: str
) -> None:
    use_body(text)
    with pytest.raises(FunctionError, match=f"{said}$"):
        await render(overlay())


async def test_worker_that_does_not_start_raises(
    render: Render, clips: Clips, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(WorkerCrashedError, match="could not be run: FileNotFoundError"):
            await render(overlay())
    (store / "in.mp4").write_bytes(clips.get("25.mp4").read_bytes())
    assert (await render(overlay())).frames == 25


async def test_worker_prints_of_body_do_not_corrupt_messages(render: Render, use_body: UseBody) -> None:
    use_body("""
from reel_modal.schema import RenderResult
from tests.jobs import rendered
for name in ("fetch", "render"):
    with context.reporter.phase(name):
        print("a library prints" * 10_000)
        os.write(1, b"and another writes")
        subprocess.run(["echo", "and a child echoes"])
        sys.stdout.flush()
return RenderResult.parse(rendered(request.to_dict()))
""")
    job = await render.submit(overlay("mine"))
    assert [event.phase async for event in job.events()] == ["fetch", "fetch", "render", "render"]
    assert (await job.result()).job_id == "mine"


async def test_worker_ignores_modules_in_current_folder(
    render: Render, clips: Clips, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "in.mp4").write_bytes(clips.get("25.mp4").read_bytes())
    (tmp_path / "pickle.py").write_text("raise RuntimeError('this is a script of somebody')")
    monkeypatch.chdir(tmp_path)
    assert (await render(overlay())).frames == 25


async def test_worker_has_import_path_of_host(
    render: Render, use_body: UseBody, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_body("import helper_of_the_host; helper_of_the_host.refuse()")
    (tmp_path / "helper_of_the_host.py").write_text("def refuse(): raise LookupError('found')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    with pytest.raises(FunctionError, match="LookupError: found"):
        await render(overlay())
