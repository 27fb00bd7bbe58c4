"""Workers render a real output in any number and order, some are lost at random frames, and the bytes stay equal."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.clips import made_clip
from tests.jobs import GLOBAL, overlay
from tests.media.framed import crops, speeds
from tests.own_video import TintRequest, tint

from reel_modal._segments import Segment, SegmentReport
from reel_modal.errors import JobCancelledError, WorkerCrashedError
from reel_modal.functions.builtin import process_framing, render_overlay
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.context import CancellationToken, JobContext
from reel_modal.functions.fan_out import FanOut
from reel_modal.functions.runner import run_job
from reel_modal.progress import ProgressEvent
from reel_modal.schema import EncodeOptions, FramingRequest
from reel_modal.settings import Settings

pytestmark = pytest.mark.timeout(300)

LOSSES = st.dictionaries(st.integers(0, 6), st.integers(0, 100), max_size=2)

_numbers = itertools.count(1)


@dataclass
class ThreadCalls:
    """Calls in threads of this process; those with a number in `lost_at` are cancelled at that frame."""

    function: AnyFunction
    payload: Mapping[str, object]
    settings: Settings
    lost_at: Mapping[int, int]
    remote: bool = True
    tasks: dict[str, asyncio.Task[dict[str, object]]] = field(default_factory=dict)

    async def start(self, run: Segment) -> str:
        number = len(self.tasks)
        self.tasks[str(number)] = asyncio.create_task(asyncio.to_thread(self.run, number, run))
        return str(number)

    def run(self, number: int, part: Segment) -> dict[str, object]:
        token, at = CancellationToken(), self.lost_at.get(number)

        def send(event: ProgressEvent) -> None:
            if at is not None and event.phase == "render" and event.done >= at:
                token.cancel()

        return run_job(self.function, self.payload, settings=self.settings, send=send, cancellation=token, part=part)

    async def result(self, call_id: str) -> Mapping[str, object]:
        return await self.tasks[call_id]

    async def frames(self, call_id: str) -> AsyncGenerator[int]:
        yield int(not call_id)

    async def cancel(self, call_id: str) -> None:
        await asyncio.wait([self.tasks[call_id]])

    def worth_another_attempt(self, error: Exception) -> bool:
        return isinstance(error, JobCancelledError)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    made_clip(folder / "in.mp4", size=(96, 64), fps=10, seconds=18, audio_seconds=18)
    return folder


@dataclass(frozen=True)
class LostProcesses:
    """Processes that are lost in the middle of their work, as if the system ended them without memory."""

    function: AnyFunction
    payload: Mapping[str, object]
    settings: Settings
    rendered: list[Segment] = field(default_factory=list)

    def render(self, grid: Sequence[Segment], context: JobContext, advance: Callable[[int], None]) -> SegmentReport:
        run_job(self.function, self.payload, settings=self.settings, send=lambda _: None, part=grid[0])
        self.rendered.append(grid[0])
        advance(grid[0].frames + 30)
        raise WorkerCrashedError("ended by SIGKILL", function=context.function)


def made(store: Path, function: AnyFunction, request: Any, **options: Any) -> str:
    """Run a job, and return the SHA-256 of its output, which is removed."""
    payload = replace(request, job_id=f"job-{next(_numbers)}").to_dict()
    configured = Settings(store_url=store.as_uri())
    workers = None
    if options:
        count = options.pop("workers")
        workers = FanOut(ThreadCalls(function, payload, configured, **options), str(payload["job_id"]), count)
    run_job(function, payload, settings=configured, send=lambda _: None, workers=workers)
    output = store / "out/whole.mp4"
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    output.unlink()
    assert not [path for path in (store / "users/user/segments").glob("*") if path.suffix != ".call"]
    return digest


OVERLAY = overlay(output="out/whole.mp4")
FRAMING = FramingRequest(
    job_id="j",
    user_id="user",
    input_key="in.mp4",
    output_key="out/whole.mp4",
    crop=crops((0, 10, 0, 36, 64), (18, 40.5, 0, 36, 64)),
    segments=speeds((5, 10, 0.5)),
    output_size=(36, 64),
    store=GLOBAL,
    encode=EncodeOptions(encoder="libx264", preset="ultrafast"),
)
TINT = TintRequest(
    job_id="j",
    user_id="user",
    input_key="in.mp4",
    output_key="out/whole.mp4",
    store=GLOBAL,
    encode=EncodeOptions(encoder="libx264", preset="ultrafast"),
)


@pytest.mark.parametrize(
    ("function", "request_"),
    [(render_overlay, OVERLAY), (process_framing, FRAMING), (tint, TINT)],
    ids=["overlay", "framing", "a host's function"],
)
def test_any_number_of_workers_makes_the_same_bytes(store: Path, function: AnyFunction, request_: Any) -> None:
    alone = made(store, function, request_)

    @settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
    @given(workers=st.integers(1, 7), lost_at=LOSSES)
    def check(workers: int, lost_at: dict[int, int]) -> None:
        assert made(store, function, request_, workers=workers, lost_at=lost_at) == alone

    check()


def test_segments_of_lost_processes_are_rendered_one_after_the_other(store: Path) -> None:
    alone = made(store, render_overlay, OVERLAY)
    payload = replace(OVERLAY, job_id=f"job-{next(_numbers)}").to_dict()
    configured, counts = Settings(store_url=store.as_uri()), []
    processes = LostProcesses(render_overlay, payload, configured)

    def send(event: ProgressEvent) -> None:
        if event.phase == "render":
            counts.append(event.done)

    run_job(render_overlay, payload, settings=configured, send=send, processes=processes)
    assert processes.rendered == [Segment(0, 80)]
    output = store / "out/whole.mp4"
    assert hashlib.sha256(output.read_bytes()).hexdigest() == alone
    assert counts == sorted(counts)
    output.unlink()
