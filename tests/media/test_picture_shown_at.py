"""picture_shown_at: the frame that is shown at a moment, found from as few packets as possible."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from pathlib import Path

import av
import pytest
from tests.clips import ffmpeg

from reel_modal.media import picture_shown_at, probe

RATE, FRAMES = 10, 40
REORDERED = ("-c:v", "libx264", "-g", "20", "-bf", "3", "-x264-params", "b-adapt=0:b-pyramid=normal")
UNEVEN = ("-vf", "select='not(eq(mod(n,7),3))'", "-fps_mode", "vfr")


def times_of(path: Path) -> list[Fraction]:
    """Return the times of all frames, in display order."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
        return sorted(packet.pts * packet.time_base for packet in packets)


@pytest.mark.parametrize("uneven", [False, True], ids=["even", "uneven"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_picture_shown_at_reordered_frames_finds_each(suffix: str, uneven: bool, tmp_path: Path) -> None:
    clip = tmp_path / f"clip{suffix}"
    source = f"testsrc2=size=96x64:rate={RATE}"
    options = (*REORDERED, *(UNEVEN if uneven else ()))
    ffmpeg("-f", "lavfi", "-i", source, "-frames:v", str(FRAMES), *options, clip)
    media, times = probe(clip), times_of(clip)
    tick = Fraction(1, 90000)
    for moment in (shift + time for time in times for shift in (-2 * tick, Fraction(0), Fraction(1, 3 * RATE))):
        expected = bisect_right(times, moment)
        assert picture_shown_at(media, moment) == (times[expected - 1] if expected else None), float(moment)
