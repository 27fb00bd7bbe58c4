"""Every sound of a clip goes along: copied where the time line is untouched, else each retimed on its own."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.clips import Clips, ffmpeg
from tests.media.beats import PITCH_HZ, beat_times, beeps, beeps_in, make_beats, samples_of
from tests.media.framed import FAST, crops, framed, request_for, run, speeds
from tests.media.test_framing_sync import EDITS, NEAR_SECONDS, PAN, kept
from tests.media.test_render_overlay import render, spotlight

from reel_modal.media import probe
from reel_modal.schema import Degradation, EncodeOptions, RenderResult, Timeline

F = Fraction
FPS = F(25)
SECONDS = 5
LATE = F("0.4")
SHORT_SECONDS = 3
SIX = ("FL", "FR", "FC", "LFE", "BL", "BR")
TAGS = [("eng", "Commentary", ("comment",)), ("deu", "Film", ("default",))]
"""Of the two sounds: language, title, dispositions."""


def two_sounds(clips: Clips, suffix: str = ".mkv", codec: str = "aac") -> Path:
    """Beats whose first sound is mono of 44.1 kHz and ends early, and whose second is stereo of 48 kHz and late."""
    path = clips.folder / f"two_sounds_{codec}{suffix}"
    if path.exists():
        return path
    mono = make_beats(clips.folder / "mono.mp4", FPS, seconds=SECONDS, rate=44100)
    stereo = make_beats(clips.folder / "stereo.mp4", FPS, seconds=SECONDS, channels=2)
    short = clips.folder / "short.m4a"
    ffmpeg("-i", mono, "-map", "0:a", "-t", str(SHORT_SECONDS), "-c", "copy", short)
    tags: list[str] = []
    for number, (language, title, kinds) in enumerate(TAGS):
        where = f"s:a:{number}"
        tags += [f"-metadata:{where}", f"language={language}", f"-metadata:{where}", f"title={title}"]
        tags += [f"-disposition:a:{number}", "+".join(kinds)]
    inputs = ("-i", mono, "-i", short, "-itsoffset", str(float(LATE)), "-i", stereo)
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "12")
    ffmpeg(*inputs, "-map", "0:v", "-map", "1:a", "-map", "2:a", *x264, "-c:a", codec, *tags, path)
    return path


def surround(path: Path, layout: str = "5.1", codec: str = "aac") -> Path:
    """A clip with six channels, each of which beeps alone, a second after the one before."""
    voices = "|".join(
        f"0.5*sin(2*PI*{PITCH_HZ if name != 'LFE' else 60}*t)*between(t\\,{at}+0.5\\,{at}+0.7)"
        for at, name in enumerate(SIX)
    )
    sound = f"aevalsrc={voices}:c={layout}:s=48000:d={len(SIX)}"
    picture = f"color=gray:size=64x48:rate=25:duration={len(SIX)}"
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
    ffmpeg("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", sound, *x264, "-c:a", codec, path)
    return path


def edited(source: Path, folder: Path, edit: str, **fields: object) -> tuple[RenderResult, Path]:
    start, end, rows = EDITS[edit]
    fields = {"output_size": (64, 48), "segments": speeds(*rows), **fields}
    trim_end = None if end is None else F(str(end))
    return framed(source, folder, trim_start_seconds=F(str(start)), trim_end_seconds=trim_end, **fields)


def packets(path: Path, sound: int) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=sound) if packet.size]


def told(path: Path) -> list[tuple[str | None, str | None, tuple[str, ...]]]:
    return [(sound.language, sound.title, sound.dispositions) for sound in probe(path).audio]


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("crop", [(), PAN], ids=["graph", "frames"])
def test_every_sound_is_where_the_time_line_says(
    clips: Clips, tmp_path: Path, edit: str, crop: tuple[object, ...]
) -> None:
    source = two_sounds(clips)
    result, path = edited(source, tmp_path, edit, crop=crop, encode=dataclasses.replace(FAST, smart=False))
    cut = EDITS[edit][1] is not None
    assert [note.code for note in result.degraded] == ([] if cut else ["sound_trimmed"])  # the second one ends late
    assert result.engine == ("opencv-yuv420p" if crop else "ffmpeg-graph")
    sounds = probe(path).audio
    assert [(sound.sample_rate_hz, sound.layout) for sound in sounds] == [(44100, "mono"), (48000, "stereo")]
    assert told(path) == TAGS
    start, end, rows = EDITS[edit]
    last = F(SECONDS) if end is None else F(str(end))
    line = Timeline.of(F(str(start)), last, [(F(str(a)), F(str(b)), F(str(v))) for a, b, v in rows])
    heard = beat_times(FPS, SECONDS)
    moments = ([beat for beat in heard if beat < SHORT_SECONDS - 1], [beat + LATE for beat in heard])
    for number, expected in enumerate(moments):
        found = beeps(path, stream=number)
        assert kept(expected, line)
        for moment in kept(expected, line):
            assert min(abs(beep - float(moment)) for beep in found) <= NEAR_SECONDS
        length = len(samples_of(path, 48000, stream=number)) / 48000
        assert 0 <= length - float(result.duration_seconds) < 0.03
    # What the short one lacks is silence.
    ends = float(line.to_output(F(SHORT_SECONDS)))
    assert float(np.abs(samples_of(path)[round((ends + 0.1) * 48000) :]).max(initial=0)) < 0.01


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("fields", [{"crop": crops((0, 0, 0, 32, 24))}, {"crop": PAN}], ids=["graph", "frames"])
def test_every_sound_is_copied_where_the_time_line_is_untouched(
    clips: Clips, tmp_path: Path, suffix: str, fields: dict[str, object]
) -> None:
    source = two_sounds(clips, suffix)
    result, path = framed(source, tmp_path, output_size=(64, 48), **fields)
    assert [note.code for note in result.degraded] == ["sound_trimmed"]  # the second one is late, and ends late
    assert told(path) == TAGS
    for number in range(2):
        copied, whole = packets(path, number), packets(source, number)
        # A packet before the picture, which some muxers write as the first, has no place in the output.
        first = whole.index(copied[0])
        assert first <= 1
        assert copied == whole[first : first + len(copied)]
        assert beeps(path, stream=number) == pytest.approx(beeps(source, stream=number), abs=0.002)


def test_a_trim_that_copies_packets_keeps_every_sound(clips: Clips, tmp_path: Path) -> None:
    source = two_sounds(clips, ".mp4")
    result, path = edited(source, tmp_path, "trimmed", output_size=probe(source).size)
    assert (result.plan, result.degraded) == ("smart", ())
    assert told(path) == TAGS
    for number, offset in enumerate((F(0), LATE)):
        found = beeps(path, stream=number)
        for beat in beat_times(FPS, SECONDS)[1 : SHORT_SECONDS - 1]:
            expected = float(beat + offset - 1)  # the picture that is nearest to the beginning of the trim
            assert min(abs(beep - expected) for beep in found) < 0.005


def test_a_highlight_keeps_every_sound(clips: Clips, tmp_path: Path) -> None:
    """Smart or in full: the seconds that change are few, or all."""
    (tmp_path / "store").mkdir()
    for regions, plan in ((spotlight("1", "1.5"), "smart"), (spotlight(), "full")):
        path, result = render(two_sounds(clips, ".mp4"), tmp_path / "store", regions=regions)
        # The second sound is late, so it ends after the picture.
        after = [] if plan == "smart" else ["sound_trimmed"]
        assert (result.plan, [note.code for note in result.degraded]) == (plan, after)
        assert told(path) == TAGS
        for number in range(2):
            copied = packets(path, number)
            assert copied == packets(two_sounds(clips, ".mp4"), number)[: len(copied)]
            assert len(copied) > 120


def test_every_sound_that_the_container_does_not_take_is_encoded(clips: Clips, tmp_path: Path) -> None:
    source = two_sounds(clips, codec="pcm_s16le")
    result, path = framed(source, tmp_path, output_size=probe(source).size)
    encoded = Degradation("sound_reencoded", "the pcm_s16le sound was encoded again: .mp4 does not take it")
    assert encoded in result.degraded
    assert {note.code for note in result.degraded} == {"sound_reencoded", "sound_trimmed"}  # the second one ends late
    assert [(sound.codec, sound.layout) for sound in probe(path).audio] == [("aac", "mono"), ("aac", "stereo")]
    assert told(path) == TAGS
    for number in range(2):
        assert beeps(path, stream=number) == pytest.approx(beeps(source, stream=number), abs=0.01)


@pytest.mark.parametrize(("layout", "suffix"), [("5.1", ".mp4"), ("5.1(side)", ".mp4"), ("5.1(side)", ".webm")])
@pytest.mark.parametrize("double", [False, True])
def test_six_channels_stay_six_each_where_it_was(tmp_path: Path, layout: str, suffix: str, double: bool) -> None:
    source, output = surround(tmp_path / "in.mkv", layout, "pcm_s16le"), tmp_path / f"out{suffix}"
    fields = {"segments": speeds((0, len(SIX), 2))} if double else {}
    encode = EncodeOptions(encoder="libx264" if suffix == ".mp4" else "libvpx-vp9")
    result = run(request_for(source, output, output_size=(64, 48), encode=encode, **fields), tmp_path / "work")
    made = "aac" if suffix == ".mp4" else "opus"
    retimed = f"the pcm_s16le sound was encoded as {made}, since its times change"
    message = retimed if double else f"the pcm_s16le sound was encoded again: {suffix} does not take it"
    assert result.degraded == (Degradation("sound_reencoded", message),)
    (sound,) = probe(output).audio
    assert (sound.layout, sound.channels) == ("5.1", 6)
    heard = samples_of(output, channels=6)
    for channel, name in enumerate(SIX):
        if name == "LFE":  # too low for its strength to be measured in 5 ms
            assert float(np.abs(heard[:, channel]).max()) > 0.2
            continue
        (beep,) = beeps_in(heard[:, channel])
        assert beep == pytest.approx((channel + 0.5) / (2 if double else 1), abs=NEAR_SECONDS)


def test_channels_that_no_encoder_knows_become_two_and_that_is_said(tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    picture = ("-f", "lavfi", "-i", "color=gray:size=64x48:rate=25:duration=2")
    seven = ("-f", "lavfi", "-i", "sine=duration=2,aformat=channel_layouts=7.0(front)")
    ffmpeg(*picture, *seven, "-c:v", "libx264", "-c:a", "aac", source)
    (sound,) = probe(source).audio
    result, path = framed(source, tmp_path, output_size=(64, 48), segments=speeds((0, 2, 2)))
    assert result.degraded == (
        Degradation("channels_reduced", f"the 7 channels of the sound ({sound.layout}) became 2"),
    )
    assert probe(path).audio[0].layout == "stereo"
