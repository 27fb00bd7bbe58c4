"""Clips with a variable frame rate: the picture displayed at each time, in every function."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.clips import Clips, ffmpeg
from tests.local_files import key_of, root_storage
from tests.media.rendered import rendered
from tests.processes import children
from tests.run_function import run_function

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.packet_times import check_times
from reel_modal._jobs.estimates import estimate
from reel_modal.errors import FrameError, InvalidMediaError, OutputMismatchError, RequestError
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.functions.context import JobContext
from reel_modal.media import MediaInfo, probe, rated
from reel_modal.media import probing as probing_module
from reel_modal.media.timestamps import PacketTimes
from reel_modal.schema import FramingRequest, OverlayRequest, RenderResult, UpscaleRequest
from reel_modal.settings import MediaLimits, Settings
from reel_modal.testing import make_clip

F = Fraction
SIZE = (64, 48)
LEVELS, STEP = 211, 37
FAST = {"encoder": "libx264", "preset": "ultrafast", "quality": 8}
FULL = {**FAST, "smart": False}
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "8", "-g", "30", "-pix_fmt", "yuv420p")


@pytest.fixture(autouse=True)
def check_leftovers() -> Iterator[None]:
    before = children()
    yield
    assert children() == before


def shaded(rate: int, seconds: float, chosen: str, *, times: str = "", encoder: tuple[str, ...] = X264) -> Any:
    """Return a recipe: each picture at `rate` has a different gray; `chosen` selects pictures, `times` moves them."""

    def make(path: Path) -> None:
        picture = f"color=black:size={SIZE[0]}x{SIZE[1]}:rate={rate}:duration={seconds}"
        gray = f"geq=lum='20+mod(N*{STEP},{LEVELS})':cb=128:cr=128"
        moved = f",settb=1/90000,setpts='{times}'" if times else ""
        exact = ("-fps_mode", "passthrough", *(("-enc_time_base", "1/90000") if times else ()))
        ffmpeg("-f", "lavfi", "-i", f"{picture},{gray},select='{chosen}'{moved}", *exact, *encoder, path)

    return make


def _sparse_theora(path: Path) -> None:
    """Rate control leaves half of the packets empty."""
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=160x120:rate=30:duration=2", "-c:v", "libtheora", "-b:v", "20k", path)


KINDS: dict[str, Callable[[Path], None]] = {
    "dark_then_light.mp4": shaded(30, 4, "if(lt(t,1.5),not(mod(n,2)),1)"),
    "two_then_60.mp4": shaded(60, 4, "if(lt(t,2.5),not(mod(n,30)),1)"),
    "quiet_then_60.mkv": shaded(60, 5, "if(lt(t,3),eq(n,0),1)"),
    "phone.mp4": shaded(30, 4, "1", times="(N/30+if(N,1/60+(mod(N*7,11)-5)/1000,0))/TB"),
    "slow_motion.mov": shaded(30, 6, "1", times="if(lt(N,60),N/30,2+(N-60)/120)/TB"),
    "last_stands.mp4": shaded(10, 2, "1", times="if(lt(N,10),N*0.1,1+(N-10)*0.5)/TB"),
    "animation.gif": shaded(10, 3, "1", times="if(lt(N,20),N*0.1,2+(N-20)*0.7)/TB", encoder=("-c:v", "gif")),
    "vp8.webm": shaded(30, 3, "not(between(t,1,2))", encoder=("-c:v", "libvpx", "-b:v", "2M", "-auto-alt-ref", "1")),
    "vfr.ts": shaded(50, 3, "if(lt(t,1),not(mod(n,2)),1)"),
    "standing.mp4": shaded(30, 5, "lt(t,1)+eq(n,30)+gte(t,4)"),
}
RATES = {
    "dark_then_light.mp4": F(30),
    "two_then_60.mp4": F(60),
    "quiet_then_60.mkv": F(60),
    "phone.mp4": F(30),
    "slow_motion.mov": F(120),
    "last_stands.mp4": F(24),
    "animation.gif": F(24),
    "vp8.webm": F(30),
    "vfr.ts": F(50),
    "standing.mp4": F(30),
}


def clip_of(clips: Clips, name: str) -> Path:
    path = clips.folder / f"variable_{name}"
    if not path.exists():
        KINDS[name](path)
    return path


def shown(path: Path) -> list[tuple[Fraction, float]]:
    """Return the display time of each picture, from the first on, and the mean gray of its upper left corner."""
    with FrameReader(path, pixel_format="gray8") as reader:
        width, height = reader.size
        corner = (slice(height // 4), slice(width // 4))
        pictures = [(frame.pts_seconds, float(frame.image[corner].mean())) for frame in reader]
    return [(at - pictures[0][0], gray) for at, gray in pictures]


def at_moment(pictures: list[tuple[Fraction, float]], moment: Fraction) -> float:
    return [gray for at, gray in pictures if at <= moment][-1]


def run_body(request: Any, folder: Path) -> RenderResult:
    folder.mkdir(exist_ok=True)
    return run_function(request, JobContext(storage=root_storage(), workdir=folder))


def rate_codes(result: RenderResult) -> list[str]:
    """Return the codes of the notes about the frame rate."""
    return [each.code for each in result.degraded if each.code in {"frame_rate_changed", "pictures_dropped"}]


def keys(source: Path, target: Path) -> dict[str, object]:
    store = {"input_scope": "global", "output_scope": "global"}
    return {
        "job_id": "j",
        "user_id": "u",
        "input_key": key_of(source),
        "output_key": key_of(target),
        "store": store,
        "encode": FAST,
    }


def highlight(start: str, end: str) -> list[dict[str, object]]:
    keyframe = {"time": start, "x": 0.5, "y": 0.5, "radiusX": 0.3, "radiusY": 0.3}
    region = {"id": "r", "start_time": start, "end_time": end, "keyframes": [keyframe]}
    return [{**region, "videoWidth": 1, "videoHeight": 1}]


@pytest.mark.parametrize("name", KINDS)
def test_probe_rate_covers_whole_clip(clips: Clips, name: str) -> None:
    media = probe(clip_of(clips, name))
    whole = rated(media, MediaLimits())
    assert (whole.fps, whole.constant_rate, whole.rate_by_all) == (RATES[name], False, True)
    if name.endswith((".mp4", ".mov")):
        assert (media.fps, media.constant_rate, media.rate_by_all) == (RATES[name], False, True)
    assert probe(clip_of(clips, name), scan=True).fps == RATES[name]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("decoder", ["process", "in_process"])
def test_reader_constant_rate_matches_frame_grid(clips: Clips, name: str, decoder: Any) -> None:
    media = probe(clip_of(clips, name), scan=True)
    assert media.scan is not None
    grid = media.scan.grid(media.fps)
    with FrameReader(media, fps=media.fps, pixel_format="gray8", decoder=decoder) as reader:
        grays = [float(frame.image.mean()) for frame in reader]
    assert len(grays) == grid.count == media.expected_frames
    changes = sum(abs(after - before) > STEP / 2 for before, after in pairwise(grays))
    assert (grid.dropped, changes + 1) == (0, media.scan.frame_count)


@pytest.mark.parametrize("name", KINDS)
def test_framing_shows_every_picture_at_its_time(clips: Clips, tmp_path: Path, name: str) -> None:
    source, target = clip_of(clips, name), tmp_path / "out.mp4"
    crop = [{"time": 0, "x": 0, "y": 0, "width": 48, "height": 48}]
    fields = {**keys(source, target), "crop": crop, "output_width": 48, "output_height": 48}
    result = run_body(FramingRequest.parse(fields), tmp_path / "work")
    media = probe(target, scan=True)
    assert (media.fps, media.constant_rate, result.fps) == (RATES[name], True, RATES[name])
    assert rate_codes(result) == ["frame_rate_changed"]
    old, new = shown(source), shown(target)
    assert abs(result.duration_seconds - rated(probe(source), MediaLimits()).scan.duration_seconds) <= 1 / result.fps  # type: ignore[union-attr]
    changed = [0, *(n for n, (one, two) in enumerate(pairwise(new), 1) if abs(one[1] - two[1]) > STEP / 2)]
    assert len(changed) == len(old)
    for number, index in enumerate(changed):
        assert abs(new[index][1] - old[number][1]) < 4
        assert -1 <= (new[index][0] - old[number][0]) * result.fps <= F(3, 2)


@pytest.mark.parametrize("name", [*KINDS, "theora.ogv"])
def test_upscale_keeps_frame_count_times_and_length(clips: Clips, tmp_path: Path, name: str) -> None:
    source = clips.folder / name if name == "theora.ogv" else clip_of(clips, name)
    if not source.exists():
        _sparse_theora(source)
    target = tmp_path / "out.mp4"
    result = run_body(UpscaleRequest.parse({**keys(source, target), "scale": 2}), tmp_path / "work")
    old, new, length = shown(source), shown(target), probe(source, scan=True).scan
    assert length is not None
    assert (result.frames, len(new), rate_codes(result)) == (len(old), len(old), [])
    tick = probe(source).time_base
    for (before, gray), (after, larger) in zip(old, new, strict=True):
        assert abs(before - after) <= tick
        assert abs(gray - larger) < 4
    scan = probe(target, scan=True).scan
    assert scan is not None
    assert abs(result.duration_seconds - length.duration_seconds) <= tick
    assert abs(scan.duration_seconds - result.duration_seconds) <= tick


def test_upscale_constant_rate_repeats_pictures(clips: Clips, tmp_path: Path) -> None:
    source, target = clip_of(clips, "dark_then_light.mp4"), tmp_path / "out.mp4"
    fields = {**keys(source, target), "scale": 2, "rate": "constant"}
    result = run_body(UpscaleRequest.parse(fields), tmp_path / "work")
    assert (result.frames, result.fps, probe(target).constant_rate) == (120, 30, True)
    assert rate_codes(result) == ["frame_rate_changed"]


@pytest.mark.parametrize("encode", [FAST, FULL])
@pytest.mark.parametrize("rate", ["constant", "source"])
def test_highlight_inside_long_picture_is_drawn(
    clips: Clips, tmp_path: Path, encode: dict[str, object], rate: str
) -> None:
    source, target = clip_of(clips, "standing.mp4"), tmp_path / "out.mp4"
    fields = {**keys(source, target), "regions": highlight("2", "3"), "encode": encode, "rate": rate}
    result = run_body(OverlayRequest.parse(fields), tmp_path / "work")
    assert result.plan == "full"
    expected_reason = (
        "a highlight changes its frame at 1 s, which is shown for 3 s" if encode is FAST else "the request disables"
    )
    assert result.reason.startswith(expected_reason)
    old, new = shown(source), shown(target)
    for moment in (F(1, 2), F(3, 2), F(19, 10), F(31, 10), F(9, 2)):
        assert abs(at_moment(new, moment) - at_moment(old, moment)) < 4
    for moment in (F(21, 10), F(5, 2), F(29, 10)):
        assert at_moment(new, moment) < at_moment(old, moment) - 10
    output = probe(target, scan=True)
    assert output.constant_rate == (rate == "constant")
    assert abs(result.duration_seconds - 5) <= F(1, 30)


def test_highlight_outside_long_pictures_copies_the_rest(clips: Clips, tmp_path: Path) -> None:
    source, target = clip_of(clips, "standing.mp4"), tmp_path / "out.mp4"
    fields = {**keys(source, target), "regions": highlight("4.2", "4.3")}
    result = run_body(OverlayRequest.parse(fields), tmp_path / "work")
    assert (result.plan, result.reason) == ("smart", "")
    assert result.duration_seconds == probe(source, scan=True).scan.duration_seconds  # type: ignore[union-attr]
    assert [at for at, _ in shown(target)] == [at for at, _ in shown(source)]


@pytest.mark.parametrize("encode", [FAST, FULL])
def test_highlight_between_slides_is_drawn_on_touched_slide(tmp_path: Path, encode: dict[str, object]) -> None:
    """Two slides a second are evenly spaced, and each is displayed until the next."""
    source, target = tmp_path / "slides.mp4", tmp_path / "out.mp4"
    shaded(2, 6, "1", encoder=(*X264[:-4], "-g", "1", "-pix_fmt", "yuv420p"))(source)
    fields = {**keys(source, target), "regions": highlight("2.1", "2.4"), "encode": encode}
    result = run_body(OverlayRequest.parse(fields), tmp_path / "work")
    assert result.plan == ("smart" if encode is FAST else "full")
    changed = [a for (a, one), (_, two) in zip(shown(target), shown(source), strict=True) if one < two - 10]
    assert changed == [2]


@pytest.mark.parametrize("speed", ["1", "0.5", "2"])
def test_framing_source_rate_keeps_times(clips: Clips, tmp_path: Path, speed: str) -> None:
    source, target = clip_of(clips, "dark_then_light.mp4"), tmp_path / "out.mp4"
    crop = [{"time": 0, "x": 0, "y": 0, "width": 48, "height": 48}]
    segments = [{"start": 0, "end": 4, "speed": speed}]
    fields = {**keys(source, target), "crop": crop, "output_width": 48, "output_height": 48, "rate": "source"}
    fields |= {"segments": segments, "trim_start": "1", "trim_end": "3"}
    result = run_body(FramingRequest.parse(fields), tmp_path / "work")
    old, new = shown(source), shown(target)
    assert result.duration_seconds == 2 / F(speed)
    assert result.degraded == ()
    command = [find_ffmpeg(Settings(ffmpeg=None)).path, "-v", "error", "-i", target, "-f", "null", "-"]
    assert not subprocess.run(command, check=True, capture_output=True).stderr
    expected = [(max(F(0), (at - 1) / F(speed)), gray) for at, gray in old if 1 <= at < 3]
    assert len(new) == len(expected)
    for (at, gray), (due, level) in zip(new, expected, strict=True):
        assert abs(at - due) <= F(1, 10_000)
        assert abs(gray - level) < 4


def test_framing_source_rate_keeps_audio_in_sync(clips: Clips, tmp_path: Path) -> None:
    source, target = clips.get("vfr.mp4"), tmp_path / "out.mp4"
    crop = [{"time": 0, "x": 0, "y": 0, "width": 160, "height": 180}]
    fields = {**keys(source, target), "crop": crop, "output_width": 160, "output_height": 180, "rate": "source"}
    result = run_body(FramingRequest.parse(fields), tmp_path / "work")
    output, whole = probe(target, scan=True), probe(source, scan=True)
    assert output.scan is not None
    assert whole.scan is not None
    assert (result.frames, output.scan.frame_count, output.constant_rate) == (42, 42, False)
    assert result.duration_seconds == output.scan.duration_seconds
    sound = output.audio[0].duration_seconds
    assert sound is not None
    assert abs(sound - whole.scan.duration_seconds) < F(1, 20)
    assert [at for at, _ in shown(target)] == [at for at, _ in shown(source)]


def test_framing_crop_moves_during_long_picture(tmp_path: Path) -> None:
    source, target = tmp_path / "slides.mp4", tmp_path / "out.mp4"
    ramp = "color=black:size=256x64:rate=1:duration=2,geq=lum='20+X/2':cb=128:cr=128"
    ffmpeg("-f", "lavfi", "-i", ramp, *X264, source)
    crop = [{"time": at, "x": 96 * at, "y": 0, "width": 64, "height": 64} for at in (0, 2)]
    fields = {**keys(source, target), "crop": crop, "output_width": 64, "output_height": 64, "fps": 25}
    run_body(FramingRequest.parse(fields), tmp_path / "work")
    grays = [gray for _, gray in shown(target)]
    assert len(grays) == 50
    assert all(after > before for before, after in pairwise(grays[3:24]))
    assert all(after > before for before, after in pairwise(grays[28:49]))


@pytest.mark.parametrize("rate", ["25", "60"])
def test_framing_numeric_rate_resamples_and_copies_nothing(clips: Clips, tmp_path: Path, rate: str) -> None:
    source, target = clip_of(clips, "dark_then_light.mp4"), tmp_path / "out.mp4"
    fields = {**keys(source, target), "regions": [], "rate": rate}
    request = OverlayRequest.parse(fields)
    expected = estimate(request, probe(source))
    result = run_body(request, tmp_path / "work")
    assert (result.fps, result.frames, result.plan) == (F(rate), 4 * int(rate), "full")
    assert (expected.fps, expected.frames, expected.frames_rendered) == (F(rate), 4 * int(rate), 4 * int(rate))
    assert result.reason == "the request changes its frame rate"
    assert probe(target).constant_rate


def test_dropped_pictures_are_counted(tmp_path: Path) -> None:
    """A short burst at 120 fps in a 30 fps clip: less than one picture in a hundred is lost."""
    source, target = tmp_path / "burst.mp4", tmp_path / "out.mp4"
    shaded(30, 12, "1", times="if(lt(N,200),N/30,if(lt(N,204),200/30+(N-200)/240,(N-3)/30))/TB")(source)
    fields = {**keys(source, target), "regions": [], "encode": FULL}
    result = run_body(OverlayRequest.parse(fields), tmp_path / "work")
    dropped = next(each for each in result.degraded if each.code == "pictures_dropped")
    old, new = shown(source), shown(target)
    distinct = 1 + sum(abs(after - before) > STEP / 2 for (_, before), (_, after) in pairwise(new))
    assert (result.fps, dropped.message.split()[0]) == (30, str(len(old) - distinct))
    assert 0 < len(old) - distinct <= len(old) / 100


def test_rate_and_fps_both_given_must_agree() -> None:
    common = {"job_id": "j", "user_id": "u", "input_key": "a.mp4", "output_key": "b.mp4"}
    assert FramingRequest.parse({**common, "rate": 29.97}).output_rate == F(30_000, 1001)
    assert FramingRequest.parse({**common, "fps": 25, "rate": 25}).output_rate == 25
    with pytest.raises(RequestError, match="rate: is source, but fps is 25; send one of them"):
        FramingRequest.parse({**common, "fps": 25, "rate": "source"})
    with pytest.raises(RequestError, match="or write constant or source"):
        OverlayRequest.parse({**common, "regions": [], "rate": "sourced"})
    request = UpscaleRequest.parse({**common, "scale": 2})
    assert (request.rate, "rate" in request.to_dict()) == ("source", False)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("sound", [False, True])
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.integers(1, 400),
    st.sampled_from([("bf", "0"), ("bf", "3")]),
)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pipe_times_and_last_duration_are_written(
    tmp_path: Path, sound: bool, suffix: str, steps: list[int], last: int, option: tuple[str, str]
) -> None:
    audio = tmp_path / "sound.mp4"
    if sound and not audio.exists():
        make_clip(audio, seconds=2, audio_seconds=2)
    times = [F(0)]
    for step in steps:
        times.append(times[-1] + F(step, 100))
    options = dict([option, ("b_strategy", "0")])
    with FramePipe(
        tmp_path / f"out{suffix}", size=SIZE, fps=25, pixel_format="gray8", encoder="libx264", encoder_options=options,
        audio_from=audio if sound else None,
    ) as pipe:  # fmt: skip
        for number, seconds in enumerate(times):
            pipe.write(np.full(SIZE[::-1], 20 * number, np.uint8), seconds=seconds, duration_seconds=F(last, 100))
    scan = probe(pipe.result.path, scan=True).scan
    assert scan is not None
    tick = F(1, 1000) if suffix == ".mkv" else F(1, 10_000)
    late = pipe.result.duration_seconds - (times[-1] + F(last, 100))
    assert -2 * tick <= late <= max(2 * tick, F(4 - last, 100))  # Matroska may store the default duration instead
    assert scan.times.stated_seconds == pipe.result.duration_seconds


def test_pipe_duration_without_time_refused(tmp_path: Path) -> None:
    with FramePipe(tmp_path / "out.mkv", size=SIZE, fps=25, pixel_format="gray8", encoder="ffv1") as pipe:
        with pytest.raises(FrameError, match="frame 0 has a duration but no time"):
            pipe.write(np.zeros(SIZE[::-1], np.uint8), duration_seconds=F(1))
        with pytest.raises(FrameError, match="frame 0 has a duration of 0 s"):
            pipe.write(np.zeros(SIZE[::-1], np.uint8), seconds=F(0), duration_seconds=F(0))
        pipe.write(np.zeros(SIZE[::-1], np.uint8))


def test_check_times_wrong_times_refused() -> None:
    packet_times = PacketTimes((0, 10, 20), 3, 10, F(1, 100))
    assert check_times(packet_times, [F(5), F(51, 10), F(52, 10)], F(1, 10), frame_seconds=F(1, 25)) == F(3, 10)
    with pytest.raises(OutputMismatchError, match=r"frame 1 is shown at 0\.1 s .* 0\.15 s"):
        check_times(packet_times, [F(0), F(15, 100), F(1, 5)], F(1, 10), frame_seconds=F(1, 25))
    with pytest.raises(OutputMismatchError, match=r"the last frame is shown for 0\.1 s .* 0\.5 s"):
        check_times(packet_times, [F(0), F(1, 10), F(1, 5)], F(1, 2), frame_seconds=F(1, 25))


def test_smart_render_keeps_long_last_picture(clips: Clips, tmp_path: Path) -> None:
    """The other pictures are evenly spaced."""
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    with FramePipe(source, size=SIZE, fps=25, pixel_format="gray8", encoder="libx264",
                   encoder_options={"g": "25", "bf": "2"}) as pipe:  # fmt: skip
        for number in range(100):
            level = 20 + number * STEP % LEVELS
            pipe.write(np.full(SIZE[::-1], level, np.uint8), seconds=F(number, 25), duration_seconds=F(3))
    fields = {**keys(source, target), "regions": highlight("1.1", "1.2")}
    result = run_body(OverlayRequest.parse(fields), tmp_path / "work")
    assert (result.plan, result.duration_seconds) == ("smart", 4 - F(1, 25) + 3)
    assert probe(target, scan=True).scan.duration_seconds == result.duration_seconds  # type: ignore[union-attr]


def test_empty_packets_repeat_previous_picture(tmp_path: Path) -> None:
    source, target = tmp_path / "in.ogv", tmp_path / "out.mp4"
    _sparse_theora(source)
    with av.open(str(source)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.pts is not None]
    media = probe(source, scan=True)
    assert media.scan is not None
    assert 0 < sizes.count(0) == len(sizes) - media.scan.frame_count
    assert (media.fps, media.constant_rate, media.expected_frames) == (30, True, len(sizes))
    result = run_body(OverlayRequest.parse({**keys(source, target), "regions": []}), tmp_path / "work")
    assert (result.frames, result.fps, result.degraded) == (len(sizes), 30, ())


def test_matroska_late_start_is_as_long_as_its_pictures(tmp_path: Path) -> None:
    source, target = tmp_path / "late.mkv", tmp_path / "out.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=4", "-output_ts_offset", "40000", *X264, source)
    )
    media = probe(source)
    assert (media.start_seconds, media.duration_seconds) == (40_000, 4)
    result = run_body(OverlayRequest.parse({**keys(source, target), "regions": []}), tmp_path / "work")
    assert (result.frames, result.duration_seconds) == (100, 4)
    with pytest.raises(InvalidMediaError, match="declares 4 s; at most 3 s"):
        probe(source, settings=Settings(limits=MediaLimits(max_duration_seconds=3)))


def test_constant_rate_clip_with_index_is_not_scanned(
    clips: Clips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = clips.get("with_sound.mp4")
    scans: list[Path] = []
    real = probing_module.scan_packets

    def counted(path: Path, **arguments: Any) -> Any:
        scans.append(path)
        return real(path, **arguments)

    monkeypatch.setattr(probing_module, "scan_packets", counted)
    media = probe(source)
    assert isinstance(media, MediaInfo)
    assert media.rate_by_all
    fields = {**keys(source, tmp_path / "out.mp4"), "regions": highlight("0.2", "0.3"), "encode": FULL}
    run_body(OverlayRequest.parse(fields), tmp_path / "work")
    run_body(UpscaleRequest.parse({**keys(source, tmp_path / "up.mp4"), "scale": 2}), tmp_path / "work")
    assert scans == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("rate", ["constant", "30"])
def test_single_picture_with_longer_audio_is_one_frame(tmp_path: Path, suffix: str, rate: str) -> None:
    source, target = (
        make_clip(tmp_path / "in.mp4", fps=25, seconds=0.04, audio_seconds=1),
        tmp_path / f"out{suffix}",
    )
    request = OverlayRequest.parse({**keys(source, target), "regions": [], "encode": FULL, "rate": rate})
    result = run_body(request, tmp_path / "work")
    assert (result.frames, probe(target, scan=True).scan.frame_count) == (1, 1)  # type: ignore[union-attr]


@pytest.mark.parametrize("decoder", ["process", "in_process"])
def test_pictures_below_half_a_frame_become_one_frame(tmp_path: Path, decoder: Any) -> None:
    source = tmp_path / "in.flv"
    shaded(240, 1 / 120, "1")(source)
    with FrameReader(source, fps=24, pixel_format="gray8", decoder=decoder) as reader:
        assert len(list(reader)) == 1


def test_trim_in_long_last_picture_notes_no_broken_packets(tmp_path: Path) -> None:
    source = tmp_path / "in.gif"
    shaded(10, 2, "1", encoder=("-c:v", "gif", "-final_delay", "300"))(source)
    result = rendered(
        FramingRequest, source, tmp_path / "out.mp4", trim_start_seconds=1, trim_end_seconds=4, output_size=SIZE
    )
    assert "pictures_undecodable" not in {note.code for note in result.degraded}
    assert probe(tmp_path / "out.mp4").duration_seconds == 3


def movie_seconds(path: Path) -> float:
    """Return the length of an MP4 by its movie header (ISO/IEC 14496-12, 8.2.2), which players display."""
    data = path.read_bytes()
    ticks_per_second, ticks = struct.unpack_from(">II", data, data.index(b"mvhd") + 16)
    return float(ticks / ticks_per_second)


def test_copy_around_gap_ends_with_its_pictures(tmp_path: Path) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    moving = "testsrc2=size=64x48:rate=30:duration=9,select='lt(t,2)+eq(n,60)+gte(t,8)'"
    ffmpeg("-f", "lavfi", "-i", moving, "-fps_mode", "vfr", *X264, source)
    encode = {"encoder": "libx264", "preset": "fast"}  # which stores pictures out of order
    fields = {**keys(source, output), "regions": highlight("0.5", "1"), "encode": encode}
    assert run_body(OverlayRequest.parse(fields), tmp_path / "work").plan == "smart"
    assert movie_seconds(output) == pytest.approx(movie_seconds(source), abs=0.05)
