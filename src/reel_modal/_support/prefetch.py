"""Prefetch an iterable in a background thread."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

__all__ = ["Prefetcher"]

T = TypeVar("T")

_running: weakref.WeakSet[Prefetcher[Any]] = weakref.WeakSet()


class Prefetcher(Generic[T]):
    """An iterable that reads `source` in a background thread, at most `depth` items ahead.

    An exception of the source is raised where the items are read. Leaving the block ends the thread at its next item:
    a thread cannot be stopped in the middle of one. A generator is closed in the thread that ran it.

    Args:
        source: Iterable that produces the items.
        depth: Most items that are kept ready, at least 1.
        name: Name of the thread, without its prefix `reel_modal-`.

    Attributes:
        busy_seconds: Time that the source took, without waits for free space; complete when the source has ended.

    Example:
        >>> with Prefetcher(iter([1, 2, 3]), depth=2, name="numbers") as numbers:
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
        if self._thread is not threading.current_thread():  # the garbage collector may run in any thread
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
        except BaseException as error:  # noqa: BLE001 - it is raised again when the items are read
            self._error = error
        finally:
            with self._changed:
                self.busy_seconds += time.perf_counter() - started
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: T) -> bool:
        """Add an item as soon as there is room; return whether more items are wanted."""
        waiting = time.perf_counter()
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._depth)
            self.busy_seconds -= time.perf_counter() - waiting
            self._items.append(item)
            self._changed.notify_all()
            return not self._closed


@atexit.register
def _close_all() -> None:
    """Close running prefetchers at exit; later the threads are frozen, and `close` would wait for ever."""
    for prefetcher in list(_running):
        prefetcher.close()
