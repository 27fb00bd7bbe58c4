"""Have several processes render the segments of one output at the same time, and wait for all of them.

The processes are calls: containers on Modal, worker processes on this machine. The id of each call is noted in the
store at once, so that a coordinator that is started again waits for the same calls and starts none twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from reel_modal._segments import WHOLE, Segment, SegmentReport, SegmentStore, segment_runs
from reel_modal._support.tasks import consume_exception
from reel_modal.errors import FunctionError, OutputMismatchError
from reel_modal.functions.context import JobContext
from reel_modal.schema import Usage

__all__ = ["Calls", "FanOut"]

_log = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
"""How often a run of segments is started before its error ends the job. Its finished segments are kept."""

_WATCH_SECONDS: Final = 0.1
_CANCEL_SECONDS: Final = 2.0


class Calls(Protocol):
    """Starts processes that render segments of one job, and waits for them; used in one event loop."""

    @property
    def remote(self) -> bool:
        """Whether the calls run on other machines, which may continue if the machine of this process is lost."""
        ...

    async def start(self, run: Segment) -> str:
        """Start a call that renders and stores the segments within the frames `run`, or `WHOLE`; return its id."""
        ...

    async def result(self, call_id: str) -> Mapping[str, object]:
        """Wait for the end of a call, and return its report.

        Raises:
            Exception: The call failed, or is not known.

        Cancellation: ends only the wait.
        """
        ...

    def frames(self, call_id: str) -> AsyncGenerator[int]:
        """Yield the number of finished frames of a call, whenever it is reported."""
        ...

    async def cancel(self, call_id: str) -> None:
        """Cancel a call; has no effect if it has ended."""
        ...

    def worth_another_attempt(self, error: Exception) -> bool:
        """Return whether a further attempt may succeed, as after the loss of a machine."""
        ...


@dataclass(slots=True)
class FanOut:
    """The workers of one job; a `SegmentWorkers`.

    Attributes:
        calls: Starts the workers.
        job_id: Id of the job.
        workers: Maximum number of workers at the same time.
        at_once: Number of segments that each worker renders at once.
    """

    calls: Calls
    job_id: str
    workers: int
    at_once: int = 1

    def render(self, grid: Sequence[Segment], context: JobContext, advance: Callable[[int], None]) -> SegmentReport:
        """See `SegmentProcesses.render`."""
        report = self.render_runs(segment_runs(grid, self.workers, self.at_once), context, advance)
        context.meter.add(report.usage)
        return report

    def render_runs(
        self, runs: Sequence[Segment], context: JobContext, advance: Callable[[int], None]
    ) -> SegmentReport:
        """Have runs of segments rendered and stored, and return the report about all of them."""
        return _joined([SegmentReport.parse(each) for each in self._run(runs, context, advance)])

    def render_elsewhere(self, context: JobContext) -> Mapping[str, object]:
        """See `SegmentWorkers.render_elsewhere`."""
        (result,) = self._run([WHOLE], context, lambda _: None)
        return result

    def _run(
        self, runs: Sequence[Segment], context: JobContext, advance: Callable[[int], None]
    ) -> list[Mapping[str, object]]:
        if context.segments is None:
            raise FunctionError("workers cannot share segments without a store", function=context.function)
        return asyncio.run(_Coordination(self, context, context.segments, advance).run(runs))


@dataclass(slots=True)
class _Coordination:
    """The calls of one job while they run."""

    fan_out: FanOut
    context: JobContext
    store: SegmentStore
    advance: Callable[[int], None]
    frames_by_run: dict[Segment, int] = field(default_factory=dict)

    async def run(self, runs: Sequence[Segment]) -> list[Mapping[str, object]]:
        """Have all runs rendered, and return the results; if one fails or the job is cancelled, cancel the others."""
        noted = await asyncio.to_thread(self.store.calls, self.fan_out.job_id) if self.fan_out.calls.remote else {}
        # Calls that an earlier attempt has started run already, so they come first.
        todo = iter(sorted(runs, key=lambda run: run not in noted))
        tasks = [asyncio.create_task(self._work(todo, noted)) for _ in range(self.fan_out.workers)]
        everything = asyncio.gather(*tasks)
        everything.add_done_callback(consume_exception)
        watching = asyncio.create_task(self._watch_cancellation())
        try:
            both: list[asyncio.Future[Any]] = [watching, everything]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
            return [result for results in everything.result() for result in results]
        finally:
            for task in (watching, *tasks):
                task.cancel()
            await asyncio.wait([watching, *tasks])

    async def _watch_cancellation(self) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            self.context.raise_if_cancelled()

    async def _work(self, todo: Iterator[Segment], noted: Mapping[Segment, str]) -> list[Mapping[str, object]]:
        """Have one run after the other rendered, as long as there are any."""
        return [await self._finish(run, noted.get(run)) for run in todo]

    async def _finish(self, run: Segment, call_id: str | None) -> Mapping[str, object]:
        """Have a run rendered, in several attempts if necessary."""
        attempt = 1
        while True:
            call_id = call_id or await self._start(run)
            try:
                return await self._followed(run, call_id)
            except Exception as error:
                if attempt == _ATTEMPTS or not self.fan_out.calls.worth_another_attempt(error):
                    raise
                _log.warning("%s: frames %d to %d are rendered again: %s", call_id, run.first, run.end, error)
            if self.fan_out.calls.remote:
                await asyncio.to_thread(self.store.forget_call, self.fan_out.job_id, run)
            attempt, call_id = attempt + 1, None

    async def _start(self, run: Segment) -> str:
        call_id = await self.fan_out.calls.start(run)
        if self.fan_out.calls.remote:
            try:
                await asyncio.to_thread(self.store.note_call, self.fan_out.job_id, run, call_id)
            except BaseException:
                await self._cancel(call_id)
                raise
        return call_id

    async def _followed(self, run: Segment, call_id: str) -> Mapping[str, object]:
        """Wait for a call, count its frames, and cancel it if the wait ends before."""
        counting = asyncio.create_task(self._count(run, call_id))
        counting.add_done_callback(consume_exception)  # without the count, only the progress stands still
        try:
            result = await self.fan_out.calls.result(call_id)
        except asyncio.CancelledError:
            await self._cancel(call_id)
            raise
        finally:
            counting.cancel()
            await asyncio.wait([counting])
        self._counted(run, run.frames)
        return result

    async def _count(self, run: Segment, call_id: str) -> None:
        async with aclosing(self.fan_out.calls.frames(call_id)) as counts:
            async for frames in counts:
                self._counted(run, frames)

    def _counted(self, run: Segment, frames: int) -> None:
        self.frames_by_run[run] = max(frames, self.frames_by_run.get(run, 0))
        self.advance(sum(self.frames_by_run.values()))

    async def _cancel(self, call_id: str) -> None:
        # If this does not succeed, the call ends by itself when its coordinator has ended.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                await self.fan_out.calls.cancel(call_id)


def _joined(reports: Sequence[SegmentReport]) -> SegmentReport:
    """Return one report about the segments of all workers.

    Raises:
        OutputMismatchError: The workers differ, so that their segments do not belong together.
    """
    engines = {report.rendering: report.engine for report in reports}
    if len(engines) > 1:
        described = "; ".join(sorted({engine.exact for engine in engines.values()}))
        raise OutputMismatchError(f"the workers differ, so their segments do not belong together: {described}")
    ((rendering, engine),) = engines.items()
    return SegmentReport(rendering=rendering, engine=engine, usage=Usage.sum(report.usage for report in reports))
