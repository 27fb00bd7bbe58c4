"""Audio stays in sync if the clip starts before or after zero, in every version of ffmpeg."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
from tests.clips import Clips
from tests.media.beats import beeps, flashes, make_beats
from tests.media.framed import crops, framed, speeds

from reel_modal.media import probe
from reel_modal.media.pyav import seconds_per_tick

F = Fraction
SECONDS = 4
NEAR_SECONDS = 0.003
MOVES = {"crop": crops((0, 0, 0, 64, 48), (9, 1e-9, 0, 64, 48))}
EDITS: dict[str, dict[str, object]] = {
    "graph": {},
    "frames": MOVES,
    "trim": {"trim_start_seconds": F("1.2"), **MOVES},
    "speed": {"segments": speeds((0, 4, "0.5"))},
}


def moved(clips: Clips, suffix: str, later: Fraction) -> Path:
    """Shift every time of the beats by `later`; PyAV encodes the audio, because old ffmpegs write none before zero."""
    path = clips.folder / f"beats_later_{float(later):g}{suffix}"
    if path.exists():
        return path
    plain = clips.folder / "beats_of_clock.mp4"
    if not plain.exists():
        make_beats(plain, F(25), seconds=SECONDS)
    with (
        av.open(str(plain)) as picture,
        av.open(str(plain.with_suffix(".wav"))) as sound,
        av.open(str(path), "w") as output,
    ):
        video = output.add_stream_from_template(picture.streams.video[0])
        audio = output.add_stream("aac", rate=48000, layout="mono")
        for packet in picture.demux(video=0):
            if packet.size and packet.pts is not None and packet.dts is not None:
                ticks = round(later / seconds_per_tick(packet))
                packet.pts, packet.dts, packet.stream = packet.pts + ticks, packet.dts + ticks, video
                output.mux(packet)
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=48000, frame_size=1024)
        for frame in [*sound.decode(audio=0), None]:
            for block in resampler.resample(frame):
                block.pts = (block.pts or 0) + round(later * 48000)
                output.mux(audio.encode(block))
        output.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize(("suffix", "later"), [(".mkv", F(0)), (".mkv", F(3)), (".mp4", F("1.5")), (".ts", F(2))])
def test_audio_clip_not_starting_at_zero_stays_in_sync(
    clips: Clips, tmp_path: Path, suffix: str, later: Fraction, edit: str
) -> None:
    source = moved(clips, suffix, later)
    _, path = framed(source, tmp_path, output_size=(32, 24), **EDITS[edit])
    offsets = [sound - float(picture) for sound, picture in zip(beeps(path), flashes(path), strict=True)]
    assert len(offsets) == (3 if edit == "trim" else SECONDS)
    # A stretched beep rises as slowly as the window of the stretching.
    slow = 0.012 if edit == "speed" else 0
    assert all(abs(offset) < NEAR_SECONDS + slow for offset in offsets), offsets


def test_matroska_fixture_has_audio_before_zero(clips: Clips) -> None:
    """The start time of such a file differs between versions of ffmpeg."""
    path = moved(clips, ".mkv", F(0))
    with av.open(str(path)) as container:
        first = next(container.demux(audio=0))
        assert first.pts is not None
        assert first.pts < 0
    assert probe(path).container_start_seconds == 0
