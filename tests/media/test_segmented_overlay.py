"""A long overlay in segments: the same bytes whatever was finished before, and whatever was lost."""

from __future__ import annotations

import hashlib
import logging
import random
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
from tests.clips import Clips, ffmpeg
from tests.media.beats import beat_times, beeps, flashes, make_beats
from tests.media.overlaid import spotlight
from tests.media.segmented_jobs import ENCODE, Jobs, check_leftovers

from reel_modal.errors import JobCancelledError
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.functions.segmented import SegmentedRender
from reel_modal.media import probe
from reel_modal.schema import EncodeOptions, OverlayRequest

__all__ = ["check_leftovers"]

FPS, SECONDS = Fraction(10), 50
FRAMES = 500
SEGMENTS = 7
"""Six of 80 frames, and one of 20."""


X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params")
ENCODERS = {
    "h264": ("-c:v", "libx264", "-g", "30"),
    "hevc": (*X265, "log-level=none:pools=1:keyint=30:open-gop=0"),
    "hevc with an open GOP": (*X265, "log-level=none:pools=1:keyint=30:open-gop=1"),
}


@pytest.fixture(scope="module")
def beats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_beats(tmp_path_factory.mktemp("beats") / "in.mp4", FPS, seconds=SECONDS)


@pytest.fixture
def jobs(tmp_path: Path, beats: Path) -> Jobs:
    return Jobs(tmp_path, beats, OverlayRequest, regions=spotlight())


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, beats: Path) -> Path:
    """The store after an uninterrupted run."""
    jobs = Jobs(tmp_path_factory.mktemp("stored"), beats, OverlayRequest, regions=spotlight())
    jobs.run()
    return jobs.store.root


@pytest.fixture
def finished(jobs: Jobs, stored: Path) -> Jobs:
    """The jobs, with the segments and the output of a run."""
    shutil.copytree(stored, jobs.store.root, dirs_exist_ok=True)
    return jobs


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, beats: Path) -> str:
    """The SHA-256 of the output of one uninterrupted run without a store."""
    folder = tmp_path_factory.mktemp("expected")
    return Jobs(folder, beats, OverlayRequest, regions=spotlight()).run(stored=False)[0]


def digests(path: Path) -> list[tuple[Fraction, str]]:
    """Return the time and a hash of each frame."""
    with FrameReader(path, pixel_format="yuv420p") as reader:
        return [(frame.pts_seconds, hashlib.md5(frame.data, usedforsecurity=False).hexdigest()) for frame in reader]


def remove(path: Path) -> None:
    path.unlink()


def remove_seal(path: Path) -> None:
    path.with_suffix(".json").unlink()


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def exchange(path: Path) -> None:
    """Put the bytes of another segment into this one."""
    others = (other.read_bytes() for other in path.parent.glob("*.mp4"))
    path.write_bytes(next(data for data in others if data != path.read_bytes()))


def test_segments_of_an_uninterrupted_job_are_complete(jobs: Jobs, expected: str) -> None:
    assert jobs.run()[0] == expected
    assert jobs.rendered == list(range(SEGMENTS))
    assert jobs.run()[0] == expected
    assert jobs.rendered == []


@pytest.mark.parametrize("harm", [remove, remove_seal, tear, flip, exchange])
@pytest.mark.parametrize("number", [0, 3, SEGMENTS - 1])
def test_segment_that_is_lost_or_damaged_is_rendered_again(
    finished: Jobs, expected: str, harm: Callable[[Path], None], number: int
) -> None:
    harm(finished.segments[number])
    assert finished.run()[0] == expected
    assert finished.rendered == [number]


def test_segments_finished_in_any_order_give_the_same_bytes(finished: Jobs, expected: str) -> None:
    chosen = random.Random(7)
    for _ in range(4):
        for path in chosen.sample(finished.segments, 3):
            path.unlink()
        assert finished.run()[0] == expected


def test_segments_progress_only_moves_forward(finished: Jobs) -> None:
    for number in (1, 4):
        finished.segments[number].unlink()
    finished.run()
    done = [event.done for event in finished.events if event.phase == "render"]
    assert done == sorted(done)
    assert done[-1] == FRAMES
    assert not any(0 < each < FRAMES - 160 for each in done)
    # The number follows the finished frames; two whole segments are made, and the last one is shorter.
    names = list(dict.fromkeys(event.detail for event in finished.events if event.phase == "render" and event.done))
    assert names == [f"segment {number} of {SEGMENTS}" for number in range(SEGMENTS - 2, SEGMENTS + 1)]


