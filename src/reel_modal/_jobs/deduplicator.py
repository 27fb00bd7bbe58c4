"""Deduplication of submissions: one job per job id."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from reel_modal._jobs.job import Job
from reel_modal._support.single_flight import SingleFlight
from reel_modal.errors import ConfigError, JobConflictError

__all__ = ["Deduplicator"]

R = TypeVar("R")

_MOST_REMEMBERED: Final = 10_000


class Deduplicator(Generic[R]):
    """Registry of the job ids in use, so that a request that is submitted twice is rendered once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._submissions: OrderedDict[str, tuple[str, SingleFlight[Job[R]]]] = OrderedDict()
        self._closed = False

    def close(self) -> None:
        """Reject all further submissions."""
        self._closed = True

    def check_open(self, function: str) -> None:
        """Raise ConfigError if this object was closed."""
        if self._closed:
            raise ConfigError(
                f"{function} was submitted to a registry that is closed; create another one, or close it later"
            )

    async def submit_once(self, job_id: str, content: str, start: Callable[[], Awaitable[Job[R]]]) -> Job[R]:
        """Return the job `job_id`; start it if it is new, failed or cancelled. `content` is a hash of its request."""
        with self._lock:
            submitted_content, flight = self._submissions.setdefault(job_id, (content, SingleFlight()))
            self._submissions.move_to_end(job_id)
            while len(self._submissions) > _MOST_REMEMBERED:
                self._submissions.popitem(last=False)
        if submitted_content != content:
            raise JobConflictError(
                f"job_id {job_id!r} was submitted with another request; use another job_id for each request"
            )
        try:
            if (previous := flight.value) is not None and await previous.status() in {"failed", "cancelled"}:
                flight.forget(previous)
            return await flight.get(start)
        finally:
            with self._lock:
                # If the job was never started, its id is free for any request.
                if flight.empty and self._submissions.get(job_id) == (content, flight):
                    del self._submissions[job_id]
