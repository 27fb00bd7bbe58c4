"""Prefetch threads: order, limits, errors and cleanup."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from reel_modal._support.prefetch import Prefetcher


def threads() -> set[str]:
    own = {"reel_modal-numbers", "reel_modal-first", "reel_modal-second"}
    return own & {thread.name for thread in threading.enumerate()}


def test_prefetcher_keeps_order_and_ends_its_thread() -> None:
    with Prefetcher(range(100), depth=3, name="numbers") as numbers:
        assert list(numbers) == list(range(100))
    assert threads() == set()


def test_prefetcher_runs_ahead_no_further_than_depth() -> None:
    produced: list[int] = []
    third = threading.Event()

    def source() -> Iterator[int]:
        for number in range(10):
            produced.append(number)
            if number == 2:
                third.set()
            yield number

    with Prefetcher(source(), depth=2, name="numbers") as numbers:
        assert third.wait(30)  # two are queued, the third waits for room
        assert produced == [0, 1, 2]
        assert next(iter(numbers)) == 0


def test_prefetcher_source_error_follows_earlier_items() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    got: list[int] = []
    with pytest.raises(LookupError, match="gone"), Prefetcher(source(), depth=2, name="numbers") as numbers:
        got.extend(numbers)
    assert got == [1]
    assert threads() == set()


def test_prefetcher_leaving_early_closes_source_in_its_thread() -> None:
    closed: list[str] = []

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    with Prefetcher(source(), depth=2, name="numbers") as numbers:
        next(iter(numbers))
    assert closed == ["reel_modal-numbers"]
    assert threads() == set()


def test_prefetcher_reader_error_ends_every_stage() -> None:
    def read() -> None:
        with (
            Prefetcher(iter(int, 1), depth=1, name="first") as first,
            Prefetcher((number + 1 for number in first), depth=1, name="second") as second,
        ):
            for _ in second:
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        read()
    assert threads() == set()


def test_prefetcher_first_stage_error_reaches_last_stage() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    with (
        pytest.raises(OSError, match="disk"),
        Prefetcher(source(), depth=1, name="first") as first,
        Prefetcher((number for number in first), depth=1, name="second") as second,
    ):
        assert list(second) == [1]
    assert threads() == set()


class _Clock:
    """A clock that only the test moves, in place of the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits_for_room = threading.Event()
        self._readings = 0

    def perf_counter(self) -> float:
        now = self.now
        self._readings += 1
        if self._readings == 4:  # after the start, and before and after the first item was added
            self.waits_for_room.set()
        return now


def test_prefetcher_waiting_for_room_is_not_busy_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _Clock()
    monkeypatch.setattr("reel_modal._support.prefetch.time", clock)

    def source() -> Iterator[int]:
        yield 1
        clock.now += 2
        yield 2

    with Prefetcher(source(), depth=1, name="numbers") as numbers:
        assert clock.waits_for_room.wait(30)
        clock.now += 100
        assert list(numbers) == [1, 2]
    assert numbers.busy_seconds == 2
