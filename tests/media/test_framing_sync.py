"""Sound and picture keep step through trims and speeds: every flash and every beep is where the time line says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.clips import Clips, ffmpeg
from tests.local_files import key_of, path_of, root_storage
from tests.media.beats import LENGTH_SECONDS, beat_times, beeps, flashes, make_beats, samples_of
from tests.media.test_render_overlay import sound as packets_of_sound

from reel_modal.config import Settings
from reel_modal.functions import process_framing
from reel_modal.functions.context import JobContext
from reel_modal.media import probe
from reel_modal.schema import CropKeyframe, EncodeOptions, FramingRequest, RenderResult, SpeedSegment, Timeline

F = Fraction
SECONDS = 5
HALF_A_FRAME = F(1, 2)
# Half of what ITU-R BT.1359-1 finds detectable (sound 45 ms early).
NEAR_SECONDS = 0.020

RATES = {"23.976": F(24000, 1001), "25": F(25), "29.97": F(30000, 1001), "50": F(50), "59.94": F(60000, 1001)}
# A pan of a pixel is enough to have every frame cut by itself.
PAN = tuple(CropKeyframe(time_seconds=F(at), x=at / 5, y=0, width=60, height=45) for at in (0, 5))
EDITS: dict[str, tuple[object, object, list[tuple[object, object, object]]]] = {
    "quarter": (0, None, [(0, 5, "0.25")]),
    "half": (0, None, [(0, 5, "0.5")]),
    "faster": (0, None, [(0, 5, "1.5")]),
    "double": (0, None, [(0, 5, 2)]),
    "fourfold": (0, None, [(0, 5, 4)]),
    "trimmed": ("1.013", "4.2", []),
    "mixed": ("0.3", "4.9", [(1, 2, "0.5"), (2, 3, 2), (3, "3.9", "0.25"), ("4.2", 5, 4)]),
}


@dataclass
class Made:
    request: FramingRequest
    path: Path
    timeline: Timeline
    result: RenderResult


def make(clip: Path, folder: Path, edit: str, **fields: object) -> Made:
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
    result = process_framing.run(
        request, JobContext(storage=root_storage(), workdir=workdir, settings=Settings.from_env())
    )
    scan = probe(clip, scan=True).scan
    assert scan is not None
    return Made(request, folder / "out.mp4", request.timeline(scan.duration_seconds), result)


def beats(clips: Clips, rate: str, sound_hz: int) -> Path:
    path = clips.folder / f"beats_{rate}_{sound_hz}.mp4"
    return path if path.exists() else make_beats(path, RATES[rate], seconds=SECONDS, rate=sound_hz)


def uneven_beats(clips: Clips, sound_hz: int) -> Path:
    """Every third picture of the second half is missing."""
    path = clips.folder / f"beats_uneven_{sound_hz}.mp4"
    if not path.exists():
        select = r"select=lt(t\,2.2)+mod(n\,3)"
        ffmpeg("-i", beats(clips, "50", sound_hz), "-vf", select, "-fps_mode", "passthrough", "-c:a", "copy", path)
    return path


def kept(times: Iterable[Fraction], line: Timeline) -> list[Fraction]:
    """Where on the output those beats are that begin and end in one piece of it."""
    end = line.source_end or F(1000)
    return [line.to_output(t) for t in times if line.source_start < t and t + LENGTH_SECONDS < end]


def check(made: Made, source: Path, beat_moments: list[Fraction], least: int = 3) -> None:
    fps = made.result.fps
    assert made.result.frames == round(made.timeline.duration_seconds * fps)
    expected_flashes, flashes_made = kept(flashes(source), made.timeline), flashes(made.path)
    for expected in expected_flashes:
        nearest = min(flashes_made, key=lambda flash: abs(flash - expected))
        # Blended pictures shine through from when the one before them begins.
        early = _spacing(made, expected) if made.request.slow_motion == "blend" else F(0)
        assert -HALF_A_FRAME / fps - early <= nearest - expected <= HALF_A_FRAME / fps
    assert len(expected_flashes) >= least
    assert len(flashes_made) <= len(expected_flashes) + 2
    found = beeps(made.path)
    for expected in kept(beat_moments, made.timeline):
        late = min((beep - float(expected) for beep in found), key=abs)
        assert abs(late) <= NEAR_SECONDS, f"a beep is {late * 1000:.1f} ms late"


def _spacing(made: Made, moment: Fraction) -> Fraction:
    """How far apart two pictures of the source are around this moment of the output."""
    source = probe(path_of(made.request.input_key))
    return 1 / (source.fps * made.timeline.piece_at_output(moment - F(1, 1000)).speed)


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize(("rate", "sound_hz"), list(zip(RATES, [48000, 44100, 48000, 44100, 48000], strict=True)))
def test_flashes_and_beeps_are_where_the_time_line_says(
    clips: Clips, tmp_path: Path, rate: str, sound_hz: int, edit: str
) -> None:
    source = beats(clips, rate, sound_hz)
    made = make(source, tmp_path, edit)
    assert made.result.engine == "ffmpeg-graph"
    check(made, source, beat_times(RATES[rate], SECONDS))


@pytest.mark.parametrize(("rate", "sound_hz"), list(zip(RATES, [44100, 48000, 44100, 48000, 44100], strict=True)))
def test_so_they_are_with_the_other_rate_of_sound(clips: Clips, tmp_path: Path, rate: str, sound_hz: int) -> None:
    source = beats(clips, rate, sound_hz)
    check(make(source, tmp_path, "mixed"), source, beat_times(RATES[rate], SECONDS))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("slow_motion", ["repeat", "blend"])
def test_so_they_are_where_the_crop_moves(clips: Clips, tmp_path: Path, rate: str, slow_motion: str) -> None:
    source = beats(clips, rate, 48000)
    made = make(source, tmp_path, "mixed", crop=PAN, slow_motion=slow_motion)
    assert made.result.engine == "opencv-yuv420p"
    check(made, source, beat_times(RATES[rate], SECONDS))


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("sound_hz", [44100, 48000])
def test_so_they_are_where_pictures_come_unevenly(clips: Clips, tmp_path: Path, edit: str, sound_hz: int) -> None:
    source = uneven_beats(clips, sound_hz)
    made = make(source, tmp_path, edit, fps=F(30))
    assert made.result.degraded == ()
    check(made, source, beat_times(F(50), SECONDS))


@pytest.mark.parametrize(("speed", "end", "least"), [("0.1", "1.2", 1), ("10", None, 4)])
def test_so_they_are_at_the_slowest_and_the_fastest(
    clips: Clips, tmp_path: Path, speed: str, end: str | None, least: int
) -> None:
    source = beats(clips, "59.94", 48000)
    segments = (SpeedSegment(start_seconds=F(0), end_seconds=F(5), speed=F(speed)),)
    made = make(source, tmp_path, "half", segments=segments, trim_end_seconds=None if end is None else F(end))
    check(made, source, beat_times(RATES["59.94"], SECONDS), least)


@pytest.mark.parametrize("fps", [F(24000, 1001), F(30), F(60)])
def test_so_they_are_at_another_rate(clips: Clips, tmp_path: Path, fps: Fraction) -> None:
    source = beats(clips, "25", 48000)
    made = make(source, tmp_path, "mixed", fps=fps)
    assert made.result.fps == fps
    check(made, source, beat_times(F(25), SECONDS))


@pytest.mark.parametrize("offset", ["0.3", "-0.2"])
def test_sound_that_begins_late_or_early_stays_where_it_was(clips: Clips, tmp_path: Path, offset: str) -> None:
    plain = beats(clips, "25", 48000)
    source = tmp_path / "moved.mkv"
    ffmpeg("-i", plain, "-itsoffset", offset, "-i", plain, "-map", "0:v", "-map", "1:a", "-c", "copy", source)
    moments = [beat + F(offset) for beat in beat_times(F(25), SECONDS)]
    check(make(source, tmp_path, "mixed"), source, moments)
    check(make(source, tmp_path, "trimmed", crop=PAN), source, moments)


def test_sound_has_the_length_of_the_picture_to_the_sample(clips: Clips, tmp_path: Path) -> None:
    made = make(beats(clips, "29.97", 44100), tmp_path, "mixed")
    wanted = round(made.result.duration_seconds * 44100)
    # AAC has 1024 samples a packet, and the last one may be filled up.
    assert 0 <= len(samples_of(made.path, 44100)) - wanted <= 1024


def test_many_pieces_add_nothing_up(clips: Clips, tmp_path: Path) -> None:
    """Forty pieces of an eighth of a second each: the last beep is as near as the first."""
    source = beats(clips, "50", 48000)
    speeds = [F(1), F(1, 2), F(2), F(3, 2)]
    segments = tuple(
        SpeedSegment(start_seconds=F(n, 8), end_seconds=F(n + 1, 8), speed=speeds[n % 4]) for n in range(32)
    )
    made = make(source, tmp_path, "trimmed", segments=segments, trim_end_seconds=None, trim_start_seconds=F(0))
    assert len(made.timeline.pieces) > 30
    last = made.timeline.to_output(beat_times(F(50), SECONDS)[-1])
    assert beeps(made.path)[-1] == pytest.approx(float(last), abs=NEAR_SECONDS)
    assert flashes(made.path)[-1] == pytest.approx(float(last), abs=0.01)


def tone(path: Path, seconds: float, *options: str) -> Path:
    sine = f"sine=frequency=440:sample_rate=48000:duration={seconds},volume=8"
    picture = "color=gray:size=64x48:rate=25:duration=4"
    ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sine, "-c:v", "libx264", "-c:a", "aac", *options, path)
    return path


def test_joins_neither_click_nor_drop_out(tmp_path: Path) -> None:
    made = make(tone(tmp_path / "tone.mp4", 4), tmp_path, "mixed", trim_end_seconds=F(4))
    heard = samples_of(made.path)[2400:-2400, 0]
    peak = float(np.abs(heard).max())
    # The steepest of a tone of 440 Hz; a click would be a step of up to twice the peak.
    assert float(np.abs(np.diff(heard)).max()) < 2.5 * peak * 2 * np.pi * 440 / 48000
    blocks = heard[: len(heard) // 960 * 960].reshape(-1, 960)
    assert float(np.sqrt((blocks**2).mean(1)).min()) > 0.35 * peak


def test_the_pitch_stays(tmp_path: Path) -> None:
    for edit in ("quarter", "half", "double", "fourfold"):
        heard = samples_of(make(tone(tmp_path / "tone.mp4", 4), tmp_path, edit).path)[:, 0]
        spectrum = np.abs(np.fft.rfft(heard * np.hanning(len(heard))))
        assert float(np.argmax(spectrum)) * 48000 / len(heard) == pytest.approx(440, abs=6)


def test_where_the_source_has_no_sound_there_is_silence(tmp_path: Path) -> None:
    made = make(tone(tmp_path / "short.mp4", 1.5), tmp_path, "double")
    heard = np.abs(samples_of(made.path)[:, 0])
    assert len(heard) == pytest.approx(2 * 48000, abs=1024)
    assert float(heard[4800:30000].max()) > 0.3
    assert float(heard[40800:].max()) < 0.001


@pytest.mark.parametrize("crop", [(), PAN])
def test_sound_is_copied_packet_by_packet_where_the_time_line_is_untouched(
    clips: Clips, tmp_path: Path, crop: tuple[CropKeyframe, ...]
) -> None:
    source = beats(clips, "25", 44100)
    whole = make(source, tmp_path, "trimmed", trim_start_seconds=F(0), trim_end_seconds=None, crop=crop)
    made, given = packets_of_sound(whole.path), packets_of_sound(source)
    assert [data for _, data in made] == [data for _, data in given][: len(made)]
    assert [at for at, _ in made] == pytest.approx([at for at, _ in given][: len(made)], abs=0.001)
    assert made[-1][0] > 4.9
    assert make(source, tmp_path, "trimmed", audio=False, crop=crop).result.degraded == ()
    assert probe(whole.path).audio == ()


def test_a_clip_without_sound_stays_without(clips: Clips, tmp_path: Path) -> None:
    made = make(clips.get("25.mp4"), tmp_path, "double")
    assert (probe(made.path).audio, made.result.degraded) == ((), ())
