"""Stages in threads: order, bounds, errors, and that none is left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from reel_modal.ahead import Ahead


def threads() -> set[str]:
    own = {"reel_modal-numbers", "reel_modal-first", "reel_modal-second"}
    return own & {thread.name for thread in threading.enumerate()}


def test_items_come_in_order_and_the_thread_ends() -> None:
    with Ahead(range(100), depth=3, name="numbers") as numbers:
        assert list(numbers) == list(range(100))
    assert threads() == set()


def test_it_runs_ahead_as_far_as_it_may_and_no_further() -> None:
    made: list[int] = []
    third = threading.Event()

    def source() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    with Ahead(source(), depth=2, name="numbers") as numbers:
        assert third.wait(30)  # two wait, the third is in the source's hand
        assert made == [0, 1, 2]
        assert next(iter(numbers)) == 0


def test_what_the_source_raises_comes_after_the_items_before_it() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    got: list[int] = []
    with pytest.raises(LookupError, match="gone"), Ahead(source(), depth=2, name="numbers") as numbers:
        got.extend(numbers)
    assert got == [1]
    assert threads() == set()


def test_leaving_early_closes_the_source_in_its_own_thread() -> None:
    closed: list[str] = []

    def source() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.current_thread().name)

    with Ahead(source(), depth=2, name="numbers") as numbers:
        next(iter(numbers))
    assert closed == ["reel_modal-numbers"]
    assert threads() == set()


def test_an_error_of_the_reader_ends_every_stage() -> None:
    def read() -> None:
        with (
            Ahead(iter(int, 1), depth=1, name="first") as first,
            Ahead((number + 1 for number in first), depth=1, name="second") as second,
        ):
            for _ in second:
                raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        read()
    assert threads() == set()


def test_an_error_of_the_first_stage_comes_out_of_the_last() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    with (
        pytest.raises(OSError, match="disk"),
        Ahead(source(), depth=1, name="first") as first,
        Ahead((number for number in first), depth=1, name="second") as second,
    ):
        assert list(second) == [1]
    assert threads() == set()


def test_waits_for_room_are_not_work() -> None:
    entered, go = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 1
        entered.set()
        yield 2

    with Ahead(source(), depth=1, name="numbers") as numbers:
        assert entered.wait(30)
        go.wait(0.3)  # the second item waits for room all the while
        assert list(numbers) == [1, 2]
    assert numbers.busy_seconds < 0.25
