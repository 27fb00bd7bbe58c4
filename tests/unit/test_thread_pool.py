"""Blocking calls in a bounded pool of threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from reel_modal._support.threads import ThreadPool, run_in_thread

LIMIT_SECONDS = 10.0


def test_pool_runs_at_most_its_number_at_once() -> None:
    pool, gate = ThreadPool(2, "reel_modal-test"), threading.Event()
    started = [threading.Event() for _ in range(3)]

    def work(index: int) -> int:
        started[index].set()
        assert gate.wait(LIMIT_SECONDS)
        return threading.get_ident()

    calls = [pool.start(lambda index=index: work(index)) for index in range(3)]  # type: ignore[misc]
    assert all(event.wait(LIMIT_SECONDS) for event in started[:2])
    assert not started[2].is_set()
    gate.set()
    threads = [call.result(LIMIT_SECONDS) for call in calls]
    assert threads[2] in threads[:2]


async def test_late_call_returns_none_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    gate, ended = threading.Event(), threading.Event()

    def work() -> int:
        assert gate.wait(LIMIT_SECONDS)
        ended.set()
        return 42

    assert await run_in_thread(work, 0.01, purpose="the answer") is None
    assert "the answer took more than 0.01 s" in caplog.text
    gate.set()
    assert await asyncio.to_thread(ended.wait, LIMIT_SECONDS)  # it continued


async def test_call_in_thread_raises_error_of_work() -> None:
    def work() -> None:
        raise TimeoutError("of the work itself")

    with pytest.raises(TimeoutError, match="of the work itself"):
        await run_in_thread(work, LIMIT_SECONDS, purpose="the answer")
