"""Audio and video stay in sync through trims and speed changes, checked by flashes and beeps."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.clips import Clips, ffmpeg
from tests.local_files import key_of, path_of, root_storage
from tests.media.beats import audio_packets, beat_times, beeps, flashes, make_beats, samples_of
from tests.media.edits import EDITS, NEAR_SECONDS, PAN, expected_times
from tests.run_function import run_function

from reel_modal.functions.context import JobContext
from reel_modal.media import probe
from reel_modal.schema import CropKeyframe, EncodeOptions, FramingRequest, RenderResult, SpeedSegment, Timeline
from reel_modal.settings import Settings

F = Fraction
SECONDS = 5
HALF_A_FRAME = F(1, 2)

RATES = {"23.976": F(24000, 1001), "25": F(25), "29.97": F(30000, 1001), "50": F(50), "59.94": F(60000, 1001)}


@dataclass
class Framed:
    request: FramingRequest
    path: Path
    timeline: Timeline
    result: RenderResult


def make(clip: Path, folder: Path, edit: str, **fields: object) -> Framed:
    start, end, speeds = EDITS[edit]
    request = FramingRequest(
        job_id="j",
        user_id="u",
        input_key=key_of(clip),
        output_key=key_of(folder / "out.mp4"),
        trim_start_seconds=F(str(start)),
        trim_end_seconds=None if end is None else F(str(end)),
        segments=tuple(
            SpeedSegment(start_seconds=F(str(a)), end_seconds=F(str(b)), speed=F(str(v))) for a, b, v in speeds
        ),
        output_size=(64, 48),
        encode=EncodeOptions(encoder="libx264", preset="ultrafast"),
    )
    request = dataclasses.replace(request, **fields)  # type: ignore[arg-type]
    workdir = folder / "work"
    workdir.mkdir(exist_ok=True)
    result = run_function(request, JobContext(storage=root_storage(), workdir=workdir, settings=Settings.from_env()))
    scan = probe(clip, scan=True).scan
    assert scan is not None
    return Framed(request, folder / "out.mp4", request.timeline(scan.duration_seconds), result)


def beats(clips: Clips, rate: str, sound_hz: int) -> Path:
    path = clips.folder / f"beats_{rate}_{sound_hz}.mp4"
    return path if path.exists() else make_beats(path, RATES[rate], seconds=SECONDS, rate=sound_hz)


def uneven_beats(clips: Clips, sound_hz: int) -> Path:
    """Make beats without every third picture of the second half."""
    path = clips.folder / f"beats_uneven_{sound_hz}.mp4"
    if not path.exists():
        select = r"select=lt(t\,2.2)+mod(n\,3)"
        ffmpeg("-i", beats(clips, "50", sound_hz), "-vf", select, "-fps_mode", "passthrough", "-c:a", "copy", path)
    return path


def check(framed: Framed, source: Path, beat_moments: list[Fraction], least: int = 3) -> None:
    fps = framed.result.fps
    assert framed.result.frames == round(framed.timeline.duration_seconds * fps)
    expected_flashes, flashes_made = expected_times(flashes(source), framed.timeline), flashes(framed.path)
    for expected in expected_flashes:
        nearest = min(flashes_made, key=lambda flash: abs(flash - expected))
        # A blended picture is visible from the start of the one before it.
        early = _spacing(framed, expected) if framed.request.slow_motion == "blend" else F(0)
        assert -HALF_A_FRAME / fps - early <= nearest - expected <= HALF_A_FRAME / fps
    assert len(expected_flashes) >= least
    assert len(flashes_made) <= len(expected_flashes) + 2
    beep_times = beeps(framed.path)
    for expected in expected_times(beat_moments, framed.timeline):
        late = min((beep - float(expected) for beep in beep_times), key=abs)
        assert abs(late) <= NEAR_SECONDS, f"a beep is {late * 1000:.1f} ms late"


def _spacing(framed: Framed, moment: Fraction) -> Fraction:
    """Return the distance of two source pictures at this time of the output."""
    source = probe(path_of(framed.request.input_key))
    return 1 / (source.fps * framed.timeline.piece_at_output(moment - F(1, 1000)).speed)


# Each edit at two rates, and each rate with two edits or more; all five with the edit that has every kind of speed.
RATES_BY_EDIT = {
    "quarter": ("23.976", "50"),
    "half": ("29.97", "59.94"),
    "faster": ("25", "59.94"),
    "double": ("23.976", "29.97"),
    "fourfold": ("25", "50"),
    "trimmed": ("29.97", "59.94"),
    "mixed": tuple(RATES),
}
SOUND_HZ = dict(zip(RATES, [48000, 44100, 48000, 44100, 48000], strict=True))


@pytest.mark.parametrize(
    ("rate", "sound_hz", "edit"),
    [(rate, SOUND_HZ[rate], edit) for edit in EDITS for rate in RATES_BY_EDIT[edit]],
)
def test_retimed_beats_match_timeline(clips: Clips, tmp_path: Path, rate: str, sound_hz: int, edit: str) -> None:
    source = beats(clips, rate, sound_hz)
    framed = make(source, tmp_path, edit)
    assert framed.result.engine == "ffmpeg-graph"
    check(framed, source, beat_times(RATES[rate], SECONDS))


@pytest.mark.parametrize(("rate", "sound_hz"), list(zip(RATES, [44100, 48000, 44100, 48000, 44100], strict=True)))
def test_retimed_audio_other_sample_rate_stays_in_sync(
    clips: Clips, tmp_path: Path, rate: str, sound_hz: int
) -> None:
    source = beats(clips, rate, sound_hz)
    check(make(source, tmp_path, "mixed"), source, beat_times(RATES[rate], SECONDS))


@pytest.mark.parametrize(
    ("rate", "slow_motion"),
    [*((rate, "repeat") for rate in RATES), ("23.976", "blend"), ("50", "blend")],
)
def test_retimed_clip_moving_crop_stays_in_sync(clips: Clips, tmp_path: Path, rate: str, slow_motion: str) -> None:
    source = beats(clips, rate, 48000)
    framed = make(source, tmp_path, "mixed", crop=PAN, slow_motion=slow_motion)
    assert framed.result.engine == "opencv-yuv420p"
    check(framed, source, beat_times(RATES[rate], SECONDS))


@pytest.mark.parametrize(
    ("sound_hz", "edit"), [*((44100, edit) for edit in EDITS), (48000, "mixed"), (48000, "half")]
)
def test_retimed_clip_variable_rate_stays_in_sync(clips: Clips, tmp_path: Path, edit: str, sound_hz: int) -> None:
    source = uneven_beats(clips, sound_hz)
    framed = make(source, tmp_path, edit, fps=F(30))
    assert framed.result.degraded == ()
    check(framed, source, beat_times(F(50), SECONDS))


@pytest.mark.parametrize(("speed", "end", "least"), [("0.1", "1.2", 1), ("10", None, 4)])
def test_retimed_clip_extreme_speed_stays_in_sync(
    clips: Clips, tmp_path: Path, speed: str, end: str | None, least: int
) -> None:
    source = beats(clips, "59.94", 48000)
    segments = (SpeedSegment(start_seconds=F(0), end_seconds=F(5), speed=F(speed)),)
    framed = make(source, tmp_path, "half", segments=segments, trim_end_seconds=None if end is None else F(end))
    check(framed, source, beat_times(RATES["59.94"], SECONDS), least)


@pytest.mark.parametrize("fps", [F(24000, 1001), F(30), F(60)])
def test_retimed_clip_other_output_rate_stays_in_sync(clips: Clips, tmp_path: Path, fps: Fraction) -> None:
    source = beats(clips, "25", 48000)
    framed = make(source, tmp_path, "mixed", fps=fps)
    assert framed.result.fps == fps
    check(framed, source, beat_times(F(25), SECONDS))


@pytest.mark.parametrize("offset", ["0.3", "-0.2"])
def test_retimed_audio_late_or_early_keeps_offset(clips: Clips, tmp_path: Path, offset: str) -> None:
    plain = beats(clips, "25", 48000)
    source = tmp_path / "moved.mkv"
    ffmpeg("-i", plain, "-itsoffset", offset, "-i", plain, "-map", "0:v", "-map", "1:a", "-c", "copy", source)
    moments = [beat + F(offset) for beat in beat_times(F(25), SECONDS)]
    check(make(source, tmp_path, "mixed"), source, moments)
    check(make(source, tmp_path, "trimmed", crop=PAN), source, moments)


def test_retimed_audio_as_long_as_video_to_the_sample(clips: Clips, tmp_path: Path) -> None:
    framed = make(beats(clips, "29.97", 44100), tmp_path, "mixed")
    expected_samples = round(framed.result.duration_seconds * 44100)
    # AAC has 1024 samples a packet, and the last one may be padded.
    assert 0 <= len(samples_of(framed.path, 44100)) - expected_samples <= 1024


def test_many_segments_errors_do_not_accumulate(clips: Clips, tmp_path: Path) -> None:
    """After 40 pieces of an eighth of a second each, the last beep is as precise as the first."""
    source = beats(clips, "50", 48000)
    speeds = [F(1), F(1, 2), F(2), F(3, 2)]
    segments = tuple(
        SpeedSegment(start_seconds=F(n, 8), end_seconds=F(n + 1, 8), speed=speeds[n % 4]) for n in range(32)
    )
    framed = make(source, tmp_path, "trimmed", segments=segments, trim_end_seconds=None, trim_start_seconds=F(0))
    assert len(framed.timeline.pieces) > 30
    last = framed.timeline.to_output(beat_times(F(50), SECONDS)[-1])
    assert beeps(framed.path)[-1] == pytest.approx(float(last), abs=NEAR_SECONDS)
    assert flashes(framed.path)[-1] == pytest.approx(float(last), abs=0.01)


def tone(path: Path, seconds: float, *options: str) -> Path:
    sine = f"sine=frequency=440:sample_rate=48000:duration={seconds},volume=8"
    picture = "color=gray:size=64x48:rate=25:duration=4"
    ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sine, "-c:v", "libx264", "-c:a", "aac", *options, path)
    return path


def test_retimed_audio_joins_have_no_click_or_gap(tmp_path: Path) -> None:
    framed = make(tone(tmp_path / "tone.mp4", 4), tmp_path, "mixed", trim_end_seconds=F(4))
    audio = samples_of(framed.path)[2400:-2400, 0]
    peak = float(np.abs(audio).max())
    # The maximal slope of a tone of 440 Hz; a click would be a step of up to twice the peak.
    assert float(np.abs(np.diff(audio)).max()) < 2.5 * peak * 2 * np.pi * 440 / 48000
    blocks = audio[: len(audio) // 960 * 960].reshape(-1, 960)
    assert float(np.sqrt((blocks**2).mean(1)).min()) > 0.35 * peak


def test_retimed_audio_keeps_pitch(tmp_path: Path) -> None:
    for edit in ("quarter", "half", "double", "fourfold"):
        audio = samples_of(make(tone(tmp_path / "tone.mp4", 4), tmp_path, edit).path)[:, 0]
        spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
        assert float(np.argmax(spectrum)) * 48000 / len(audio) == pytest.approx(440, abs=6)


def test_retimed_audio_ended_early_becomes_silence(tmp_path: Path) -> None:
    framed = make(tone(tmp_path / "short.mp4", 1.5), tmp_path, "double")
    audio = np.abs(samples_of(framed.path)[:, 0])
    assert len(audio) == pytest.approx(2 * 48000, abs=1024)
    assert float(audio[4800:30000].max()) > 0.3
    assert float(audio[40800:].max()) < 0.001


@pytest.mark.parametrize("crop", [(), PAN])
def test_untouched_timeline_copies_audio_packets(
    clips: Clips, tmp_path: Path, crop: tuple[CropKeyframe, ...]
) -> None:
    source = beats(clips, "25", 44100)
    whole = make(source, tmp_path, "trimmed", trim_start_seconds=F(0), trim_end_seconds=None, crop=crop)
    output_packets, source_packets = audio_packets(whole.path), audio_packets(source)
    assert [data for _, data in output_packets] == [data for _, data in source_packets][: len(output_packets)]
    assert [at for at, _ in output_packets] == pytest.approx(
        [at for at, _ in source_packets][: len(output_packets)], abs=0.001
    )
    assert output_packets[-1][0] > 4.9
    assert make(source, tmp_path, "trimmed", audio=False, crop=crop).result.degraded == ()
    assert probe(whole.path).audio == ()


def test_clip_without_audio_stays_without_audio(clips: Clips, tmp_path: Path) -> None:
    framed = make(clips.get("25.mp4"), tmp_path, "double")
    assert (probe(framed.path).audio, framed.result.degraded) == ((), ())
