"""Resources of single jobs: what is refused, what the estimate and the backend get."""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from tests.clips import Clips
from tests.jobs import overlay, rendered
from tests.unit.long_jobs import record_jobs

from reel_modal import (
    FramingRequest,
    FunctionRegistry,
    JobOptions,
    OverlayRequest,
    Parallel,
    RenderResult,
    Resources,
    Settings,
    TimingHistory,
    estimate,
    probe,
)
from reel_modal._costs.rates import PUBLISHED_RATES
from reel_modal._jobs.timing_recorder import TimingRecorder
from reel_modal._progress.timing_model import LOCAL
from reel_modal.backends.local import LocalBackend
from reel_modal.errors import ConfigError, JobTooLongError
from reel_modal.functions.builtin import render_overlay
from reel_modal.testing import InMemoryBackend, Script

L4 = Resources(gpu="L4", timeout_seconds=3600)
MODAL = Settings(modal_enabled=True)


@pytest.fixture
def store(tmp_path: Path, clips: Clips) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(clips.get("25.mp4"), folder / "in.mp4")
    return folder


@pytest.fixture
def history(tmp_path: Path) -> TimingHistory:
    return TimingHistory(tmp_path / "timings.sqlite3")


def host(
    store: Path, history: TimingHistory, options: JobOptions | None = None
) -> tuple[FunctionRegistry, InMemoryBackend]:
    backend = InMemoryBackend()
    backend.name = "modal"
    backend.script("render_overlay", Script(rendered))
    settings = Settings(modal_enabled=True, store_url=store.as_uri())
    return FunctionRegistry(settings, backend=backend, history=history, options=options), backend


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "at least one of gpu, cpu"),
        ({"gpu": "none"}, "cannot take a GPU away"),
        ({"gpu": "L4,T4"}, "one GPU type"),
        ({"gpu": ("L4",)}, "one GPU type"),
        ({"cpu": 0}, r"cpu=0 must be 0.125 to 64"),
        ({"cpu": "4"}, "cpu='4'"),
        ({"cpu": True}, "cpu=True"),
        ({"memory_mb": 512.5}, "must be a whole number"),
        ({"timeout_seconds": 86_401}, "timeout_seconds=86401 must be 1 to 86400"),
        ({"max_containers": 0}, "max_containers=0 must be 1 to 1000"),
        ({"region": "EU WEST"}, "must be a region"),
    ],
)
def test_resources_wrong_value_is_named(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Resources(**fields)  # type: ignore[arg-type]


def test_resources_round_trip_and_text() -> None:
    assert Resources.from_dict(L4.to_dict()) == L4
    assert L4.to_text() == "gpu=L4, timeout_seconds=3600"
    with pytest.raises(ConfigError, match="unknown: disk"):
        Resources.from_dict({"disk": 1})


def test_options_other_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be a Resources"):
        JobOptions(resources={"gpu": "L4"})  # type: ignore[arg-type]


def test_estimate_has_price_and_timeout_of_the_resources(store: Path, history: TimingHistory, clips: Clips) -> None:
    for gpu in ("T4", "L4"):
        record_jobs(history, gpu, seconds_per_frame=0.3)
    media = probe(clips.get("25.mp4"))

    def expected(resources: Resources | None) -> tuple[str, float | None, float]:
        found = estimate(overlay(), media, settings=MODAL, history=history, resources=resources)
        return found.gpu, found.timeout_seconds, found.dollars / found.seconds

    t4, l4 = (PUBLISHED_RATES.usd_per_second(gpu=gpu, cpu=4, memory_mb=4096) for gpu in ("T4", "L4"))
    assert expected(None) == ("T4", 600, pytest.approx(t4))
    assert expected(L4) == ("L4", 3600, pytest.approx(l4))
    assert expected(Resources(region="eu")) == ("T4", 600, pytest.approx(1.75 * t4))
    cores = PUBLISHED_RATES.usd_per_second(gpu="T4", cpu=8, memory_mb=8192)
    assert expected(Resources(cpu=8, memory_mb=8192)) == ("T4", 600, pytest.approx(cores))


def test_estimate_workers_without_gpu_keep_none(history: TimingHistory, clips: Clips) -> None:
    """Segments of an overlay need no GPU, so the one of the job is not theirs; the number of containers is."""
    media = replace(probe(clips.get("25.mp4")), duration_seconds=Fraction(120), scan=None)
    found = estimate(
        overlay(), media, settings=MODAL, history=history, resources=Resources(gpu="L4", max_containers=3)
    )
    assert [row.gpu for row in found.rows] == ["L4", "cpu", "cpu"]


async def test_submit_sends_the_resources(store: Path, history: TimingHistory) -> None:
    registry, backend = host(store, history, JobOptions(resources=L4))
    await registry.submit(overlay("a"))
    more = Resources(memory_mb=8192)
    await registry["render_overlay"].with_options(resources=more).submit(overlay("b"))
    assert [submitted.resources for submitted in backend.submitted] == [L4, more]
    assert registry.estimate(overlay("c"), probe(store / "in.mp4")).gpu == "L4"


@pytest.mark.parametrize(
    ("function", "resources", "said"),
    [
        ("process_framing", Resources(gpu="L4"), "process_framing is deployed without a GPU"),
        ("render_overlay", Resources(gpu="L5"), "the price of the GPU 'L5' is unknown"),
    ],
)
async def test_submit_unsuitable_resources_reach_no_backend(
    store: Path, history: TimingHistory, function: str, resources: Resources, said: str
) -> None:
    registry, backend = host(store, history, JobOptions(resources=resources))
    keys = {"jobId": "a", "userId": "u", "inputKey": "in.mp4", "outputKey": "out.mp4"}
    requests = {"render_overlay": overlay(), "process_framing": FramingRequest.parse({**keys, "cropKeyframes": []})}
    with pytest.raises(ConfigError, match=said):
        await registry[function].submit(requests[function])
    assert backend.submitted == []


async def test_submit_longer_timeout_admits_the_job(store: Path, history: TimingHistory) -> None:
    record_jobs(history, "T4", seconds_per_frame=30)
    registry, backend = host(store, history)
    with pytest.raises(JobTooLongError):
        await registry.submit(overlay("a"))
    await registry["render_overlay"].with_options(resources=Resources(timeout_seconds=3600)).submit(overlay("a"))
    assert len(backend.submitted) == 1


async def test_timings_are_recorded_under_the_other_gpu(history: TimingHistory) -> None:
    recorder = TimingRecorder(history, render_overlay, "T4")
    result = RenderResult.parse(rendered(overlay().to_dict()))
    for resources in (None, Resources(region="eu"), Resources(gpu="L4")):
        other = recorder.on(resources)
        assert other is not None
        await other.record(result, 10.0, None)
    assert recorder.on(Resources(gpu="L4", cpu=16)) is None
    assert {timing.gpu: timing.jobs for timing in history.summary()} == {"T4": 2, "L4": 1}
    here = TimingRecorder(history, render_overlay, LOCAL)
    assert here.on(Resources(gpu="L4", cpu=16)) is here


async def test_local_resources_without_effect_are_logged_once(
    store: Path, history: TimingHistory, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(store_url=store.as_uri())
    options = JobOptions(resources=Resources(memory_mb=2048), parallel=Parallel(max_workers=1))
    async with FunctionRegistry(
        settings, backend=LocalBackend(settings), history=history, options=options
    ) as registry:
        for name in ("a", "b"):
            result = await registry.run(_small(name))
    assert result.usage is not None
    assert result.usage.resources == ""
    (message,) = [message for message in caplog.messages if "no effect" in message]
    assert "memory_mb=2048" in message


def _small(job_id: str) -> OverlayRequest:
    return overlay(job_id, preset="ultrafast")
