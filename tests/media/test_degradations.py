"""Subtitles, chapters, tags and other streams: kept, or named in the result, in every render mode."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.clips import ffmpeg
from tests.media.stream_layouts import CHAPTERS, LINES, MODES, Mode, codes, make, render

from reel_modal import FrameReader
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.reader import Decoder
from reel_modal.media import probe
from reel_modal.settings import Settings


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
