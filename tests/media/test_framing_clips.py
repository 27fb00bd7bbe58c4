"""Framing of real clips and their variants, edge cases of requests, and cancellation at any point."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.clips import REAL, Clips, ffmpeg, made_clip, turned
from tests.media.beats import samples_of
from tests.media.framed import FAITHFUL, FAST, crops, framed, request_for, run, speeds
from tests.processes import children

from reel_modal import FramePipe, FrameReader
from reel_modal.errors import (
    FFmpegError,
    InvalidMediaError,
    JobCancelledError,
    ReelModalError,
    RequestError,
)
from reel_modal.functions.context import CancellationToken
from reel_modal.media import probe
from reel_modal.progress import ProgressEvent
from reel_modal.schema import CropKeyframe, EncodeOptions, FramingRequest

F = Fraction


def variant(clips: Clips, name: str, kind: str) -> Path:
    """Make a variant of the first 1.2 s of a real clip, at most 640 pixels wide, as another camera would write it."""
    path = clips.folder / f"{kind}_{name}"
    if path.exists():
        return path
    source = clips.get(name)
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-c:a", "copy")
    short, narrow = ("-t", "1.2", "-i", source), r"scale=min(iw\,640):-2"
    if kind in {"rotated", "mirrored"}:
        turned(variant(clips, name, "plain"), path, 90 if kind == "rotated" else 0, mirrored=kind == "mirrored")
    elif kind == "no_audio":
        ffmpeg("-i", variant(clips, name, "plain"), "-an", "-c", "copy", path)
    elif kind == "uneven":
        ffmpeg(*short, "-vf", rf"select=lt(t\,0.5)+mod(n\,3),{narrow}", "-fps_mode", "passthrough", *x264, path)
    elif kind == "10bit":
        ffmpeg(*short, "-vf", narrow, "-pix_fmt", "yuv420p10le", *x264, path)
    elif kind == "odd":
        lossless = ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0", "-pix_fmt", "yuv444p", "-c:a", "copy")
        ffmpeg(*short, "-vf", "scale=161:121", *lossless, path)
    else:
        ffmpeg(*short, "-vf", narrow, *x264, path)
    return path


@pytest.mark.parametrize("shift", [0, 1e-9], ids=["one graph", "frame by frame"])
def test_framing_unavailable_encoder_named_and_leaves_nothing(clips: Clips, tmp_path: Path, shift: float) -> None:
    encode = EncodeOptions(encoder="h264_nonsense")
    crop = crops((0, 20, 10, 90, 160), (1, 20 + shift, 10, 90, 160))
    request = request_for(clips.get("25.mp4"), tmp_path / "out.mp4", crop=crop, encode=encode)
    with pytest.raises(RequestError, match="encoder 'h264_nonsense' does not start"):
        run(request, tmp_path / "work")
    assert list(tmp_path.iterdir()) == [tmp_path / "work"]
    assert list((tmp_path / "work").iterdir()) == []


KINDS = ("plain", "rotated", "mirrored", "uneven", "10bit", "odd", "no_audio")
VARIANTS = [
    *(("bigbuckbunny.mp4", kind) for kind in KINDS),
    *((name, kind) for name in REAL if name != "bigbuckbunny.mp4" for kind in ("plain", "rotated")),
]
"""Each kind of one clip; the other two, one without square pixels, as they are and rotated."""


@pytest.mark.parametrize(("name", "kind"), VARIANTS)
@pytest.mark.parametrize("shift", [0, 1e-9])
def test_framing_real_clips_cropped_from_upright_picture(
    clips: Clips, tmp_path: Path, name: str, kind: str, shift: float
) -> None:
    """A crop in its original size, in slow motion, keeps the samples of the source."""
    source = variant(clips, name, kind)
    media = probe(source, scan=True)
    assert media.scan is not None
    ratio = media.sample_aspect_ratio
    width, height = (round(96 * ratio / 2) * 2, 80) if ratio != 1 else (96, 80)
    fields: dict[str, object] = {
        "crop": crops((0, 20, 10, 96, 80), (9, 20 + shift, 10, 96, 80)),
        "output_size": (width, height),
        "segments": speeds(("0.2", "0.6", "0.5")),
        "trim_start_seconds": F("0.1"),
        "trim_end_seconds": F("0.9"),
    }
    result, path = framed(source, tmp_path, encode=FAITHFUL, **fields)
    output_media = probe(path, scan=True)
    assert output_media.scan is not None
    assert result.frames == output_media.scan.frame_count == round(F("1.2") * media.fps)
    assert (output_media.size, result.size) == ((width, height), (width, height))
    assert result.duration_seconds == result.frames / media.fps
    assert len(output_media.audio) == (1 if media.audio else 0)
    if media.audio:
        assert len(samples_of(path)) == pytest.approx(float(result.duration_seconds) * 48000, abs=2048)
    if ratio != 1:
        return  # scaled, so no sample equals the source
    line = request_for(source, path, **fields).timeline(media.scan.duration_seconds)
    with FrameReader(source, pixel_format="yuv420p") as reader:
        shown = {
            line.first_frame(frame.pts_seconds - media.start_seconds, media.fps): frame.planes[0][
                10:90, 20:116
            ].copy()
            for frame in reader
        }
    with FrameReader(path, pixel_format="yuv420p") as reader:
        for frame in reader:
            newest = max(first for first in shown if first <= frame.index)
            difference = np.abs(frame.planes[0].astype(int) - shown[newest])
            assert float(difference.mean()) < 1.5, frame.index


LISTED = (
    "25.mp4",
    "29_97.mp4",
    "short_sound.mp4",
    "long_sound.mp4",
    "opus.mkv",
    "odd.webm",
    "anamorphic.mp4",
    "milliseconds.mkv",
    "stream.ts",
    "vfr.mp4",
    "turned_90.mp4",
    "mirrored_270.mp4",
    "late_video.mkv",
    "edit_list.mp4",
    "broken_packets.mp4",
    "cover_art.mp4",
)
moments = st.integers(0, 2200).map(lambda n: F(n, 1000)) | st.integers(0, 2200).map(lambda n: F(n, 997))
evens = st.integers(8, 60).map(lambda half: 2 * half)
fps_values = st.sampled_from([F(1), F(24000, 1001), F(25), F(30), F(60000, 1001), F(1234, 100)])
paces = st.sampled_from([F(1, 10), F(1, 4), F(1, 2), F(1), F(3, 2), F(4), F(10)]) | st.fractions(F(1, 10), 10)


@st.composite
def edits(draw: st.DrawFn) -> dict[str, object]:
    """Generate any valid edit of a clip of one or two seconds."""
    start = draw(st.just(F(0)) | st.integers(0, 900).map(lambda n: F(n, 1000)))
    borders = sorted(draw(st.sets(moments, max_size=5)))
    pairs = list(pairwise(borders))
    boxes = st.tuples(st.floats(-20, 300), st.floats(-20, 150), st.floats(1, 400), st.floats(1, 300)) | st.tuples(
        st.just(20), st.just(10), st.just(64), st.just(48)
    )
    return {
        "trim_start_seconds": start,
        "trim_end_seconds": draw(st.none() | moments.map(lambda length: start + length + F(1, 1000))),
        "segments": speeds(*((a, b, draw(paces)) for a, b in pairs)),
        "crop": crops(*((at, *draw(boxes)) for at in sorted(draw(st.sets(moments, max_size=3))))),
        "output_size": draw(st.tuples(evens, evens) | st.just((128, 96))),
        "fps": draw(st.none() | fps_values),
        "rotation_degrees": draw(st.sampled_from([0, 0, 90, 180, 270])),
        "interpolation": draw(st.sampled_from(["linear", "catmull_rom"])),
        "fit": draw(st.sampled_from(["cover", "contain"])),
        "slow_motion": draw(st.sampled_from(["repeat", "blend"])),
        "audio": draw(st.booleans()),
    }


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(name=st.sampled_from(LISTED), edit=edits())
def test_framing_any_valid_request_gives_expected_output(
    clips: Clips, tmp_path: Path, name: str, edit: dict[str, object]
) -> None:
    source = clips.get(name)
    media = probe(source, scan=True)
    assert media.scan is not None
    request = request_for(source, tmp_path / "out.mp4", **edit)
    assume(request.trim_start_seconds < media.scan.duration_seconds)
    line = request.timeline(media.scan.duration_seconds)
    fps = request.fps or media.fps
    result = run(request, tmp_path / "work")
    output_media = probe(tmp_path / "out.mp4", scan=True)
    assert output_media.scan is not None
    assert result.frames == output_media.scan.frame_count == max(1, round(line.duration_seconds * fps))
    assert result.size == output_media.size == request.output_size
    assert result.duration_seconds == result.frames / fps
    assert abs(output_media.scan.duration_seconds - result.duration_seconds) < F(1, 1000)
    assert bool(output_media.audio) == (request.audio and bool(media.audio))
    if output_media.audio and not line.untouched:
        length = len(samples_of(tmp_path / "out.mp4")) / 48000
        # AAC has 1024 samples a packet, at 44.1 kHz or more, and the last one may be padded.
        assert -0.001 <= length - float(result.duration_seconds) < 0.05


def one_picture(folder: Path) -> Path:
    path = folder / "one.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25", "-frames:v", "1", "-pix_fmt", "yuv420p", path)
    return path


def test_framing_single_picture_clip_works(tmp_path: Path) -> None:
    source = one_picture(tmp_path)
    assert framed(source, tmp_path, output_size=(32, 32))[0].frames == 1
    assert framed(source, tmp_path, output_size=(64, 48), fps=F(100))[0].frames == 4
    slow = speeds((0, 1, "0.1"))
    assert framed(source, tmp_path, output_size=(64, 48), segments=slow)[0].frames == 10
    assert framed(source, tmp_path, output_size=(64, 48), segments=speeds((0, 1, 10)))[0].frames == 1


@pytest.mark.parametrize("shift", [0, 1e-9])
@pytest.mark.parametrize(("start", "end"), [("0.5", "0.501"), ("0.513", "0.519"), ("0.99", None), (0, "0.001")])
def test_framing_trim_below_one_frame_keeps_one(
    clips: Clips, tmp_path: Path, start: object, end: object, shift: float
) -> None:
    crop = crops((0, 0, 0, 320, 180), (9, 0, 0, 320, 180 - shift))
    fields = {"trim_start_seconds": F(str(start)), "trim_end_seconds": None if end is None else F(str(end))}
    for size in ((320, 180), (160, 90)):
        result, path = framed(clips.get("25.mp4"), tmp_path, crop=crop, output_size=size, **fields)
        scan = probe(path, scan=True).scan
        assert scan is not None
        assert result.frames == scan.frame_count == 1


MILLISECONDS = ("-fps_mode", "passthrough", "-enc_time_base", "1/1000")


def gray_at(folder: Path, times: list[float]) -> Path:
    """Make a clip of increasingly bright pictures at the given times."""
    steady, path = folder / "steady.mkv", folder / "gaps.mkv"
    with FramePipe(steady, size=(32, 32), fps=1, pixel_format="gray8", encoder="libx264", quality=1) as pipe:
        for number in range(len(times)):
            pipe.write(np.full((32, 32), 16 + 10 * number, np.uint8))
    moved = "+".join(f"eq(N\\,{number})*{at}" for number, at in enumerate(times))
    x264 = ("-c:v", "libx264", "-qp", "1", "-preset", "ultrafast", "-bf", "0")
    ffmpeg("-i", steady, "-vf", f"settb=1/1000,setpts=({moved})/TB", *MILLISECONDS, *x264, path)
    return path


def test_framing_trim_inside_long_picture_shows_it(tmp_path: Path) -> None:
    """A screen recording has no pictures while nothing changes."""
    source = gray_at(tmp_path, [0, 0.5, 1, 14, 14.5, 15])
    cut = {"trim_start_seconds": F(12), "trim_end_seconds": F("14.7"), "fps": F(10), "output_size": (32, 32)}
    result, path = framed(source, tmp_path, encode=FAITHFUL, **cut)
    with FrameReader(path, pixel_format="gray8") as reader:
        numbers = [round((float(frame.image.mean()) - 16) / 10) for frame in reader]
    assert (result.frames, numbers) == (27, [2] * 20 + [3] * 5 + [4] * 2)
    inside = {**cut, "trim_start_seconds": F(5), "trim_end_seconds": F(7)}
    _, path = framed(source, tmp_path, encode=FAITHFUL, **inside)
    with FrameReader(path, pixel_format="gray8") as reader:
        assert [round((float(frame.image.mean()) - 16) / 10) for frame in reader] == [2] * 20


def test_framing_late_pause_in_regular_clip_shifts_nothing(tmp_path: Path) -> None:
    """The last pictures are 15 ms late, which the first ones, the only ones probed, do not show."""
    steady, source = tmp_path / "steady.mkv", tmp_path / "late.mkv"
    with FramePipe(steady, size=(32, 32), fps=25, pixel_format="gray8", encoder="libx264", quality=1) as pipe:
        for number in range(200):
            pipe.write(np.full((32, 32), 20 + 6 * (number % 35), np.uint8))
    late = r"settb=1/1000,setpts=(N/25+gte(N\,150)*0.015)/TB"
    x264 = ("-c:v", "libx264", "-qp", "1", "-preset", "ultrafast", "-bf", "0")
    ffmpeg("-i", steady, "-vf", late, *MILLISECONDS, *x264, source)
    for end in (None, F("7.5")):
        result, path = framed(source, tmp_path, output_size=(16, 16), encode=FAITHFUL, trim_end_seconds=end)
        with FrameReader(path, pixel_format="gray8") as reader:
            numbers = [round((float(frame.image.mean()) - 20) / 6) for frame in reader]
        assert numbers[:200] == [number % 35 for number in range(result.frames)][:200]


@pytest.mark.parametrize("sound", ["-ac:a 6 -ar:a 48000", "-ac:a 1 -ar:a 8000", "-ac:a 2 -ar:a 22050"])
def test_framing_any_audio_layout_and_rate_is_retimed(tmp_path: Path, sound: str) -> None:
    source = tmp_path / "in.mkv"
    picture = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=1.5")
    tone = ("-f", "lavfi", "-i", "sine=frequency=440:duration=1.5,volume=8")
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    ffmpeg(*picture, *tone, *x264, "-c:a", "aac", *sound.split(), source)
    result, path = framed(source, tmp_path, output_size=(64, 48), segments=speeds((0, 1, "0.5")))
    audio = samples_of(path)[:, 0]
    assert len(audio) / 48000 == pytest.approx(float(result.duration_seconds), abs=0.15)
    blocks = np.sqrt((audio[4800 : 48000 * 2] ** 2).reshape(-1, 4800).mean(1))
    assert float(blocks.min()) > 0.3 * float(blocks.max()) > 0.01


def test_framing_wrong_audio_length_leaves_video_unchanged(clips: Clips, tmp_path: Path) -> None:
    double = speeds((0, 5, 2))
    for name, seconds in (("short_sound.mp4", 1), ("long_sound.mp4", "0.5")):
        result, path = framed(clips.get(name), tmp_path, output_size=(64, 36), segments=double)
        assert abs(result.duration_seconds - F(seconds)) <= 1 / result.fps
        assert abs(len(samples_of(path)) / 48000 - float(result.duration_seconds)) < 0.03


def test_framing_keyframes_outside_trim_are_interpolated(tmp_path: Path) -> None:
    """The crop moves from before the trim until after it; the output shows the part in between."""
    source = tmp_path / "ramp.mp4"
    ramp = np.tile(np.arange(200, dtype=np.uint8), (64, 1))
    with FramePipe(source, size=(200, 64), fps=25, pixel_format="gray8", encoder="libx264", quality=1) as pipe:
        for _ in range(50):
            pipe.write(ramp)
    moving = crops((0, 0, 0, 64, 64), (2, 100, 0, 64, 64), (9, 120, 0, 64, 64))
    fields = {"trim_start_seconds": F("0.4"), "trim_end_seconds": F("1.6"), "output_size": (64, 64)}
    _, path = framed(source, tmp_path, crop=moving, encode=FAITHFUL, **fields)
    with FrameReader(path, pixel_format="gray8") as reader:
        middles = [float(frame.image.mean()) for frame in reader]
    assert middles == pytest.approx([31.5 + 20 + 2 * n for n in range(30)], abs=1)


def test_framing_truncated_source_is_noted(clips: Clips, tmp_path: Path) -> None:
    """A truncated file shows its last picture for the rest, and the result has a note."""
    whole = made_clip(tmp_path / "whole.mkv", seconds=3, audio_seconds=3).read_bytes()
    source = tmp_path / "broken.mkv"
    source.write_bytes(whole[: len(whole) * 2 // 3])
    for crop in ((), crops((0, 0, 0, 320, 180), (9, 1, 0, 300, 170))):
        result, _ = framed(source, tmp_path, crop=crop, output_size=(160, 90), segments=speeds((0, 1, 2)))
        assert 20 < result.frames < 75
    for name in ("garbage.mp4", "playlist.mp4", "audio_only.mp4"):
        with pytest.raises(InvalidMediaError):
            framed(clips.get(name), tmp_path)
    with pytest.raises(RequestError, match=r"^trim_start_seconds: is 9; the clip ends at 1"):
        framed(clips.get("25.mp4"), tmp_path, trim_start_seconds=F(9))


STILL = crops((0, 0, 0, 320, 180))
MOVING = crops((0, 0, 0, 300, 170), (9, 20, 10, 300, 170))


def long_work(clips: Clips, folder: Path, crop: tuple[CropKeyframe, ...]) -> FramingRequest:
    """Return a request with a second of work or more for either engine, with audio to encode."""
    return request_for(
        clips.get("with_sound.mp4"),
        folder / "made" / "out.mp4",
        crop=crop,
        output_size=(320, 180),
        segments=speeds((0, 2, "0.1")),
        encode=dataclasses.replace(FAST, preset="veryslow"),
    )


def interrupt_with(
    clips: Clips,
    folder: Path,
    crop: tuple[CropKeyframe, ...],
    at: Callable[[ProgressEvent], bool],
    end: Callable[[CancellationToken], None],
) -> ReelModalError:
    """Start the work over an existing output, call `end` at the first event that matches `at`; return the error."""
    (folder / "made").mkdir()
    (folder / "made" / "out.mp4").write_bytes(b"the former one")
    token, before, called = CancellationToken(), children(), []

    def send(event: ProgressEvent) -> None:
        if not called and at(event):
            called.append(event)
            end(token)

    with pytest.raises(ReelModalError) as caught:
        run(long_work(clips, folder, crop), folder / "work", cancellation=token, send=send)
    assert called
    assert children() == before
    assert [path.name for path in (folder / "made").iterdir()] == ["out.mp4"]
    assert (folder / "made" / "out.mp4").read_bytes() == b"the former one"
    assert list((folder / "work").iterdir()) == []
    return caught.value


@pytest.mark.parametrize("crop", [STILL, MOVING], ids=["graph", "frames"])
@pytest.mark.parametrize(
    "at",
    [
        lambda event: event.phase == "fetch",
        lambda event: event.phase == "render",
        lambda event: event.phase == "render" and event.done > 0,
        lambda event: event.phase == "render" and event.done > 120,
    ],
    ids=["fetch", "sound", "first", "late"],
)
def test_framing_cancelled_at_any_phase_leaves_nothing(
    clips: Clips, tmp_path: Path, crop: tuple[CropKeyframe, ...], at: Callable[[ProgressEvent], bool]
) -> None:
    error = interrupt_with(clips, tmp_path, crop, at, CancellationToken.cancel)
    assert isinstance(error, JobCancelledError)


@pytest.mark.parametrize("crop", [STILL, MOVING], ids=["graph", "frames"])
def test_framing_ffmpeg_killed_leaves_nothing(clips: Clips, tmp_path: Path, crop: tuple[CropKeyframe, ...]) -> None:
    before = children()

    def kill(_: CancellationToken) -> None:
        for pid in children() - before:
            os.kill(pid, 9)

    error = interrupt_with(clips, tmp_path, crop, lambda event: event.phase == "render" and event.done > 0, kill)
    assert isinstance(error, FFmpegError)
    assert "SIGKILL" in str(error)


class CancelledAtAPacket(CancellationToken):
    """A token that is cancelled at its fifth check during the verification of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.verifying = False
        self.looks = 0

    @property
    def cancelled(self) -> bool:
        self.looks += self.verifying
        return self.looks >= 5


@pytest.mark.parametrize(
    "fields",
    [
        {"crop": STILL, "output_size": (64, 36)},
        {"crop": MOVING, "output_size": (64, 36)},
        {"trim_start_seconds": F("0.5"), "output_size": (320, 180)},
    ],
    ids=["graph", "frames", "copy"],
)
def test_framing_cancelled_during_verification_ends(clips: Clips, tmp_path: Path, fields: dict[str, object]) -> None:
    token, before = CancelledAtAPacket(), children()

    def send(event: ProgressEvent) -> None:
        token.verifying = event.phase == "verify"

    request = request_for(clips.get("with_sound.mp4"), tmp_path / "made" / "out.mp4", **fields)
    (tmp_path / "made").mkdir()
    with pytest.raises(JobCancelledError):
        run(request, tmp_path / "work", cancellation=token, send=send)
    assert token.looks == 5  # no further packet
    assert children() == before
    assert list((tmp_path / "made").iterdir()) == list((tmp_path / "work").iterdir()) == []
