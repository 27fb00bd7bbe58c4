"""What all requests share when they are read from JSON.

Pure; it must not know any request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import TypeVar

from reel_modal.errors import RequestError
from reel_modal.parsing import Record, integer, join, rooted, text

__all__ = ["build", "hash_without_job", "identifier", "video_size"]

T = TypeVar("T")


def build(make: Callable[..., T], path: str, values: Mapping[str, object]) -> T:
    """Construct what was read; what construction refuses is named from the root of the request."""
    with rooted(path):
        return make(**values)


def video_size(record: Record) -> tuple[int, int] | None:
    """Read `videoWidth` and `videoHeight`, which come together or not at all."""
    width: int | None = record.take_or(None, integer, "video_width")
    height: int | None = record.take_or(None, integer, "video_height")
    if (width is None) != (height is None):
        missing = "video_width" if width is None else "video_height"
        raise RequestError(join(record.path, missing), "is missing; send both sides of the coordinate space, or none")
    return None if width is None or height is None else (width, height)


def identifier(value: object, path: str) -> str:
    """Read an id; hosts send numbers of their databases as well as texts."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value, path)


def hash_without_job(request: Mapping[str, object]) -> str:
    """Return a hash of a request as JSON, whatever its `job_id` and what becomes of an output that is there."""
    asked = {key: value for key, value in request.items() if key != "job_id"}
    if isinstance(store := asked.get("store"), Mapping):
        # What becomes of an output that is there makes no other output.
        asked["store"] = {key: value for key, value in store.items() if key != "existing"}
    said = json.dumps(_numbers_alike(asked), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


def _numbers_alike(value: object) -> object:
    """Return the same JSON with one spelling of each number: 3 and 3.0 are equal, and ask for the same."""
    if isinstance(value, Mapping):
        return {key: _numbers_alike(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_numbers_alike(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
