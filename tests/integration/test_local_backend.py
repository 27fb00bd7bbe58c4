"""Local worker processes: however a job ends, nothing remains."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.clips import Clips, made_clip
from tests.jobs import overlay
from tests.processes import await_end, children, command, family
from tests.watchdog import with_variable

from reel_modal import FunctionRegistry, Job, OverlayRequest, RemoteFunction, RenderResult, Settings
from reel_modal.backends import local
from reel_modal.backends.local import LocalBackend
from reel_modal.errors import (
    ConfigError,
    FFmpegError,
    FunctionError,
    JobCancelledError,
    JobNotFoundError,
    MisconfiguredError,
    NotDeployedError,
    WorkerCrashedError,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

PROMPT_SECONDS = 8.0
"""What the news of a crash, or a cancellation between two frames, may take on a busy machine; force comes later."""

SLOW = "veryslow"
"""x264's preset that makes seconds of work out of a short clip."""

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
            "if 'reel_modal.backends.worker' in sys.orig_argv:\n"
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
    (pid,) = (pid for pid in children() if "reel_modal.backends.worker" in command(pid))
    return pid


def ffmpeg_of(pid: int) -> int:
    (ffmpeg_pid,) = (child for child in family(pid) if "ffmpeg" in command(child))
    return ffmpeg_pid


# Ends of a job.


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
        ("print('what went wrong', file=sys.stderr); os._exit(3)", "status 3 and no result.*\nwhat went wrong"),
        ("sys.exit('no reason')", "status 1 and no result.*\nno reason"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 1)", r"ended by (signal \d+|SIGRT)"),
    ],
)
async def test_worker_crash_error_has_cause_and_stderr(
    render: Render, use_body: UseBody, text: str, said: str
) -> None:
    use_body(text)
    with pytest.raises(WorkerCrashedError, match=said):
        await render(overlay())


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


# Cancellation.


async def test_cancel_body_in_blocking_call_is_interrupted(render: Render, use_body: UseBody, store: Path) -> None:
    use_body("with context.reporter.phase('render'):\n    time.sleep(600)")
    job = await render.submit(overlay())
    await until(job, "render")
    started_at = time.monotonic()
    await job.cancel()
    # The two seconds are for bodies that check for cancellation between two frames.
    assert time.monotonic() - started_at < 2 + PROMPT_SECONDS
    with pytest.raises(JobCancelledError):
        await job.result()


