"""The deployed version on which the jobs of a backend run, and the looked-up functions of that version."""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from reel_modal._support.single_flight import SingleFlight
from reel_modal.backends.modal._drift import DeployedApp
from reel_modal.errors import NotDeployedError, RemoteError
from reel_modal.functions.resources import Resources

if TYPE_CHECKING:
    import modal

__all__ = ["Handle", "PinnedVersion", "VersionPin"]

_log = logging.getLogger(__name__)

_PIN_SECONDS: Final = 60.0
"""How long submissions use a version before the next one asks Modal whether another one is deployed."""


@dataclass(frozen=True, slots=True)
class Handle:
    """A function that was looked up.

    Attributes:
        function: The hydrated function.
        spawn: Starts a call of it. It is read once: modal binds such a method by copying its metadata, each time.
    """

    function: modal.Function[..., Any, Any]
    spawn: Callable[..., Awaitable[modal.FunctionCall[Any]]]


_Key: TypeAlias = tuple[str, Resources | None]


class _Handles:
    """The looked-up functions of one version, by name and resources."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: defaultdict[_Key, SingleFlight[Handle]] = defaultdict(SingleFlight)

    def flight(self, key: _Key) -> SingleFlight[Handle]:
        with self._lock:
            return self._flights[key]


@dataclass(frozen=True, slots=True, eq=False)
class PinnedVersion:
    """One version of a deployment, on which jobs are submitted.

    Attributes:
        app: State of the app when it was read; None if it could not be read, or if the jobs are not pinned.
        problem: Why it could not be read.
        read_at: Monotonic time of that.
        handles: Its functions.
    """

    app: DeployedApp | None = None
    problem: RemoteError | None = None
    read_at: float = 0.0
    handles: _Handles = field(default_factory=_Handles)

    @property
    def version(self) -> int | None:
        """Number of the version; None for the version that is deployed when a call starts."""
        return (self.app.version or None) if self.app is not None else None


class VersionPin:
    """The current `PinnedVersion`, shared by all submissions, and read again after a minute.

    Args:
        read: Returns the deployed app.
        monotonic: Returns monotonic seconds.
    """

    def __init__(
        self, read: Callable[[], Awaitable[DeployedApp]], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._monotonic = monotonic
        self._flight: SingleFlight[PinnedVersion] = SingleFlight()
        self._expired: PinnedVersion | None = None

    async def current(self) -> PinnedVersion:
        """Return the version for a submission; the first one after a minute sends a request, and others wait for it.

        If the version cannot be read again, jobs stay on the version that was read before.
        """
        pinned = self._flight.value
        if pinned is not None and self._monotonic() - pinned.read_at >= _PIN_SECONDS:
            self._expired = pinned
            self._flight.forget(pinned)
        return await self._flight.get(self._read_again)

    def forget(self, pinned: PinnedVersion) -> None:
        """Let the next submission read the version again and look its functions up again."""
        self._expired = None
        self._flight.forget(pinned)

    def renew(self) -> None:
        """Let the next submission read the version; its functions are looked up again if it has changed."""
        if (pinned := self._flight.value) is not None:
            self._expired = pinned
            self._flight.forget(pinned)

    async def _read_again(self) -> PinnedVersion:
        before = self._expired
        try:
            app = await self._read()
        except RemoteError as error:
            if before is None or before.app is None or isinstance(error, NotDeployedError):
                return PinnedVersion(problem=error, read_at=self._monotonic())
            _log.warning(
                "jobs stay on version %d, since the deployed one cannot be read: %s", before.app.version, error
            )
            app = before.app
        if before is not None and before.app is not None:
            if before.app == app:
                return PinnedVersion(app, read_at=self._monotonic(), handles=before.handles)
            _log.info(
                "jobs that are submitted from now on run on version %d, not %d", app.version, before.app.version
            )
        return PinnedVersion(app, read_at=self._monotonic())
