"""FrameReader on real files: every frame once, upright, at its exact time."""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clips import Clips
from tests.ffmpegs import faulty
from tests.processes import children, ffmpegs

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.hardware_decoding import nvdec_ffmpeg
from reel_modal.errors import ConfigError, FFmpegError, InvalidMediaError
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.media import probe
from reel_modal.media.frames import Frame
from reel_modal.settings import Settings

Decoder = Literal["process", "in_process"]


@pytest.fixture(params=["process", "in_process"])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return request.param


@pytest.fixture(autouse=True)
def check_leftovers() -> Iterator[None]:
    before, threads = children(), set(threading.enumerate())
    yield
    assert children() == before
    assert set(threading.enumerate()) == threads


def times_by_pyav(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        return [frame.pts * frame.time_base for frame in container.decode(stream)]  # type: ignore[operator]


@pytest.mark.parametrize(
    "name",
    [
        *("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4", "29_97.mp4", "59_94.mp4", "vfr.mp4"),
        *("milliseconds.mkv", "stream.ts", "late_video.mkv", "edit_list.mp4", "10bit.mp4", "turned_90.mp4"),
    ],
)
def test_reader_frame_times_are_exact(clips: Clips, decoder: Decoder, name: str) -> None:
    path = clips.get(name)
    with FrameReader(path, pixel_format="yuv420p", decoder=decoder) as reader:
        times = [frame.pts_seconds for frame in reader]
    assert times == times_by_pyav(path)
    assert reader.frames_read == len(times)
    assert reader.broken_packets == 0


def test_reader_pixels_equal_file(clips: Clips, decoder: Decoder) -> None:
    path = clips.get("carphone_pristine.mp4")
    with av.open(str(path)) as container, FrameReader(path, pixel_format="yuv420p", decoder=decoder) as reader:
        for frame, decoded in zip(reader, container.decode(video=0), strict=True):
            assert np.array_equal(frame.data, decoded.to_ndarray(format="yuv420p").ravel())


def test_reader_reuses_frame_buffer_but_not_copies(clips: Clips, decoder: Decoder) -> None:
    with FrameReader(clips.get("25.mp4"), decoder=decoder) as reader:
        frames = iter(reader)
        first = next(frames)
        first_copy = first.copy()
        second = next(frames)
        assert first.data is second.data
        assert not np.array_equal(first_copy.data, second.data)


def test_reader_broken_packets_skipped_and_counted(clips: Clips, decoder: Decoder) -> None:
    with FrameReader(clips.get("broken_packets.mp4"), decoder=decoder) as reader:
        times = [frame.pts_seconds for frame in reader]
    assert reader.broken_packets == 3
    assert times == [Fraction(n, 25) for n in range(50) if n not in {20, 21, 22}]
    with FrameReader(clips.get("broken_packets.mp4"), fps=25, decoder=decoder) as steady:
        assert [frame.pts_seconds for frame in steady] == [Fraction(n, 25) for n in range(50)]


def test_reader_variable_rate_kept_or_resampled(clips: Clips, decoder: Decoder) -> None:
    path = clips.get("vfr.mp4")
    with FrameReader(path, decoder=decoder) as kept:
        own = [frame.pts_seconds for frame in kept]
    assert len({after - before for before, after in itertools.pairwise(own)}) > 1
    with FrameReader(path, fps=30, decoder=decoder) as steady:
        times = [frame.pts_seconds for frame in steady]
    assert times == [Fraction(n, 30) for n in range(len(times))]
    assert abs(len(times) - 60) <= 1  # still two seconds


def test_reader_start_inclusive_and_end_exclusive(clips: Clips, decoder: Decoder) -> None:
    with FrameReader(clips.get("50.mp4"), start=Fraction(1, 5), end=Fraction(2, 5), decoder=decoder) as reader:
        assert [frame.pts_seconds for frame in reader] == [Fraction(n, 50) for n in range(10, 20)]
    with FrameReader(clips.get("50.mp4"), start=5, decoder=decoder) as behind:
        assert list(behind) == []


@pytest.mark.parametrize("start", [0, 15.05, 30, 45.55, 59.9])
def test_reader_late_start_gives_same_frames_as_full_read(clips: Clips, decoder: Decoder, start: float) -> None:
    path = clips.get("long.mp4")
    with FrameReader(path, pixel_format="gray8", start=start, end=start + 1, decoder=decoder) as reader:
        jumped = [(frame.pts_seconds, frame.data.tobytes()) for frame in reader]
    with FrameReader(path, pixel_format="gray8", decoder=decoder) as reader:
        whole = [(f.pts_seconds, f.data.tobytes()) for f in reader if start <= f.pts_seconds < start + 1]
    assert jumped == whole
    assert jumped


def test_reader_size_given_resizes_frames(clips: Clips, decoder: Decoder) -> None:
    with FrameReader(clips.get("25.mp4"), size=(64, 36), decoder=decoder) as reader:
        assert next(iter(reader)).image.shape == (36, 64, 3)


def test_reader_left_early_ends_ffmpeg(clips: Clips) -> None:
    reader = FrameReader(clips.get("bikes.mp4"))
    before = children()
    for frame in reader:
        if frame.index == 3:
            assert len(children() - before) == 1
            break
    reader.close()
    assert children() == before
    with pytest.raises(ConfigError, match="can be iterated only once"):
        next(iter(reader))


def test_reader_ffmpeg_killed_raises(clips: Clips) -> None:
    with (  # noqa: PT012
        pytest.raises(FFmpegError, match="SIGKILL") as caught,
        FrameReader(clips.get("bigbuckbunny.mp4")) as reader,
    ):
        for frame in reader:
            if frame.index == 3:
                (decoder,) = ffmpegs()
                os.kill(decoder, 9)
    assert caught.value.frame_index is not None
    assert "could not be read to its end" in str(caught.value)


def test_reader_silent_ffmpeg_ended_at_timeout(clips: Clips, tmp_path: Path) -> None:
    stuck = faulty(tmp_path, "import time; time.sleep(600)")
    with (
        pytest.raises(FFmpegError, match="no data moved for 1 s"),
        FrameReader(clips.get("25.mp4"), settings=Settings(ffmpeg=stuck.ffmpeg, stall_seconds=1.0)) as reader,
    ):
        list(reader)


def test_reader_end_before_start_refused(clips: Clips) -> None:
    with pytest.raises(ConfigError, match="must be after start"):
        FrameReader(clips.get("25.mp4"), start=2, end=1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "soon", []])