async def test_cancel_body_ignoring_it_is_killed(
    render: Render, use_body: UseBody, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_body(STUBBORN)
    monkeypatch.setattr(local, "_FORCE_SECONDS", 0.3)
    job = await render.submit(overlay())
    await until(job, "render")
    remaining = family(worker())
    assert remaining
    await job.cancel()
    with pytest.raises(JobCancelledError):
        await job.result()
    await_end(remaining, PROMPT_SECONDS)


STUBBORN = """
subprocess.Popen(['sleep', '600'])
with context.reporter.phase('render'):
    while True:
        try:
            time.sleep(600)
        except KeyboardInterrupt:
            pass
"""


async def test_cancel_before_worker_reads_does_not_block(
    backend: LocalBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The task exceeds the capacity of the pipe and is not read, so closing the pipe would wait forever.
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(600)")
    monkeypatch.syspath_prepend(tmp_path)
    call_id = await backend.submit("render_overlay", ({"regions": "x" * 1_000_000},), {})
    await asyncio.to_thread(_await_child)
    started_at = time.monotonic()
    await backend.cancel(call_id)
    assert time.monotonic() - started_at < PROMPT_SECONDS
    with pytest.raises(JobCancelledError):
        await backend.wait(call_id, 0)


def _await_child() -> None:
    deadline = time.monotonic() + 10
    while not any("reel_modal.backends.worker" in command(pid) for pid in children()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_cancel_queued_job_starts_no_worker(store: Path) -> None:
    backend = LocalBackend(Settings(store_url=store.as_uri()), max_workers=1)
    async with FunctionRegistry(Settings(), backend=backend) as registry:
        first, second, third = [
            await registry["render_overlay"].submit(overlay(f"job-{index}", preset=SLOW)) for index in range(3)
        ]
        await until(first, "render")
        await second.cancel()
        with pytest.raises(JobCancelledError, match="before it started"):
            await second.result()
        assert [event async for event in second.events()] == []
        assert [await job.status() for job in (first, second, third)] == ["running", "cancelled", "queued"]
        await first.cancel()
        await until(third, "fetch")


async def test_close_ends_running_jobs_and_starts_no_queued(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []
    start = local._start_worker

    def counted() -> subprocess.Popen[bytes]:
        process = start()
        started.append(process.pid)
        return process

    monkeypatch.setattr(local, "_start_worker", counted)
    backend = LocalBackend(Settings(store_url=store.as_uri()), max_workers=1)
    async with FunctionRegistry(Settings(), backend=backend) as registry:
        jobs = [await registry["render_overlay"].submit(overlay(f"job-{index}", preset=SLOW)) for index in range(4)]
        await until(jobs[0], "render")
    assert [await job.status() for job in jobs] == ["cancelled"] * 4
    assert len(started) == 1


# The end of the host.

HOST = """
import asyncio
from reel_modal import FunctionRegistry
from tests.jobs import overlay

async def main():
    job = await FunctionRegistry.from_env()["render_overlay"].submit(overlay("orphan", preset="veryslow"))
    print("submitted", flush=True)
    async for event in job.events():
        print(event.phase, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("moment", "text", "seconds"),
    [
        ("submitted", None, PROMPT_SECONDS),
        ("fetch", None, PROMPT_SECONDS),
        ("render", None, PROMPT_SECONDS),
        ("render", "with context.reporter.phase('render'):\n    time.sleep(600)", 2 + PROMPT_SECONDS),
        ("render", STUBBORN, 8 + PROMPT_SECONDS),
    ],
    ids=["submitted", "fetch", "render", "blocked", "stubborn"],
)
def test_host_killed_ends_its_jobs(
    store: Path, scratch: Path, use_body: UseBody, moment: str, text: str | None, seconds: float
) -> None:
    if text is not None:
        use_body(text)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])]),
        "REEL_MODAL_STORE_URL": store.as_uri(),
    }
    with subprocess.Popen([sys.executable, "-c", HOST], env=environment, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert moment in iter(lambda: host.stdout.readline().strip(), "")  # type: ignore[union-attr]
        host.kill()
    # The temporary directory identifies its processes, whatever their parent is now.
    while remaining := with_variable("TMPDIR", str(scratch)):
        await_end(remaining, seconds)
    assert list(scratch.iterdir()) == []
    assert not (store / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_to_host_worker_and_ffmpeg_leaves_nothing(store: Path, scratch: Path, number: signal.Signals) -> None:
    """systemd ends a service in this way: each process gets the signal, and the host does not clean up."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])]),
        "REEL_MODAL_STORE_URL": store.as_uri(),
    }
    with subprocess.Popen([sys.executable, "-c", HOST], env=environment, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout is not None
        assert "render" in iter(lambda: host.stdout.readline().strip(), "")  # type: ignore[union-attr]
        for pid in (*family(host.pid), host.pid):
            os.kill(pid, number)
    while remaining := with_variable("TMPDIR", str(scratch)):
        await_end(remaining, 2 + PROMPT_SECONDS)
    assert list(scratch.iterdir()) == []
    assert not (store / "out").exists()


FORKING_HOST = """
import os, time
from reel_modal import FunctionRegistry, run_sync
from reel_modal.errors import JobCancelledError, JobNotFoundError
from tests.jobs import overlay

registry = FunctionRegistry.from_env()
render = registry["render_overlay"]

async def until_it_renders(job):
    async for event in job.events():
        if event.phase == "render":
            return

job = run_sync(render.submit(overlay("parent", preset="veryslow")))
run_sync(until_it_renders(job))
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.close(writing)
    try:
        run_sync(job.result())
    except JobNotFoundError:
        print("the child does not know the parent's job", flush=True)
    print("the child renders", run_sync(render(overlay("child"))).frames, flush=True)
    os.read(reading, 1)
    os._exit(0)
begun = time.monotonic()
run_sync(job.cancel())
seconds = time.monotonic() - begun
try:
    run_sync(job.result())
except JobCancelledError:
    print("cancelled at once" if seconds < 8 else f"cancelled after {seconds} s", flush=True)
os.close(writing)
os.waitpid(child, 0)
"""


def test_forked_child_has_no_jobs_and_does_not_interfere(store: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[2])]),
        "REEL_MODAL_STORE_URL": store.as_uri(),
    }
    command = [sys.executable, "-c", FORKING_HOST]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) == {
        "the child does not know the parent's job",
        "the child renders 500",
        "cancelled at once",
    }


