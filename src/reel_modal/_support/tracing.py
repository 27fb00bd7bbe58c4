"""One OpenTelemetry span for each job, and one for each of its parts; none if the host does not use OpenTelemetry.

The parts are those that a job measures anyway. Their spans are created at the end of the job, with these times.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from reel_modal._version import VERSION

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

    from reel_modal._support.clock import Clock

__all__ = ["TRACEPARENT", "JobTrace", "Measured", "continued", "note_submission"]

TRACEPARENT: Final = "traceparent"
"""Name of the W3C header that identifies a span. A container gets it with the request's fields."""

_NANOSECONDS: Final = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a job that has ended has measured about itself.

    Attributes:
        queue_seconds: Seconds from the submission until a process was available; None if unknown.
        startup_seconds: Seconds from the start of that process to the function; None if unknown.
        function_seconds: Seconds inside the function.
        seconds_by_phase: Seconds of the phases of the function, in order.
        attributes: Attributes of the span of the job, such as `reel_modal.gpu`.
    """

    queue_seconds: float | None
    startup_seconds: float | None
    function_seconds: float
    seconds_by_phase: Mapping[str, float]
    attributes: Mapping[str, str | bool | int | float]


class JobTrace:
    """The span of one job, from `start` until `succeed` or `fail`, and the spans of its parts.

    Args:
        tracer: Creates the spans.
        span: The span of the job.
        begun_ns: Unix time of its start in nanoseconds.
        clock: Clock that measures its duration.
    """

    def __init__(self, tracer: Tracer, span: Span, begun_ns: int, clock: Clock) -> None:
        self._tracer = tracer
        self._span = span
        self._begun_ns = begun_ns
        self._clock = clock
        self._begun = self._submitted = clock.monotonic()
        self._ended = False

    @classmethod
    def start(cls, function: str, clock: Clock) -> Self | None:
        """Start the span of a job as a child of the current span; return None if no host would receive it."""
        # A host that records traces has imported it. So its import costs nothing where it is merely installed.
        if "opentelemetry.trace" not in sys.modules:
            return None
        from opentelemetry import trace

        tracer = trace.get_tracer("reel_modal", VERSION)
        begun_ns = time.time_ns()
        span = tracer.start_span(f"reel_modal {function}", kind=trace.SpanKind.CLIENT, start_time=begun_ns)
        if not span.get_span_context().is_valid:
            return None  # the host has no tracer provider
        span.set_attribute("reel_modal.function", function)
        return cls(tracer, span, begun_ns, clock)

    @property
    def traceparent(self) -> str:
        """W3C traceparent of the span."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    @contextmanager
    def submitting(self) -> Iterator[None]:
        """Let `note_submission` find this trace during the block."""
        self._submitted = self._clock.monotonic()
        token = _submitting.set(self)
        try:
            yield
        finally:
            _submitting.reset(token)

    def note_submission(self) -> None:
        """Note that the call is sent now: its preparation ends, and its time in the queue begins."""
        self._submitted = self._clock.monotonic()

    def set_attribute(self, name: str, value: str | bool | int | float) -> None:
        """Set an attribute of the span of the job."""
        self._span.set_attribute(name, value)

    def succeed(self, measured: Measured | None) -> None:
        """End the span of the job, with one child for each part; has no effect on a span that has ended.

        Args:
            measured: The measured parts; None for a job that measures nothing.
        """
        if self._ended:
            return
        ended = self._clock.monotonic()
        self._add("prepare", self._begun, self._submitted)
        if measured is not None:
            for name, value in measured.attributes.items():
                self._span.set_attribute(name, value)
        if measured is None or not self._add_measured(measured, ended):
            self._add("wait", self._submitted, ended)
        self._end(ended)

    def fail(self, error: BaseException) -> None:
        """End the span of the job with an error; has no effect on a span that has ended."""
        if self._ended:
            return
        from opentelemetry.trace import Status, StatusCode

        self._span.record_exception(error)
        self._span.set_status(Status(StatusCode.ERROR, str(error)))
        self._end(self._clock.monotonic())

    def _add_measured(self, measured: Measured, ended: float) -> bool:
        """Add the spans of the parts, one after another; return False if their times cannot be those of this job."""
        left = ended - self._submitted - measured.function_seconds - (measured.startup_seconds or 0.0)
        if left < 0:
            return False  # the result of an earlier attempt
        # The clocks of two machines may differ, so the queue gets no more than what the other parts leave.
        queue_seconds = min(measured.queue_seconds or 0.0, left)
        rest = left - queue_seconds
        startup_seconds = rest if measured.startup_seconds is None else measured.startup_seconds
        started = self._submitted + queue_seconds
        begun = started + startup_seconds
        returned = begun + measured.function_seconds
        self._add("queue", self._submitted, started)
        self._add("startup", started, begun)
        function = self._add("function", begun, returned)
        at = returned - sum(measured.seconds_by_phase.values())  # a job looks at its store before the first phase
        for name, seconds in measured.seconds_by_phase.items():
            self._add(name, at, at + seconds, parent=function)
            at += seconds
        self._add("return", returned, ended)
        return True

    def _add(self, name: str, begun: float, ended: float, *, parent: Span | None = None) -> Span:
        span = self._tracer.start_span(name, context=_context(parent or self._span), start_time=self._at(begun))
        span.end(self._at(ended))
        return span

    def _end(self, ended: float) -> None:
        self._ended = True
        self._span.end(self._at(ended))

    def _at(self, monotonic: float) -> int:
        return self._begun_ns + round((monotonic - self._begun) * _NANOSECONDS)


_submitting: ContextVar[JobTrace | None] = ContextVar("reel_modal_submitting", default=None)


def note_submission() -> str | None:
    """Note that the call of the current job is sent now, and return its traceparent; None if it is not traced."""
    trace = _submitting.get()
    if trace is None:
        return None
    trace.note_submission()
    return trace.traceparent


@contextmanager
def continued(traceparent: str | None) -> Iterator[None]:
    """Make the host's span the parent of the spans that the block creates.

    Args:
        traceparent: The host's W3C traceparent. If it is None or if opentelemetry is not installed here, nothing is
            done.
    """
    if traceparent is None:
        yield
        return
    try:
        from opentelemetry import context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError:
        yield
        return
    token = context.attach(TraceContextTextMapPropagator().extract({TRACEPARENT: traceparent}))
    try:
        yield
    finally:
        context.detach(token)


def _context(span: Span) -> Context:
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(span)
