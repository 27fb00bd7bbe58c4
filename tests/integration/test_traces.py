"""Traces of real jobs, in local workers and in containers on the loopback plane."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.clips import made_clip
from tests.integration.local_jobs import UseBody, scratch, store, use_body
from tests.integration.modal_app import Deployed, app, app_plane
from tests.jobs import PHASES, overlay
from tests.spans import PARTS, assert_one_after_another, children_of, job_span, seconds, spans

from reel_modal import FunctionRegistry, Parallel, RenderResult, Settings
from reel_modal._support.tracing import TRACEPARENT

__all__ = ["app", "app_plane", "scratch", "spans", "store", "use_body"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")


def assert_describes(spans: InMemorySpanExporter, result: RenderResult) -> ReadableSpan:
    """Check that the spans of the only job are whole, and have the times of its receipt; return its span."""
    job = job_span(spans)
    parts = children_of(job, spans)
    assert [part.name for part in parts] == PARTS
    assert_one_after_another(parts)
    assert sum(map(seconds, parts)) == pytest.approx(seconds(job), rel=0.01)
    assert result.usage is not None
    measured = [result.usage.queue_seconds, result.usage.startup_seconds, result.usage.seconds]
    assert [seconds(part) for part in parts[1:4]] == pytest.approx(measured, abs=0.001)
    phases = children_of(parts[3], spans)
    assert [phase.name for phase in phases] == list(PHASES)
    assert {phase.name: seconds(phase) for phase in phases} == pytest.approx(result.seconds_by_phase, abs=0.001)
    assert_one_after_another(phases)
    assert (phases[0].start_time or 0) >= (parts[3].start_time or 0)
    return job


async def test_local_job_spans_add_up(store: Path, spans: InMemorySpanExporter) -> None:
    async with FunctionRegistry(Settings(store_url=store.as_uri())) as registry:
        result = await registry.run(overlay())
    assert_describes(spans, result)


async def test_local_body_is_in_the_trace(store: Path, use_body: UseBody, spans: InMemorySpanExporter) -> None:
    use_body(
        "from opentelemetry import trace\n"
        "raise ValueError(format(trace.get_current_span().get_span_context().span_id, '016x'))"
    )
    async with FunctionRegistry(Settings(store_url=store.as_uri())) as registry:
        with pytest.raises(Exception, match="ValueError") as caught:
            await registry.run(overlay())
    job = job_span(spans)
    assert job.context is not None
    assert f"{job.context.span_id:016x}" in str(caught.value)


async def test_modal_job_spans_add_up(app: Deployed, spans: InMemorySpanExporter) -> None:
    made_clip(app.store / "in.mp4", seconds=1)
    async with FunctionRegistry(app.settings) as registry:
        result = await registry.run(overlay("traced"))
    job = assert_describes(spans, result)
    assert result.cold_start
    assert job.context is not None
    (call,) = (one.request for one in app.plane.requests if one.rpc == "FunctionMap")
    sent = call.pipelined_inputs[0].input.args  # type: ignore[attr-defined]
    assert TRACEPARENT.encode() in sent
    assert f"00-{job.context.trace_id:032x}-{job.context.span_id:016x}-0".encode() in sent


async def test_modal_call_untraced_has_no_traceparent(app: Deployed) -> None:
    made_clip(app.store / "in.mp4", seconds=1)
    async with FunctionRegistry(app.settings) as registry:
        await registry.run(overlay("untraced"))
    (call,) = (one.request for one in app.plane.requests if one.rpc == "FunctionMap")
    sent = call.pipelined_inputs[0].input.args  # type: ignore[attr-defined]
    assert b"submitted_at" in sent
    assert TRACEPARENT.encode() not in sent


@pytest.mark.slow
async def test_modal_several_containers_spans_add_up(app: Deployed, spans: InMemorySpanExporter) -> None:
    made_clip(app.store / "in.mp4", seconds=20)
    async with FunctionRegistry(app.settings) as registry:
        result = await registry.run(overlay("several"), parallel=Parallel(max_workers=2))
    job = job_span(spans)
    parts = children_of(job, spans)
    assert [part.name for part in parts] == PARTS
    assert sum(map(seconds, parts)) == pytest.approx(seconds(job), rel=0.01)
    phases = children_of(parts[3], spans)
    assert {phase.name: seconds(phase) for phase in phases} == pytest.approx(result.seconds_by_phase, abs=0.001)