async def test_ctrl_c_in_terminal_does_not_reach_workers(render: Render) -> None:
    job = await render.submit(overlay(preset=SLOW))
    await until(job, "render")
    pid = worker()
    assert os.getsid(pid) == pid != os.getsid(0)
    assert os.getpgid(ffmpeg_of(pid)) == pid
    await job.cancel()


# Concurrency and threads.


async def test_max_workers_limits_running_jobs_and_queues_rest(store: Path) -> None:
    before = children()
    backend = LocalBackend(Settings(store_url=store.as_uri()), max_workers=2)
    async with FunctionRegistry(Settings(), backend=backend) as registry:
        jobs = [await registry["render_overlay"].submit(overlay(f"job-{index}", preset=SLOW)) for index in range(4)]
        await asyncio.gather(until(jobs[0], "render"), until(jobs[1], "render"))
        assert [await job.status() for job in jobs] == ["running", "running", "queued", "queued"]
        assert len(children() - before) == 2
        await jobs[0].cancel()
        await until(jobs[2], "render")
        assert await jobs[3].status() == "queued"
        assert len(children() - before) == 2


async def test_idle_backend_has_no_waiting_thread(render: Render, clips: Clips, store: Path) -> None:
    (store / "in.mp4").write_bytes(clips.get("25.mp4").read_bytes())
    for index in range(2):
        await render(overlay(f"job-{index}"))
        for thread in threading.enumerate():
            if thread.name == "reel_modal-local":
                await asyncio.to_thread(thread.join, 10)
                assert not thread.is_alive()


async def test_oldest_ended_jobs_are_forgotten(
    render: Render, use_body: UseBody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_MOST_KEPT", 1)
    use_body("raise Unknown(request.job_id)")
    jobs = []
    for name in ("oldest", "older", "newest"):
        jobs.append(await render.submit(overlay(name)))
        with pytest.raises(FunctionError, match=name):
            await jobs[-1].result()
    with pytest.raises(JobNotFoundError):
        await jobs[0].result()
    for job, name in zip(jobs[1:], ("older", "newest"), strict=True):
        with pytest.raises(FunctionError, match=name):
            await job.result()


@pytest.mark.parametrize("number", [0, -1])
def test_max_workers_invalid_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=f"max_workers is {number}"):
        LocalBackend(Settings(), max_workers=number)


async def test_event_loop_not_blocked_while_jobs_run(render: Render) -> None:
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            started_at = time.monotonic()
            await asyncio.sleep(0.005)
            gaps.append(time.monotonic() - started_at)

    ticking = asyncio.ensure_future(tick())
    started_at = time.monotonic()
    jobs = [await render.submit(overlay(f"job-{index}")) for index in range(3)]
    assert (await jobs[0].result()).frames == 500
    seconds = time.monotonic() - started_at
    await until(jobs[1], "render")
    for job in jobs:
        await job.cancel()
        await job.status()
    ticking.cancel()
    # An encoder uses both cores of a small machine; a blocking call would take as long as its operation.
    assert max(gaps) < seconds / 2


# The worker process.


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


@pytest.mark.parametrize("url", [None, "file:///nope", "s3://bucket/prefix"])
async def test_worker_unusable_store_is_config_error(url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    backend = LocalBackend(Settings(store_url=url))
    with pytest.raises(
        ConfigError, match=r"no store is set|'/nope' not found|no credentials for 's3://bucket/prefix'"
    ) as caught:
        await RemoteFunction("render_overlay", backend)(overlay().to_dict())
    assert isinstance(caught.value, MisconfiguredError)
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (None, "no store is set: REEL_MODAL_STORE_URL"),
        ("file:///nope", "nope"),
        ("memory://here", "belongs to one process"),
        ("s3://bucket", "no credentials for 's3://bucket'"),
    ],
)
async def test_submit_unusable_store_starts_no_worker(
    url: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(local, "_start_worker", lambda: pytest.fail("a worker is started"))
    settings = Settings(store_url=url)
    for registry in (
        FunctionRegistry(settings),
        FunctionRegistry(Settings(store_url="file:///tmp"), backend=LocalBackend(settings)),
    ):
        with pytest.raises(ConfigError, match=words):
            await registry["render_overlay"].submit(overlay())


async def test_submit_function_without_body_refused(backend: LocalBackend) -> None:
    unknown: RemoteFunction[[dict[str, object]], object] = RemoteFunction("thumbnail", backend)
    with pytest.raises(NotDeployedError, match="available are apply_upscale, process_framing, render_overlay"):
        await unknown({"job_id": "j"})
