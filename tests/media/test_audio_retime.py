"""Samples of retimed audio: exact count, constant memory."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.clips import ffmpeg
from tests.media.framed import speeds
from tests.media.rendered import rendered

from reel_modal._ffmpeg.audio_retime import SoundReader, retimed
from reel_modal._ffmpeg.audio_tempo import ChannelLayout
from reel_modal.media import MediaInfo, probe
from reel_modal.schema import FramingRequest, Timeline
from reel_modal.settings import Settings

F = Fraction
RATE = 48000
MONO, STEREO = ChannelLayout("mono", 1), ChannelLayout("stereo", 2)


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> MediaInfo:
    """Make a minute of audio with a video track."""
    path = tmp_path_factory.mktemp("sound") / "minute.mkv"
    picture = ("-f", "lavfi", "-i", "color=gray:size=32x32:rate=1:duration=60")
    ffmpeg(*picture, "-f", "lavfi", "-i", "sine=duration=60", "-c:v", "libx264", "-c:a", "pcm_s16le", path)
    return probe(path)


def reading(media: MediaInfo, start: Fraction, layout: ChannelLayout) -> SoundReader:
    return SoundReader(media, media.audio[0], start, sample_rate_hz=RATE, layout=layout, settings=Settings.from_env())


def samples(media: MediaInfo, line: Timeline, length: Fraction) -> int:
    reader = reading(media, line.source_start, STEREO)
    return sum(len(part) for part in retimed(reader, line, length))


@pytest.mark.parametrize("speed", [F(1), F(1, 2), F(3)])
def test_retimed_long_piece_uses_no_more_memory_than_short(minute: MediaInfo, speed: Fraction) -> None:
    line = Timeline.of(F(0), F(60), [(F(0), F(59), speed)])
    tracemalloc.start()
    try:
        count = samples(minute, line, line.duration_seconds)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == round(line.duration_seconds * RATE)
    assert peak < 3_000_000  # a minute of it is 23 MB


@pytest.mark.parametrize(
    "speeds",
    [
        [],
        [(F(1), F(2), F(1, 10)), (F(2), F(3), F(10))],
        [(F(n, 7), F(n + 1, 7), F(1 + n % 5, 2)) for n in range(3, 40)],
        [(F(1), F(1) + F(1, 100_000), F(2)), (F(2), F(2) + F(1, 1000), F(1, 4))],
    ],
)
def test_retimed_sample_count_matches_video_length(
    minute: MediaInfo, speeds: list[tuple[Fraction, Fraction, Fraction]]
) -> None:
    line = Timeline.of(F("0.123"), F(9), speeds)
    # At low frame rates the video may end well inside a piece, or before the last pieces begin.
    for length in (line.duration_seconds, line.duration_seconds + F(1, 60), line.duration_seconds - F(1, 60), F(4)):
        assert samples(minute, line, length) == round(length * RATE)


def test_retimed_part_of_long_file_starts_near_it(minute: MediaInfo) -> None:
    reader = reading(minute, F(50), MONO)
    with reader:
        samples_after_seek = reader.read(50 * RATE, RATE, keep_from=50 * RATE)
        assert float(abs(samples_after_seek).max()) > 0.05
        # After the end there is silence.
        assert float(abs(reader.read(70 * RATE, RATE, keep_from=70 * RATE)).max()) == 0


@pytest.mark.parametrize(("milliseconds", "heard"), [(4.5, True), (5.5, False)])
def test_retimed_pieces_overlap_for_5_ms(tmp_path: Path, milliseconds: float, heard: bool) -> None:
    """The source has a click shortly after the end of a piece, at a time when the next, slower piece is silent."""
    click = RATE + round(milliseconds * RATE / 1000)
    picture = ("-f", "lavfi", "-i", "color=gray:size=32x32:rate=10:duration=3")
    sound = ("-f", "lavfi", "-i", f"aevalsrc=eq(n\\,{click}):sample_rate={RATE}:duration=3")
    ffmpeg(*picture, *sound, "-c:v", "libx264", "-c:a", "pcm_f32le", tmp_path / "click.mkv")
    line = Timeline.of(F(0), F(3), [(F(1), F(3), F(1, 4))])
    reader = reading(probe(tmp_path / "click.mkv"), line.source_start, MONO)
    output_samples = np.concatenate(list(retimed(reader, line, line.duration_seconds)))
    assert (abs(output_samples[click, 0]) > 0.05) == heard


@pytest.mark.parametrize(
    ("codec", "suffix", "target", "made"),
    [
        ("wmav2", ".wmv", ".mp4", "aac"),
        ("flac", ".mkv", ".mkv", "aac"),
        ("vorbis", ".mkv", ".webm", "opus"),
        ("aac", ".mp4", ".mp4", "aac"),
    ],
)
def test_retimed_audio_with_other_codec_is_noted(
    codec: str, suffix: str, target: str, made: str, tmp_path: Path
) -> None:
    source, output = tmp_path / f"in{suffix}", tmp_path / f"out{target}"
    picture = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=2")
    sound = ("-f", "lavfi", "-i", "sine=duration=2", "-ac", "2", "-c:a", codec, "-strict", "experimental")
    ffmpeg(*picture, *sound, "-c:v", "mpeg4" if suffix != ".wmv" else "wmv2", source)
    result = rendered(FramingRequest, source, output, segments=speeds((0, 2, 2)), output_size=(64, 48))
    assert [stream.codec for stream in probe(output).audio] == [made]
    notes = [note.message for note in result.degraded if note.code == "sound_reencoded"]
    changed = f"the {codec} audio was encoded as {made}, because its times change"
    assert notes == ([] if codec == made else [changed])
