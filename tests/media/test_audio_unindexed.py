"""Audio of broadcasts and of recordings without an index: complete at the start, and its format may change."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.clips import Clips, ffmpeg
from tests.media.beats import beeps, flashes, make_beats, samples_of
from tests.media.framed import speeds
from tests.media.rendered import rendered

from reel_modal._ffmpeg.audio_unindexed import sound_formats
from reel_modal.ffmpeg_pipe import FramePipe
from reel_modal.media import probe
from reel_modal.schema import EncodeOptions, FramingRequest, OverlayRequest

F = Fraction
NEAR_SECONDS = 0.025
CHANGES = {
    "aac": ((48000, 2), (44100, 1)),
    "ac3": ((48000, 6), (48000, 2)),
    "mp2": ((48000, 1), (48000, 2)),
}

# Audio whose packets have no headers, or that no other container describes.
UNLIKE_OTHERS = {
    "pcm.avi": ("mjpeg", "pcm_s16le"),
    "adpcm.avi": ("mpeg4", "adpcm_ms"),
    "windows.wmv": ("wmv2", "wmav2"),
    "old.flv": ("flv", "nellymoser"),
    "disc.m2ts": ("libx264", "pcm_bluray"),
}


def recording(clips: Clips, name: str) -> Path:
    """Make beats in a container without an index, with audio that starts before the video."""
    path = clips.folder / name
    if not path.exists():
        beats = make_beats(clips.folder / f"{name}.mp4", F(25), seconds=4)
        codecs = {".avi": ("mpeg4", "mp3"), ".mpg": ("mpeg2video", "mp2"), **UNLIKE_OTHERS}
        picture, sound = codecs.get(name) or codecs.get(path.suffix, ("libx264", "aac"))
        reordered = "2" if picture in {"libx264", "mpeg2video"} else "0"
        codec = ("-c:v", picture, "-g", "50", "-bf", reordered, "-c:a", sound)
        codec += ("-ar", "44100", "-ac", "1") if sound == "nellymoser" else ()
        offset = ("-output_ts_offset", "1000") if name.startswith("late") else ()
        ffmpeg("-i", beats, *codec, *offset, path)
    return path


def broadcast(clips: Clips, codec: str) -> Path:
    """Make an MPEG-TS with two seconds of a low tone, then two of a high one with another channel count."""
    path = clips.folder / f"changes_{codec}.ts"
    if not path.exists():
        parts = []
        for number, (rate, channels) in enumerate(CHANGES[codec]):
            part = path.with_name(f"{path.stem}_{number}.ts")
            tone = f"sine=f={(400, 1200)[number]}:d=2:r={rate}"
            picture = ("-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=2", "-f", "lavfi", "-i", tone)
            sound = ("-c:a", codec, "-ac", str(channels), "-ar", str(rate))
            ffmpeg(*picture, "-c:v", "libx264", "-g", "25", *sound, "-output_ts_offset", str(2 * number), part)
            parts.append(part.read_bytes())
        path.write_bytes(b"".join(parts))
    return path


# Only H.264 can be copied; other clips are rendered in full in any case.
@pytest.mark.parametrize(
    ("name", "smart"),
    [
        *((name, True) for name in ("beats.flv", "beats.ts", "late.ts", "beats.avi", "beats.mpg", *UNLIKE_OTHERS)),
        *((name, False) for name in ("beats.flv", "beats.ts", "late.ts", "disc.m2ts")),
    ],
)
def test_unindexed_recording_keeps_all_audio_in_sync(clips: Clips, tmp_path: Path, name: str, smart: bool) -> None:
    output = tmp_path / "out.mp4"
    rendered(OverlayRequest, recording(clips, name), output, regions=[], encode=EncodeOptions(smart=smart))
    shown, beep_times = flashes(output), beeps(output)
    assert len(shown) == len(beep_times) == 4
    assert all(abs(float(flash) - beep) < NEAR_SECONDS for flash, beep in zip(shown, beep_times, strict=True))
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "work-out.mp4"}
    first = probe(output).audio[0].start_seconds
    assert first - probe(output).start_seconds < NEAR_SECONDS


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".ts", ".avi"])
def test_encoded_late_audio_in_sync_and_ends_with_video(tmp_path: Path, suffix: str) -> None:
    beats, source = make_beats(tmp_path / "beats.mp4", F(25), seconds=4), tmp_path / "in.mkv"
    ffmpeg("-i", beats, "-c:v", "copy", "-af", "atrim=start=1.2,apad=pad_dur=1.5", "-c:a", "flac", source)
    output = tmp_path / f"out{suffix}"
    result = rendered(OverlayRequest, source, output, regions=[])
    assert "sound_trimmed" in {note.code for note in result.degraded}
    shown, beep_times = flashes(output), beeps(output)
    assert len(shown) == 4
    assert 1 <= len(beep_times) < 4
    assert all(
        abs(float(flash) - beep) < NEAR_SECONDS
        for flash, beep in zip(shown[-len(beep_times) :], beep_times, strict=True)
    )
    assert len(samples_of(output)) / 48000 < 4.1


@pytest.mark.parametrize("codec", CHANGES)
def test_broadcast_audio_copied_into_mpeg_ts(clips: Clips, tmp_path: Path, codec: str) -> None:
    source, output = tmp_path / f"in.{codec}.ts", tmp_path / "out.ts"
    ffmpeg("-i", recording(clips, "beats.ts"), "-c:v", "copy", "-c:a", codec, source)
    result = rendered(OverlayRequest, source, output, regions=[])
    assert "sound_reencoded" not in {note.code for note in result.degraded}
    assert [stream.codec for stream in probe(output).audio] == [codec]
    assert len(beeps(output)) == 4


@pytest.mark.parametrize("codec", CHANGES)
def test_broadcast_audio_format_changes_are_found(clips: Clips, codec: str) -> None:
    assert list(sound_formats(probe(broadcast(clips, codec))).values()) == [CHANGES[codec]]
    assert not sound_formats(probe(recording(clips, "beats.ts")))


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
@pytest.mark.parametrize("codec", CHANGES)
def test_audio_format_change_keeps_audio_to_its_end(clips: Clips, tmp_path: Path, codec: str, suffix: str) -> None:
    output = tmp_path / f"out{suffix}"
    result = rendered(OverlayRequest, broadcast(clips, codec), output, regions=[])
    assert any("its format changes" in str(note) for note in result.degraded)
    [sound] = probe(output).audio
    assert sound.channels == max(channels for _, channels in CHANGES[codec])
    samples = samples_of(output, channels=1)[:, 0]
    for pitch, begin in ((400, 1), (1200, 3)):
        part = samples[begin * 48000 : begin * 48000 + 24000]
        spectrum = np.abs(np.fft.rfft(part))
        assert spectrum.argmax() * 2 == pytest.approx(pitch, abs=4)
        assert np.abs(part).max() > 0.02


@pytest.mark.parametrize("codec", CHANGES)
def test_retimed_audio_format_change_keeps_audio_to_its_end(clips: Clips, tmp_path: Path, codec: str) -> None:
    output = tmp_path / "out.mp4"
    rendered(FramingRequest, broadcast(clips, codec), output, output_size=(64, 48), segments=speeds((0, 4, 2)))
    samples = samples_of(output, channels=1)[:, 0]
    for pitch, begin in ((400, 24000), (1200, 72000)):
        part = samples[begin : begin + 12000]
        assert np.abs(np.fft.rfft(part)).argmax() * 4 == pytest.approx(pitch, abs=8)
        assert np.abs(part).max() > 0.02
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "work-out.mp4"}
    assert not list((tmp_path / "work-out.mp4").iterdir())


def test_pipe_audio_of_unreadable_recording_leaves_nothing(clips: Clips, tmp_path: Path) -> None:
    media = probe(recording(clips, "beats.flv"))
    missing = replace(media, path=tmp_path / "gone.flv")
    pipe = FramePipe(tmp_path / "out.mp4", size=(64, 48), fps=25, pixel_format="gray8", audio_from=missing)
    with pytest.raises(Exception, match=r"gone\.flv' not found"), pipe:
        pass
    assert not list(tmp_path.iterdir())
