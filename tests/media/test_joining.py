"""Join encoded parts by copying their packets: order, exact times and one set of headers over every joint."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reel_modal._ffmpeg.packet_times import join_videos
from reel_modal.errors import OutputMismatchError
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.media import probe

SIZE = (64, 48)
LENGTHS = (2, 3, 4, 7, 30, 61)
"""Frames of the parts: x264 reorders the frames of longer ones more."""

PARTS = tuple((fps, length) for fps in (Fraction(30), Fraction(30000, 1001)) for length in LENGTHS)


def shade(length: int, number: int) -> int:
    """Return the luma of a frame, by which it is recognized after encoding."""
    return 20 + (LENGTHS.index(length) * 37 + number * 3) % 200


def encode(pipe: FramePipe, length: int) -> None:
    with pipe:
        for number in range(length):
            luma = np.full(SIZE[::-1], shade(length, number), np.uint8)
            luma[number % 48, :] = 16  # each frame moves, so that x264 uses frames of all types
            pipe.write((luma, *[np.full((24, 32), 128, np.uint8)] * 2))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Fraction, int], Path]:
    """A part of each rate and length."""
    folder, made = tmp_path_factory.mktemp("parts"), {}
    for number, (fps, length) in enumerate(PARTS):
        path = made[fps, length] = folder / f"{number}.mp4"
        pipe = FramePipe(
            path, size=SIZE, fps=fps, pixel_format="yuv420p", encoder="libx264", preset="fast", quality=8
        )
        encode(pipe.part(path, {}), length)
    return made


def shown(path: Path) -> Iterator[tuple[Fraction, float]]:
    with FrameReader(path, pixel_format="gray8") as reader:
        for frame in reader:
            yield frame.pts_seconds, float(np.median(frame.image))


@given(st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=6), st.sampled_from(sorted({fps for fps, _ in PARTS})))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_joined_parts_are_shown_in_order_at_exact_times(
    parts: dict[tuple[Fraction, int], Path], tmp_path: Path, lengths: list[int], fps: Fraction
) -> None:
    joined, frames = tmp_path / "joined.mp4", sum(lengths)
    sources = [parts[fps, length] for length in lengths]
    options = {"movflags": "+faststart"}
    join_videos(sources, joined, frames=frames, fps=fps, options=options, metadata={"title": "joined"})
    expected = [shade(length, number) for length in lengths for number in range(length)]
    result = list(shown(joined))
    assert [seconds for seconds, _ in result] == [number / fps for number in range(frames)]
    assert max(abs(luma - due) for (_, luma), due in zip(result, expected, strict=True)) < 2
    media = probe(joined, scan=True)
    assert (media.fps, media.constant_rate, media.duration_seconds) == (fps, True, frames / fps)
    data = joined.read_bytes()
    assert data.count(b"avcC") == 1
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(joined)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == fps
        packets = [packet for packet in container.demux(stream) if packet.size]
    assert [packet.dts for packet in packets] == sorted({packet.dts for packet in packets})
    assert all(packet.pts >= packet.dts for packet in packets)
    assert media.contents.tags == (("title", "joined"),)


def test_join_with_another_number_of_frames_raises(parts: dict[tuple[Fraction, int], Path], tmp_path: Path) -> None:
    fps = Fraction(30)
    with pytest.raises(OutputMismatchError, match=r"10 frames .* has 9"):
        join_videos([parts[fps, 7], parts[fps, 2]], tmp_path / "out.mp4", frames=10, fps=fps, options={}, metadata={})


def test_join_of_other_parameter_sets_raises(parts: dict[tuple[Fraction, int], Path], tmp_path: Path) -> None:
    fps, other = Fraction(30), tmp_path / "other.mp4"
    encode(FramePipe(other, size=SIZE, fps=fps, pixel_format="yuv420p", encoder="libx264", preset="ultrafast"), 7)
    with pytest.raises(OutputMismatchError, match="parameter sets"):
        join_videos([parts[fps, 7], other], tmp_path / "out.mp4", frames=14, fps=fps, options={}, metadata={})
