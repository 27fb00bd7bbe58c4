"""Remote functions: arguments, options, synchronous calls, mapping over many requests."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping

import pytest
from tests.jobs import event, overlay
from tests.unit.registries import NEVER, host, settle

from reel_modal import JobOptions, RemoteFunction
from reel_modal.errors import BadInputError, BlockingCallError, ConfigError, InvalidMediaError
from reel_modal.functions.resources import Resources
from reel_modal.testing import InMemoryBackend, ManualClock, Script


async def test_function_without_codec_passes_arguments_and_result() -> None:
    backend = InMemoryBackend()
    backend.script("add", Script(lambda x, *, y: [x, y]))
    add: RemoteFunction[[int, int], list[int]] = RemoteFunction("add", backend)
    assert await add(1, y=2) == [1, 2]
    first, second = await add.submit(1, y=2), await add.submit(1, y=2)
    assert first.id != second.id


async def test_with_options_changes_only_the_copy() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    backend.script("f", Script(seconds=NEVER))
    function: RemoteFunction[[], None] = RemoteFunction("f", backend, clock=clock)
    hurried = function.with_options(deadline_seconds=5).with_options(on_cancel="detach")
    waiting = [asyncio.ensure_future(one()) for one in (function, hurried)]
    await clock.advance(6)
    assert [task.done() for task in waiting] == [False, True]
    with pytest.raises(Exception, match="deadline of 5 s"):
        await waiting[1]
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    assert backend.cancelled == ["call-2", "call-1"]


async def test_with_options_infinity_disables_a_limit() -> None:
    clock = ManualClock()
    backend = InMemoryBackend(clock)
    options = JobOptions(stall_seconds=10)
    backend.script("f", Script("done", seconds=100, events=[event(1)]))
    function: RemoteFunction[[], str] = RemoteFunction("f", backend, clock=clock, options=options)
    waiting = asyncio.ensure_future(function.with_options(stall_seconds=math.inf)())
    await clock.advance(101)
    assert await waiting == "done"


def test_call_returns_the_result_synchronously() -> None:
    assert host(InMemoryBackend())["render_overlay"].call(overlay()).frames == 25


async def test_call_inside_event_loop_is_refused() -> None:
    backend = InMemoryBackend()
    with pytest.raises(BlockingCallError):
        host(backend)["render_overlay"].call(overlay())
    assert backend.submitted == []


# Many at once.


class Gated(InMemoryBackend):
    """A backend whose jobs end when the test calls `end`; it counts running jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[int, asyncio.Event] = {}
        self.most = 0
        self.live = 0
        self.function: RemoteFunction[[int], int] = RemoteFunction("f", self)

    async def submit(
        self,
        function: str,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        *,
        workers: int = 1,
        resources: Resources | None = None,
    ) -> str:
        self.script(function, Script(args[0], seconds=NEVER))
        self.live += 1
        self.most = max(self.most, self.live)
        return await super().submit(function, args, kwargs, workers=workers, resources=resources)

    def end(self, number: int, error: Exception | None = None) -> None:
        """End the job whose argument is `number`."""
        (submitted,) = [one for one in self.submitted if one.args == (number,)]
        self.live -= 1
        self._end(self._calls[submitted.call_id], value=number, error=error)

    @property
    def running(self) -> list[int]:
        ended = {call_id for call_id, call in self._calls.items() if call.ended.done()}
        return [one.args[0] for one in self.submitted if one.call_id not in ended]  # type: ignore[misc]


async def test_map_ordered_yields_in_order_with_limited_concurrency() -> None:
    backend, results = Gated(), list[int]()

    async def collect() -> None:
        results.extend([result async for result in backend.function.map(range(5), concurrency=2)])

    collecting = asyncio.ensure_future(collect())
    await settle()
    assert backend.running == [0, 1]
    backend.end(1)
    await settle()
    assert backend.running == [0]
    for number in (0, 3, 2, 4):
        await settle()
        backend.end(number)
    await collecting
    assert results == [0, 1, 2, 3, 4]
    assert backend.most == 2


async def test_map_unordered_yields_as_completed() -> None:
    backend, results = Gated(), list[int]()

    async def collect() -> None:
        async for result in backend.function.map(range(4), concurrency=3, ordered=False):
            results.append(result)

    collecting = asyncio.ensure_future(collect())
    for number in (2, 3, 0, 1):
        await settle()
        backend.end(number)
        await settle()
        assert results[-1] == number
    await collecting
    assert backend.most == 3


@pytest.mark.parametrize("ordered", [True, False])
async def test_map_failure_cancels_the_remaining_jobs(ordered: bool) -> None:
    backend = Gated()
    results = backend.function.map(range(10), concurrency=3, ordered=ordered)
    first = asyncio.ensure_future(anext(results))
    await settle()
    backend.end(0, InvalidMediaError("no video"))
    with pytest.raises(BadInputError):
        await first
    assert backend.running == []
    assert len(backend.submitted) == 3
    assert set(backend.cancelled) == {"call-2", "call-3"}


async def test_map_closed_early_cancels_running_jobs() -> None:
    backend = Gated()
    results = backend.function.map(range(10), concurrency=2)
    first = asyncio.ensure_future(anext(results))
    await settle()
    backend.end(0)
    assert await first == 0
    await results.aclose()
    assert backend.running == []
    assert backend.cancelled == ["call-2"]


async def test_map_cancelled_consumer_cancels_the_jobs() -> None:
    backend = Gated()

    async def collect() -> None:
        async for _ in backend.function.map(range(10), concurrency=4):
            pass

    collecting = asyncio.ensure_future(collect())
    await settle()
    collecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collecting
    assert backend.running == []
    assert len(backend.cancelled) == 4


async def test_map_takes_items_lazily_and_accepts_empty_input() -> None:
    backend, taken = Gated(), list[int]()

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = backend.function.map(items(), concurrency=3)
    first = asyncio.ensure_future(anext(results))
    await settle()
    assert taken == [0, 1, 2]
    first.cancel()
    await asyncio.wait({first})
    assert [result async for result in backend.function.map([])] == []


@pytest.mark.parametrize("concurrency", [0, -1])
async def test_map_invalid_concurrency_is_refused(concurrency: int) -> None:
    with pytest.raises(ConfigError, match=f"concurrency is {concurrency}"):
        await anext(Gated().function.map([1], concurrency=concurrency))
