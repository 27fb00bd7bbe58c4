"""Estimates before any job has finished: by frames, pixels, encoder, network, GPU, cores, and bytes of transfers."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from tests.clips import Clips, made_clip
from tests.jobs import GLOBAL, overlay
from tests.media import splices

from reel_modal import FramingRequest, MediaInfo, Resources, Settings, UpscaleRequest, probe
from reel_modal._costs.devices import Device, gpu_names
from reel_modal._costs.effort import Effort
from reel_modal._costs.rates import PUBLISHED_RATES
from reel_modal._jobs.estimates import Estimate, estimate
from reel_modal.cli import main
from reel_modal.errors import JobTooLongError
from reel_modal.functions.efforts import ClipFrames
from reel_modal.progress import TimingHistory
from reel_modal.schema import CropKeyframe, EncodeOptions, OverlayRequest, ReelRequest, ReelTimeline, Timeline

IN_BUCKET = "s3://media/clips"
MODAL = Settings(modal_enabled=True, store_url=IN_BUCKET)
HERE = Settings(store_url="file:///srv/media", cpu=2.0)
KEYS = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4", "store": GLOBAL}
NO_FILE = Path("elsewhere.mp4")

Make = Callable[..., Estimate]


@pytest.fixture
def media(clips: Clips) -> MediaInfo:
    """Ten seconds of 1080p30 in a store."""
    clip = probe(clips.get("25.mp4"))
    return replace(clip, size=(1920, 1080), fps=Fraction(30), duration_seconds=Fraction(10), path=NO_FILE)


@pytest.fixture
def expected(media: MediaInfo, tmp_path: Path) -> Make:
    history = TimingHistory(tmp_path / "timings.sqlite3")

    def make(
        request: object, settings: Settings = MODAL, resources: Resources | None = None, **change: object
    ) -> Estimate:
        clip = replace(media, **change)  # type: ignore[arg-type]
        return estimate(request, clip, settings=settings, history=history, resources=resources)

    return make


def upscale(**fields: object) -> UpscaleRequest:
    return UpscaleRequest(**KEYS | {"scale": 2} | fields)  # type: ignore[arg-type]


def full_overlay(**encode: object) -> OverlayRequest:
    return replace(overlay(), encode=EncodeOptions(**{"encoder": "libx264"} | encode))  # type: ignore[arg-type]


def seconds_of(estimate: Estimate, phase: str) -> float:
    return next(part.seconds for part in estimate.contributors if part.name == phase)


def test_estimate_of_a_network_depends_on_the_gpu(expected: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, all GPUs were expected to take 9808.7 s, and the dollars followed from their price alone."""
    found = {}
    for gpu in ("T4", "L4", "A10G", "L40S", "H100"):
        monkeypatch.setenv("REEL_MODAL_APPLY_UPSCALE_GPU", gpu)
        found[gpu] = expected(upscale())
    seconds = [each.seconds for each in found.values()]
    dollars = [each.dollars for each in found.values()]
    assert len({round(each) for each in seconds}) == len(seconds)
    assert seconds == sorted(seconds, reverse=True)
    assert len({round(each, 4) for each in dollars}) == len(dollars)
    prices = {gpu: found[gpu].dollars / PUBLISHED_RATES.gpus[gpu] for gpu in found}
    assert max(prices.values()) > 2 * min(prices.values())  # not in proportion to the price of a GPU