@pytest.mark.parametrize("name", ["start", "end"])
def test_reader_invalid_time_bound_refused_by_name(clips: Clips, name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{name} is {value!r}; it must be a finite number")):
        FrameReader(clips.get("25.mp4"), **{name: value})  # type: ignore[arg-type]


def test_reader_numpy_times_accepted(clips: Clips) -> None:
    with FrameReader(clips.get("25.mp4"), start=np.float32(0.5), end=np.float64(0.75)) as reader:
        assert sum(1 for _ in reader) == 6


def test_reader_non_video_refused_before_ffmpeg_starts(clips: Clips) -> None:
    with pytest.raises(InvalidMediaError):
        FrameReader(clips.get("script.mp4"))


@given(shades=st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_reader_written_frames_read_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, shades: list[int]
) -> None:
    path = tmp_path_factory.mktemp("round") / "out.mkv"
    frames = [np.full((18, 32), shade, np.uint8) for shade in shades]
    with FramePipe(path, size=(32, 18), fps=30, pixel_format="gray8", encoder="ffv1") as pipe:
        for frame in frames:
            pipe.write(frame)
    with FrameReader(path, pixel_format="gray8") as reader:
        read = [int(frame.image[0, 0]) for frame in reader]
    assert read == shades
    scan = probe(path, scan=True).scan
    assert scan is not None
    assert scan.frame_count == len(shades)


def everything(path: Path, decoder: Decoder, **options: object) -> list[tuple[Fraction, bytes]]:
    with FrameReader(path, decoder=decoder, **options) as reader:  # type: ignore[arg-type]
        return [(frame.pts_seconds, frame.data.tobytes()) for frame in reader]


OTHER_TIMES = ("bikes.mp4", "vfr.mp4", "stream.ts", "late_video.mkv", "edit_list.mp4", "broken_packets.mp4")
OTHER_SAMPLES = ("10bit.mp4", "odd.webm", "turned_90.mp4", "444.mp4", "anamorphic.mp4", "full_range.mp4")


@pytest.mark.parametrize(
    ("name", "pixel_format"),
    [
        *((name, "yuv420p") for name in (*OTHER_TIMES, *OTHER_SAMPLES)),
        *((name, pixel_format) for name in OTHER_SAMPLES for pixel_format in ("bgr24", "gray8")),
    ],
)
def test_reader_decoders_give_same_frames(clips: Clips, name: str, pixel_format: str) -> None:
    path = clips.get(name)
    rate = probe(path).fps
    for options in ({"pixel_format": pixel_format}, {"pixel_format": pixel_format, "fps": rate}):
        by_process = everything(path, "process", **options)
        in_process = everything(path, "in_process", **options)
        assert [time for time, _ in by_process] == [time for time, _ in in_process]
        # ffmpeg 6 and 7 dither 10 bits to 8 with a different pattern than the libav of PyAV.
        level = 1 if name == "10bit.mp4" and find_ffmpeg().version < (8,) else 0
        for (_, one), (_, other) in zip(by_process, in_process, strict=True):
            difference = np.frombuffer(one, np.uint8).astype(np.int16) - np.frombuffer(other, np.uint8)
            assert np.abs(difference).max() <= level


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has an NVIDIA GPU")
def test_reader_gpu_decoder_unavailable_raises(clips: Clips) -> None:
    media = probe(clips.get("25.mp4"))
    assert nvdec_ffmpeg(media, Settings.from_env()) is None
    with pytest.raises(FFmpegError, match="could not be read to its end") as caught:
        list(FrameReader(media, decoder="nvdec"))
    assert "-hwaccel cuda" in " ".join(caught.value.command)
    assert caught.value.stderr_tail


def test_reader_retained_frames_stay_unchanged(clips: Clips, decoder: Decoder) -> None:
    with FrameReader(clips.get("bikes.mp4"), pixel_format="yuv420p", decoder=decoder, retain_frames=3) as reader:
        recent: list[tuple[Frame, bytes]] = []
        for frame in reader:
            recent = [*recent[-2:], (frame, frame.data.tobytes())]
            assert all(kept.data.tobytes() == seen for kept, seen in recent)
            assert len({seen for _, seen in recent}) == len(recent)
        assert reader.frames_read == 250


@pytest.mark.parametrize(("count", "zero_copy"), [(0, False), (2, True)])
def test_reader_invalid_retain_count_refused(clips: Clips, count: int, zero_copy: bool) -> None:
    with pytest.raises(ConfigError, match=f"^retain_frames is {count}"):
        FrameReader(clips.get("bikes.mp4"), retain_frames=count, zero_copy=zero_copy)
