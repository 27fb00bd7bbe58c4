"""Context of a function besides its request: store, reporter, settings, working folder, cancellation.

The processes that run jobs create it; the functions use it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from reel_modal._progress.events import ProgressEvent
from reel_modal._segments import Segment, SegmentReport, SegmentStore
from reel_modal.errors import FunctionError, JobCancelledError, OutputMismatchError
from reel_modal.functions.metering import Meter
from reel_modal.schema import Usage
from reel_modal.settings import Settings
from reel_modal.storage import Storage
from reel_modal.storage.base import StoredObject

__all__ = [
    "BETWEEN_FRAMES_SECONDS",
    "CancellationToken",
    "JobContext",
    "OnePieceNeeded",
    "Reporter",
    "Segment",
    "SegmentProcesses",
    "SegmentStore",
    "SegmentWorkers",
]

BETWEEN_FRAMES_SECONDS: Final = 2.0
"""Time for a cancelled job to reach its next frame, before it is stopped in the middle of a step."""

_LEAST_SHARE: Final = 1 / 600
"""Minimum time between two events as a fraction of the elapsed time: half a second after five minutes."""


class CancellationToken:
    """A thread-safe flag that a backend sets and a function checks between frames."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Request that the function stops at its next frame."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether cancellation was requested."""
        return self._event.is_set()


class Reporter:
    """Convert a function's phases and frame counts into events, at most one per `interval_seconds`.

    The first and the last event of a phase are always sent, so that a listener sees each phase begin and end. Long
    jobs report less often: a job of one day sends about 4,000 events, which any backend can store.

    Thread-safe.

    Attributes:
        seconds_by_phase: Duration of each phase that has ended.
        detail: What the current phase works on, such as `clip 2 of 5`; a new phase clears it.

    Args:
        send: Called with each event, one at a time, in the reporting thread; must return quickly.
        interval_seconds: Minimum time between two events of one phase. Two per second keep a progress bar moving.
        clock: Returns monotonic seconds.
        attempt: 1 for the first attempt of the job; the backend counts retries.
    """

    def __init__(
        self,
        send: Callable[[ProgressEvent], None],
        *,
        interval_seconds: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
        attempt: int = 1,
    ) -> None:
        self._send = send
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._attempt = attempt
        self._started = clock()
        self._sequence = 0
        self._last_sent = 0.0
        self._sending = threading.Lock()
        self._now: tuple[str, int, int | None] | None = None
        self.seconds_by_phase: dict[str, float] = {}
        self.detail: str = ""

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Report the phase `name`; yield a function to call with the number of units done so far."""
        started_at = self._clock()
        done_so_far = 0

        def advance(done: int) -> None:
            nonlocal done_so_far
            done_so_far = done
            self._now = (name, done, total)
            self.pulse()

        self.detail = ""
        self._emit(name, 0, total)
        yield advance
        self.seconds_by_phase[name] = self.seconds_by_phase.get(name, 0.0) + self._clock() - started_at
        self._emit(name, done_so_far if total is None else max(done_so_far, total), total)

    def pulse(self) -> None:
        """Send the state of the phase if an event is due, even if no count has changed, as during a transfer."""
        now, state = self._clock(), self._now
        due = self._last_sent + max(self._interval_seconds, (now - self._started) * _LEAST_SHARE)
        if state is not None and now >= due:
            self._emit(*state)

    def _emit(self, phase: str, done: int, total: int | None) -> None:
        with self._sending:
            now = self._clock()
            self._now = (phase, done, total)
            self._sequence += 1
            self._last_sent = now
            self._send(
                ProgressEvent(
                    phase=phase,
                    done=done,
                    total=total,
                    elapsed_seconds=now - self._started,
                    sequence=self._sequence,
                    attempt=self._attempt,
                    detail=self.detail,
                )
            )


class SegmentProcesses(Protocol):
    """Other processes that render segments of one output at the same time."""

    def render(self, grid: Sequence[Segment], context: JobContext, advance: Callable[[int], None]) -> SegmentReport:
        """Have segments rendered and stored, and return the report about all of them.

        Args:
            grid: The segments, in order.
            context: Context of the job.
            advance: Called with the number of finished frames of these segments.

        Raises:
            ReelModalError: A segment could not be rendered; no process renders any more.

        Cancellation:
            Raises JobCancelledError; no process renders any more.
        """
        ...


