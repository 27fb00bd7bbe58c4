"""Valid requests and results, and values that fields must refuse or convert."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from reel_modal import schema
from reel_modal.schema import Degradation, RenderResult, Usage
from reel_modal.schema._fields import Record, fields_of

GOLDEN = json.loads(Path(__file__).with_name("golden_requests.json").read_text(encoding="utf-8"))
RESULT = RenderResult(
    job_id="j",
    function="render_overlay",
    output_key="o.mp4",
    frames=30,
    size=(320, 180),
    fps=Fraction(30000, 1001),
    duration_seconds=Fraction(1001, 1000),
    bytes=5,
    engine="e",
    encoder="libx264",
    seconds_by_phase={"render": 0.5},
    degraded=(Degradation("size_changed", "the odd size 161x121 was encoded as 162x122"),),
    usage=Usage(seconds=1),
)


def records() -> Iterator[Record]:
    """Yield one record of each kind, with as many fields set as possible."""
    found: dict[type, Record] = {}

    def collect(value: object) -> None:
        if isinstance(value, Record):
            found.setdefault(type(value), value)
            for field in fields_of(type(value)):
                collect(getattr(value, field.name))
        elif isinstance(value, tuple):
            for each in value:
                collect(each)

    for row in GOLDEN:
        collect(getattr(schema, row["kind"]).parse(row["sent"]))
    collect(RESULT)
    yield from found.values()


RECORDS = {type(each).__name__: each for each in records()}


def deep(levels: int, kind: type = list) -> Any:
    """Return lists or dictionaries that are nested in each other."""
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
