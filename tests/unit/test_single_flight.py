"""One attempt for all who ask at the same time, whatever becomes of those who ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from reel_modal.single_flight import SingleFlight


class Maker:
    """Makes 1, 2, 3, …, each when it is told to; counts how many are being made at once."""

    def __init__(self, *failures: Exception) -> None:
        self.made = 0
        self.at_once = 0
        self.started = asyncio.Event()
        self.gate = asyncio.Event()
        self._failures = list(failures)

    async def make(self) -> int:
        self.made += 1
        number = self.made
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
    """Two event loops, each in a thread of its own."""
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
def test_a_hundred_callers_of_four_threads_and_two_loops_share_one_attempt(
    loops: list[asyncio.AbstractEventLoop], fails: bool
) -> None:
    flight: SingleFlight[object] = SingleFlight()
    made: list[object] = []
    arrived = threading.Semaphore(0)
    everybody = threading.Event()
    together = threading.Barrier(4)

    async def make() -> object:
        made.append(object())
        await asyncio.to_thread(everybody.wait, 30)
        if fails:
            raise ConnectionError("nobody there")
        return made[0]

    async def ask() -> object:
        # In the same turn of its loop: who arrives has joined the attempt.
        arrived.release()
        return await flight.get(make)

    asked: list[Future[object]] = []

    def ask_often() -> None:
        together.wait()
        asked.extend(asyncio.run_coroutine_threadsafe(ask(), loops[index % 2]) for index in range(25))

    threads = [threading.Thread(target=ask_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(100):
        assert arrived.acquire(timeout=30)
    for loop in loops:  # one more turn of each
        asyncio.run_coroutine_threadsafe(settle(), loop).result(30)
    everybody.set()
    if fails:
        assert {type(future.exception(30)) for future in asked} == {ConnectionError}
        assert flight.empty
    else:
        assert [future.result(30) for future in asked] == made * 100
    assert (len(asked), len(made)) == (100, 1)


async def test_a_failure_is_told_to_all_who_waited_and_then_forgotten() -> None:
    maker, flight = Maker(ValueError("no")), SingleFlight[int]()
    asking = [asyncio.ensure_future(flight.get(maker.make)) for _ in range(3)]
    await settle()
    maker.gate.set()
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert [str(error) for error in told] == ["no"] * 3
    assert flight.empty
    assert await flight.get(maker.make) == 2
    assert maker.made == 2


async def test_when_the_leader_is_cancelled_another_one_leads() -> None:
    maker, flight = Maker(), SingleFlight[int]()
    leader, *others = [asyncio.ensure_future(flight.get(maker.make)) for _ in range(3)]
    await settle()
    leader.cancel()
    await settle()
    assert leader.cancelled()
    assert (maker.made, maker.at_once) == (2, 1)
    maker.gate.set()
    assert await asyncio.gather(*others) == [2, 2]


async def test_a_leader_in_another_loop_that_ends_hands_over(loops: list[asyncio.AbstractEventLoop]) -> None:
    flight: SingleFlight[str] = SingleFlight()
    leads = threading.Event()

    async def stuck() -> str:
        leads.set()
        await asyncio.Event().wait()
        return "never"

    async def here() -> str:
        return "here"

    first = asyncio.run_coroutine_threadsafe(flight.get(stuck), loops[0])
    await asyncio.to_thread(leads.wait, 30)
    second = asyncio.ensure_future(flight.get(here))
    await settle()
    assert not second.done()
    first.cancel()
    assert await asyncio.wait_for(second, 30) == "here"


async def test_one_who_waits_and_is_cancelled_disturbs_nobody() -> None:
    maker, flight = Maker(), SingleFlight[int]()
    leader, impatient, patient = [asyncio.ensure_future(flight.get(maker.make)) for _ in range(3)]
    await settle()
    impatient.cancel()
    await settle()
    assert impatient.cancelled()
    maker.gate.set()
    assert await asyncio.gather(leader, patient) == [1, 1]


async def test_a_wait_with_a_time_out_ends_in_time_out_even_when_the_leader_goes_as_well() -> None:
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
    assert maker.made == 1


async def test_of_many_who_find_a_value_stale_one_makes_the_next() -> None:
    maker, flight = Maker(), SingleFlight[int]()
    maker.gate.set()
    stale = await flight.get(maker.make)
    assert flight.value == stale

    async def replace() -> int:
        flight.forget(stale)
        return await flight.get(maker.make)

    assert await asyncio.gather(*(replace() for _ in range(20))) == [2] * 20
    assert maker.made == 2