def test_estimate_gpu_never_measured_has_a_wider_spread(expected: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    spreads = []
    for gpu in ("T4", "H100"):
        monkeypatch.setenv("REEL_MODAL_APPLY_UPSCALE_GPU", gpu)
        spreads.append(next(p.spread for p in expected(upscale()).contributors if p.name == "render"))
    assert spreads[1] > spreads[0] > 0.5


def test_estimate_gpu_with_nvenc_encodes_faster(expected: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {}
    for gpu in ("T4", "H100", "none"):
        monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_GPU", gpu)
        found[gpu] = expected(full_overlay(encoder="auto"))
    assert seconds_of(found["T4"], "render") < 0.6 * seconds_of(found["H100"], "render")
    assert seconds_of(found["H100"], "render") == seconds_of(found["none"], "render")
    assert "NVENC on 4 cores" in found["T4"].to_text()
    assert "x264 fast on 4 cores" in found["none"].to_text()
    webm = replace(full_overlay(encoder="auto"), output_key="out.webm")
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_GPU", "T4")
    assert "libvpx-vp9" in expected(webm).to_text()


def test_estimate_container_with_more_cores_is_faster(expected: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_GPU", "none")
    seconds = []
    for cores in ("1", "2", "4", "5", "7"):
        monkeypatch.setenv("REEL_MODAL_RENDER_OVERLAY_CPU", cores)
        seconds.append(seconds_of(expected(full_overlay()), "render"))
    assert seconds[0] == pytest.approx(2 * seconds[1], rel=0.05)
    assert seconds[1] == pytest.approx(2 * seconds[2], rel=0.1)
    assert seconds[3] == seconds[4]  # x264 has four threads; with eight, two segments are rendered at once


@pytest.mark.parametrize(
    ("slower", "faster"),
    [
        (full_overlay(preset="slow"), full_overlay(preset="veryfast")),
        (full_overlay(quality=17), full_overlay(quality=23)),
        (full_overlay(encoder="libx265"), full_overlay()),
        (upscale(model="large", provider="cpu"), upscale(model="small", provider="cpu")),
        (upscale(model="large", provider="cpu"), upscale(provider="cpu")),
        (upscale(provider="cpu"), full_overlay()),
    ],
)
def test_estimate_depends_on_encoder_and_network(expected: Make, slower: object, faster: object) -> None:
    assert seconds_of(expected(slower, HERE), "render") > 1.2 * seconds_of(expected(faster, HERE), "render")


def test_estimate_depends_on_pixels_frames_and_codec(expected: Make) -> None:
    hd = seconds_of(expected(full_overlay(), HERE), "render")
    assert seconds_of(expected(full_overlay(), HERE, size=(3840, 2160)), "render") == pytest.approx(4 * hd, rel=0.1)
    assert seconds_of(expected(full_overlay(), HERE, duration_seconds=Fraction(40)), "render") == pytest.approx(
        4 * hd, rel=0.1
    )
    assert seconds_of(expected(full_overlay(), HERE, codec="hevc"), "render") > hd
    assert seconds_of(expected(full_overlay(), HERE, bit_depth=10), "render") > 1.2 * hd


def test_estimate_of_a_framing_has_the_pixels_of_its_output(expected: Make) -> None:
    crops = tuple(
        CropKeyframe(time_seconds=Fraction(time), x=x, y=0, width=600, height=1080) for time, x in ((0, 0), (9, 900))
    )
    small, large = (
        expected(FramingRequest(**KEYS, crop=crops, output_size=size, encode=EncodeOptions(encoder="libx264")), HERE)  # type: ignore[arg-type]
        for size in ((270, 480), (810, 1440))
    )
    assert seconds_of(large, "render") > 2 * seconds_of(small, "render")


def test_estimate_copied_frames_are_nearly_free(clips: Clips, tmp_path: Path) -> None:
    media = probe(clips.get("no_b.mp4"))
    history = TimingHistory(tmp_path / "timings.sqlite3")
    request = replace(full_overlay(), regions=splices.regions((1.2, 1.3)))
    part = estimate(request, media, settings=HERE, history=history)
    whole = estimate(full_overlay(), media, settings=HERE, history=history)
    assert part.frames_rendered == 18
    assert seconds_of(part, "render") < seconds_of(whole, "render")


def reel(*clips: dict[str, object], **fields: object) -> ReelRequest:
    """Return the request of a reel with x264, whose clips are cut."""
    given = [{"input_key": f"{number}.mp4", **clip} for number, clip in enumerate(clips)]
    fixed = {key: value for key, value in KEYS.items() if key != "input_key"}
    return ReelRequest(**{**fixed, "clips": given, "encode": EncodeOptions(encoder="libx264"), **fields})  # type: ignore[arg-type]


def test_estimate_of_a_reel_adds_up_its_clips(media: MediaInfo, tmp_path: Path) -> None:
    """Decoding by the pixels and codec of each clip and its share of the frames; encoding by the output's pixels."""
    history = TimingHistory(tmp_path / "timings.sqlite3")

    def seconds(request: ReelRequest, *clips: MediaInfo) -> float:
        return seconds_of(estimate(request, clips, settings=HERE, history=history), "render")

    hd, large = media, replace(media, size=(3840, 2160), codec="hevc")
    small = {"output_size": (960, 540)}
    two = seconds(reel({}, {}, **small), hd, hd)
    assert seconds(reel({}, **small), hd) == pytest.approx(two / 2, rel=0.05)
    assert seconds(reel({}, {}), hd, hd) > 2 * two
    mixed = seconds(reel({}, {}, **small), hd, large)
    assert mixed > 1.5 * two
    assert seconds(reel({}, {"trim_end": 1}, **small), hd, large) < (two + mixed) / 2
    slow = {"segments": [{"start": 0, "end": 10, "speed": "0.5"}]}
    fast = {"segments": [{"start": 0, "end": 10, "speed": 2}]}
    assert two < seconds(reel({}, slow, **small), hd, hd) < 1.5 * two
    assert two / 2 < seconds(reel({}, fast, **small), hd, hd) < two


def test_rendered_frames_of_a_clip_and_those_that_are_decoded(media: MediaInfo) -> None:
    lines = [Timeline.of(end=Fraction(10)), Timeline.of(end=Fraction(10), speeds=[(Fraction(0), Fraction(10), 2)])]
    placed = ReelTimeline.of(lines, [("crossfade", Fraction(1))], Fraction(30)).clips
    spans = [(0, 100), (250, 280)]
    found = [(each.frames, each.source_frames) for each in (ClipFrames.of(clip, media, None) for clip in placed)]
    assert found == [(300, 300), (150, 300)]
    found = [(each.frames, each.source_frames) for each in (ClipFrames.of(clip, media, spans) for clip in placed)]
    assert found == [(130, 130), (10, 20)]
    assert ClipFrames.of(placed[0], media, []).frames == 0


def test_estimate_of_a_reel_has_copied_frames(tmp_path: Path) -> None:
    encoder = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "12")
    clip = probe(made_clip(tmp_path / "clip.mp4", size=(1280, 720), seconds=2, encoder=encoder))
    history = TimingHistory(tmp_path / "timings.sqlite3")

    def expected(request: ReelRequest) -> Estimate:
        return estimate(request, [clip, clip], settings=HERE, history=history)

    fade = [{"kind": "crossfade", "duration": "0.2"}]
    whole, faded, full = (
        expected(reel({}, {}, **fields))
        for fields in ({}, {"transitions": fade}, {"encode": EncodeOptions(encoder="libx264", smart=False)})
    )
    assert (whole.frames_rendered, full.frames_rendered) == (0, full.frames)
    assert 5 <= faded.frames_rendered < 50
    assert seconds_of(whole, "render") < seconds_of(faded, "render") < seconds_of(full, "render")


def test_estimate_fetches_119_mb_within_seconds(expected: Make, tmp_path: Path) -> None:
    """Once, `fetch` was a share of the work: 587 s for these bytes, of an upscale of 9783 s."""
    clip = tmp_path / "clip.mp4"
    with clip.open("wb") as file:
        file.truncate(119_000_000)
    long = expected(upscale(), path=clip, size=(1280, 720), duration_seconds=Fraction(500))
    assert long.work_seconds > 3000
    assert seconds_of(long, "fetch") == pytest.approx(1 + 119 / 50)
    assert "119.0 MB from s3://media" in long.to_text()
    assert seconds_of(long, "publish") < 0.02 * long.work_seconds


@pytest.mark.parametrize("settings", [HERE, Settings(cpu=2.0), replace(MODAL, store_url="file:///srv/media")])
def test_estimate_local_file_needs_no_fetch(expected: Make, settings: Settings) -> None:
    """Once, 991 s were expected for a file that is read in place."""
    long = expected(upscale(provider="cpu"), settings, duration_seconds=Fraction(500))
    assert long.work_seconds > 1000
    assert (seconds_of(long, "fetch"), seconds_of(long, "publish")) == (0, 0)
    assert "files are read in place" in long.to_text()


@pytest.fixture
def refused(expected: Make) -> Estimate:
    """A first upscale of 500 s to 1440p, of which "-8883 s are left" was said once."""
    return expected(upscale(), size=(1280, 720), duration_seconds=Fraction(500))


def test_refusal_has_no_negative_number_and_names_what_fits(refused: Estimate) -> None:
    with pytest.raises(JobTooLongError) as error:
        refused.check()
    for text in (str(error.value), refused.to_text()):
        assert "-" not in text.replace("large-x2", "")
        assert "frames of this size would fit" in text
        assert "of it on " in text
        assert "parallel=Parallel(max_workers=" in text
        assert "REEL_MODAL_APPLY_UPSCALE_TIMEOUT_SECONDS=" in text
    assert refused.headroom_seconds == 0
    assert "too long for a timeout of 900 s, of which 720 s (80 %) are allowed" in refused.to_text()


def test_refusal_every_proposed_way_fits(refused: Estimate, expected: Make) -> None:
    other = refused.other_gpu
    assert other is not None
    workers = next(row for row in refused.rows[1:] if row.call_seconds <= 720)
    assert f"max_workers={workers.workers})" in refused.to_text()
    frames = int(refused.to_text().partition("About ")[2].split()[0])
    fitting = expected(upscale(), size=(1280, 720), duration_seconds=Fraction(frames, 30))
    fitting.check()
    assert fitting.frames > 1000
    for proposed in re.findall(r"resources=Resources\((\w+)=([^)]+)\)", refused.to_text()):
        resources = Resources(**{proposed[0]: ast.literal_eval(proposed[1])})
        expected(upscale(), resources=resources, size=(1280, 720), duration_seconds=Fraction(500)).check()
    assert f"resources=Resources(gpu={other.gpu!r})" in refused.to_text()
    elsewhere = expected(
        upscale(), resources=Resources(gpu=other.gpu), size=(1280, 720), duration_seconds=Fraction(500)
    )
    assert (elsewhere.seconds, elsewhere.dollars) == (pytest.approx(other.seconds), pytest.approx(other.dollars))


def test_refusal_proposes_no_timeout_longer_than_a_day(expected: Make) -> None:
    endless = expected(upscale(), duration_seconds=Fraction(10_000), size=(1920, 1080))
    assert endless.work_seconds > 86_400
    assert "TIMEOUT_SECONDS" not in endless.to_text()
    assert endless.other_gpu is None


def test_estimate_command_shows_parts_with_their_spread(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REEL_MODAL_TIMINGS", str(tmp_path / "timings.sqlite3"))
    command = ["estimate", str(clips.get("25.mp4")), "--function", "apply_upscale", "--scale", "2", "--on", "modal"]
    assert main(command) == 0
    text = capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    parts = {part["name"]: part for part in json.loads(capsys.readouterr().out)["contributors"]}
    assert set(parts) == {"startup", "fetch", "render", "verify", "publish"}
    for part in parts.values():
        assert part["low_seconds"] < part["seconds"] < part["high_seconds"]
        assert f"({part['low_seconds']:.1f} to {part['high_seconds']:.1f})" in text


def test_estimate_command_with_resources_of_a_job(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REEL_MODAL_TIMINGS", str(tmp_path / "timings.sqlite3"))
    command = ["estimate", str(clips.get("25.mp4")), "--function", "apply_upscale", "--scale", "2", "--on", "modal"]
    assert main([*command, "--gpu", "L4", "--timeout-seconds", "3600", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["gpu"], found["timeout_seconds"]) == ("L4", 3600)
    assert main([*command, "--gpu", "none"]) == 2
    assert "Modal cannot take a GPU away" in capsys.readouterr().err


EFFORT = Effort(frames=100, frame_seconds=0.01, encoder_seconds=0.04, encoder="x264 fast", threads=4, gpu_seconds=0.2)


def test_effort_slowest_stage_determines_the_time() -> None:
    on_t4, here = Device(4, "T4"), Device(4)
    assert EFFORT.on(on_t4, here=False).seconds == pytest.approx(100 * 0.2)
    assert EFFORT.on(here, here=True).seconds == pytest.approx(100 * 0.05 / (0.9 * 4))
    serial = replace(EFFORT, gpu_seconds=0.0, serial_seconds=0.1, fixed_seconds=7)
    assert serial.on(here, here=True).seconds == pytest.approx(7 + 100 * 0.1)


def test_device_of_every_priced_gpu_is_known() -> None:
    assert set(gpu_names()) == set(PUBLISHED_RATES.gpus)
    throughput = [Device(4, gpu).network_throughput for gpu in ("T4", "l4", "A10", "L40S", "A100", "H100:2", "H200")]
    assert throughput[0] == 1
    assert throughput == sorted(throughput)
    assert Device(4, "unknown").network_throughput == 1
