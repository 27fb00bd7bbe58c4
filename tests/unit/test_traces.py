"""Traces of jobs, on the in-memory backend with a clock that the tests move."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from tests.jobs import overlay, rendered
from tests.spans import PARTS, assert_one_after_another, children_of, job_span, seconds, spans
from tests.unit.registries import NEVER, host

from reel_modal import JobOptions
from reel_modal._support.clock import ManualClock
from reel_modal._support.tracing import JobTrace, Measured, continued
from reel_modal.errors import BadInputError, InvalidMediaError, JobCancelledError, WaitTimeoutError
from reel_modal.schema import RenderResult, Usage
from reel_modal.testing import InMemoryBackend, Script

__all__ = ["spans"]

PHASES = {"fetch": 1.0, "render": 5.0, "verify": 0.5, "publish": 0.5}
USAGE = Usage(queue_seconds=2.0, startup_seconds=1.0, seconds=8.0, gpu="T4", dollars=0.25)


def answer(request: Mapping[str, object]) -> dict[str, object]:
    """Return a result that has measured its parts: eleven seconds."""
    result = RenderResult.parse(rendered(request))
    return replace(result, seconds_by_phase=PHASES, usage=USAGE, cold_start=True).to_dict()


async def finish(clock: ManualClock, *scripts: Script, options: JobOptions | None = None) -> RenderResult:
    async with host(InMemoryBackend(clock), *scripts, options=options) as registry:
        job = await registry.submit(overlay())
        waiting = asyncio.ensure_future(job.result())
        await clock.advance(20)
        return await waiting


async def test_trace_parts_add_up_to_wall_time(spans: InMemorySpanExporter) -> None:
    await finish(ManualClock(), Script(answer, queue_seconds=3, seconds=9))
    job = job_span(spans)
    parts = children_of(job, spans)
    assert [part.name for part in parts] == PARTS
    assert_one_after_another(parts)
    assert (parts[0].start_time, parts[-1].end_time) == (job.start_time, job.end_time)
    assert sum(map(seconds, parts)) == pytest.approx(seconds(job), rel=1e-6)
    assert [seconds(part) for part in parts[1:4]] == pytest.approx([2, 1, 8])
    phases = children_of(parts[3], spans)
    assert {phase.name: seconds(phase) for phase in phases} == pytest.approx(PHASES)
    assert_one_after_another(phases)
    assert phases[-1].end_time == parts[3].end_time


async def test_trace_attributes_are_those_of_receipt(spans: InMemorySpanExporter) -> None:
    await finish(ManualClock(), Script(answer, seconds=12))
    attributes = dict(job_span(spans).attributes or {})
    assert attributes.pop("reel_modal.job").startswith("memory:render_overlay:")
    assert attributes == {
        "reel_modal.function": "render_overlay",
        "reel_modal.job_id": "job",
        "reel_modal.gpu": "T4",
        "reel_modal.dollars": 0.25,
        "reel_modal.bytes_in": 0,
        "reel_modal.bytes_out": 0,
        "reel_modal.cold_start": True,
        "reel_modal.workers": 1,
    }


async def test_trace_is_child_of_span_of_host(spans: InMemorySpanExporter) -> None:
    with trace.get_tracer("host").start_as_current_span("POST /exports") as request:
        await finish(ManualClock(), Script(answer, seconds=12))
    parent = job_span(spans).parent
    assert parent is not None
    assert parent.span_id == request.get_span_context().span_id


async def test_trace_earlier_result_has_no_parts(spans: InMemorySpanExporter) -> None:
    """A result that took longer than this job is that of an earlier attempt."""
    await finish(ManualClock(), Script(answer, seconds=2))
    assert [part.name for part in children_of(job_span(spans), spans)] == ["prepare", "wait"]


async def test_trace_clock_ahead_shortens_queue(spans: InMemorySpanExporter) -> None:
    """The clock of the container is far ahead of that of the host."""

    def ahead(request: Mapping[str, object]) -> dict[str, object]:
        result = RenderResult.parse(answer(request))
        return replace(result, usage=replace(USAGE, queue_seconds=3600.0)).to_dict()

    await finish(ManualClock(), Script(ahead, seconds=12))
    parts = children_of(job_span(spans), spans)
    assert [part.name for part in parts] == PARTS
    assert_one_after_another(parts)
    assert seconds(parts[1]) == pytest.approx(3)


async def test_trace_failed_job_has_error(spans: InMemorySpanExporter) -> None:
    with pytest.raises(BadInputError):
        await finish(ManualClock(), Script(error=InvalidMediaError("it is no video"), seconds=3))
    job = job_span(spans)
    assert job.status.status_code is StatusCode.ERROR
    assert "it is no video" in (job.status.description or "")
    assert [event.name for event in job.events] == ["exception"]
    assert seconds(job) == pytest.approx(3)


async def test_trace_short_wait_does_not_end_it(spans: InMemorySpanExporter) -> None:
    clock = ManualClock()
    async with host(InMemoryBackend(clock), Script(answer, seconds=12)) as registry:
        job = await registry.submit(overlay())
        waiting = asyncio.ensure_future(job.result(timeout_seconds=1))
        await clock.advance(5)
        with pytest.raises(WaitTimeoutError):
            await waiting
        assert spans.get_finished_spans() == ()
        later = asyncio.ensure_future(job.result())
        await clock.advance(20)
        await later
    assert job_span(spans).status.status_code is StatusCode.UNSET


async def test_trace_cancelled_waiter_ends_it(spans: InMemorySpanExporter) -> None:
    clock = ManualClock()
    async with host(InMemoryBackend(clock), Script(answer, seconds=NEVER)) as registry:
        job = await registry.submit(overlay())
        waiting = asyncio.ensure_future(job.result())
        await clock.advance(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        (event,) = job_span(spans).events
        assert (event.attributes or {})["exception.type"] == f"reel_modal.errors.{JobCancelledError.__name__}"


async def test_trace_refused_submission_has_error(spans: InMemorySpanExporter) -> None:
    async with host(InMemoryBackend(ManualClock())) as registry:
        function = registry["render_overlay"].with_options(unavailable_seconds=5)
        registry.backend.fail_next_requests(1)  # type: ignore[attr-defined]
        with pytest.raises(Exception, match="unreachable"):
            await function.submit(overlay())
    assert job_span(spans).status.status_code is StatusCode.ERROR


def test_job_trace_several_machines_measure_no_startup(spans: InMemorySpanExporter) -> None:
    """The seconds of several machines are sums, so the startup of the first one is what the others leave."""
    clock = ManualClock()
    job = JobTrace.start("render_overlay", clock)
    assert job is not None
    asyncio.run(clock.advance(10))
    job.succeed(
        Measured(
            queue_seconds=2.0,
            startup_seconds=None,
            function_seconds=5.0,
            seconds_by_phase={"render": 5.0},
            attributes={},
        )
    )
    parts = children_of(job_span(spans), spans)
    assert {part.name: seconds(part) for part in parts} == pytest.approx(
        {"prepare": 0, "queue": 2, "startup": 3, "function": 5, "return": 0}
    )


def test_continued_makes_host_span_the_parent(spans: InMemorySpanExporter) -> None:
    job = JobTrace.start("render_overlay", ManualClock())
    assert job is not None
    with continued(job.traceparent), trace.get_tracer("body").start_as_current_span("draw") as drawn:
        assert f"{drawn.get_span_context().trace_id:032x}" == job.traceparent.split("-")[1]
    assert not trace.get_current_span().get_span_context().is_valid
    job.succeed(None)
    assert [span.name for span in children_of(job_span(spans), spans)] == ["prepare", "wait", "draw"]


def test_job_trace_without_provider_is_none() -> None:
    assert JobTrace.start("render_overlay", ManualClock()) is None


ABSENT = """
import sys
sys.modules["opentelemetry"] = None  # as if it were not installed
import asyncio
from tests.jobs import overlay, rendered
from reel_modal import FunctionRegistry, Settings
from reel_modal._support.tracing import continued
from reel_modal.testing import InMemoryBackend, Script

backend = InMemoryBackend()
backend.script("render_overlay", Script(rendered))
registry = FunctionRegistry(Settings(), backend=backend)
assert asyncio.run(registry.run(overlay())).frames == 25
with continued("00-" + "1" * 32 + "-" + "2" * 16 + "-01"):
    pass
assert [name for name in sys.modules if name.startswith("opentelemetry")] == ["opentelemetry"]
"""

UNUSED = ABSENT.replace('sys.modules["opentelemetry"] = None', "").partition("with continued")[0] + (
    'assert not any(name.startswith("opentelemetry") for name in sys.modules)'
)


@pytest.mark.parametrize("program", [ABSENT, UNUSED], ids=["absent", "installed-and-unused"])
def test_opentelemetry_is_not_imported(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
