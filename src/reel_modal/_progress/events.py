"""The event by which a running function reports its progress, the only part of progress that a function needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from reel_modal.errors import RequestError
from reel_modal.schema._fields import Kind
from reel_modal.schema._kinds import integer, number, string

__all__ = ["ProgressEvent"]


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """One progress report of a running function.

    Attributes:
        phase: `fetch`, `render`, `verify` or `publish`.
        done: Finished units of the phase: frames in `render`, bytes in `fetch` and `publish`.
        total: Total units of the phase, or None if unknown.
        elapsed_seconds: Time since the function's body began.
        sequence: Strictly increasing within an attempt.
        attempt: 1 for the first attempt of the job.
        detail: What the phase works on, such as `clip 2 of 5`; empty if there is only one thing.
    """

    phase: str
    done: int
    total: int | None
    elapsed_seconds: float
    sequence: int
    attempt: int = 1
    detail: str = ""

    @classmethod
    def parse(cls, raw: Mapping[str, object]) -> Self:
        """Parse an event received from a queue; unknown fields of newer versions are ignored.

        Raises:
            RequestError: A field is missing, of another type, or too large.
        """
        read = {}
        for name, kind in _KINDS.items():
            try:
                read[name] = kind.convert(raw.get(name, _DEFAULTS.get(name)))
            except RequestError as error:
                raise RequestError(name, error.problem) from error
        return cls(**read)


_COUNT: Final = integer(0, 1 << 53)
_KINDS: Final[Mapping[str, Kind[Any, Any]]] = {
    "phase": string(64),
    "done": _COUNT,
    "total": Kind(lambda value: None if value is None else _COUNT.convert(value), {}, ""),
    "elapsed_seconds": number(),
    "sequence": _COUNT,
    "attempt": _COUNT,
    "detail": string(64, empty=True),
}
_DEFAULTS: Final[Mapping[str, object]] = {"attempt": 1, "detail": ""}
