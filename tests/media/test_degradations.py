"""Subtitles, chapters, tags and other streams: kept, or named in the result, in every render mode."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clips import ffmpeg
from tests.local_files import key_of, root_storage
from tests.run_function import run_function

from reel_modal import FramePipe, FrameReader
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.reader import Decoder
from reel_modal.errors import InvalidMediaError
from reel_modal.functions.context import JobContext
from reel_modal.media import probe
from reel_modal.schema import EncodeOptions, FramingRequest, OverlayRequest, RenderResult, UpscaleRequest
from reel_modal.settings import Settings

Mode = Literal["smart", "full", "copy", "graph", "moving", "faster", "upscale"]
MODES: tuple[Mode, ...] = ("smart", "full", "copy", "graph", "moving", "faster", "upscale")
SECONDS = 3
LINES = ((0.2, 0.9, "Hello"), (1.0, 1.8, "<i>Bye</i>"), (2.2, 2.6, "Late"))
CHAPTERS = ((0.0, 1.0, "One"), (1.0, 2.5, "Two é"), (2.5, 3.0, "Three"))
FAST = EncodeOptions(encoder="libx264", preset="ultrafast")


def make(
    path: Path,
    *,
    sounds: tuple[str, ...] = ("aac",),
    subtitles: tuple[str, ...] = (),
    chapters: bool = False,
    tags: dict[str, str] | None = None,
    arguments: tuple[str | Path, ...] = (),
) -> Path:
    """Make a clip of three seconds with the given streams."""
    words, lines = path.with_suffix(".txt"), path.with_suffix(".srt")
    written = "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={a * 1000:.0f}\nEND={b * 1000:.0f}\ntitle={t}\n" for a, b, t in CHAPTERS
    )
    words.write_text(";FFMETADATA1\n" + (written if chapters else ""), encoding="utf-8")
    lines.write_text(
        "".join(f"{n}\n{clock(a)} --> {clock(b)}\n{text}\n\n" for n, (a, b, text) in enumerate(LINES, 1))
    )
    inputs = ("-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=25:duration={SECONDS}", "-i", words)
    inputs += tuple(
        word for n in range(len(sounds)) for word in ("-f", "lavfi", "-i", f"sine={300 + n}:duration={SECONDS}")
    )
    inputs += tuple(word for _ in subtitles for word in ("-i", lines))
    maps = tuple(word for n in range(2 + len(sounds) + len(subtitles)) if n != 1 for word in ("-map", str(n)))
    codecs = tuple(word for n, codec in enumerate(sounds) for word in (f"-c:a:{n}", codec))
    codecs += tuple(word for n, codec in enumerate(subtitles) for word in (f"-c:s:{n}", codec))
    codecs += tuple(
        word for n in range(len(subtitles)) for word in (f"-metadata:s:s:{n}", f"language={('deu', 'fra')[n]}")
    )
    tag_arguments = tuple(word for key, value in (tags or {}).items() for word in ("-metadata", f"{key}={value}"))
    flags = ("-movflags", "use_metadata_tags") if tags and path.suffix in {".mp4", ".mov"} else ()
    video = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p")
    ffmpeg(
        *inputs,
        *maps,
        "-map_metadata",
        "1",
        "-map_chapters",
        "1",
        *video,
        *codecs,
        *tag_arguments,
        *flags,
        *arguments,
        path,
    )
    return path


def clock(seconds: float) -> str:
    return f"00:00:{seconds:06.3f}".replace(".", ",")


def render(source: Path, mode: Mode, output: Path, **encode: object) -> RenderResult:
    """Make `output` from `source` in the given mode."""
    keys: dict[str, Any] = {"job_id": "j", "user_id": "u", "input_key": key_of(source), "output_key": key_of(output)}
    keys["encode"] = EncodeOptions.parse({**FAST.to_dict(), "smart": mode in {"smart", "copy"}, **encode})
    work = output.parent / "work"
    work.mkdir(exist_ok=True)
    context = JobContext(storage=root_storage(), workdir=work)
    if mode in {"smart", "full"}:
        keyframe = {"time": 1.1, "x": 30, "y": 20, "radiusX": 9, "radiusY": 9}
        region = {"id": "r", "start_time": 1.1, "end_time": 1.4, "keyframes": [keyframe]}
        result = run_function(OverlayRequest(**keys, regions=[region]), context)
    elif mode == "upscale":
        result = run_function(UpscaleRequest(**keys, scale=2), context)
    else:
        crop = {"y": 0, "width": 32, "height": 48}
        moving = [{"time": 0, "x": 0, **crop}, {"time": 3, "x": 20, **crop}]
        edits: dict[Mode, dict[str, Any]] = {
            "copy": {"trim_start_seconds": 1, "output_size": probe(source).size},
            "graph": {"crop": [{"time": 0, "x": 20, **crop}], "output_size": (32, 48)},
            "moving": {"crop": moving, "output_size": (32, 48)},
            "faster": {"segments": [{"start": 0, "end": 3, "speed": 2}], "output_size": (64, 48)},
        }
        result = run_function(FramingRequest.parse({**keys, **edits[mode]}), context)
    assert list(work.iterdir()) == []
    return result


def codes(result: RenderResult) -> set[str]:
    return {note.code for note in result.degraded}


def subtitle_lines(path: Path, number: int = 0) -> list[tuple[float, float, str]]:
    """Return the subtitle lines of a file with their times."""
    binary = find_ffmpeg(Settings.from_env()).path
    command = (binary, "-v", "error", "-i", path, "-map", f"0:s:{number}", "-f", "srt", "-")
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    lines = []
    for block in done.stdout.decode().strip().split("\n\n"):
        _, times, text = block.split("\n", 2)
        begin, end = (
            sum(float(part) * 60**n for n, part in enumerate(reversed(each.replace(",", ".").split(":"))))
            for each in times.split(" --> ")
        )
        lines.append((begin, end, text))
    return lines


def chapters(path: Path) -> list[tuple[float, float, str]]:
    return [(float(c.start_seconds), float(c.end_seconds), c.title) for c in probe(path).contents.chapters]


def expected_rows(mode: Mode, rows: tuple[tuple[float, float, str], ...]) -> list[tuple[float, float, str]]:
    """Return the output times of `rows` of the source for a mode."""
    edit: Callable[[float], float] = {"copy": lambda t: t - 1, "faster": lambda t: t / 2}.get(mode, lambda t: t)
    return [(max(0, edit(a)), edit(b), text) for a, b, text in rows if edit(b) > 0]


def assert_close(actual: list[tuple[float, float, str]], expected: list[tuple[float, float, str]]) -> None:
    assert [text for *_, text in actual] == [text for *_, text in expected]
    for (begin, end, _), (first, last, _) in zip(actual, expected, strict=True):
        assert (begin, end) == pytest.approx((first, last), abs=0.03)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_subtitles_and_chapters_keep_their_times(tmp_path: Path, mode: Mode, suffix: str) -> None:
    codec = "srt" if suffix == ".mkv" else "mov_text"
    source = make(tmp_path / f"in{suffix}", subtitles=(codec, codec), chapters=True)
    output = tmp_path / "out.mp4"
    result = render(source, mode, output)
    assert codes(result) == set()
    assert result.plan == ("smart" if mode in {"smart", "copy"} else "full")
    for number, language in enumerate(("deu", "fra")):
        assert_close(subtitle_lines(output, number), expected_rows(mode, LINES))
        subtitles = [each for each in probe(output).contents.streams if each.kind == "subtitles"]
        assert (subtitles[number].codec, subtitles[number].language) == ("mov_text", language)
    assert_close(chapters(output), expected_rows(mode, CHAPTERS))
    assert complaints(output) == ""


def complaints(path: Path) -> str:
    """Return the messages of ffmpeg about a file."""
    command = (find_ffmpeg(Settings.from_env()).path, "-v", "error", "-i", path, "-map", "0:v", "-f", "null", "-")
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stderr.decode()


@pytest.mark.parametrize(
    ("suffix", "codec", "encoder"), [(".mkv", "subrip", "libx264"), (".webm", "webvtt", "libvpx-vp9")]
)
def test_mp4_subtitles_converted_for_other_container(tmp_path: Path, suffix: str, codec: str, encoder: str) -> None:
    source = make(tmp_path / "in.mp4", subtitles=("mov_text",), chapters=True)
    output = tmp_path / f"out{suffix}"
    result = render(source, "graph", output, encoder=encoder, preset="fast")
    assert codes(result) <= {"sound_reencoded"}
    assert_close(subtitle_lines(output), list(LINES))
    assert_close(chapters(output), list(CHAPTERS))
    assert probe(output).contents.streams[-1].codec == codec


@pytest.mark.parametrize("mode", ["smart", "full"])
def test_unconvertible_subtitles_are_noted(tmp_path: Path, mode: Mode) -> None:
    source = make(tmp_path / "in.mkv", subtitles=("srt",), chapters=True)
    broken = source.read_bytes()
    for *_, text in LINES:
        broken = broken.replace(text.encode(), b"\xff" * len(text))
    source.write_bytes(broken)
    result = render(source, mode, tmp_path / "out.mp4")
    assert (result.plan, codes(result)) == (mode, {"subtitles_dropped"})
    assert_close(chapters(tmp_path / "out.mp4"), list(CHAPTERS))


def test_chapters_without_titles_get_titles(tmp_path: Path) -> None:
    words = tmp_path / "chapters.txt"
    words.write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=900\n")
    source = make(tmp_path / "in.mkv", arguments=())
    named = tmp_path / "named.mkv"
    ffmpeg("-i", source, "-i", words, "-map", "0", "-map_chapters", "1", "-c", "copy", named)
    render(named, "full", tmp_path / "out.mp4")
    assert_close(chapters(tmp_path / "out.mp4"), [(0, 0.9, "Chapter 1")])
    assert complaints(tmp_path / "out.mp4") == ""


def test_streams_unsupported_by_container_are_noted(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mkv", subtitles=("srt",), chapters=True, tags={"title": "T", "location": "+1+2/"})
    result = render(source, "graph", tmp_path / "out.avi")
    assert {"subtitles_dropped", "chapters_dropped", "metadata_stripped"} <= codes(result)
    assert ".avi does not support it" in next(
        str(note) for note in result.degraded if note.code == "subtitles_dropped"
    )


TAGS = {
    "title": "My clip",
    "creation_time": "2024-05-06T07:08:09.000000Z",
    "location": "+52.5000-013.4000/",
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.model": "iPhone",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", ["strip", "keep"])
def test_tags_kept_or_dropped_as_requested(tmp_path: Path, mode: Mode, policy: str) -> None:
    source = make(tmp_path / "in.mov", tags=TAGS)
    result = render(source, mode, tmp_path / "out.mp4", metadata=policy)
    tags = dict(probe(tmp_path / "out.mp4").contents.tags)
    kept_names = set(TAGS) if policy == "keep" else {"title", "creation_time"}
    assert set(tags) & set(TAGS) == kept_names
    assert (tags["title"], tags["creation_time"][:19]) == ("My clip", "2024-05-06T07:08:09")
    assert codes(result) == (set() if policy == "keep" else {"metadata_stripped"})
    if policy == "strip":
        assert b"Apple" not in (tmp_path / "out.mp4").read_bytes()
        assert "com.apple.quicktime.make" in str(result.degraded[0])


@pytest.mark.parametrize("mode", MODES)
def test_timecode_kept_only_if_start_unchanged(tmp_path: Path, mode: Mode) -> None:
    source = make(tmp_path / "in.mov", arguments=("-timecode", "01:02:03:04"))
    result = render(source, mode, tmp_path / "out.mov")
    timecodes = [each.timecode for each in probe(tmp_path / "out.mov").contents.streams if each.kind == "timecode"]
    if mode in {"copy", "faster"}:
        assert (timecodes, codes(result)) == ([], {"timecode_dropped"})
    else:
        assert (timecodes, codes(result)) == (["01:02:03:04"], set())


@pytest.mark.parametrize("mode", MODES)
def test_only_audio_with_unknown_codec_is_noted(tmp_path: Path, mode: Mode) -> None:
    source = make(tmp_path / "in.mov")
    data = bytearray(source.read_bytes())
    at = data.rfind(b"mp4a\0\0\0\0\0\0\0\1")
    data[at : at + 4] = b"apac"
    box = data.find(b"esds", at)
    data[box : box + 4] = b"dapa"
    source.write_bytes(data)
    result = render(source, mode, tmp_path / "out.mp4")
    assert codes(result) == {"sound_dropped"}
    assert "audio" in str(result.degraded[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", ["strip", "keep"])
def test_data_stream_kept_if_policy_keeps_all(tmp_path: Path, mode: Mode, policy: str) -> None:
    """The positions recorded by an action camera are a data stream with a name."""
    source = make(tmp_path / "in.mp4", subtitles=("mov_text",))
    source.write_bytes(source.read_bytes().replace(b"sbtl", b"meta").replace(b"tx3g", b"gpmd"))
    assert [each.kind for each in probe(source).contents.streams] == ["picture", "sound", "data"]
    result = render(source, mode, tmp_path / "out.mp4", metadata=policy)
    data_codecs = [each.codec for each in probe(tmp_path / "out.mp4").contents.streams if each.kind == "data"]
    assert (data_codecs, codes(result)) == ((["bin_data"], set()) if policy == "keep" else ([], {"data_dropped"}))


@pytest.mark.parametrize("mode", ["smart", "full", "graph"])
def test_second_video_track_is_noted(tmp_path: Path, mode: Mode) -> None:
    clip, source = make(tmp_path / "clip.mp4"), tmp_path / "in.mp4"
    ffmpeg("-i", clip, "-i", clip, "-map", "0", "-map", "1:v", "-c", "copy", source)
    result = render(source, mode, tmp_path / "out.mp4")
    assert [str(note) for note in result.degraded] == [
        "stream 2 of the source (another video track, h264) is not in the output"
    ]


@pytest.mark.parametrize("mode", ["smart", "full"])
def test_output_starts_with_first_picture(tmp_path: Path, mode: Mode) -> None:
    clip = make(tmp_path / "clip.mp4")
    source = tmp_path / "in.mp4"
    ffmpeg("-itsoffset", "0.8", "-i", clip, "-i", clip, "-map", "0:v", "-map", "1:a", "-c", "copy", source)
    result = render(source, mode, tmp_path / "out.mp4")
    output = probe(tmp_path / "out.mp4")
    assert (result.plan, codes(result)) == (mode, {"sound_trimmed"})
    assert output.start_seconds == 0
    (sound,) = output.audio
    assert float(sound.start_seconds) == pytest.approx(0, abs=0.025)
    assert float(sound.duration_seconds or 0) == pytest.approx(SECONDS - 0.8, abs=0.05)


@pytest.mark.parametrize("mode", ["smart", "full", "copy", "graph", "moving", "faster"])
def test_audio_after_last_picture_kept_or_noted(tmp_path: Path, mode: Mode) -> None:
    clip, source = make(tmp_path / "clip.mp4"), tmp_path / "in.mp4"
    ffmpeg("-i", clip, "-itsoffset", "0.8", "-i", clip, "-map", "0:v", "-map", "1:a", "-c", "copy", source)
    result = render(source, mode, tmp_path / "out.mp4")
    assert codes(result) == (set() if mode == "smart" else {"sound_trimmed"})


@pytest.mark.parametrize("suffix", [".flv", ".mkv", ".ts"])
def test_audio_after_last_picture_noted_for_any_container(tmp_path: Path, suffix: str) -> None:
    clip, source = make(tmp_path / "clip.mp4"), tmp_path / f"in{suffix}"
    later = ("-itsoffset", "0.8", "-i", clip)
    ffmpeg("-i", clip, *later, "-map", "0:v", "-map", "1:a", "-c", "copy", source)
    assert "sound_trimmed" in codes(render(source, "full", tmp_path / "out.mp4"))


def test_complete_audio_is_not_noted(tmp_path: Path) -> None:
    source = tmp_path / "in.mp4"
    slides = "testsrc2=size=64x48:rate=30:duration=6,select='not(mod(n,150))'"
    inputs = ("-f", "lavfi", "-i", slides, "-f", "lavfi", "-i", "sine=duration=10")
    lasting = ("-bsf:v", "setts=duration=5/TB")  # without it, the last slide ends after one frame
    ffmpeg(*inputs, "-fps_mode", "vfr", "-c:v", "libx264", *lasting, "-c:a", "aac", source)
    result, output = render(source, "full", tmp_path / "out.mp4"), probe(tmp_path / "out.mp4")
    assert "sound_trimmed" not in codes(result)
    assert float(output.audio[0].duration_seconds or 0) == pytest.approx(10, abs=0.05)


def captioned(source: Path, target: Path) -> Path:
    """Insert closed captions before the slices of every picture (ATSC A/53, part 4, 6.2.3)."""
    raw = source.with_suffix(".h264")
    ffmpeg("-i", source, "-map", "0:v", "-c", "copy", "-bsf:v", "h264_mp4toannexb", raw)
    captions = bytes.fromhex("0000000106040eb50031474139340341fffc942cff80")
    data, rewritten = raw.read_bytes(), bytearray()
    parts = data.split(b"\0\0\1")
    for part in parts[1:]:
        rewritten += captions if part[0] & 31 in {1, 5} else b""
        rewritten += b"\0\0\0\1" + part
    raw.write_bytes(rewritten)
    ffmpeg("-r", "25", "-i", raw, "-c", "copy", target)
    return target


@pytest.mark.parametrize(("mode", "kept"), [("copy", True), ("smart", False), ("full", False), ("moving", False)])
def test_lost_closed_captions_are_noted(tmp_path: Path, mode: Mode, kept: bool) -> None:
    source = captioned(
        make(tmp_path / "clip.mp4", sounds=(), arguments=("-x264-params", "slices=1")), tmp_path / "in.mp4"
    )
    assert probe(source).contents.closed_captions
    result = render(source, mode, tmp_path / "out.mp4")
    assert codes(result) == (set() if kept else {"captions_dropped"})


TRANSPARENT = (
    "color=0x00c000:size=64x48:rate=10:duration=1,format=rgba,geq=r='0':g='192':b='0':a='if(lt(X,32),255,0)'"
)
CODECS = {
    "qtrle.mov": ("qtrle", "argb"),
    "prores.mov": ("prores_ks", "yuva444p10le"),
    "ffv1.mkv": ("ffv1", "yuva420p"),
    "vp9.webm": ("libvpx-vp9", "yuva420p"),
    "vp8.webm": ("libvpx", "yuva420p"),
}


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("decoder", ["process", "in_process"])
def test_transparent_pixels_become_black(tmp_path: Path, name: str, decoder: Decoder) -> None:
    codec, pixel_format = CODECS[name]
    source = tmp_path / name
    options = ("-auto-alt-ref", "0") if codec == "libvpx" else ()
    ffmpeg("-f", "lavfi", "-i", TRANSPARENT, "-c:v", codec, "-pix_fmt", pixel_format, *options, source)
    with FrameReader(source, pixel_format="bgr24", decoder=decoder) as reader:
        images = [frame.image.astype(int) for frame in reader]
    assert len(images) == 10
    for image in images:
        assert np.abs(image[:, 40:] - 0).max() <= 12
        assert np.abs(image[:, :24] - (0, 192, 0)).max() <= 12


@pytest.mark.parametrize("mode", ["full", "graph", "upscale"])
def test_lost_transparency_is_noted(tmp_path: Path, mode: Mode) -> None:
    source = tmp_path / "in.mov"
    ffmpeg("-f", "lavfi", "-i", f"{TRANSPARENT},loop=-1:size=30", "-t", "3", "-c:v", "qtrle", source)
    result = render(source, mode, tmp_path / "out.mp4")
    assert "alpha_dropped" in codes(result)
    with FrameReader(tmp_path / "out.mp4") as reader:
        assert int(next(iter(reader)).image[:, -8:].max()) <= 12


# A green picture that becomes transparent at the given second.
GREEN = "color=0x00c000:size=64x48:rate=10:duration=3,format=rgba,geq=r='0':g='192':b='0':a='if(lt(T,{}),255,{})'"


@pytest.mark.parametrize("mode", ["full", "graph", "moving", "upscale"])
@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
@pytest.mark.parametrize(("begins", "alpha", "named"), [(9, 0, False), (2.5, 0, True), (2.9, 128, True)])
def test_opaque_alpha_is_not_noted(
    tmp_path: Path, codec: str, mode: Mode, begins: float, alpha: int, named: bool
) -> None:
    source = tmp_path / "in.webm"
    options = ("-auto-alt-ref", "0") if codec == "libvpx" else ()
    picture = GREEN.format(begins, alpha)
    ffmpeg("-f", "lavfi", "-i", picture, "-c:v", codec, "-pix_fmt", "yuva420p", *options, source)
    assert ("alpha_dropped" in codes(render(source, mode, tmp_path / "out.mp4"))) == named


@pytest.mark.parametrize("codec", ["pcm_s16be", "pcm_s24be", "pcm_f32le", "pcm_mulaw", "adpcm_ima_qt", "mp2"])
@pytest.mark.parametrize("mode", ["smart", "full"])
def test_mov_copies_streams_its_muxer_supports(tmp_path: Path, codec: str, mode: Mode) -> None:
    source = make(tmp_path / "in.mov", sounds=(codec,))
    result = render(source, mode, tmp_path / "out.mov")
    assert (result.plan, codes(result)) == (mode, set())
    assert [sound.codec for sound in probe(tmp_path / "out.mov").audio] == [codec]
    assert payload(tmp_path / "out.mov") == payload(source)


def payload(path: Path) -> bytes:
    with av.open(str(path)) as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0))


def test_audio_refused_by_muxer_is_encoded(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mkv", sounds=("flac",))
    result = render(source, "full", tmp_path / "out.mov")
    assert codes(result) == {"sound_reencoded"}
    assert [sound.codec for sound in probe(tmp_path / "out.mov").audio] == ["aac"]


@pytest.mark.parametrize("suffix", [".m4a", ".mp3", ".wav", ".flac", ".ogg", ".aiff"])
def test_external_audio_file_is_added(tmp_path: Path, suffix: str) -> None:
    music = tmp_path / f"music{suffix}"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", music)
    with black(tmp_path / "out.mp4", music) as pipe:
        pass
    (sound,) = probe(tmp_path / "out.mp4").audio
    assert float(sound.start_seconds) == pytest.approx(0, abs=0.001)
    assert float(sound.duration_seconds or 0) == pytest.approx(1, abs=0.06)
    assert pipe.result.frames == 50


@pytest.mark.parametrize(("content", "problem"), [(None, "not found"), (b"junk" * 99, "cannot be read as audio")])
def test_unreadable_audio_file_raises(tmp_path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "music.m4a").write_bytes(content)
    with pytest.raises(InvalidMediaError, match=problem), black(tmp_path / "out.mp4", tmp_path / "music.m4a"):
        pass
    assert not (tmp_path / "out.mp4").exists()


@contextmanager
def black(path: Path, sound: Path) -> Iterator[FramePipe]:
    """Write two seconds of black video with audio."""
    with FramePipe(path, size=(64, 48), fps=25, encoder="libx264", preset="ultrafast", audio_from=sound) as pipe:
        for _ in range(50):
            pipe.write(np.zeros((48, 64, 3), np.uint8))
        yield pipe


@settings(max_examples=10)
@given(
    source_suffix=st.sampled_from([".mkv", ".mp4", ".mov"]),
    target_suffix=st.sampled_from([".mkv", ".mp4", ".mov", ".avi"]),
    sounds=st.lists(st.sampled_from(["aac", "mp3", "alac"]), max_size=3).map(tuple),
    lines=st.integers(0, 2),
    titled=st.booleans(),
    tagged=st.booleans(),
    attached=st.booleans(),
    mode=st.sampled_from(MODES),
    policy=st.sampled_from(["keep", "strip"]),
)
def test_any_stream_layout_drops_nothing_except_in_avi(
    tmp_path_factory: pytest.TempPathFactory,
    source_suffix: str,
    target_suffix: str,
    sounds: tuple[str, ...],
    lines: int,
    titled: bool,
    tagged: bool,
    attached: bool,
    mode: Mode,
    policy: str,
) -> None:
    folder = tmp_path_factory.mktemp("layout")
    font = folder / "font.ttf"
    font.write_bytes(b"font")
    attachment = ("-attach", font, "-metadata:s:t", "mimetype=application/x-truetype-font")
    source = make(
        folder / f"in{source_suffix}",
        sounds=sounds,
        subtitles=("srt" if source_suffix == ".mkv" else "mov_text",) * lines,
        chapters=titled,
        tags=TAGS if tagged else None,
        arguments=attachment if attached and source_suffix == ".mkv" else (),
    )
    result = render(source, mode, folder / f"out{target_suffix}", metadata=policy)
    assert len(probe(folder / f"out{target_suffix}").audio) == len(sounds)
    dropped = {code for code in codes(result) if code.endswith("_dropped")}
    assert ("attachment_dropped" in dropped) == (attached and source_suffix == ".mkv")
    in_avi = {"subtitles_dropped"} if lines else set()
    in_avi |= {"chapters_dropped"} if titled else set()
    expected = in_avi if target_suffix == ".avi" else set()
    assert dropped - {"attachment_dropped", "metadata_dropped"} == expected
    assert target_suffix == ".avi" or "metadata_dropped" not in dropped
    if target_suffix != ".avi":
        assert not codes(result) & {"chapters_dropped", "subtitles_dropped", "sound_dropped", "metadata_dropped"}
