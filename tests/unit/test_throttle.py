"""The loop throttle: a few tasks pass per loop iteration, in order, and none is lost."""

from __future__ import annotations

import asyncio

import pytest

from reel_modal._support.throttle import LoopThrottle


async def turns(throttle: LoopThrottle, count: int) -> list[int]:
    """Return the loop iteration in which each of `count` tasks passed."""
    turn = 0

    def count_turns() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count_turns)

    async def acquire() -> int:
        await throttle.acquire()
        return turn

    loop = asyncio.get_running_loop()
    loop.call_soon(count_turns)
    return await asyncio.gather(*(acquire() for _ in range(count)))


async def test_throttle_passes_few_per_iteration_in_order() -> None:
    passed = await turns(LoopThrottle(each_turn=3), 10)
    assert passed == sorted(passed)
    assert [passed.count(turn) for turn in sorted(set(passed))] == [3, 3, 3, 1]


async def test_throttle_single_task_does_not_wait() -> None:
    throttle = LoopThrottle()
    for _ in range(100):
        entering = throttle.acquire()
        with pytest.raises(StopIteration):
            entering.send(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_throttle_cancelled_tasks_free_their_turn() -> None:
    throttle = LoopThrottle(each_turn=1)
    tasks = [asyncio.ensure_future(throttle.acquire()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks[1:4]:
        task.cancel()
    await asyncio.wait(tasks, timeout=10)
    assert [task.cancelled() for task in tasks] == [False, True, True, True, False]


def test_throttle_each_loop_has_separate_turns() -> None:
    throttle = LoopThrottle(each_turn=2)
    for _ in range(2):
        assert len(asyncio.run(turns(throttle, 6))) == 6
