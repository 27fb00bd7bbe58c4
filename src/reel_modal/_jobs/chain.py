"""Run several functions one after another as one job: one progress, one receipt, one cancellation.

The host runs the chain; each step is a job of its own. A chain that is started again with the same requests continues
after the last step whose output is in the store.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from reel_modal._jobs.estimates import Estimate, estimate_of
from reel_modal._jobs.job import Job
from reel_modal._progress.history import TimingHistory
from reel_modal._support.background import keep
from reel_modal._support.clock import Clock
from reel_modal._support.scratch import scratch_dir
from reel_modal._support.tasks import consume_exception
from reel_modal._support.threads import run_in_thread
from reel_modal.backends.base import JobStatus
from reel_modal.errors import JobCancelledError, ReelModalError, RemoteError, RequestError
from reel_modal.functions.catalog import AnyFunction
from reel_modal.functions.inputs import media_of, probe_object
from reel_modal.media import MediaInfo
from reel_modal.progress import ProgressUpdate
from reel_modal.schema import Degradation, Usage
from reel_modal.schema.keys import receipt_key
from reel_modal.schema.requests import Request
from reel_modal.schema.results import Result
from reel_modal.settings import Settings
from reel_modal.storage import Storage

__all__ = ["Chain", "ChainReceipt", "ChainStep", "chain_seconds", "check_chain", "discard_output"]

R = TypeVar("R")

_log = logging.getLogger(__name__)

_STORE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class ChainStep:
    """One step of a chain.

    Attributes:
        function: Name of the function.
        request: The request.
        start: Submits the request, or attaches to its running job.
        find_published: Returns the result if the output of the step is in the store; blocks.
        unwrap: Returns the result for the host.
        discard: Deletes the output of the step and its receipt; blocks. None for the output of the chain.
        expected_seconds: Expected duration, by which the progress of the chain is weighed.
    """

    function: str
    request: Request[Any]
    start: Callable[[], Awaitable[Job[Any]]]
    find_published: Callable[[], Result | None]
    unwrap: Callable[[Result], Any]
    discard: Callable[[], None] | None
    expected_seconds: float


@dataclass(frozen=True, slots=True)
class ChainReceipt:
    """Results of the steps of a chain, and their usage together.

    Attributes:
        steps: Results of the steps that this chain has run or found in the store, in order.
    """

    steps: tuple[Result, ...]

    @property
    def usage(self) -> Usage:
        """The usage of all steps: sums, the highest peak of memory, and the GPUs and models that were used."""
        return Usage.sum(step.usage for step in self.steps if step.usage is not None)

    @property
    def degraded(self) -> tuple[Degradation, ...]:
        """The differences from the requests, of all steps."""
        return tuple(note for step in self.steps for note in step.degraded)


class Chain(Generic[R]):
    """A chain of jobs that has been started, from `FunctionRegistry.chain`.

    It runs in a task of the event loop that started it, whether or not another task waits for it.

    Attributes:
        steps: The steps, in order.
    """

    def __init__(
        self,
        steps: Sequence[ChainStep],
        *,
        clock: Clock,
        keep_intermediates: bool,
        on_job: Callable[[Job[Any]], object] | None,
    ) -> None:
        self.steps: tuple[ChainStep, ...] = tuple(steps)
        self._clock = clock
        self._keep_intermediates = keep_intermediates
        self._on_job = on_job
        self._started_at = clock.monotonic()
        self._index = 0
        self._job: Job[Any] | None = None
        self._results: list[Result] = []
        self._cancelled = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[Any] = asyncio.ensure_future(self._run())
        keep(self._task)
        self._task.add_done_callback(consume_exception)

    def __repr__(self) -> str:
        return f"Chain({' -> '.join(step.function for step in self.steps)}, step {self._index + 1})"

    @property
    def job(self) -> Job[Any] | None:
        """The job of the current step; None before it is submitted."""
        return self._job

    @property
    def step(self) -> int:
        """Index of the current step, from 0; the number of steps after the end."""
        return self._index

    async def status(self) -> JobStatus:
        """Return the status of the chain: that of the current step, and `running` between two steps.

        Cancellation: changes nothing.
        """
        if not self._task.done():
            status = await self._job.status() if self._job is not None else "queued"
            between = self._index > 0 and status == "queued"
            return "running" if between or status in {"succeeded", "failed", "cancelled"} else status
        if self._task.cancelled() or isinstance(self._task.exception(), JobCancelledError):
            return "cancelled"
        return "succeeded" if self._task.exception() is None else "failed"

    async def result(self) -> R:
        """Wait for the end, and return the result of the last step.

        Raises:
            JobCancelledError: The chain was cancelled.
            RemoteError: A step failed; `function` names it. The outputs of the steps before it stay in the store, so
                that a chain with the same requests continues with the step that failed.

        Cancellation: cancels the chain and its running job.
        """
        try:
            value: R = await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if not self._task.done():
                await self.cancel()
            raise
        return value

    async def receipt(self) -> ChainReceipt:
        """Wait for the end, and return the results of all steps with the sum of their usage.

        Raises:
            RemoteError: See `result`.

        Cancellation: see `result`.
        """
        await self.result()
        return ChainReceipt(tuple(self._results))

    async def cancel(self) -> None:
        """Cancel the running step, and start no other; has no effect on a chain that has ended.

        Raises:
            UnavailableError: The backend is unreachable; the running step may continue.

        Cancellation: may leave the running step.
        """
        self._cancelled = True
        if self._job is not None and not self._task.done():
            await self._job.cancel()

    async def discard(self) -> None:
        """Delete the outputs between the steps, after a chain that failed and will not be started again.

        Raises:
            StorageError: An object could not be deleted.

        Cancellation: may leave some of the objects.
        """
        for step in self.steps:
            if step.discard is not None:
                await asyncio.to_thread(step.discard)

    async def progress(self, *, interval_seconds: float = 0.5) -> AsyncGenerator[ProgressUpdate]:
        """Yield the progress of the whole chain, in which each step counts by its expected duration.

        The progress never decreases. The last update is `complete` or `error`; errors of a step are not raised.

        Args:
            interval_seconds: Time between two updates, above 0.

        Raises:
            ConfigError: The interval is not above 0.

        Cancellation: ends only this listener; the chain continues.
        """
        sequence, highest = 0, 0.0
        while not self._task.done():
            index, job, changed = self._index, self._job, self._changed
            if job is not None and index < len(self.steps):
                async with aclosing(job.progress(interval_seconds=interval_seconds)) as updates:
                    async for update in updates:
                        if update.ended:
                            break
                        sequence += 1
                        whole = self._whole(update, index, sequence)
                        highest = max(highest, whole.progress)
                        yield replace(whole, progress=highest)
            await changed.wait()
        yield self._last(sequence + 1, highest)

    async def _run(self) -> R:
        try:
            await self._skip_finished()
            while self._index < len(self.steps):
                await self._run_step(self.steps[self._index])
        except JobCancelledError:
            if self._cancelled:
                await self._discard_quietly()
            raise
        else:
            await self._discard_quietly()
            value: R = self.steps[-1].unwrap(self._results[-1])
            return value
        finally:
            self._changed.set()

    async def _run_step(self, step: ChainStep) -> None:
        if self._cancelled:
            raise JobCancelledError("the chain was cancelled between two steps", function=step.function)
        job = await step.start()
        self._next(self._index, job)
        if self._on_job is not None:
            self._on_job(job)
        if self._cancelled:  # during the submission
            await job.cancel()
        self._results.append(await job.receipt())
        self._next(self._index + 1, None)

    async def _skip_finished(self) -> None:
        """Continue after the last step whose output is in the store."""
        for index in reversed(range(len(self.steps))):
            purpose = f"the search for the output of step {index + 1} of a chain"
            try:
                result = await run_in_thread(self.steps[index].find_published, _STORE_SECONDS, purpose=purpose)
            except ReelModalError as error:
                _log.warning("cannot check whether step %d of a chain has finished: %s", index + 1, error)
                continue
            if result is not None:
                self._results.append(result)
                self._index = index + 1
                return

    def _next(self, index: int, job: Job[Any] | None) -> None:
        self._index, self._job = index, job
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _discard_quietly(self) -> None:
        if self._keep_intermediates:
            return
        try:
            await self.discard()
        except ReelModalError as error:
            _log.warning("an object between two steps of a chain was not deleted: %s", error)

    def _whole(self, update: ProgressUpdate, index: int, sequence: int) -> ProgressUpdate:
        """Return the update of one step as an update of the chain."""
        seconds = [step.expected_seconds for step in self.steps]
        done = sum(seconds[:index]) + seconds[index] * update.progress / 100
        later = sum(seconds[index + 1 :])
        return replace(
            update,
            progress=100 * done / sum(seconds),
            message=f"Step {index + 1} of {len(seconds)}: {update.message}" if len(seconds) > 1 else update.message,
            elapsed_seconds=self._clock.monotonic() - self._started_at,
            eta_seconds=None if update.eta_seconds is None else update.eta_seconds + later,
            sequence=sequence,
        )

    def _last(self, sequence: int, highest: float) -> ProgressUpdate:
        error = JobCancelledError("the chain was cancelled", function="") if self._task.cancelled() else None
        failure = error or self._task.exception()
        message = "Done." if failure is None else str(failure)
        if isinstance(failure, RemoteError):
            message = failure.user_message
        return ProgressUpdate(
            progress=100.0 if failure is None else highest,
            message=message,
            status="complete" if failure is None else "error",
            phase="complete" if failure is None else "error",
            source="measured",
            elapsed_seconds=self._clock.monotonic() - self._started_at,
            eta_seconds=0.0 if failure is None else None,
            sequence=sequence,
        )


def check_chain(requests: Sequence[Request[Any]]) -> None:
    """Check that each request after the first works on the output of an earlier one.

    Raises:
        RequestError: It does not, or there is no request.
    """
    if not requests:
        raise RequestError("", "a chain needs a request")
    made: list[str] = []
    for number, request in enumerate(requests, 1):
        source, output = request.stored_keys()
        if made and not set(made) & set(request.stored_inputs()):
            raise RequestError("input_key", f"of step {number} is {source!r}, which no earlier step makes: {made}")
        if output in made:
            raise RequestError("output_key", f"of step {number} is {output!r}, which an earlier step also makes")
        made.append(output)


def discard_output(request: Request[Any], store_url: str | None) -> None:
    """Delete the output of a request and its receipt.

    Raises:
        StorageError: They could not be deleted.
    """
    if store_url is not None:
        storage, output = Storage.from_url(store_url), request.stored_keys()[1]
        storage.delete(output)
        storage.delete(receipt_key(output, request.request_hash()))


def chain_seconds(
    functions: Sequence[AnyFunction], requests: Sequence[Request[Any]], settings: Settings, history: TimingHistory
) -> list[float] | None:
    """Return the expected duration of each step; None if the input of the first step cannot be probed here."""
    if settings.store_url is None:
        return None
    try:
        with scratch_dir() as folder:
            storage = Storage.from_url(settings.store_url)
            made: dict[str, MediaInfo] = {}

            def media_under(stored_key: str) -> MediaInfo:
                return made.get(stored_key) or probe_object(storage.open(stored_key, folder), settings)

            seconds = []
            for function, request in zip(functions, requests, strict=True):
                by_key = {key: media_under(request.stored_input(key)) for key in request.clip_keys().values()}
                media = media_of(request, by_key.__getitem__)
                expected = estimate_of(function, request, media, settings=settings, history=history)
                seconds.append(expected.seconds)
                first = by_key[request.input_key]
                made[request.stored_output(request.output_key)] = _media_after(first, expected, folder)
    except ReelModalError as error:
        _log.warning("the steps of a chain count alike in its progress, since there is no estimate: %s", error)
        return None
    return seconds


def _media_after(media: MediaInfo, expected: Estimate, folder: Path) -> MediaInfo:
    """Return the expected properties of the output of a step, which is the input of the next one."""
    return replace(
        media,
        path=folder / "not-made-yet",
        size=expected.size,
        coded_size=expected.size,
        display_size=expected.size,
        fps=expected.fps,
        constant_rate=True,
        duration_seconds=expected.frames / expected.fps,
        frame_count_header=expected.frames,
        scan=None,
        deinterlace=None,
        interlaced=False,
    )
