"""Music of reels: at its place to the sample, repeated, faded, softer under the clips; and their loudness."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from tests.clips import ffmpeg
from tests.media.reels import RATE_HZ, assemble, level, numbered, reel_request, samples_of, with_samples

from reel_modal import RequestError, probe
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.loudness import limited
from reel_modal.errors import InvalidMediaError, StorageError


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder with two clips of two seconds, `silent.mp4` and `tone.mov`, and `song.wav`: a ramp of one second."""
    numbered(tmp_path / "silent.mp4", 20, 50)
    moments = np.arange(2 * RATE_HZ) / RATE_HZ
    tone = 0.25 * np.sin(2 * np.pi * 440 * moments)
    with_samples(tmp_path / "silent.mp4", tmp_path / "tone.mov", tone)
    song(tmp_path / "song.wav", np.linspace(0.1, 0.9, RATE_HZ, endpoint=False))
    return tmp_path


def song(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    """Write samples, float -1..1, as an audio file of one channel."""
    raw = path.with_suffix(".raw")
    raw.write_bytes(samples.astype("<f4").tobytes())
    ffmpeg("-f", "f32le", "-ar", str(rate_hz), "-ac", "1", "-i", raw, "-c:a", "pcm_f32le", path)
    raw.unlink()
    return path


def noise(count: int, amplitude: float) -> np.ndarray:
    return np.random.default_rng(5).uniform(-amplitude, amplitude, count)


def loudness_of(path: Path) -> tuple[float, float]:
    """Return integrated loudness in LUFS and true peak in dBTP, measured by ffmpeg's loudnorm filter."""
    command = [find_ffmpeg().path, "-hide_banner", "-nostats", "-i", str(path), "-map", "0:a:0"]
    command += ["-af", "loudnorm=print_format=summary", "-f", "null", "-"]
    text = subprocess.run(command, capture_output=True, check=True, timeout=60, text=True).stderr
    found = re.search(r"Input Integrated:\s+(\S+) LUFS\s+Input True Peak:\s+(\S+) dBTP", text)
    assert found is not None, text
    return float(found[1]), float(found[2])


def test_music_begins_at_its_start_to_the_sample_and_repeats(store: Path) -> None:
    played = noise(RATE_HZ, 0.9)
    song(store / "noise.wav", played)
    music = {"input_key": "noise.wav", "start": "0.25", "fade_out": 0}
    result = assemble(store, reel_request([{"input_key": "silent.mp4"}], output_key="reel.avi", music=music))
    samples = samples_of(store / "reel.avi")
    assert result.degraded == () or all("music" not in note.message for note in result.degraded)
    assert len(samples) == 2 * RATE_HZ
    kept, edge = played[RATE_HZ // 4 :], 240
    for begin in (0, len(kept), 2 * len(kept)):
        part = samples[begin : begin + len(kept)]
        inside = slice(edge, len(part) - edge)
        assert np.abs(part[inside] - kept[: len(part)][inside]).max() < 1e-4
        assert np.abs(part[:3]).max() < 0.1  # each repetition fades in


def test_music_without_loop_ends_with_its_fade(store: Path) -> None:
    music = {"input_key": "song.wav", "loop": False, "fade_in": "0.4", "fade_out": "0.4", "volume": "0.5"}
    assemble(store, reel_request([{"input_key": "silent.mp4"}], output_key="reel.avi", music=music))
    samples = samples_of(store / "reel.avi")
    ramp = np.linspace(0.1, 0.9, RATE_HZ, endpoint=False)
    assert np.abs(samples[RATE_HZ // 2] - 0.5 * ramp[RATE_HZ // 2]) < 1e-4
    for at, share in ((0.1, 0.25), (0.2, 0.5), (0.8, 0.5), (0.9, 0.25)):
        gain = (share * share * (3 - 2 * share)) ** 0.5
        assert samples[round(at * RATE_HZ)] == pytest.approx(0.5 * ramp[round(at * RATE_HZ)] * gain, rel=0.01)
    assert np.abs(samples[RATE_HZ:]).max() == 0


def test_music_is_softer_while_a_clip_is_audible(store: Path) -> None:
    song(store / "hum.wav", 0.2 * np.sin(2 * np.pi * 2000 * np.arange(6 * RATE_HZ) / RATE_HZ))
    clips = [{"input_key": name} for name in ("silent.mp4", "tone.mov", "silent.mp4")]
    for depth in (0, 12):
        music = {"input_key": "hum.wav", "ducking_db": depth, "fade_out": 0}
        assemble(store, reel_request(clips, output_key=f"reel{depth}.avi", music=music))

    def hum(depth: int, start: float) -> float:
        part = samples_of(store / f"reel{depth}.avi")[round(start * RATE_HZ) :][: RATE_HZ // 20]
        wave = np.exp(-2j * np.pi * 2000 * np.arange(len(part)) / RATE_HZ)
        return float(2 * np.abs(np.mean(part * wave)))

    assert hum(0, 3) == pytest.approx(0.2, rel=0.02)
    assert hum(12, 1.9) == pytest.approx(0.2, rel=0.02)
    assert hum(12, 2.15) == pytest.approx(0.2 * 10 ** (-12 / 20), rel=0.03)
    assert hum(12, 4.2) == pytest.approx(0.2 * 10 ** (-12 / 20), rel=0.03)
    assert 0.06 < hum(12, 4.5) < 0.18
    assert hum(12, 4.85) == pytest.approx(0.2, rel=0.02)


def test_music_of_another_rate_and_a_video_is_used_and_bytes_repeat(store: Path) -> None:
    stereo = store / "song.mkv"
    ffmpeg(
        *("-i", store / "silent.mp4", "-f", "lavfi", "-i", "sine=500:r=44100:d=2", "-ac", "6", "-c:v", "copy"),
        *("-c:a", "aac", stereo),
    )
    request = reel_request(
        [{"input_key": "tone.mov"}, {"input_key": "silent.mp4"}],
        music={"input_key": "song.mkv", "volume": 2},
        loudness="on",
    )
    result = assemble(store, request)
    first = (store / "reel.mp4").read_bytes()
    assemble(store, request)
    assert (store / "reel.mp4").read_bytes() == first
    assert probe(store / "reel.mp4").audio[0].channels == 2
    assert [note.code for note in result.degraded if "music ('song.mkv')" in note.message] == ["channels_reduced"]


@pytest.mark.parametrize(
    ("key", "error", "text"),
    [("text.mp3", InvalidMediaError, "music ('text.mp3')"), ("no.mp3", StorageError, "music ('no.mp3')")],
)
def test_music_that_cannot_be_used_is_named(store: Path, key: str, error: type[Exception], text: str) -> None:
    (store / "text.mp3").write_text("no music")
    with pytest.raises(error, match=re.escape(text)):
        assemble(store, reel_request([{"input_key": "silent.mp4"}], music={"input_key": key}))
    assert not (store / "reel.mp4").exists()


def test_video_without_audio_as_music_is_refused(store: Path) -> None:
    with pytest.raises(InvalidMediaError, match=r"music \('silent.mp4'\) has no audio"):
        assemble(store, reel_request([{"input_key": "tone.mov"}], music={"input_key": "silent.mp4"}))


def test_start_after_the_end_of_the_music_is_refused(store: Path) -> None:
    request = reel_request([{"input_key": "silent.mp4"}], music={"input_key": "song.wav", "start": 5})
    with pytest.raises(RequestError, match="less than") as caught:
        assemble(store, request)
    assert caught.value.path == "music.start_seconds"


@pytest.mark.parametrize("output", ["reel.mp4", "reel.webm", "reel.avi"])
@pytest.mark.parametrize("target", [-14, -23])
def test_loudness_is_reached_and_peaks_stay_below_the_limit(store: Path, output: str, target: int) -> None:
    quiet = noise(2 * RATE_HZ, 0.02)
    quiet[RATE_HZ // 2 :: RATE_HZ // 4] = 0.7  # with the gain, these peaks need the limiter
    with_samples(store / "silent.mp4", store / "peaks.mov", quiet)
    encode = {"threads": 1} if output == "reel.webm" else {"encoder": "libx264", "preset": "ultrafast"}
    request = reel_request([{"input_key": "peaks.mov"}], output_key=output, loudness=target, encode=encode)
    result = assemble(store, request)
    lufs, peak = loudness_of(store / output)
    assert lufs == pytest.approx(target, abs=0.5)
    assert peak <= -1
    assert "loudness_missed" not in [note.code for note in result.degraded]


def chord(store: Path) -> None:
    """Write a chord whose peaks AAC raises by more than 4 dB, from below the limit to above it."""
    moments = np.arange(2 * RATE_HZ) / RATE_HZ
    sines = sum(np.sin(2 * np.pi * pitch * moments) for pitch in (110, 311, 517, 1303, 3011, 5003))
    with_samples(store / "silent.mp4", store / "chord.mov", np.clip(sines, -0.95, 0.95))


def test_peaks_that_the_codec_adds_are_lowered_before_the_loudness(store: Path) -> None:
    chord(store)
    result = assemble(store, reel_request([{"input_key": "chord.mov"}], loudness=-6))
    lufs, peak = loudness_of(store / "reel.mp4")
    assert peak <= -1
    assert -8 < lufs < -6.5
    assert "loudness_missed" in [note.code for note in result.degraded]


def test_peaks_come_before_the_loudness_if_attempts_run_out(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reel_modal._ffmpeg.loudness._MOST_ENCODES", 1)
    chord(store)
    assemble(store, reel_request([{"input_key": "chord.mov"}], loudness=-6))
    assert loudness_of(store / "reel.mp4")[1] <= -1


def test_silent_reel_and_too_quiet_reel_say_that_the_loudness_is_missed(store: Path) -> None:
    with_samples(store / "silent.mp4", store / "zero.mov", np.zeros(2 * RATE_HZ))
    with_samples(store / "silent.mp4", store / "hiss.mov", noise(2 * RATE_HZ, 0.001))
    for key, text in (("zero.mov", "silent"), ("hiss.mov", "30 dB")):
        result = assemble(store, reel_request([{"input_key": key}], output_key=f"{key}.mp4", loudness="on"))
        notes = [note.message for note in result.degraded if note.code == "loudness_missed"]
        assert [text in note for note in notes] == [True]
    assert np.abs(samples_of(store / "zero.mov.mp4")).max() < 1e-4
    result = assemble(store, reel_request([{"input_key": "silent.mp4"}], loudness="on"))
    assert probe(store / "reel.mp4").audio == ()


def test_limiter_changes_nothing_far_from_peaks_and_meets_its_limit_between_samples() -> None:
    count = 130_000  # more than two blocks
    samples = np.zeros((count, 2), np.float32)
    samples[:, 0] = 0.2 * np.sin(np.arange(count) * 0.05)
    # Samples of a tone at a quarter of the rate miss its peaks by 3 dB.
    burst = slice(47_950, 48_050)  # around the end of a block
    samples[burst, 1] = 0.9 * np.sin(np.arange(100) * np.pi / 2 + np.pi / 4)
    limited_samples = np.concatenate(list(limited(samples, 0, -6)))
    assert limited_samples.shape == samples.shape
    far = np.r_[0:47_400, 48_600:count]
    assert np.array_equal(limited_samples[far], samples[far])
    spectrum = np.fft.rfft(limited_samples[40_000:56_000, 1])
    finer = np.fft.irfft(np.pad(spectrum, (0, 7 * 8000)), 8 * 16_000) * 8
    assert 0.45 < np.abs(finer).max() < 10 ** (-5.9 / 20)
    assert np.abs(np.diff(limited_samples[:, 0])).max() < 0.02  # no step in the other channel


def test_level_of_a_cut_of_silence_has_no_step(store: Path) -> None:
    clips = [{"input_key": "silent.mp4"}, {"input_key": "silent.mp4"}, {"input_key": "tone.mov"}]
    assemble(store, reel_request(clips))
    samples = samples_of(store / "reel.mp4")
    around = samples[2 * RATE_HZ - 4800 : 2 * RATE_HZ + 4800]
    assert np.abs(np.diff(around)).max() < 1e-3
    assert level(samples, "4.1", "5.9") > 0.1
