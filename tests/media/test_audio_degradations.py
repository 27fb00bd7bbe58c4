"""Audio: kept completely, or its loss named in the result; and audio from another file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from tests.clips import ffmpeg
from tests.media.stream_layouts import MODES, SECONDS, Mode, codes, make, render

from reel_modal import FramePipe
from reel_modal.errors import InvalidMediaError
from reel_modal.media import probe


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
