"""Workers of one job: which calls are started, awaited, repeated and cancelled. The calls are scripted."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reel_modal._segments import WHOLE, Engine, Segment, SegmentReport, SegmentStore, segment_grid, segment_runs
from reel_modal.errors import FunctionError, JobCancelledError, OutputMismatchError, WorkerCrashedError
from reel_modal.functions.context import CancellationToken, JobContext, OnePieceNeeded
from reel_modal.functions.fan_out import FanOut
from reel_modal.functions.metering import Meter
from reel_modal.schema import Usage
from reel_modal.storage import FolderStorage, Storage

GRID = segment_grid(1000, Fraction(10))
LOST = WorkerCrashedError("the machine was lost", function="f")
REFUSED = FunctionError("cannot be rendered", function="f")


@dataclass
class ScriptedCalls:
    """Calls that end as `failures` says, by their number; the others succeed, or run on if `endless`."""

    failures: Mapping[int, Exception] = field(default_factory=dict)
    endless: bool = False
    remote: bool = True
    renderings: Mapping[int, str] = field(default_factory=dict)
    started: list[Segment] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    store: SegmentStore | None = None
    noted: list[str | None] = field(default_factory=list)
    """The call that is noted for a run when another one is started."""

    async def start(self, run: Segment) -> str:
        self.started.append(run)
        if self.store is not None:
            self.noted.append(self.store.calls("job").get(run))
        return f"call-{len(self.started) - 1}"

    async def result(self, call_id: str) -> Mapping[str, object]:
        number = int(call_id.removeprefix("call-"))
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            for _ in range(5):  # the frames are counted meanwhile
                await asyncio.sleep(0)
            await asyncio.sleep(3600 if self.endless and number not in self.failures else 0)
        finally:
            self.at_once -= 1
        if number in self.failures:
            raise self.failures[number]
        engine = Engine.of_name("opencv")
        rendering = self.renderings.get(number, "a" * 64)
        return SegmentReport(rendering=rendering, engine=engine, usage=Usage(seconds=2, dollars=0.5)).to_dict()

    async def frames(self, call_id: str) -> AsyncGenerator[int]:
        for count in (2, 1) if call_id else ():
            yield count

    async def cancel(self, call_id: str) -> None:
        self.cancelled.append(call_id)

    def worth_another_attempt(self, error: Exception) -> bool:
        return error is LOST


def memory() -> Storage:
    """Return an empty store in memory."""
    return Storage.from_url(f"memory://{uuid.uuid4()}")


def context_of(storage: Storage | None = None, token: CancellationToken | None = None) -> JobContext:
    store = SegmentStore(storage or memory(), user_id="u", source="in 1", required=True)
    return JobContext(
        storage=memory(),
        workdir=Path(),
        segments=store,
        cancellation=token or CancellationToken(),
        meter=Meter(),
    )


def render(
    calls: ScriptedCalls, *, workers: int = 3, context: JobContext | None = None
) -> tuple[SegmentReport, list[int]]:
    counts: list[int] = []
    report = FanOut(calls, "job", workers).render(GRID, context or context_of(), counts.append)
    return report, counts


@given(frames=st.integers(2, 5000), workers=st.integers(1, 100))
def test_runs_cover_the_grid_once_longest_first(frames: int, workers: int) -> None:
    grid = segment_grid(frames, Fraction(10))
    runs = segment_runs(grid, workers)
    assert [run.frames for run in runs] == sorted((run.frames for run in runs), reverse=True)
    in_order = sorted(runs, key=lambda run: run.first)
    assert [run.first for run in in_order[1:]] == [run.end for run in in_order[:-1]]
    assert (in_order[0].first, in_order[-1].end) == (0, frames)
    assert {run.first for run in runs} <= {segment.first for segment in grid}
    assert len(runs) >= min(len(grid), workers)


@given(
    workers=st.integers(1, 20),
    lost=st.dictionaries(st.integers(0, 12), st.just(LOST), max_size=2),
)
def test_every_run_is_rendered_whatever_is_lost(workers: int, lost: dict[int, Exception]) -> None:
    calls = ScriptedCalls(lost)
    report, counts = render(calls, workers=workers)
    runs = segment_runs(GRID, workers)
    assert set(calls.started) == set(runs)
    assert len(calls.started) == len(runs) + sum(number < len(calls.started) for number in lost)
    assert calls.most_at_once <= workers
    assert counts == sorted(counts)
    assert counts[-1] == 1000
    assert report.usage.seconds == 2 * len(runs)
    assert report.usage.dollars == 0.5 * len(runs)


def test_usage_of_workers_is_added_to_that_of_the_job() -> None:
    context = context_of()
    render(ScriptedCalls(), context=context)
    assert context.usage().dollars == 0.5 * len(segment_runs(GRID, 3))
    assert context.usage().seconds >= 2 * len(segment_runs(GRID, 3))


def test_run_that_is_lost_three_times_ends_the_job() -> None:
    calls = ScriptedCalls(dict.fromkeys(range(100), LOST))
    with pytest.raises(WorkerCrashedError, match="lost"):
        render(calls, workers=1)
    assert calls.started == [segment_runs(GRID, 1)[0]] * 3


def test_lost_call_is_not_noted_when_another_one_starts() -> None:
    """The new call would find the note and end, since another call seems to render its frames."""
    context, calls = context_of(), ScriptedCalls({0: LOST})
    calls.store = context.segments
    render(calls, workers=1, context=context)
    assert calls.noted == [None] * (1 + len(segment_runs(GRID, 1)))


def test_refused_run_ends_the_job_and_cancels_the_others() -> None:
    calls = ScriptedCalls({1: REFUSED}, endless=True)
    with pytest.raises(FunctionError, match="cannot be rendered"):
        render(calls)
    assert (len(calls.started), calls.at_once) == (3, 0)
    assert sorted(calls.cancelled) == ["call-0", "call-2"]


def test_cancelled_job_cancels_its_calls() -> None:
    token, calls = CancellationToken(), ScriptedCalls(endless=True)
    threading.Timer(0.2, token.cancel).start()
    with pytest.raises(JobCancelledError):
        render(calls, context=context_of(token=token))
    assert sorted(calls.cancelled) == ["call-0", "call-1", "call-2"]


def test_second_attempt_awaits_the_calls_of_the_first(tmp_path: Path) -> None:
    storage, token = FolderStorage(tmp_path), CancellationToken()
    first = ScriptedCalls(endless=True)
    threading.Timer(0.2, token.cancel).start()
    with pytest.raises(JobCancelledError):
        render(first, context=context_of(storage, token))
    second = ScriptedCalls()
    context = context_of(storage)
    render(second, context=context)
    assert set(first.started).isdisjoint(second.started)
    assert {*first.started, *second.started} == set(segment_runs(GRID, 3))
    assert context.segments is not None
    context.segments.discard()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_calls_on_this_machine_are_not_noted() -> None:
    storage = memory()
    render(ScriptedCalls(remote=False), context=context_of(storage))
    assert storage.list_folder("users/u/segments").objects == ()


def test_workers_that_differ_are_refused() -> None:
    with pytest.raises(OutputMismatchError, match="the workers differ"):
        render(ScriptedCalls(renderings={1: "b" * 64}))


def test_output_in_one_piece_is_rendered_elsewhere() -> None:
    calls = ScriptedCalls()
    fan_out, context = FanOut(calls, "job", 2), context_of()
    with pytest.raises(OnePieceNeeded):
        replace(context, workers=fan_out).begin_one_piece()
    assert fan_out.render_elsewhere(context)["engine"] == Engine.of_name("opencv").to_dict()
    assert calls.started == [WHOLE]


def test_workers_without_a_store_are_refused() -> None:
    context = JobContext(storage=memory(), workdir=Path())
    with pytest.raises(FunctionError, match="without a store"):
        render(ScriptedCalls(), context=context)
