"""What a render function gets besides its request: storage, reporter, settings, folder, cancellation.

It must know nothing of Modal or of worker processes: the backends build a context, the bodies use it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from reel_modal.config import Settings
from reel_modal.errors import JobCancelledError
from reel_modal.functions.metering import Meter
from reel_modal.progress import ProgressEvent
from reel_modal.schema import RenderResult, Usage
from reel_modal.schema.requests import Request
from reel_modal.storage import Storage

__all__ = ["BETWEEN_FRAMES_SECONDS", "CancellationToken", "JobContext", "Reporter"]

BETWEEN_FRAMES_SECONDS: Final = 2.0
"""How long a job that is asked to stop may take to its next frame, before it is stopped in the middle of a step."""

_LEAST_SHARE: Final = 1 / 600
"""Least time between two events, as a share of the time since the start: half a second after five minutes."""


class CancellationToken:
    """A flag that a backend raises and a function looks at between frames; safe across threads."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask the function to stop at its next frame."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return self._event.is_set()


class Reporter:
    """Turns a function's phases and frame counts into events, at most one each `interval_seconds`.

    The first and the last event of a phase always pass, so that a listener sees every phase begin and end. A long job
    reports more seldom: a day of it makes some four thousand events, which any backend can keep.

    Any thread may report.

    Args:
        send: Takes each event, one at a time, in the thread that reports: it must be quick.
        interval_seconds: Least time between two events of one phase. Two a second keep a bar alive.
        clock: Monotonic seconds.
        attempt: 1 for the first try of the job; the backend counts retries.
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

    @contextmanager
    def phase(self, name: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """Report the phase `name`; the block calls what it is given with the units done so far."""
        begun = self._clock()
        done_so_far = 0

        def advance(done: int) -> None:
            nonlocal done_so_far
            done_so_far = done
            self._now = (name, done, total)
            self.pulse()

        self._emit(name, 0, total)
        yield advance
        self.seconds_by_phase[name] = self.seconds_by_phase.get(name, 0.0) + self._clock() - begun
        self._emit(name, done_so_far if total is None else max(done_so_far, total), total)

    def pulse(self) -> None:
        """Say how far the phase is, if it is time to: one that counts nothing still lives, as while bytes move."""
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
                )
            )


def _ignore(event: ProgressEvent) -> None:
    """Take an event that nobody listens to."""


def _announce_nothing(result: RenderResult, made: Path) -> None:
    """Take a result of which no record is kept."""


@dataclass(frozen=True)
class JobContext:
    """All that a function body may touch besides its request.

    Attributes:
        storage: Where the input comes from and the output goes.
        workdir: An empty folder of the job's own; whoever made it removes it.
        settings: The settings of the process that runs the body.
        reporter: Takes phases and frame counts.
        cancellation: Looked at between frames.
        meter: Measures the receipt.
        announce: Takes the result and its file right before that is published, to keep a record of it.
        output_tags: What the output says of itself, as tags of its container.
        places: The input's and the output's key as the storage knows them; None is for those of the request.
    """

    storage: Storage
    workdir: Path
    settings: Settings = field(default_factory=Settings)
    reporter: Reporter = field(default_factory=lambda: Reporter(_ignore))
    cancellation: CancellationToken = field(default_factory=CancellationToken)
    meter: Meter = field(default_factory=Meter)
    announce: Callable[[RenderResult, Path], None] = _announce_nothing
    output_tags: Mapping[str, str] = field(default_factory=dict)
    places: tuple[str, str] | None = None

    def places_of(self, request: Request) -> tuple[str, str]:
        """Return the input's and the output's key of `request` as the storage knows them."""
        return self.places or (request.input_key, request.output_key)

    def usage(self, model: str | None = None) -> Usage:
        """Return the receipt so far; `model` is the network that made pixels."""
        return self.meter.usage(self.storage.traffic, model=model)

    def raise_if_cancelled(self, function: str) -> None:
        """Raise JobCancelledError when somebody asked to stop."""
        if self.cancellation.cancelled:
            raise JobCancelledError("cancelled between two frames", function=function)