def test_segments_are_counted_in_events(jobs: Jobs) -> None:
    jobs.run()
    names = list(dict.fromkeys(event.detail for event in jobs.events if event.phase == "render" and event.detail))
    assert names == [f"segment {number} of {SEGMENTS}" for number in range(1, SEGMENTS + 1)]
    assert {event.detail for event in jobs.events if event.phase != "render"} == {""}


def test_segmented_output_has_exact_times_and_sound_in_sync(jobs: Jobs, beats: Path) -> None:
    jobs.run(effect="original")
    jobs.segments[2].unlink()
    _, result = jobs.run(effect="original")
    assert (result.frames, result.fps, result.duration_seconds, result.degraded) == (FRAMES, FPS, SECONDS, ())
    media = probe(jobs.output, scan=True)
    assert (media.fps, media.constant_rate, media.duration_seconds, media.start_seconds) == (FPS, True, SECONDS, 0)
    assert media.scan is not None
    assert media.scan.times.ticks == tuple(number / FPS / media.time_base for number in range(FRAMES))
    assert flashes(jobs.output) == beat_times(FPS, SECONDS) == flashes(beats)
    for heard, due in zip(beeps(jobs.output), beeps(beats), strict=True):
        assert abs(heard - due) < 0.005
    data = jobs.output.read_bytes()
    assert data.count(b"avcC") == 1
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("suffix", [".mp4", ".m4v", ".mov"])
@pytest.mark.parametrize("sound", [True, False])
def test_segmented_output_in_each_container(jobs: Jobs, tmp_path: Path, suffix: str, sound: bool) -> None:
    if not sound:
        jobs.clip = tmp_path / "in.mp4"
        source = "testsrc2=size=64x48:rate=30000/1001:duration=20"
        ffmpeg("-f", "lavfi", "-i", source, "-c:v", "libx264", "-pix_fmt", "yuv420p", jobs.clip)
    _, result = jobs.run(output_key=f"out{suffix}", stored=False)
    media = probe(jobs.output.with_suffix(suffix), scan=True)
    assert media.scan is not None
    assert (media.scan.frame_count, media.scan.constant_rate) == (result.frames, True)
    assert (media.fps, media.start_seconds) == (result.fps, 0)
    assert media.duration_seconds == result.duration_seconds == result.frames / result.fps
    assert len(media.audio) == sound
    with av.open(str(media.path)) as container:
        assert container.streams.video[0].average_rate == result.fps


def test_segments_differ_from_one_piece_only_at_joints(finished: Jobs) -> None:
    """Every segment begins with a keyframe, and shows the frames that a render in one piece shows."""
    with av.open(str(finished.output)) as container:
        stream = container.streams.video[0]
        tick = stream.time_base
        assert tick is not None
        keys = {packet.pts * tick * FPS for packet in container.demux(stream) if packet.is_keyframe and packet.pts}
    assert {80, 160, 240, 320, 400, 480} <= keys


GAPS = "select='mod(n,7)*mod(n,5)',"


@pytest.mark.parametrize(
    ("encoder", "gaps", "rate"),
    [
        *((encoder, gaps, "constant") for encoder in ENCODERS for gaps in ("", GAPS)),
        ("h264", GAPS, Fraction(24)),
        ("hevc", GAPS, Fraction(5)),
        ("hevc with an open GOP", "", Fraction(24)),
        ("hevc with an open GOP", GAPS, Fraction(5)),
    ],
)
def test_segments_have_the_frames_of_one_pass(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoder: str, gaps: str, rate: object
) -> None:
    jobs.clip = tmp_path / "in.mp4"
    source = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=25", "-vf", f"{gaps}format=yuv420p")
    ffmpeg(*source, "-fps_mode", "passthrough", *ENCODERS[encoder], jobs.clip)
    lossless = EncodeOptions(encoder="libx264", preset="ultrafast", quality=0, smart=False)
    expected, result = jobs.run(rate=rate, encode=lossless)
    assert len(jobs.rendered) > 1
    jobs.segments[1].unlink()
    assert jobs.run(rate=rate, encode=lossless)[0] == expected
    assert jobs.rendered == [1]
    made = digests(jobs.output)
    monkeypatch.setattr(SegmentedRender, "plan", lambda *_, **__: None)
    _, in_one_piece = jobs.run(rate=rate, encode=lossless)
    assert (result.frames, result.degraded) == (in_one_piece.frames, in_one_piece.degraded)
    assert made == digests(jobs.output)


