"""FrameReader with frames and times in any order: exact times, no stall, all frames, helpful errors."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
from tests.clips import Clips, ffmpeg
from tests.ffmpegs import faulty

from reel_modal._ffmpeg.frame_times import FrameTimes
from reel_modal.errors import FFmpegError, FFmpegStalledError
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.media import probe
from reel_modal.media.picture_end import picture_end
from reel_modal.settings import MediaLimits, Settings
from reel_modal.testing import make_clip

Decoder = Literal["process", "in_process"]
DECODERS = ("process", "in_process")
F = Fraction
FRAME = b"frame:%d    pts:%-7d pts_time:0.04\n"


def slides(clips: Clips, size: tuple[int, int]) -> Path:
    path = clips.folder / f"slides_{size[1]}.mp4"
    return path if path.exists() else make_clip(path, size=size, fps=1, seconds=3)


@pytest.mark.parametrize("fps", [30, 240])
@pytest.mark.parametrize("decoder", DECODERS)
def test_reader_many_frames_from_one_picture_never_stall(clips: Clips, decoder: Decoder, fps: int) -> None:
    path = slides(clips, (1280, 720))
    settings = Settings.from_env()
    with FrameReader(path, pixel_format="yuv420p", fps=fps, decoder=decoder, settings=settings) as reader:
        frames = [(frame.pts_seconds, int(frame.data[::997].sum())) for frame in reader]
    assert [seconds for seconds, _ in frames] == [F(number, fps) for number in range(3 * fps)]
    assert [len({total for _, total in frames[at : at + fps]}) for at in range(0, 3 * fps, fps)] == [1, 1, 1]
    assert len({total for _, total in frames}) == 3


def uneven(clips: Clips, times: tuple[int, ...], last_ticks: int = 33) -> Path:
    """Make a clip in milliseconds with a picture at each of `times`; the last sample lasts `last_ticks`."""
    path = clips.folder / f"at_{'_'.join(map(str, times))}_{last_ticks}.mp4"
    if path.exists():
        return path
    moved = "+".join(f"eq(N\\,{number})*{at}" for number, at in enumerate(times))
    picture = f"testsrc2=size=64x48:rate=25,trim=end_frame={len(times)},settb=1/1000,setpts={moved}"
    exact = ("-fps_mode", "passthrough", "-enc_time_base", "1/1000", "-video_track_timescale", "1000")
    steps = path.with_suffix(".steps.mp4")
    ffmpeg("-f", "lavfi", "-i", picture, *exact, "-c:v", "libx264", "-bf", "0", steps)
    with av.open(str(steps)) as source, av.open(str(path), "w", options={"video_track_timescale": "1000"}) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        assert [packet.pts for packet in packets] == list(times)
        for packet, later in zip(packets, [*times[1:], times[-1] + max(1, last_ticks)], strict=True):
            packet.duration, packet.stream = later - (packet.pts or 0), stream
            output.mux(packet)
    if last_ticks == 0:  # libavformat writes 1 instead
        data = bytearray(path.read_bytes())
        at = data.index(b"stts") + 8
        (count,) = struct.unpack_from(">I", data, at)
        assert struct.unpack_from(">II", data, at + 4 + 8 * (count - 1)) == (1, 1)
        struct.pack_into(">I", data, at + 8 * count, 0)
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("decoder", DECODERS)
def test_reader_33_millisecond_times_are_exact(clips: Clips, decoder: Decoder) -> None:
    times = tuple(range(0, 990, 33))
    with FrameReader(uneven(clips, times), decoder=decoder) as reader:
        assert [frame.pts_seconds for frame in reader] == [F(at, 1000) for at in times]


@pytest.mark.parametrize("last_ticks", [0, 1, 5])
@pytest.mark.parametrize("fps", [F(15), F(25), F(30), F(60)])
@pytest.mark.parametrize("decoder", DECODERS)
def test_reader_last_sample_without_duration_lasts_one_frame(
    clips: Clips, decoder: Decoder, fps: Fraction, last_ticks: int
) -> None:
    path = uneven(clips, tuple(range(0, 1000, 40)), last_ticks)
    with FrameReader(path, decoder=decoder) as reader:
        last = [frame.data.copy() for frame in reader][-1]
    with FrameReader(path, fps=fps, decoder=decoder) as reader:
        frames = [frame.copy() for frame in reader]
    assert [frame.pts_seconds for frame in frames] == [number / fps for number in range(int(fps))]
    assert fps < 25 or np.array_equal(frames[-1].data, last)


@pytest.mark.parametrize(("last_ticks", "count"), [(40, 25), (80, 26), (1000, 49)])
@pytest.mark.parametrize("decoder", DECODERS)
def test_reader_last_sample_with_duration_keeps_it(
    clips: Clips, decoder: Decoder, last_ticks: int, count: int
) -> None:
    path = uneven(clips, tuple(range(0, 1000, 40)), last_ticks)
    with FrameReader(path, fps=25, decoder=decoder) as reader:
        assert sum(1 for _ in reader) == count
    assert picture_end(probe(path), MediaLimits()) == F(960 + last_ticks, 1000)


@pytest.mark.parametrize(
    ("start", "end", "fps", "first", "count"),
    [
        (None, F("0.41"), 25, 0, 11),
        (None, F("0.40"), 25, 0, 10),
        (None, F("0.5"), 7, 0, 4),
        (F("0.2"), F("0.4"), 50, 0, 10),
        (F("0.9"), None, 25, 1, 2),  # the first picture from 0.9 s on is at 0.92 s
        (F("0.2"), F(9), 25, 0, 20),
        (F(5), None, 25, 0, 0),
    ],
)
@pytest.mark.parametrize("decoder", DECODERS)
def test_reader_bounds_with_fps_are_respected(
    clips: Clips, decoder: Decoder, start: Fraction | None, end: Fraction | None, fps: int, first: int, count: int
) -> None:
    path = uneven(clips, tuple(range(0, 1000, 40)), 40)
    with FrameReader(path, fps=fps, start=start, end=end, decoder=decoder) as reader:
        times = [frame.pts_seconds for frame in reader]
    assert times == [(start or 0) + F(number, fps) for number in range(first, first + count)]


@pytest.mark.parametrize("name", ["stream.ts", "vfr.mp4", "late_video.mkv", "odd.webm", "edit_list.mp4"])
def test_picture_end_covers_all_packets(clips: Clips, name: str) -> None:
    media = probe(clips.get(name), scan=True)
    assert media.scan is not None
    assert picture_end(media, MediaLimits()) == media.start_seconds + media.scan.duration_seconds


def test_picture_end_truncated_file_covers_existing_packets(clips: Clips, tmp_path: Path) -> None:
    whole = clips.get("stream.ts").read_bytes()
    path = tmp_path / "half.ts"
    path.write_bytes(whole[: len(whole) // 2])
    media = probe(path, scan=True)
    assert media.scan is not None
    assert 0.5 < media.scan.duration_seconds < 1.9
    assert picture_end(media, MediaLimits()) == media.start_seconds + media.scan.duration_seconds


@pytest.mark.parametrize("suffix", [".264", ".avi", ".flv", ".mpg", ".gif", ".webm"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_reader_container_without_times_loses_no_frame(tmp_path: Path, decoder: Decoder, suffix: str) -> None:
    encoders = {".gif": "gif", ".mpg": "mpeg2video", ".webm": "libvpx"}
    encoder = ("-c:v", encoders.get(suffix, "libx264"), *(("-bf", "2") if suffix in {".264", ".avi", ".flv"} else ()))
    pixels = "rgb8" if suffix == ".gif" else "yuv420p"
    path = make_clip(tmp_path / f"clip{suffix}", size=(64, 48), encoder=encoder, pixel_format=pixels)
    for fps in (None, 25, 50):
        with FrameReader(path, pixel_format="yuv420p", fps=fps, decoder=decoder) as reader:
            times = [frame.pts_seconds for frame in reader]
        assert len(times) == (fps or 25)
        assert {later - sooner for sooner, later in pairwise(times)} == {F(1, fps or 25)}


def stand_in(folder: Path, body: str) -> Settings:
    """Return an ffmpeg that answers queries like the real one, and runs `body` instead of reading a clip."""
    settings = faulty(folder, f"import time\n{body}")
    return Settings(ffmpeg=settings.ffmpeg, stall_seconds=1.0)


ONE_FRAME = "os.write(1, bytes(320 * 180 * 3 // 2))"


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("time.sleep(60)", FFmpegStalledError, "no data moved for 1 s while reel_modal waited for ffmpeg to write"),
        (
            f"{ONE_FRAME}\ntime.sleep(60)",
            FFmpegStalledError,
            "waited for ffmpeg to print the timestamp of a frame",
        ),
        (f"{ONE_FRAME}\nsys.exit(0)", FFmpegError, "ffmpeg ended without the timestamp of a frame"),
        (f"{ONE_FRAME}\nsys.exit('no memory')", FFmpegError, "no memory"),
    ],
)
def test_reader_stall_error_names_missing_output(
    clips: Clips, tmp_path: Path, body: str, kind: type[Exception], message: str
) -> None:
    started = time.monotonic()
    with (
        pytest.raises(FFmpegError, match=message) as caught,
        FrameReader(clips.get("25.mp4"), pixel_format="yuv420p", settings=stand_in(tmp_path, body)) as reader,
    ):
        list(reader)
    assert type(caught.value) is kind
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("order", ["times first", "frames first", "in turns"])
def test_reader_frames_and_times_in_any_order_match(clips: Clips, tmp_path: Path, order: str) -> None:
    """Both the frames and the times exceed the capacity of a pipe."""
    count = 3000 if order == "times first" else 40
    write: dict[str, Callable[[str, str], str]] = {
        "times first": lambda times, frames: f"{times}\n{frames}",
        "frames first": lambda times, frames: f"{frames}\n{times}",
        "in turns": lambda _, __: f"for n in range({count}): os.write(1, frame); os.write(2, {FRAME!r} % (n, n))",
    }
    times = f"for n in range({count}): os.write(2, {FRAME!r} % (n, n))"
    frames = f"for n in range({count}): os.write(1, frame)"
    body = f"frame = bytes(64 * 36 * 3 // 2)\n{write[order](times, frames)}"
    reader = FrameReader(
        clips.get("25.mp4"), pixel_format="yuv420p", size=(64, 36), settings=stand_in(tmp_path, body)
    )
    tick = reader.media.time_base
    with reader:
        assert [frame.pts_seconds for frame in reader] == [number * tick for number in range(count)]


def test_frame_times_between_partial_messages_keep_both() -> None:
    times = FrameTimes(F(2), F(1, 25))
    lines = [
        "frame:0    pts:0       pts_time:0",
        "reel_modal=frame",
        "[h264 @ 0x5d] frame:1    pts:-3      pts_time:-0.12",
        "Error while decoding MB",
        "[vist#0:0/h264 @ 0x5e] [dec:h264 @ 0x5f] reel_modal=frame",
        "Error submitting packet to decoder: Invalid data found",
        "frame:12 is how a message begins",
    ]
    assert [message for line in lines if (message := times.take(line))] == [
        "[h264 @ 0x5d] Error while decoding MB",
        "[vist#0:0/h264 @ 0x5e] [dec:h264 @ 0x5f] Error submitting packet to decoder: Invalid data found",
        "frame:12 is how a message begins",
    ]
    times.end()
    assert [times.next(1), times.next(1), times.next(1)] == [F(2), F(2) - F(3, 25), None]
    assert times.broken_packets == 1
    with pytest.raises(TimeoutError):
        times.next(0.01)


def test_reader_static_ffmpeg_reads_mpeg_ts(clips: Clips, monkeypatch: pytest.MonkeyPatch) -> None:
    """A static ffmpeg loads the machine's iconv modules for the names in the stream, and crashes in them."""
    path = clips.get("stream.ts")
    monkeypatch.delenv("GCONV_PATH")
    with FrameReader(path) as reader:
        assert sum(1 for _ in reader) == 50
