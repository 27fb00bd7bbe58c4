"""Estimated time and cost of a job, and refusal of jobs that are too long or too expensive."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from tests.clips import Clips
from tests.jobs import GLOBAL, overlay, rendered
from tests.media import splices
from tests.run_function import SPECS

from reel_modal import FramingRequest, FunctionRegistry, MediaInfo, Settings, UpscaleRequest, probe
from reel_modal._costs.rates import PUBLISHED_RATES
from reel_modal._jobs.estimates import Estimate, estimate
from reel_modal._progress.timing_model import JobTiming
from reel_modal.cli import main
from reel_modal.errors import JobRefusedError, JobTooLongError, OverBudgetError, RequestError
from reel_modal.progress import TimingHistory
from reel_modal.schema import EncodeOptions, OverlayRequest, ReelRequest, SpeedSegment
from reel_modal.testing import InMemoryBackend, Script

MODAL, LOCAL = Settings(modal_enabled=True), Settings()


@pytest.fixture
def history(tmp_path: Path) -> TimingHistory:
    return TimingHistory(tmp_path / "timings.sqlite3")


@pytest.fixture
def media(clips: Clips) -> MediaInfo:
    """A clip of two seconds, 50 frames of 320 x 180."""
    return with_length(probe(clips.get("25.mp4")), 2, (320, 180))


def with_length(media: MediaInfo, seconds: int, size: tuple[int, int] = (1920, 1080)) -> MediaInfo:
    return replace(media, size=size, duration_seconds=Fraction(seconds), scan=None)


def record_jobs(
    history: TimingHistory, gpu: str, *, seconds_per_frame: float, function: str = "render_overlay"
) -> None:
    """Record three jobs of 100, 200 and 300 frames of 320 x 180."""
    for frames in (100, 200, 300):
        render = frames * seconds_per_frame
        history.record(
            JobTiming(
                function=function,
                gpu=gpu,
                size=(320, 180),
                frames=frames,
                startup_seconds=2.0,
                seconds_by_phase={"fetch": 0.1 * render, "render": 0.8 * render, "publish": 0.1 * render},
                cold=True,
            )
        )


def test_estimate_after_three_jobs_has_time_and_cost(media: MediaInfo, history: TimingHistory) -> None:
    record_jobs(history, "T4", seconds_per_frame=0.1)
    expected = estimate(overlay(), media, settings=MODAL, history=history)
    assert expected.work_seconds == pytest.approx(5.0, rel=0.05)
    assert expected.frames == 50
    assert expected.low_seconds < expected.seconds < expected.high_seconds
    spec = SPECS["render_overlay"]
    rate = PUBLISHED_RATES.usd_per_second(gpu="T4", cpu=spec.cpu, memory_mb=spec.memory_mb)
    assert expected.dollars == pytest.approx(rate * expected.seconds)
    assert expected.headroom_seconds == pytest.approx(600 - expected.work_seconds)
    parts = {part.name: part for part in expected.contributors}
    assert (parts["render"].seconds, parts["render"].why) == (
        pytest.approx(4.0, rel=0.05),
        "50 frames of 320 x 180, x264 ultrafast on 4 cores",
    )
    assert [part.seconds for part in expected.contributors] == sorted(
        (p.seconds for p in parts.values()), reverse=True
    )
    assert sum(part.seconds for part in expected.contributors) == pytest.approx(expected.seconds)
    assert "3 jobs of render_overlay on T4" in expected.source
    expected.check(budget_usd=1.0)


def test_estimate_without_history_uses_a_cost_model(media: MediaInfo, history: TimingHistory) -> None:
    expected = estimate(overlay(), media, settings=MODAL, history=history)
    assert expected.source == "a cost model: no finished job of render_overlay on T4 is recorded yet"
    assert expected.spread > 0.3


def test_estimate_local_job_costs_nothing_and_has_no_timeout(media: MediaInfo, history: TimingHistory) -> None:
    expected = estimate(overlay(), with_length(media, 14_000), settings=LOCAL, history=history)
    assert (expected.gpu, expected.dollars, expected.timeout_seconds, expected.headroom_seconds) == (
        "local",
        0,
        None,
        None,
    )
    expected.check(budget_usd=0.01)


def test_estimate_counts_frames_of_the_output(media: MediaInfo, history: TimingHistory) -> None:
    keys = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4"}
    framing = FramingRequest(**keys, trim_end_seconds=Fraction(1), output_size=(90, 160), fps=Fraction(50))  # type: ignore[arg-type]
    expected = estimate(framing, media, settings=LOCAL, history=history)
    assert (expected.frames, expected.size, expected.fps) == (50, (90, 160), 50)
    slow = SpeedSegment(start_seconds=Fraction(0), end_seconds=Fraction(2), speed=Fraction(1, 2))
    slower = replace(framing, trim_end_seconds=None, segments=(slow,), fps=None)
    assert estimate(slower, media, settings=LOCAL, history=history).frames == 100
    upscale = UpscaleRequest(**keys, scale=2)  # type: ignore[arg-type]
    assert estimate(upscale, media, settings=LOCAL, history=history).size == (640, 360)
    with pytest.raises(RequestError, match="no function accepts a str"):
        estimate("text", media, settings=LOCAL, history=history)  # type: ignore[arg-type]


def too_long(media: MediaInfo, history: TimingHistory) -> Estimate:
    record_jobs(history, "T4", seconds_per_frame=0.1)
    return estimate(overlay(), with_length(media, 200, (320, 180)), settings=MODAL, history=history)


def test_check_job_near_its_timeout_is_refused_with_advice(media: MediaInfo, history: TimingHistory) -> None:
    expected = too_long(media, history)
    assert expected.work_seconds == pytest.approx(500, rel=0.05)
    with pytest.raises(JobTooLongError) as refused:
        expected.check()
    message = str(refused.value)
    assert "render_overlay would need about 500 s of its timeout of 600 s, and 480 s (80 %) are allowed" in message
    assert "400 s are for render (5000 frames of 320 x 180, x264 ultrafast on 4 cores)" in message
    assert "About 4799 frames of this size would fit, 192.0 s of output" in message
    assert "REEL_MODAL_RENDER_OVERLAY_TIMEOUT_SECONDS=625" in message


def test_check_job_above_budget_is_refused_with_advice(media: MediaInfo, history: TimingHistory) -> None:
    record_jobs(history, "T4", seconds_per_frame=0.1)
    expected = estimate(overlay(), media, settings=MODAL, history=history)
    expected.check(budget_usd=expected.dollars)
    with pytest.raises(OverBudgetError, match=r"would cost about \$0\.\d+, and the budget is \$0\.0005.*would fit"):
        expected.check(budget_usd=0.0005)


async def test_submit_refused_job_reaches_no_backend(clips: Clips, tmp_path: Path, history: TimingHistory) -> None:
    (tmp_path / "in.mp4").write_bytes(clips.get("25.mp4").read_bytes())
    record_jobs(history, "T4", seconds_per_frame=20.0)
    backend = InMemoryBackend()
    backend.name = "modal"
    backend.script("render_overlay", Script(rendered))
    settings = Settings(modal_enabled=True, store_url=tmp_path.as_uri(), budget_usd=0.5)
    registry = FunctionRegistry(settings, backend=backend, history=history)
    with pytest.raises(JobTooLongError):
        await registry["render_overlay"].submit(overlay())
    for refused in (overlay(), overlay("another")):
        with pytest.raises(JobRefusedError):
            await registry["render_overlay"](refused)
    assert backend.submitted == []
    # If the clip cannot be read here, the function itself reports it.
    assert (await registry["render_overlay"](overlay("missing", source="no.mp4"))).job_id == "missing"
    assert len(backend.submitted) == 1
    expected = registry.estimate(overlay(), probe(clips.get("25.mp4")))
    assert expected.work_seconds == pytest.approx(500, rel=0.05)


def request_changing(*spans: tuple[float, float], source: str = "in.mp4", encoder: str = "libx264") -> OverlayRequest:
    regions = splices.regions(*spans)
    keys = {"job_id": "j", "user_id": "u", "input_key": source, "output_key": "out.mp4"}
    return OverlayRequest(**keys, regions=regions, encode=EncodeOptions(encoder=encoder), store=GLOBAL)  # type: ignore[arg-type]


def test_estimate_copied_frames_take_no_time(clips: Clips, history: TimingHistory) -> None:
    """Keyframes are at 0, 24, 48, 72 and 96 of 100: a change at 30 is rendered up to 48."""
    record_jobs(history, "local", seconds_per_frame=0.1)
    media = with_length(probe(clips.get("no_b.mp4")), 4, (320, 180))
    expected = estimate(request_changing((1.2, 1.3)), media, settings=LOCAL, history=history)
    assert (expected.frames, expected.frames_rendered) == (100, 18)
    assert expected.work_seconds == pytest.approx(1.8, rel=0.1)
    assert expected.plan.processing_seconds == expected.work_seconds
    assert expected.to_dict()["frames_rendered"] == 18
    assert "18 of 100 frames of 320 x 180" in expected.to_text()
    whole = estimate(request_changing((0, 4)), media, settings=LOCAL, history=history)
    assert (whole.frames, whole.frames_rendered) == (100, 100)
    assert "100 frames of 320 x 180" in whole.to_text()
    nothing = estimate(request_changing(), media, settings=LOCAL, history=history)
    assert (nothing.frames_rendered, nothing.work_seconds) == (0, pytest.approx(0.1, abs=0.1))


@pytest.mark.parametrize("name", ["pyramid.mp4", "open_gop.mp4", "ntsc.mkv", "top_first.mp4", "cut.mp4"])
def test_estimate_rendered_frames_equal_actual_ones(
    clips: Clips, tmp_path: Path, history: TimingHistory, name: str
) -> None:
    rendering = splices.render(clips.get(name), tmp_path, (1.3, 1.6))
    expected = estimate(rendering.request, rendering.media, settings=LOCAL, history=history)
    assert expected.frames_rendered == rendering.result.frames - rendering.result.frames_copied


def test_estimate_needs_only_the_headers(clips: Clips, tmp_path: Path, history: TimingHistory) -> None:
    """As for a clip in a store, the file contains only its headers; the rest reads as zeros."""
    whole, index = clips.get("no_b.mp4"), tmp_path / "index.mp4"
    splices.ffmpeg("-i", whole, "-c", "copy", "-movflags", "+faststart", index)
    data = index.read_bytes()
    headers = data.index(b"mdat") + 4
    index.write_bytes(data[:headers] + bytes(len(data) - headers))
    media = replace(probe(whole), path=index)
    expected = estimate(request_changing((1.2, 1.3)), media, settings=LOCAL, history=history)
    assert expected.frames_rendered == 18


def test_estimate_missing_clip_assumes_keyframes(clips: Clips, tmp_path: Path, history: TimingHistory) -> None:
    media = replace(probe(clips.get("no_b.mp4")), path=tmp_path / "elsewhere.mp4")

    def rendered(media: MediaInfo, *spans: tuple[float, float]) -> int:
        return estimate(request_changing(*spans), media, settings=LOCAL, history=history).frames_rendered

    assert rendered(media, (1.0, 1.2)) == 30
    assert rendered(media, (1.0, 1.2), (1.8, 2.0)) == 50  # a span that has started continues
    assert rendered(media, (3.8, 9)) == 5
    assert rendered(media) == 0
    assert rendered(media, (0, 2.4)) == 100  # because more than three quarters would be re-encoded
    assert rendered(replace(media, codec="hevc"), (1.0, 1.2)) == 100
    assert rendered(with_length(media, 400), (1.0, 1.2)) == 30
    # Only the first part of the file exists here; its headers describe more.
    assert rendered(with_length(probe(clips.get("no_b.mp4")), 400), (1.0, 1.2)) == 30


def test_estimate_gpu_encoder_renders_all_if_much_changes(clips: Clips, history: TimingHistory) -> None:
    media = probe(clips.get("no_b.mp4"))

    def rendered(request: OverlayRequest, settings: Settings) -> int:
        return estimate(request, media, settings=settings, history=history).frames_rendered

    much = ((0.96, 2.5),)
    assert rendered(request_changing(*much, encoder="auto"), MODAL) == 100
    assert rendered(request_changing(*much), MODAL) == 48
    assert rendered(request_changing(*much, encoder="auto"), LOCAL) == 48
    assert rendered(request_changing((0.96, 1.5), encoder="auto"), MODAL) == 24


def test_estimate_trim_renders_the_cut_groups(clips: Clips, history: TimingHistory) -> None:
    media = probe(clips.get("no_b.mp4"))
    keys = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4"}
    trim = FramingRequest(  # type: ignore[arg-type]
        **keys, trim_start_seconds=Fraction(1), trim_end_seconds=Fraction(3), output_size=media.size
    )

    def counts(request: FramingRequest, media: MediaInfo) -> tuple[int, int]:
        expected = estimate(request, media, settings=LOCAL, history=history)
        return expected.frames, expected.frames_rendered

    assert counts(trim, media) == (50, 23)
    assert counts(replace(trim, output_size=(96, 54)), media) == (50, 50)
    assert counts(trim, replace(media, path=Path("elsewhere.mp4"))) == (50, 50)


@pytest.mark.parametrize(("name", "gpu"), [("modal", "T4"), ("local", "local")])
async def test_progress_eta_starts_with_the_estimate(
    clips: Clips, tmp_path: Path, history: TimingHistory, name: str, gpu: str
) -> None:
    (tmp_path / "in.mp4").write_bytes(clips.get("no_b.mp4").read_bytes())
    record_jobs(history, gpu, seconds_per_frame=0.5)
    backend = InMemoryBackend()
    backend.name = name
    backend.script("render_overlay", Script(rendered, seconds=60))
    settings = Settings(modal_enabled=name == "modal", store_url=tmp_path.as_uri())
    registry = FunctionRegistry(settings, backend=backend, history=history)
    job = await registry["render_overlay"].submit(request_changing((1.2, 1.3)))
    expected = registry.estimate(request_changing((1.2, 1.3)), probe(clips.get("no_b.mp4")))
    async with aclosing(job.progress(interval_seconds=0.01)) as updates:
        first = await anext(updates)
    assert first.eta_seconds == pytest.approx(expected.seconds, rel=0.1)
    assert expected.frames_rendered == 18
    await job.cancel()


def test_estimate_command_prints_and_fails_above_budget(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REEL_MODAL_TIMINGS", str(tmp_path / "timings.sqlite3"))
    clip = str(clips.get("25.mp4"))
    assert main(["estimate", clip, "--function", "apply_upscale", "--scale", "2", "--on", "modal"]) == 0
    assert "apply_upscale on A10G: about" in capsys.readouterr().out
    assert main(["estimate", clip, "--function", "render_overlay", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpu"] == "local"
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps({"trimStart": 0, "trimEnd": 1}))
    assert main(["estimate", clip, "--function", "process_framing", "--spec", str(spec), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 25
    monkeypatch.setenv("REEL_MODAL_BUDGET_USD", "0.000001")
    assert main(["estimate", clip, "--function", "apply_upscale", "--scale", "2", "--on", "modal"]) == 1
    assert "the budget is $0.0000" in capsys.readouterr().err


def test_reel_is_estimated_from_the_headers_of_all_clips(clips: Clips, tmp_path: Path) -> None:
    first, second = probe(clips.get("25.mp4")), probe(clips.get("with_sound.mp4"))
    reel = ReelRequest.parse(
        {
            "job_id": "j",
            "user_id": "u",
            "output_key": "reel.mp4",
            "rate": 50,
            "aspect": 1,
            "clips": [{"inputKey": "a.mp4"}, {"inputKey": "b.mp4", "trimStart": "0.5"}],
            "transitions": [{"kind": "crossfade", "duration": "0.4"}],
        }
    )
    history = TimingHistory(tmp_path / "timings.jsonl")
    expected = estimate(reel, [first, second], settings=Settings(), history=history)
    assert (expected.frames, expected.size, expected.fps) == (50 + 75 - 20, (180, 180), 50)
    assert expected.frames_rendered == expected.frames
    with pytest.raises(RequestError, match="has 2 clips, and the headers of 1 were given"):
        estimate(reel, first, settings=Settings(), history=history)
