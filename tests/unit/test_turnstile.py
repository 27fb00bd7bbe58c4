"""Starting many things at once: a few in each turn of the loop, in order, and nobody is lost."""

from __future__ import annotations

import asyncio

import pytest

from reel_modal.backends.turnstile import Turnstile


async def turns(turnstile: Turnstile, count: int) -> list[int]:
    """Return in which turn of the loop each of `count` tasks passed."""
    turn = 0

    def count_turns() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count_turns)

    async def enter() -> int:
        await turnstile.enter()
        return turn

    loop = asyncio.get_running_loop()
    loop.call_soon(count_turns)
    return await asyncio.gather(*(enter() for _ in range(count)))


async def test_a_few_pass_in_each_turn_in_order() -> None:
    passed = await turns(Turnstile(each_turn=3), 10)
    assert passed == sorted(passed)
    assert [passed.count(turn) for turn in sorted(set(passed))] == [3, 3, 3, 1]


async def test_who_is_alone_does_not_wait() -> None:
    turnstile = Turnstile()
    for _ in range(100):
        entering = turnstile.enter()
        with pytest.raises(StopIteration):
            entering.send(None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_who_gives_up_makes_room() -> None:
    turnstile = Turnstile(each_turn=1)
    tasks = [asyncio.ensure_future(turnstile.enter()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in tasks[1:4]:
        task.cancel()
    await asyncio.wait(tasks, timeout=10)
    assert [task.cancelled() for task in tasks] == [False, True, True, True, False]


def test_each_loop_has_its_own_turns() -> None:
    turnstile = Turnstile(each_turn=2)
    for _ in range(2):
        assert len(asyncio.run(turns(turnstile, 6))) == 6
