"""A broadcast with several programs: only the streams of the video's program are kept."""

from __future__ import annotations

import random
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clips import ffmpeg
from tests.media.beats import samples_of
from tests.media.rendered import rendered

from reel_modal.media import probe
from reel_modal.media.ts_programs import programs_of
from reel_modal.schema import EncodeOptions, FramingRequest, OverlayRequest, UpscaleRequest

PITCHES = {0: 400, 2: 1200}
"""Of the sound beside each picture, by the number of the picture's stream."""
EDITS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "overlay": (OverlayRequest, {"regions": ()}),
    "framing": (FramingRequest, {"output_size": (64, 48)}),
    "faster": (FramingRequest, {"output_size": (64, 48), "segments": [{"start": 0, "end": 2, "speed": 2}]}),
    "upscale": (UpscaleRequest, {"scale": 2}),
}


def multiplex(path: Path, *options: str, sizes: tuple[str, str] = ("64x48", "128x96")) -> Path:
    """Make two programs, each with video and audio."""
    inputs: list[str] = []
    for size, pitch in zip(sizes, PITCHES.values(), strict=True):
        inputs += ["-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration=2"]
        inputs += ["-f", "lavfi", "-i", f"sine={pitch}:duration=2"]
    maps = [word for number in range(4) for word in ("-map", str(number))]
    programs = ("-program", "title=A:st=0:st=1", "-program", "title=B:st=2:st=3")
    ffmpeg(*inputs, *maps, "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", *programs, *options, path)
    return path


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("sizes", [("64x48", "128x96"), ("128x96", "64x48")])
def test_audio_of_other_program_dropped_with_note(sizes: tuple[str, str], edit: str, tmp_path: Path) -> None:
    source, output = multiplex(tmp_path / "in.ts", sizes=sizes), tmp_path / "out.mp4"
    kind, fields = EDITS[edit]
    media = probe(source)
    result = rendered(kind, source, output, encode=EncodeOptions(preset="ultrafast"), **fields)
    (sound,) = probe(output).audio
    assert sound.codec == "aac"
    samples = samples_of(output)[: 48000 // 2, 0]
    pitch = int(np.abs(np.fft.rfft(samples)).argmax()) * 2
    assert pitch == pytest.approx(PITCHES[media.stream_index], abs=4)
    other = [stream for stream in media.contents.streams if stream.in_other_program]
    assert [stream.kind for stream in other] == ["picture", "sound"]
    named = [note.message for note in result.degraded if note.code in {"sound_dropped", "video_dropped"}]
    assert len(named) == 2
    assert all("it belongs to another program than the video" in message for message in named)


def test_audio_streams_of_one_program_all_kept(tmp_path: Path) -> None:
    source = tmp_path / "in.ts"
    sounds = ("-f", "lavfi", "-i", "sine=400:duration=2", "-f", "lavfi", "-i", "sine=900:duration=2")
    picture = ("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25:duration=2")
    ffmpeg(*picture, *sounds, "-map", "0", "-map", "1", "-map", "2", "-c:v", "libx264", "-c:a", "mp2", source)
    result = rendered(OverlayRequest, source, tmp_path / "out.ts", regions=())
    assert len(probe(tmp_path / "out.ts").audio) == 2
    assert "sound_dropped" not in {note.code for note in result.degraded}


@pytest.mark.parametrize(("before", "after"), [(0, 0), (4, 0), (0, 16)])
def test_programs_of_reads_tables(before: int, after: int, tmp_path: Path) -> None:
    """Plain, with a time before each packet (M2TS), or with a checksum after each."""
    data, beside = multiplex(tmp_path / "in.ts").read_bytes(), random.Random(1)
    packets = [
        beside.randbytes(before) + data[at : at + 188] + beside.randbytes(after) for at in range(0, len(data), 188)
    ]
    programs = programs_of(BytesIO(b"".join(packets)))
    assert [len(program) for program in programs] == [2, 2]
    assert not programs[0] & programs[1]
    cut = b"".join(packets)[77:]  # a recording may start anywhere
    assert programs_of(BytesIO(cut)) == programs


def packet(pid: int, payload: bytes, *, begins: bool) -> bytes:
    return bytes((0x47, begins << 6 | pid >> 8, pid & 0xFF, 0x10)) + payload.ljust(184, b"\xff")


def section(table: int, number: int, body: bytes) -> bytes:
    length = len(body) + 9
    return bytes((table, 0xB0 | length >> 8, length & 0xFF, number >> 8, number & 0xFF, 0xC1, 0, 0)) + body + bytes(4)


def test_programs_of_table_longer_than_packet_is_read(tmp_path: Path) -> None:
    listed = bytes((0, 0, 0xE0, 0x10, 0, 7, 0xE1, 0))
    streams = b"".join(bytes((27, 0xE2, pid, 0xF0, 8)) + bytes(8) for pid in range(40))
    table = b"\0" + section(2, 7, bytes((0xE2, 0, 0xF0, 0)) + streams)
    parts = [packet(0x100, table[at : at + 184], begins=at == 0) for at in range(0, len(table), 184)]
    data = packet(0, b"\0" + section(0, 1, listed), begins=True) + b"".join(parts) + packet(0x1FFF, b"", begins=False)
    assert programs_of(BytesIO(data + packet(0x1FFF, b"", begins=False))) == (frozenset(range(0x200, 0x228)),)


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_programs_of_garbage_is_empty(parts: list[bytes]) -> None:
    data = b"".join(b"\x47\x40\x00\x10" + part.ljust(184, b"\x47")[:184] for part in parts)
    assert isinstance(programs_of(BytesIO(data)), tuple)
    assert programs_of(BytesIO(b"".join(parts))) == () or parts
