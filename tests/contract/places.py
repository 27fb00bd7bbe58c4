"""One test interface for the three backends."""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tests.jobs import PHASES, event, overlay, rendered
from tests.processes import children, command, family

from reel_modal import FunctionRegistry, JobOptions, OverlayRequest, Settings, probe
from reel_modal.backends.base import Backend
from reel_modal.backends.local import LocalBackend
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import InvalidMediaError, ObjectNotFoundError
from reel_modal.functions.resources import Resources
from reel_modal.testing import InMemoryBackend, Script

if TYPE_CHECKING:
    from tests.integration.loopback.plane import LoopbackPlane

NEVER = 1e9


class Place(ABC):
    """A backend with the additional access that a test needs."""

    _numbers = itertools.count(1)

    def __init__(self, backend: Backend, store_url: str | None = None) -> None:
        self.backend = backend
        self._settings = Settings(store_url=store_url)
        self._prefix = f"{backend.name}-{next(self._numbers)}"

    def registry(self, options: JobOptions | None = None) -> FunctionRegistry:
        """Return a registry as a host creates it; all registries of one test share the backend."""
        return FunctionRegistry(self._settings, backend=self.backend, options=options)

    def request(self, name: str = "job", *, source: str = "short.mp4") -> OverlayRequest:
        """Return a request with a unique job id; `long.mp4` means seconds of work, which tests do not wait for."""
        return overlay(f"{self._prefix}-{name}", source=source, preset="veryslow" if source == "long.mp4" else "fast")

    @abstractmethod
    def submissions(self) -> int:
        """Return the number of started jobs."""

    @abstractmethod
    def output_frames(self, request: OverlayRequest) -> int | None:
        """Return the number of frames of the output, or None if it does not exist."""

    def has_output(self, request: OverlayRequest) -> bool:
        """Return whether the output exists."""
        return self.output_frames(request) is not None

    @abstractmethod
    async def leftovers(self) -> list[str]:
        """Return the processes and files that remain although no job is running."""


class Memory(Place):
    """The in-memory backend, with scripts that simulate the functions."""

    def __init__(self) -> None:
        self.published: dict[object, int] = {}
        super().__init__(_Scripted(self.published))

    def submissions(self) -> int:
        assert isinstance(self.backend, InMemoryBackend)
        return len(self.backend.submitted)

    def output_frames(self, request: OverlayRequest) -> int | None:
        return self.published.get(request.output_key)

    async def leftovers(self) -> list[str]:
        assert isinstance(self.backend, InMemoryBackend)
        return [call_id for call_id, call in self.backend._calls.items() if not call.ended.done()]


class _Scripted(InMemoryBackend):
    """A backend that selects the script by the input of the request."""

    def __init__(self, published: dict[object, int]) -> None:
        super().__init__()
        self._published = published

    async def submit(
        self,
        function: str,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        workers: int = 1,
        resources: Resources | None = None,
    ) -> str:
        if function == "render_overlay" and isinstance(args[0], Mapping):
            self.script(function, self._scripts_by_input()[str(args[0]["input_key"])])
        return await super().submit(function, args, kwargs, workers=workers, resources=resources)

    def _scripts_by_input(self) -> dict[str, Script]:
        every = [event(2 * index + half, phase) for index, phase in enumerate(PHASES) for half in (1, 2)]

        def publish(frames: int) -> Callable[[Mapping[str, object]], dict[str, object]]:
            def answer(payload: Mapping[str, object]) -> dict[str, object]:
                self._published[payload["output_key"]] = frames
                return rendered(payload, frames=frames)

            return answer

        return {
            "short.mp4": Script(publish(25), events=every, seconds=0.2),
            "medium.mp4": Script(publish(200), events=every, seconds=0.2),
            "long.mp4": Script(events=every[:3], seconds=NEVER),
            "garbage.mp4": Script(error=InvalidMediaError("garbage.mp4 cannot be read as a video")),
            "missing.mp4": Script(error=ObjectNotFoundError("object 'missing.mp4' not found")),
        }


class Local(Place):
    """Local worker processes."""

    def __init__(self, store: Path, scratch: Path) -> None:
        super().__init__(LocalBackend(Settings(store_url=store.as_uri())))
        self._store = store
        self._scratch = scratch
        self._before = children()

    def submissions(self) -> int:
        assert isinstance(self.backend, LocalBackend)
        return len(self.backend._calls)

    def output_frames(self, request: OverlayRequest) -> int | None:
        return _frames(self._store / request.output_key)

    async def leftovers(self) -> list[str]:
        return [*map(command, children() - self._before), *map(str, self._scratch.iterdir()), *_hidden(self._store)]


class Modal(Place):
    """Containers of the loopback plane, run by Modal's client and runtime."""

    def __init__(self, plane: LoopbackPlane, store: Path, app: str) -> None:
        super().__init__(ModalBackend(app), store.as_uri())
        self._plane = plane
        self._store = store

    def submissions(self) -> int:
        return self._plane.count("FunctionMap")

    def output_frames(self, request: OverlayRequest) -> int | None:
        return _frames(self._store / request.output_key)

    async def leftovers(self) -> list[str]:
        def idle() -> bool:
            return not any(container.call_ids for container in self._plane.containers())

        # Modal only records a cancellation; the container learns of it later.
        await asyncio.to_thread(self._plane.wait_for, idle)
        pids = [container.pid for container in self._plane.containers() if container.pid is not None]
        started = {child for pid in pids for child in family(pid)}
        running = filter(None, map(command, started))
        return [*running, *map(str, self._plane.temporary_files()), *_hidden(self._store)]


def _frames(path: Path) -> int | None:
    if not path.exists():
        return None
    scan = probe(path, scan=True).scan
    return 0 if scan is None else scan.frame_count


def _hidden(store: Path) -> list[str]:
    return [str(path) for path in store.rglob(".*")]
