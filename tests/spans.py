"""Spans of OpenTelemetry, as an exporter of a host gets them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

PARTS = ["prepare", "queue", "startup", "function", "return"]
"""Spans that follow one another from the start to the end of a job."""


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The finished spans of this process, during one test."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # A process can set its provider only once, by the public function.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter


def job_span(spans: InMemorySpanExporter, function: str = "render_overlay") -> ReadableSpan:
    """Return the span of the only job."""
    (job,) = (span for span in spans.get_finished_spans() if span.name == f"reel_modal {function}")
    return job


def children_of(parent: ReadableSpan, spans: InMemorySpanExporter) -> list[ReadableSpan]:
    """Return the children of a span by their start."""
    assert parent.context is not None
    wanted = (parent.context.trace_id, parent.context.span_id)
    found = [
        span
        for span in spans.get_finished_spans()
        if span.parent and (span.parent.trace_id, span.parent.span_id) == wanted
    ]
    return sorted(found, key=lambda span: (span.start_time or 0, span.end_time or 0))


def seconds(span: ReadableSpan) -> float:
    """Return the duration of a span."""
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def assert_one_after_another(parts: Sequence[ReadableSpan]) -> None:
    """Check that each span begins where the one before it ends."""
    for one, following in itertools.pairwise(parts):
        assert one.end_time == following.start_time, (one.name, following.name)
