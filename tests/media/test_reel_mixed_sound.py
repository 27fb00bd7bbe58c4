"""Sound of reels of unlike clips: codecs, rates and layouts of audio and video; in sync at each joint and at the end."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.clips import ffmpeg
from tests.media.beats import BRIGHT, DARK, make_beats
from tests.media.reels import RATE_HZ, assemble, lumas, reel_request, samples_of

F = Fraction


@pytest.mark.parametrize("kind", ["cut", "crossfade", "fade_black"])
def test_unlike_clips_stay_in_sync(tmp_path: Path, kind: str) -> None:
    """Flash and beep of each clip begin at the same time, within 20 ms; HEVC, 5.1, 44.1 kHz and a variable rate."""
    make_beats(tmp_path / "a.mp4", F(24000, 1001), seconds=2, rate=44100)
    make_beats(tmp_path / "b.mp4", F(60), seconds=2)
    make_beats(tmp_path / "base.mp4", F(30000, 1001), seconds=2, rate=44100)
    wide = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none", "-c:a", "ac3", "-ac", "6")
    ffmpeg("-i", tmp_path / "base.mp4", *wide, tmp_path / "c.mkv")
    vary = ("-vf", "select=not(eq(mod(n\\,7)\\,3))", "-fps_mode", "vfr", "-c:a", "aac", "-ac", "2", "-ar", "48000")
    ffmpeg("-i", tmp_path / "b.mp4", *vary, tmp_path / "d.mp4")
    ffmpeg("-i", tmp_path / "b.mp4", "-c:v", "copy", "-an", tmp_path / "mute.mp4")
    clips = [{"input_key": key} for key in ("a.mp4", "c.mkv", "mute.mp4", "d.mp4", "b.mp4")]
    fade = {"kind": kind} if kind == "cut" else {"kind": kind, "duration": "0.2"}
    result = assemble(tmp_path, reel_request(clips, *[fade] * 4, rate=60))
    bright = np.array(lumas(tmp_path / "reel.mp4")) > (DARK + BRIGHT) // 2
    flashes = [number / 60 for number in range(1, len(bright)) if bright[number] and not bright[number - 1]]
    samples = np.abs(samples_of(tmp_path / "reel.mp4"))
    loud = np.convolve(samples, np.ones(96) / 96, "same") > 0.1
    begins = np.flatnonzero(loud[1:] & ~loud[:-1]) / RATE_HZ
    off = [float(np.abs(begins - flash).min()) for flash in flashes]
    assert sum(each <= 0.02 for each in off) == 8  # the other two are those of the clip without sound
    assert len(flashes) == 10
    assert abs(len(samples) / RATE_HZ - float(result.duration_seconds)) <= 0.02
