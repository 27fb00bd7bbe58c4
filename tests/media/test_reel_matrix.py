"""Ten clips of all rates, sizes, orientations and codecs through all transitions: exact length, right frame, errors.

Each clip has its own luma, and each of its frames another chroma, so that a frame names its clip and its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from av.video.frame import VideoFrame
from tests.clips import ffmpeg, turned
from tests.media.reels import LOSSLESS, assemble, level, numbered, reel_request, samples_of

from reel_modal import FramePipe, FrameReader, probe
from reel_modal._ffmpeg.libav_decoder import InProcessDecoder
from reel_modal.errors import InvalidMediaError

F = Fraction
SECONDS = F(6, 5)
FPS = F(25)


@dataclass(frozen=True)
class Source:
    """A clip of flat frames.

    Attributes:
        name: File name.
        fps: Frame rate; of a variable rate, before frames were dropped.
        size: (width, height) as stored.
        hevc: Whether it is HEVC, otherwise H.264.
        sound: Whether it has a tone.
        turn: Clockwise rotation in the metadata.
        drop: Every third frame is dropped in the second half.
    """

    name: str
    fps: Fraction
    size: tuple[int, int]
    hevc: bool = False
    sound: bool = False
    turn: int = 0
    drop: bool = False


SOURCES = (
    Source("0.mp4", F(25), (96, 64), sound=True),
    Source("1.mp4", F(24000, 1001), (128, 96), hevc=True),
    Source("2.mkv", F(24), (64, 96), sound=True),
    Source("3.mp4", F(25), (96, 64), turn=90, sound=True),
    Source("4.mp4", F(30000, 1001), (96, 64), sound=True),
    Source("5.mov", F(30), (80, 80), hevc=True, sound=True),
    Source("6.mp4", F(50), (160, 90)),
    Source("7.mp4", F(60000, 1001), (96, 64), turn=180),
    Source("8.mp4", F(60), (48, 36), sound=True),
    Source("9.mkv", F(30), (96, 64), drop=True, sound=True),
)
KINDS = ("cut", "crossfade", "fade_black")
CODED = {**LOSSLESS, "quality": 4, "smart": True}


def luma_of(index: int) -> int:
    return 40 + 18 * index


def chroma_of(seconds: Fraction) -> float:
    """Return the chroma of the frame at a time of its clip."""
    return 60 + 100 * float(seconds)


def make(source: Source, folder: Path) -> None:
    """Encode the clip, without loss as far as flat frames allow."""
    index, (width, height) = int(source.name[0]), source.size
    raw = folder / f"raw_{index}.mp4"
    with FramePipe(
        raw,
        size=source.size,
        fps=source.fps,
        pixel_format="yuv420p",
        encoder="libx265" if source.hevc else "libx264",
        quality=4 if source.hevc else 0,
        preset="ultrafast",
    ) as pipe:
        luma = np.full((height, width), luma_of(index), np.uint8)
        for number in range(round(SECONDS * source.fps)):
            chroma = np.full((height // 2, width // 2), round(chroma_of(number / source.fps)), np.uint8)
            pipe.write((luma, chroma, np.full_like(chroma, 128)))
    steps: list[str | Path] = ["-i", raw]
    if source.sound:
        steps += ["-f", "lavfi", "-i", f"sine=frequency=440:sample_rate=48000:duration={float(SECONDS)}"]
    if source.drop:
        steps += ["-vf", r"select=lt(t\,0.6)+mod(n\,3)", "-fps_mode", "passthrough"]
        steps += ["-c:v", "libx264", "-qp", "0", "-preset", "ultrafast"]
    else:
        steps += ["-c:v", "copy"]
    target = folder / source.name
    ffmpeg(*steps, *(("-c:a", "aac", "-shortest") if source.sound else ()), target)
    if source.turn:
        upright = target.rename(folder / f"upright_{source.name}")
        turned(upright, target, source.turn)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("matrix")
    for source in SOURCES:
        make(source, folder)
    return folder


def flat(path: Path) -> list[tuple[int, int]]:
    """Return luma and chroma at the center of each frame."""
    with FrameReader(path, pixel_format="yuv420p") as reader:
        width, height = reader.size
        return [
            (int(frame.planes[0][height // 2, width // 2]), int(frame.planes[1][height // 4, width // 4]))
            for frame in reader
        ]


@pytest.mark.parametrize("shift", range(3))
def test_ten_clips_through_every_transition(folder: Path, shift: int) -> None:
    """With each shift, other transitions are between the same clips."""
    kinds = [KINDS[(number + shift) % 3] for number in range(9)]
    fades = [{"kind": kind} if kind == "cut" else {"kind": kind, "duration": "0.2"} for kind in kinds]
    clips = [{"input_key": source.name} for source in SOURCES]
    result = assemble(folder, reel_request(clips, *fades, encode=CODED, fit="cover", rate=25))
    lengths = [probe(folder / s.name, scan=True).scan.duration_seconds for s in SOURCES]  # type: ignore[union-attr]
    counts = [round(length * FPS) for length in lengths]
    frames = sum(counts) - 5 * kinds.count("crossfade")
    assert (result.frames, result.fps, result.size) == (frames, 25, (96, 64))
    assert result.duration_seconds == frames / FPS
    shown, media = flat(folder / "reel.mp4"), probe(folder / "reel.mp4", scan=True)
    assert len(shown) == frames
    assert media.scan is not None
    assert media.scan.duration_seconds == frames / FPS
    assert abs(len(samples_of(folder / "reel.mp4")) / 48000 - float(frames / FPS)) <= 0.022
    first = 0
    for number, (source, count) in enumerate(zip(SOURCES, counts, strict=True)):
        before, after = ("cut", *kinds, "cut")[number : number + 2]
        head = 0 if before == "cut" else 5 if before == "crossfade" else 2
        tail = 0 if after == "cut" else 5 if after == "crossfade" else 2
        for frame in range(head, count - tail):
            luma, chroma = shown[first + frame]
            assert abs(luma - luma_of(number)) <= 2, (source.name, frame)
            late = (chroma - chroma_of(frame / FPS)) / 100  # seconds
            assert abs(late) <= 0.5 / 25 + (1.5 / 30 if source.drop else 0) + 0.011, (source.name, frame)
        first += count - (5 if after == "crossfade" else 0)
    if shift == 0:  # a cut after clip 0, and a fade after clip 2: clip 1 is silent
        sound = samples_of(folder / "reel.mp4")
        assert level(sound, "0.2", "1.0") > 0.05
        assert level(sound, "1.25", "2.1") < 0.001


def test_clip_that_fails_in_the_middle_names_clip_and_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder of the second clip fails after 12 frames, as if its frames grew beyond the limits."""
    decode = InProcessDecoder.frames

    def frames(decoder: InProcessDecoder) -> Iterator[tuple[VideoFrame, Fraction]]:
        for number, frame in enumerate(decode(decoder)):
            if decoder._media.path.name == "b.mp4" and number == 12:
                raise InvalidMediaError("its frames are too large")
            yield frame

    monkeypatch.setattr(InProcessDecoder, "frames", frames)
    numbered(tmp_path / "a.mp4", 20, 10)
    numbered(tmp_path / "b.mp4", 60, 25, size=(128, 96))
    clips = [{"input_key": name} for name in ("a.mp4", "b.mp4", "a.mp4")]
    for encode in (LOSSLESS, CODED):
        with pytest.raises(
            InvalidMediaError, match=r"^clips\[1\] \('b.mp4'\): after 12 decoded frames: its frames are"
        ):
            assemble(tmp_path, reel_request(clips, encode=encode))
        assert not (tmp_path / "reel.mp4").exists()
        assert list((tmp_path / "work").iterdir()) == []
