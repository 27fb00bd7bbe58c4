"""Which job ids are in use, so that a request that is sent twice is rendered once.

It must not know what a job is made of.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from reel_modal.errors import ConfigError, JobConflictError
from reel_modal.job import Job
from reel_modal.single_flight import SingleFlight

__all__ = ["Submissions"]

R = TypeVar("R")

_MOST_REMEMBERED: Final = 10_000


class Submissions(Generic[R]):
    """Which job ids are in use, so that a request that is sent twice is rendered once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[str, SingleFlight[Job[R]]]] = OrderedDict()
        self._closed = False

    def close(self) -> None:
        """Refuse all that is submitted from now on."""
        self._closed = True

    def check_open(self, function: str) -> None:
        """Raise ConfigError if this was closed."""
        if self._closed:
            raise ConfigError(
                f"{function} was submitted to a registry that is closed; make another one, or close later"
            )

    async def once(self, job_id: str, content: str, start: Callable[[], Awaitable[Job[R]]]) -> Job[R]:
        """Return the job `job_id`, starting it if it is new or has failed; `content` is a hash of its request."""
        with self._lock:
            known, flight = self._known.setdefault(job_id, (content, SingleFlight()))
            self._known.move_to_end(job_id)
            while len(self._known) > _MOST_REMEMBERED:
                self._known.popitem(last=False)
        if known != content:
            raise JobConflictError(
                f"job_id {job_id!r} was submitted with another request; give each request an id of its own"
            )
        try:
            if (before := flight.value) is not None and await before.status() in {"failed", "cancelled"}:
                flight.forget(before)
            return await flight.get(start)
        finally:
            with self._lock:
                # An id whose job was never started is free for any request.
                if flight.empty and self._known.get(job_id) == (content, flight):
                    del self._known[job_id]
