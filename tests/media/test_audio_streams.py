"""Every audio stream of a clip is kept: copied if the timeline is untouched, else retimed separately."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.clips import Clips, ffmpeg
from tests.media.beats import PITCH_HZ, beat_times, beeps, beeps_in, make_beats, samples_of
from tests.media.edits import EDITS, NEAR_SECONDS, PAN, expected_times
from tests.media.framed import FAST, crops, framed, request_for, run, speeds
from tests.media.overlaid import render, spotlight

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
    """Make beats with two streams: mono of 44.1 kHz that ends early, and stereo of 48 kHz that starts late."""
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
    """Make a clip with six channels that beep one after the other, a second apart."""
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


def read_tags(path: Path) -> list[tuple[str | None, str | None, tuple[str, ...]]]:
    return [(sound.language, sound.title, sound.dispositions) for sound in probe(path).audio]


@pytest.mark.parametrize(
    ("crop", "edit"),
    [
        *(pytest.param((), edit, id=f"graph-{edit}") for edit in EDITS),
        *(pytest.param(PAN, edit, id=f"frames-{edit}") for edit in ("half", "trimmed", "mixed")),
    ],
)
def test_retimed_audio_streams_match_timeline(
    clips: Clips, tmp_path: Path, edit: str, crop: tuple[object, ...]
) -> None:
    source = two_sounds(clips)
    result, path = edited(source, tmp_path, edit, crop=crop, encode=dataclasses.replace(FAST, smart=False))
    cut = EDITS[edit][1] is not None
    assert [note.code for note in result.degraded] == ([] if cut else ["sound_trimmed"])  # the second one ends late
    assert result.engine == ("opencv-yuv420p" if crop else "ffmpeg-graph")
    sounds = probe(path).audio
    assert [(sound.sample_rate_hz, sound.layout) for sound in sounds] == [(44100, "mono"), (48000, "stereo")]
    assert read_tags(path) == TAGS
    start, end, rows = EDITS[edit]
    last = F(SECONDS) if end is None else F(str(end))
    line = Timeline.of(F(str(start)), last, [(F(str(a)), F(str(b)), F(str(v))) for a, b, v in rows])
    source_beats = beat_times(FPS, SECONDS)
    moments = ([beat for beat in source_beats if beat < SHORT_SECONDS - 1], [beat + LATE for beat in source_beats])
    for number, expected in enumerate(moments):
        beep_times = beeps(path, stream=number)
        assert expected_times(expected, line)
        for moment in expected_times(expected, line):
            assert min(abs(beep - float(moment)) for beep in beep_times) <= NEAR_SECONDS
        length = len(samples_of(path, 48000, stream=number)) / 48000
        assert 0 <= length - float(result.duration_seconds) < 0.03
    # The missing part of the short stream is silent.
    ends = float(line.to_output(F(SHORT_SECONDS)))
    assert float(np.abs(samples_of(path)[round((ends + 0.1) * 48000) :]).max(initial=0)) < 0.01


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("fields", [{"crop": crops((0, 0, 0, 32, 24))}, {"crop": PAN}], ids=["graph", "frames"])
def test_untouched_timeline_copies_every_audio_stream(
    clips: Clips, tmp_path: Path, suffix: str, fields: dict[str, object]
) -> None:
    source = two_sounds(clips, suffix)
    result, path = framed(source, tmp_path, output_size=(64, 48), **fields)
    assert [note.code for note in result.degraded] == ["sound_trimmed"]  # the second stream is late, and ends late
    assert read_tags(path) == TAGS
    for number in range(2):
        copied, whole = packets(path, number), packets(source, number)
        # A packet before the video, which some muxers write first, is not in the output.
        first = whole.index(copied[0])
        assert first <= 1
        assert copied == whole[first : first + len(copied)]
        assert beeps(path, stream=number) == pytest.approx(beeps(source, stream=number), abs=0.002)


def test_trim_copying_packets_keeps_every_audio_stream(clips: Clips, tmp_path: Path) -> None:
    source = two_sounds(clips, ".mp4")
    result, path = edited(source, tmp_path, "trimmed", output_size=probe(source).size)
    assert (result.plan, result.degraded) == ("smart", ())
    assert read_tags(path) == TAGS
    for number, offset in enumerate((F(0), LATE)):
        beep_times = beeps(path, stream=number)
        for beat in beat_times(FPS, SECONDS)[1 : SHORT_SECONDS - 1]:
            expected = float(beat + offset - 1)  # the nearest picture to the start of the trim
            assert min(abs(beep - expected) for beep in beep_times) < 0.005


def test_highlight_keeps_every_audio_stream(clips: Clips, tmp_path: Path) -> None:
    """Smart or full rendering, depending on how many seconds change."""
    (tmp_path / "store").mkdir()
    for regions, plan in ((spotlight("1", "1.5"), "smart"), (spotlight(), "full")):
        path, result = render(two_sounds(clips, ".mp4"), tmp_path / "store", regions=regions)
        # The second stream is late, so it ends after the video.
        after = [] if plan == "smart" else ["sound_trimmed"]
        assert (result.plan, [note.code for note in result.degraded]) == (plan, after)
        assert read_tags(path) == TAGS
        for number in range(2):
            copied = packets(path, number)
            assert copied == packets(two_sounds(clips, ".mp4"), number)[: len(copied)]
            assert len(copied) > 120


def test_audio_streams_unsupported_by_container_are_encoded(clips: Clips, tmp_path: Path) -> None:
    source = two_sounds(clips, codec="pcm_s16le")
    result, path = framed(source, tmp_path, output_size=probe(source).size)
    encoded = Degradation("sound_reencoded", "the pcm_s16le audio was re-encoded: .mp4 does not support it")
    assert encoded in result.degraded
    assert {note.code for note in result.degraded} == {"sound_reencoded", "sound_trimmed"}  # the second one ends late
    assert [(sound.codec, sound.layout) for sound in probe(path).audio] == [("aac", "mono"), ("aac", "stereo")]
    assert read_tags(path) == TAGS
    for number in range(2):
        assert beeps(path, stream=number) == pytest.approx(beeps(source, stream=number), abs=0.01)


@pytest.mark.parametrize(("layout", "suffix"), [("5.1", ".mp4"), ("5.1(side)", ".mp4"), ("5.1(side)", ".webm")])
@pytest.mark.parametrize("double", [False, True])
def test_six_channel_audio_keeps_channel_order(tmp_path: Path, layout: str, suffix: str, double: bool) -> None:
    source, output = surround(tmp_path / "in.mkv", layout, "pcm_s16le"), tmp_path / f"out{suffix}"
    fields = {"segments": speeds((0, len(SIX), 2))} if double else {}
    encode = EncodeOptions(encoder="libx264" if suffix == ".mp4" else "libvpx-vp9")
    result = run(request_for(source, output, output_size=(64, 48), encode=encode, **fields), tmp_path / "work")
    target_codec = "aac" if suffix == ".mp4" else "opus"
    retimed = f"the pcm_s16le audio was encoded as {target_codec}, because its times change"
    message = retimed if double else f"the pcm_s16le audio was re-encoded: {suffix} does not support it"
    assert result.degraded == (Degradation("sound_reencoded", message),)
    (sound,) = probe(output).audio
    assert (sound.layout, sound.channels) == ("5.1", 6)
    audio = samples_of(output, channels=6)
    for channel, name in enumerate(SIX):
        if name == "LFE":  # too low for its level to be measured in 5 ms
            assert float(np.abs(audio[:, channel]).max()) > 0.2
            continue
        (beep,) = beeps_in(audio[:, channel])
        assert beep == pytest.approx((channel + 0.5) / (2 if double else 1), abs=NEAR_SECONDS)


def test_unknown_channel_layout_becomes_stereo_with_note(tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    picture = ("-f", "lavfi", "-i", "color=gray:size=64x48:rate=25:duration=2")
    seven = ("-f", "lavfi", "-i", "sine=duration=2,aformat=channel_layouts=7.0(front)")
    ffmpeg(*picture, *seven, "-c:v", "libx264", "-c:a", "aac", source)
    (sound,) = probe(source).audio
    result, path = framed(source, tmp_path, output_size=(64, 48), segments=speeds((0, 2, 2)))
    assert result.degraded == (
        Degradation("channels_reduced", f"the 7 audio channels ({sound.layout}) were reduced to 2"),
    )
    assert probe(path).audio[0].layout == "stereo"
