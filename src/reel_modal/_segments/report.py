"""What a worker reports about the segments that it has rendered."""

from __future__ import annotations

from typing import Final, Self

from reel_modal.schema import Degradation, Usage
from reel_modal.schema._fields import Record, declared, record
from reel_modal.schema._kinds import list_of, nested, optional, string

__all__ = ["Engine", "SegmentReport", "SegmentsFinished"]

_MOST_NOTES: Final = 100


@record
class Engine(Record):
    """What makes the frames of an output.

    Attributes:
        name: Name of the engine, for the result of the job.
        exact: Everything besides the request on which its frames depend, such as device and versions.
        model: Name of the network that computes pixels; None if there is none.
        degraded: Deviations from the request.
    """

    _noun = "engine"

    name: str = declared(converter=string())
    exact: str = declared(converter=string(lines=True))
    model: str | None = declared(converter=optional(string()), default=None)
    degraded: tuple[Degradation, ...] = declared(converter=list_of(nested(Degradation), _MOST_NOTES), default=())

    @classmethod
    def of_name(cls, name: str) -> Self:
        """Return an engine whose frames depend on nothing but the request and its name."""
        return cls(name=name, exact=name)


@record
class SegmentReport(Record):
    """Report of a worker whose segments are stored.

    Attributes:
        rendering: Hash of everything that determines the bytes of the segments; see `Rendering`.
        engine: What made the frames.
        usage: Resources that the worker used.
    """

    _noun = "report"

    rendering: str = declared(converter=string())
    engine: Engine = declared(converter=nested(Engine))
    usage: Usage = declared(converter=nested(Usage))


class SegmentsFinished(Exception):  # noqa: N818 - it ends the body of a function, and is no error
    """Raised in a body that renders only some segments of its output, when these are stored.

    Args:
        rendering: See `SegmentReport`.
        engine: See `SegmentReport`.
    """

    def __init__(self, rendering: str, engine: Engine) -> None:
        super().__init__(rendering, engine)
        self.rendering = rendering
        self.engine = engine
