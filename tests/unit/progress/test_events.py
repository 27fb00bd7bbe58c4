"""Progress events read from a queue."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from reel_modal import ProgressEvent, RequestError

EVENT = ProgressEvent("render", 450, None, elapsed_seconds=10.0, sequence=7, attempt=2)


def test_event_parse_of_its_fields_is_equal() -> None:
    assert ProgressEvent.parse(asdict(EVENT)) == EVENT
    fields = asdict(EVENT)
    del fields["attempt"]
    assert ProgressEvent.parse({**fields, "of_a_newer_version": [1]}).attempt == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("phase", None), ("phase", 3), ("phase", "x" * 65), ("phase", "x" * 10_000_000), ("phase", "a\0b")),
        *(("done", -1), ("done", 10**400), ("done", 0.5), ("done", "3"), ("done", None), ("total", "many")),
        *(("elapsed_seconds", float("nan")), ("elapsed_seconds", 10**400), ("sequence", None), ("attempt", [])),
    ],
)
def test_event_with_invalid_field_is_refused(name: str, value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        ProgressEvent.parse({**asdict(EVENT), name: value})
    assert caught.value.path == name
