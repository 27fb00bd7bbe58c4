"""Concurrent callers share one attempt, even if some of them are cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from reel_modal._support.single_flight import SingleFlight


class Maker:
    """Returns 1, 2, 3, …, each after `gate` is set; counts concurrent attempts."""

    def __init__(self, *failures: Exception) -> None:
        self.count = 0
        self.at_once = 0
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self._failures = list(failures)

    async def make(self) -> int:
        self.count += 1
        number = self.count
        self.at_once += 1
        self.started.set()
        try:
            await self.gate.wait()
        finally:
            self.at_once -= 1
        if self._failures:
            raise self._failures.pop(0)
        return number


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def loops() -> Iterator[list[asyncio.AbstractEventLoop]]:
    """Run two event loops in two threads."""
    both = [asyncio.new_event_loop() for _ in range(2)]
    threads = [threading.Thread(target=loop.run_forever) for loop in both]
    for thread in threads:
        thread.start()
    yield both
    for loop, thread in zip(both, threads, strict=True):
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize("fails", [False, True])
def test_single_flight_100_callers_in_two_loops_share_one_attempt(
    loops: list[asyncio.AbstractEventLoop], fails: bool
) -> None:
    flight: SingleFlight[object] = SingleFlight()
    attempts: list[object] = []
    arrived = threading.Semaphore(0)
    all_joined = threading.Event()
    start = threading.Barrier(4)

    async def make() -> object:
        attempts.append(object())
        await asyncio.to_thread(all_joined.wait, 30)
        if fails:
            raise ConnectionError("nobody there")
        return attempts[0]

    async def ask() -> object:
        # In the same loop iteration, so this caller has joined the attempt.
        arrived.release()
        return await flight.get(make)

    futures: list[Future[object]] = []

    def ask_often() -> None:
        start.wait()
        futures.extend(asyncio.run_coroutine_threadsafe(ask(), loops[index % 2]) for index in range(25))

    threads = [threading.Thread(target=ask_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(100):
        assert arrived.acquire(timeout=30)
    for loop in loops:  # one more iteration of each
        asyncio.run_coroutine_threadsafe(settle(), loop).result(30)
    all_joined.set()
    if fails:
        assert {type(future.exception(30)) for future in futures} == {ConnectionError}
        assert flight.empty
    else:
        assert [future.result(30) for future in futures] == attempts * 100
    assert (len(futures), len(attempts)) == (100, 1)


async def test_single_flight_failure_reaches_all_and_is_forgotten() -> None:
    maker, flight = Maker(ValueError("no")), SingleFlight[int]()
    asking = [asyncio.ensure_future(flight.get(maker.make)) for _ in range(3)]
    await settle()
    maker.gate.set()
    errors = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(error) for error in errors] == ["no"] * 3
    assert flight.empty
    assert await flight.get(maker.make) == 2
    assert maker.count == 2


async def test_single_flight_cancelled_leader_is_replaced() -> None:
    maker, flight = Maker(), SingleFlight[int]()
    leader, *others = [asyncio.ensure_future(flight.get(maker.make)) for _ in range(3)]
    await settle()
    leader.cancel()
    await settle()
    assert leader.cancelled()
    assert (maker.count, maker.at_once) == (2, 1)
    maker.gate.set()
    assert await asyncio.gather(*others) == [2, 2]


async def test_single_flight_cancelled_leader_in_other_loop_is_replaced(
    loops: list[asyncio.AbstractEventLoop],
) -> None:
    flight: SingleFlight[str] = SingleFlight()
    leads = threading.Event()

    async def stuck() -> str:
        leads.set()
        await asyncio.Event().wait()
        return "never"

    async def local() -> str:
        return "here"

    first = asyncio.run_coroutine_threadsafe(flight.get(stuck), loops[0])
    await asyncio.to_thread(leads.wait, 30)
    second = asyncio.ensure_future(flight.get(local))
    await settle()
    assert not second.done()
    first.cancel()
    assert await asyncio.wait_for(second, 30) == "here"


async def test_single_flight_cancelled_waiter_affects_no_one_else() -> None:
    maker, flight = Maker(), SingleFlight[int]()
    leader, impatient, patient = [asyncio.ensure_future(flight.get(maker.make)) for _ in range(3)]
    await settle()
    impatient.cancel()
    await settle()
    assert impatient.cancelled()
    maker.gate.set()
    assert await asyncio.gather(leader, patient) == [1, 1]


async def test_single_flight_timeout_is_kept_if_the_leader_leaves() -> None:
    maker, flight = Maker(), SingleFlight[int]()
    leader = asyncio.ensure_future(flight.get(maker.make))
    await maker.started.wait()

    async def wait() -> int:
        async with asyncio.timeout(0):
            return await flight.get(maker.make)

    waiter = asyncio.ensure_future(wait())
    leader.cancel()
    with pytest.raises(TimeoutError):
        await waiter
    assert maker.count == 1


async def test_single_flight_stale_value_is_replaced_once() -> None:
    maker, flight = Maker(), SingleFlight[int]()
    maker.gate.set()
    stale = await flight.get(maker.make)
    assert flight.value == stale

    async def replace() -> int:
        flight.forget(stale)
        return await flight.get(maker.make)

    assert await asyncio.gather(*(replace() for _ in range(20))) == [2] * 20
    assert maker.count == 2