class SegmentWorkers(SegmentProcesses, Protocol):
    """Other machines that render all segments of one output."""

    def render_elsewhere(self, context: JobContext) -> Mapping[str, object]:
        """Have another machine run all of the job, and return its result as a dict.

        Raises:
            ReelModalError: The job failed there.

        Cancellation:
            Raises JobCancelledError; that machine does not run the job any more.
        """
        ...


class OnePieceNeeded(Exception):  # noqa: N818 - it ends the body of a function, and is no error
    """Raised in a body whose output cannot be rendered in segments, if another process has to render it."""


def _ignore(event: ProgressEvent) -> None:
    """Discard an event."""


def _same(key: str) -> str:
    """Return the key of a request as the key in the store."""
    return key


@dataclass(frozen=True)
class JobContext:
    """Everything that a function may use besides its request.

    Keys in the methods are those of the request; the user's prefix is added to them.

    Attributes:
        storage: Store of the inputs and outputs, for what the methods do not offer. Its keys have the user's prefix.
        workdir: An empty temporary directory for this job; its creator removes it.
        settings: Settings of the process that runs the function.
        reporter: Receives phases and counts; see `Reporter.phase`.
        cancellation: Set when the job is cancelled; see `raise_if_cancelled`.
        meter: Measures the usage.
        function: Name of the function.
        output_tags: Tags to write into a video output, by which it is recognized if its receipt is lost.
        input_place: Returns the key in the store of an input.
        output_place: Returns the key in the store of an output.
        outputs: Files to publish after the end of the body, by their key in the store; see `publish`.
        segments: Finished parts of the output, from this and from earlier attempts; None stores none.
        part: Frames of the output that this process renders and stores for another one; None renders all.
        workers: Machines that render all segments of the output; None renders them on this machine.
        processes: Processes on this machine that render several segments at once; None renders one after the other.
    """

    storage: Storage
    workdir: Path
    settings: Settings = field(default_factory=Settings)
    reporter: Reporter = field(default_factory=lambda: Reporter(_ignore))
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    meter: Meter = field(default_factory=Meter)
    function: str = ""
    output_tags: Mapping[str, str] = field(default_factory=dict)
    input_place: Callable[[str], str] = _same
    output_place: Callable[[str], str] = _same
    outputs: dict[str, Path] = field(default_factory=dict)
    segments: SegmentStore | None = None
    part: Segment | None = None
    workers: SegmentWorkers | None = None
    processes: SegmentProcesses | None = None

    @property
    def only_segments(self) -> bool:
        """Whether the output is shared between machines, so that its parts must be decoded and encoded exactly."""
        return self.part is not None or self.workers is not None

    def begin_one_piece(self) -> None:
        """Prepare to render the output in one piece; raise if that is not the task of this process."""
        if self.part is not None:
            raise FunctionError(
                f"frames {self.part.first} to {self.part.end} cannot be rendered alone", function=self.function
            )
        if self.workers is not None:
            raise OnePieceNeeded

    def fetch(self, key: str) -> Path:
        """Return a local file with the whole object `key`; a file of a local store is not copied.

        Args:
            key: Key of an input in the request.

        Raises:
            ObjectNotFoundError: The object does not exist.
            StorageError: It could not be fetched.
        """
        return self.storage.fetch(self.input_place(key), self.workdir)

    def open(self, key: str) -> StoredObject:
        """Return the object `key`, of which only the ranges that are read are fetched.

        Args:
            key: Key of an input in the request.

        Raises:
            ObjectNotFoundError: The object does not exist.
            StorageError: It could not be read.
        """
        return self.storage.open(self.input_place(key), self.workdir)

    def publish(self, path: Path, key: str) -> None:
        """Publish a finished file under `key` after the body has returned; an error publishes nothing.

        The order is: further outputs, the receipt, `output_key` last. If that object exists, so do the others.

        Args:
            path: A file in `workdir`. It must not change any more.
            key: `output_key` of the request, or the key of a further output.

        Raises:
            OutputMismatchError: The file does not exist or is empty.
            InvalidKeyError: The key is not valid.
        """
        if not path.is_file() or path.stat().st_size == 0:
            raise OutputMismatchError(f"{self.function} publishes {str(path)!r}, which is missing or empty")
        self.outputs[self.output_place(key)] = path

    def usage(self) -> Usage:
        """Return the usage so far."""
        return self.meter.usage(self.storage.traffic)

    def raise_if_cancelled(self) -> None:
        """Raise JobCancelledError if the job was cancelled. Call it between frames, at least once a second."""
        if self.cancellation.cancelled:
            raise JobCancelledError("cancelled between two frames", function=self.function)
