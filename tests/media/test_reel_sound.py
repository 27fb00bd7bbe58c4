"""Audio of reels: on the timeline of the frames to the sample, equal power, and no click at a cut."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.clips import Clips
from tests.media.beats import BRIGHT, DARK, make_beats
from tests.media.reels import RATE_HZ, assemble, level, lumas, numbered, reel_request, samples_of, with_samples

from reel_modal import probe

F = Fraction


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """A folder with two clips of a second: `low.mov` with a tone of 440 Hz and `noise.mov` with noise."""
    moments = np.arange(RATE_HZ) / RATE_HZ
    numbered(tmp_path / "video.mp4", 20, 25)
    with_samples(tmp_path / "video.mp4", tmp_path / "low.mov", 0.5 * np.sin(2 * np.pi * 440 * moments))
    noise = np.random.default_rng(3).uniform(-0.5, 0.5, RATE_HZ)
    with_samples(tmp_path / "video.mp4", tmp_path / "noise.mov", noise)
    return tmp_path


def test_clip_without_sound_is_silence_at_its_place(tones: Path) -> None:
    clips = [{"input_key": name} for name in ("low.mov", "video.mp4", "low.mov")]
    result = assemble(tones, reel_request(clips))
    samples, media = samples_of(tones / "reel.mp4"), probe(tones / "reel.mp4")
    assert (result.frames, len(media.audio)) == (75, 1)
    assert media.audio[0].channels == 1
    assert abs(len(samples) - 3 * RATE_HZ) <= 1024
    assert level(samples, "0.1", "0.9") == pytest.approx(0.5 / 2**0.5, rel=0.05)
    assert level(samples, "1.05", "1.95") < 1e-3
    assert level(samples, "2.1", "2.9") == pytest.approx(0.5 / 2**0.5, rel=0.05)


def test_muted_clip_and_volume(tones: Path) -> None:
    clips = [
        {"input_key": "low.mov", "volume": "0.5"},
        {"input_key": "low.mov", "mute": True},
    ]
    assemble(tones, reel_request(clips))
    samples = samples_of(tones / "reel.mp4")
    assert level(samples, "0.1", "0.9") == pytest.approx(0.25 / 2**0.5, rel=0.05)
    assert level(samples, "1.05", "1.95") < 1e-3


def test_reel_without_any_sound_has_no_audio_stream(tones: Path) -> None:
    assemble(tones, reel_request([{"input_key": "video.mp4"}, {"input_key": "low.mov", "mute": True}]))
    assert probe(tones / "reel.mp4").audio == ()


def test_crossfade_keeps_the_power_of_unrelated_sounds(tones: Path) -> None:
    clips = [{"input_key": "low.mov"}, {"input_key": "noise.mov"}]
    assemble(tones, reel_request(clips, {"kind": "crossfade", "duration": "0.8"}, output_key="reel.mov"))
    samples = samples_of(tones / "reel.mov")
    tone, noise = 0.5 / 2**0.5, 0.5 / 3**0.5
    for at in ("0.3", "0.5", "0.7", "0.9"):
        x = (float(F(at)) - 0.2) / 0.8
        share = x * x * (3 - 2 * x)
        expected = ((1 - share) * tone**2 + share * noise**2) ** 0.5
        assert level(samples, F(at) - F(1, 40), F(at) + F(1, 40)) == pytest.approx(expected, rel=0.12)


def test_cut_in_a_loud_tone_makes_no_click(tones: Path) -> None:
    """A tone that starts again at another phase: without a fade, the step is up to the whole amplitude."""
    clips = [{"input_key": "low.mov", "trim_end": "0.4"}, {"input_key": "low.mov", "trim_start": "0.52"}]
    assemble(tones, reel_request(clips))
    samples = samples_of(tones / "reel.mp4")
    usual = 0.5 * 2 * np.pi * 440 / RATE_HZ
    assert np.abs(np.diff(samples[round(0.39 * RATE_HZ) : round(0.41 * RATE_HZ)])).max() < 1.5 * usual


@pytest.mark.parametrize("kind", ["cut", "crossfade", "fade_black"])
def test_sound_and_frames_match_at_each_joint_and_at_the_end(tmp_path: Path, kind: str) -> None:
    """Flash and beep of clips of three rates begin at the same time, within 20 ms."""
    for name, fps in (("a.mp4", F(25)), ("b.mp4", F(30000, 1001)), ("c.mp4", F(60))):
        make_beats(tmp_path / name, fps, seconds=2)
    clips = [{"input_key": "a.mp4"}, {"input_key": "b.mp4", "trim_start": "0.13"}, {"input_key": "c.mp4"}]
    fade = {"kind": kind} if kind == "cut" else {"kind": kind, "duration": "0.3"}
    result = assemble(tmp_path, reel_request(clips, fade, fade, rate=50))
    bright = np.array(lumas(tmp_path / "reel.mp4")) > (DARK + BRIGHT) // 2
    flashes = [number / 50 for number in range(1, len(bright)) if bright[number] and not bright[number - 1]]
    samples = np.abs(samples_of(tmp_path / "reel.mp4"))
    loud = np.convolve(samples, np.ones(96) / 96, "same") > 0.12
    begins = np.flatnonzero(loud[1:] & ~loud[:-1]) / RATE_HZ
    assert len(flashes) == 6
    for flash in flashes:
        assert np.abs(begins - flash).min() <= 0.02
    assert abs(len(samples) / RATE_HZ - float(result.duration_seconds)) <= 0.022


def test_six_channels_become_stereo_with_a_note(clips: Clips, tones: Path) -> None:
    from tests.clips import ffmpeg

    ffmpeg(
        *("-i", tones / "low.mov", "-map", "0:v", "-map", "0:a", "-map", "0:a", "-c:v", "copy"),
        *("-af", "aformat=channel_layouts=5.1", "-c:a", "ac3", tones / "wide.mkv"),
    )
    result = assemble(tones, reel_request([{"input_key": "low.mov"}, {"input_key": "wide.mkv"}]))
    codes = [note.code for note in result.degraded if "clips[1]" in note.message]
    assert {"sound_reencoded", "channels_reduced", "sound_dropped"} <= set(codes)
    assert probe(tones / "reel.mp4").audio[0].channels == 2