def test_job_that_was_cancelled_finds_its_segments(jobs: Jobs, expected: str) -> None:
    with pytest.raises(JobCancelledError):
        jobs.run(cancel_at=160)
    assert jobs.rendered == [0, 1]
    assert jobs.run()[0] == expected
    assert jobs.rendered == list(range(2, SEGMENTS))


def test_another_request_finds_no_segment(finished: Jobs) -> None:
    finished.run(regions=spotlight("0", "30"))
    assert len(finished.rendered) == SEGMENTS


def test_short_output_uses_no_store(jobs: Jobs, tmp_path: Path, clips: Clips) -> None:
    jobs.clip = clips.get("with_sound.mp4")
    jobs.run()
    assert not (jobs.store.root / "users").exists()


def one_piece(jobs: Jobs, caplog: pytest.LogCaptureFixture, **fields: object) -> list[str]:
    """Run a job that uses no segments; return the reasons in its log."""
    with caplog.at_level(logging.INFO, logger="reel_modal.functions.segmented"):
        caplog.clear()
        jobs.run(**fields)
    assert not (jobs.store.root / "users").exists()
    return [message.partition("in one piece: ")[2] for message in caplog.messages if "in one piece" in message]


@pytest.mark.parametrize(
    ("output", "encode", "reason"),
    [
        ("out.mkv", ENCODE, "parts are not joined to .mkv"),
        ("out.mp4", EncodeOptions(encoder="libx265", preset="ultrafast", smart=False), "parts of libx265 are"),
    ],
)
def test_output_that_cannot_be_joined_is_one_piece(
    jobs: Jobs, caplog: pytest.LogCaptureFixture, output: str, encode: EncodeOptions, reason: str
) -> None:
    (said,) = one_piece(jobs, caplog, output_key=output, encode=encode)
    assert said.startswith(reason)


SOURCES = {
    "its codec is mpeg4": (("-c:v", "mpeg4"), "in.mp4"),
    "it is interlaced": (("-c:v", "libx264", "-flags", "+ilme+ildct", "-vf", "tinterlace=4"), "in.mp4"),
    "its container has no index": (("-c:v", "libx264"), "in.ts"),
}


@pytest.mark.parametrize("reason", SOURCES)
def test_source_that_cannot_be_read_exactly_is_one_piece(
    jobs: Jobs, tmp_path: Path, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    options, name = SOURCES[reason]
    jobs.clip = tmp_path / name
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=64x48:rate=10:duration=20", *options, "-preset", "ultrafast", jobs.clip
    )
    (said,) = one_piece(jobs, caplog)
    assert said.startswith(reason)


def test_source_with_damaged_packet_is_one_piece(
    jobs: Jobs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The decoder finds the damage after some segments have been stored."""
    jobs.clip = tmp_path / "in.mp4"
    # With several threads, x264 writes other bytes in some runs, and not every damage is noticed.
    encoder = ("-c:v", "libx264", "-threads", "1")
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10:duration=20", *encoder, jobs.clip)
    data = bytearray(jobs.clip.read_bytes())
    with av.open(str(jobs.clip)) as container:
        packet = [each for each in container.demux(video=0) if each.size][150]
    assert packet.pos is not None
    for position in range(packet.pos + packet.size // 2, packet.pos + packet.size):
        data[position] ^= 0x55
    jobs.clip.write_bytes(data)
    with caplog.at_level(logging.INFO, logger="reel_modal.functions.segmented"):
        _, result = jobs.run()
    (said,) = (message for message in caplog.messages if "in one piece" in message)
    assert said.endswith("one of its packets is damaged")
    assert result.frames == 200
    assert jobs.segments


def test_segment_never_ends_with_the_picture_id_of_the_next(jobs: Jobs, tmp_path: Path) -> None:
    """Segments of 500 frames: x264 would end each with a third keyframe, which has the id of the first."""
    jobs.clip = tmp_path / "in.mp4"
    gray = "color=black:size=64x48:rate=125/2:duration=24,geq=lum='20+mod(N,200)':cb=128:cr=128"
    ffmpeg("-f", "lavfi", "-i", gray, "-c:v", "libx264", "-pix_fmt", "yuv420p", jobs.clip)
    _, result = jobs.run(effect="original")
    with av.open(str(jobs.output)) as container:
        keyframes = [number for number, each in enumerate(container.demux(video=0)) if each.size and each.is_keyframe]
    assert {0, 500, 1000} <= set(keyframes)
    assert not {499, 999} & set(keyframes)
    assert (result.frames, result.fps) == (1500, Fraction(125, 2))
