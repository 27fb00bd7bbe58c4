"""A stage of a pipeline: an iterable that is worked off in a thread, a few items ahead of who reads it.

It must not know what the items are.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

__all__ = ["Ahead"]

T = TypeVar("T")

_running: weakref.WeakSet[Ahead[Any]] = weakref.WeakSet()


class Ahead(Generic[T]):
    """Iterates `source` in a thread of its own, at most `depth` items ahead.

    What the source raises is raised where the items are read. Leaving the block ends the thread at its next item: a
    thread cannot be stopped in the middle of one. A generator is closed in the thread that ran it.

    Args:
        source: What makes the items.
        depth: Most that are kept waiting, at least 1.
        name: Of the thread.

    Attributes:
        busy_seconds: What the source took, without waits for room; known when it has ended.

    Example:
        >>> with Ahead(iter([1, 2, 3]), depth=2, name="numbers") as numbers:
        ...     list(numbers)
        [1, 2, 3]
    """

    def __init__(self, source: Iterable[T], *, depth: int, name: str) -> None:
        self._source = source
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"reel_modal-{name}", daemon=True)
        self.busy_seconds: float = 0.0

    def __enter__(self) -> Self:
        _running.add(self)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread at its next item; safe to call twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        _running.discard(self)
        if self._thread is not threading.current_thread():  # the garbage collector runs in any thread
            self._thread.join()

    def __iter__(self) -> Iterator[T]:
        """Yield the items, each once."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._ended)
                if not self._items:
                    break
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        started = time.perf_counter()
        try:
            for item in self._source:
                if not self._put(item):
                    break
            if isinstance(self._source, Generator):
                self._source.close()
        except BaseException as error:  # noqa: BLE001 - it is raised where the items are read
            self._error = error
        finally:
            with self._changed:
                self.busy_seconds += time.perf_counter() - started
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Hand on one item as soon as there is room; return whether anybody still wants more."""
        waiting = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            self.busy_seconds -= time.perf_counter() - waiting
            self._items.append(item)
            self._changed.notify_all()
            return not self._closed


@atexit.register
def _close_all() -> None:
    """Close what still runs at exit; later, the threads that `close` joins are stopped for good."""
    for ahead in list(_running):
        ahead.close()
