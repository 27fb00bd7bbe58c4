"""Hostile requests: each is either valid or refused with its path, within milliseconds."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cpu_time import within_cpu_seconds

from reel_modal import schema
from reel_modal.errors import RequestError
from reel_modal.schema.requests import Request

GOLDEN = json.loads(Path(__file__).with_name("golden_requests.json").read_text(encoding="utf-8"))
ROUNDS = 400
SLOWEST_SECONDS = 0.25
"""The limit for parsing one request, in CPU time."""


def deep(levels: int, kind: type = list) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


NASTY: list[Any] = [
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, -1e308, 5e-324, 1e-300, 1e17, 2**53 + 1, 2**63, 2**64),
    *(float("nan"), float("inf"), float("-inf"), 10**310, -(10**310), 10**5000, Fraction(1, 3), Fraction(10**500, 7)),
    *(Fraction(1, 10**500), Decimal("1e4000000"), Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity"), 3 + 4j),
    *("", " ", "0", "1", "-1", "1.5", "1e4000000", "1e-4000000", "1e400", "9" * 10_000, "1/0", "1/3", "0x10", "१२"),
    *("1_000", "+5", ".", "-", "/", "1/", "/1", "1//2", "nan", "inf", "-Infinity", "None", "null", "undefined"),
    *("\0", "a\0b", "\n", "\x7f", "\x85", "\ud800", "\u202e", "é" * 2000, "x" * 5_000_000, "😀"),
    *("../../etc/passwd", "/etc/passwd", "C:\\x", "c:/x", "CON", "aux.txt", "a/../b", "a//b", "a/.", "trailing."),
    *("https://x.invalid/a", "file:///etc/passwd", "$(id)", "-y", "%2e%2e/", "16:9", "9:16", "16:0", "1920x1080"),
    *(b"bytes", bytearray(3), object(), set(), range(5), lambda: 1, np.float32(0.1), np.int64(7), np.bool_(1)),
    *(np.float64("nan"), np.zeros(3), np.array(5), Path("x"), [], {}, (), [[]], [{}], {"a": 1}, {1: 2}, {"": None}),
    *([1] * 200_000, [{}] * 200_000, {str(index): index for index in range(10_000)}, deep(500), deep(500, dict)),
    *(deep(100_000), [1, 2], [1920, 1080], {"width": 4, "height": 4}, ["a", "b"], [None, None]),
]
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
