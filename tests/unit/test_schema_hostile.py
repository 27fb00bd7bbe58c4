"""Hostile requests: each is either valid or refused with its path, within milliseconds."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from tests.cpu_time import within_cpu_seconds
from tests.unit.values import GOLDEN, NASTY

from reel_modal import schema
from reel_modal.errors import RequestError
from reel_modal.schema.requests import Request

ROUNDS = 400
SLOWEST_SECONDS = 1.0
"""The limit for parsing one request, in CPU time."""


TEXTS: list[Callable[[str], str | bytes]] = [
    lambda text: text[: len(text) // 2],
    lambda text: text + text,
    lambda text: "[" * 200_000 + text,
    lambda _: '{"a":' * 200_000,
    lambda text: text.replace("1", "1" * 100_000, 1),
    lambda text: text.replace("1", "1e999999999", 1),
    lambda text: text.replace(":", ": NaN, ", 1),
    lambda text: text.replace("{", '{"job_id": "x", "job_id": "y", ', 1),
    lambda text: text.encode("utf-16"),
    lambda text: b"\xff\xfe" + text.encode(),
    lambda text: text.replace('"', "'"),
    lambda text: text.replace("}", ', "a": "' + "x" * 9_000_000 + '"}', 1),
    lambda _: '"' + "\\ud800" * 1000 + '"',
    lambda _: "0" * 1_000_000,
    lambda _: "-" + "9" * 1_000_000,
    lambda _: "{" + ",".join(f'"{index}":0' for index in range(100_000)) + "}",
]


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in islice(items, 50 if len(path) < 8 else 0):
        found += paths(each, (*path, key))
    return found


def mutated(chance: random.Random) -> tuple[type[Request], Any]:
    """Return a request with one to three changes, which usually make it invalid."""
    row = chance.choice(GOLDEN)
    kind: type[Request] = getattr(schema, row["kind"])
    raw = copy.deepcopy(chance.choice([row["sent"], row["wire"]]))
    for _ in range(chance.randint(1, 3)):
        path = chance.choice(paths(raw))
        holder = raw
        for key in path[:-1]:
            holder = holder[key]
        match chance.randrange(5):
            case 0:
                del holder[path[-1]]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(["x", "jobId", "é", "a" * 10_000, "\ud800", "fps", 7, "regions"])] = 1
            case 2 if isinstance(holder, list) and holder:
                holder.extend(copy.deepcopy(holder[:1]) * chance.choice([1, 5, 2000]))
            case _:
                holder[path[-1]] = chance.choice(NASTY)
    if chance.random() < 0.2:
        try:
            return kind, chance.choice(TEXTS)(json.dumps(raw))
        except (TypeError, ValueError, RecursionError):
            pass  # it contains values that JSON cannot represent
    return kind, raw


def parse_mutated(seed: int) -> bool:
    """Parse one mutated request; return whether it was accepted."""
    kind, raw = mutated(random.Random(seed))
    parsed = within_cpu_seconds(SLOWEST_SECONDS, lambda: outcome(lambda: kind.parse(raw)))
    if isinstance(parsed, RequestError):
        assert len(str(parsed)) < 1000, (seed, len(str(parsed)))
        json.dumps([parsed.path, parsed.problem]).encode()
        return False
    wire = json.loads(json.dumps(parsed.to_dict(), allow_nan=False))
    assert kind.parse(wire) == parsed, seed
    assert kind.parse(wire).request_hash() == parsed.request_hash(), seed
    return True


def outcome(make: Callable[[], Request]) -> Request | RequestError:
    try:
        return make()
    except RequestError as error:
        return error


@pytest.mark.parametrize("part", range(4))
def test_parse_of_mutated_request_raises_only_request_error(part: int) -> None:
    accepted = sum(parse_mutated(seed) for seed in range(part * ROUNDS, (part + 1) * ROUNDS))
    assert 0 < accepted < ROUNDS
