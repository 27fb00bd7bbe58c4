"""Strict checks of the boxes of an MP4 file (ISO/IEC 14496-12 and -15)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from reel_modal._smart_render.h264.parameter_sets import AccessUnit, ParameterSets


@dataclass
class Track:
    """The expanded sample tables of one track."""

    kind: bytes
    entry: bytes
    durations: list[tuple[int, int]]
    offsets: list[tuple[int, int]]
    sizes: list[int]
    places: list[int]
    sync: list[int] | None


def boxes(data: bytes, kind: bytes | None = None) -> Iterator[bytes]:
    """Return the contents of the boxes in `data`, which they must fill exactly."""
    place = 0
    while place < len(data):
        size, name, head = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        assert head <= size <= len(data) - place, (name, size)
        if kind in {None, name}:
            yield data[place + head : place + size]
        place += size


def box(data: bytes, *path: bytes) -> bytes:
    for kind in path:
        (data,) = boxes(data, kind)
    return data


def _rows(table: bytes, layout: str) -> list[tuple[int, ...]]:
    """Return the entries of a full box that contains only a count and that many rows."""
    rows = list(struct.iter_unpack(layout, table[8:]))
    assert len(rows) == int.from_bytes(table[4:8], "big")
    return rows


def tracks(data: bytes) -> list[Track]:
    """Read every track of a complete, unfragmented file."""
    return [_track(track) for track in boxes(box(data, b"moov"), b"trak")]


def _track(track: bytes) -> Track:
    media = box(track, b"mdia")
    table = box(media, b"minf", b"stbl")
    entries = list(boxes(table, b"ctts"))
    sync = list(boxes(table, b"stss"))
    sizes = box(table, b"stsz")
    same, count = struct.unpack(">II", sizes[4:12])
    each = [same] * count if same else [size for (size,) in struct.iter_unpack(">I", sizes[12:])]
    assert len(each) == count
    chunks = [start for (start,) in _rows(next(boxes(table, b"stco")), ">I")]
    places: list[int] = []
    runs = [*_rows(box(table, b"stsc"), ">III"), (len(chunks) + 1, 0, 0)]
    for (first, of_chunk, entry), (end, _, _) in pairwise(runs):
        assert entry == 1
        for chunk in range(first, end):
            at = chunks[chunk - 1]
            for _ in range(of_chunk):
                places.append(at)
                at += each[len(places) - 1]
    return Track(
        kind=box(media, b"hdlr")[8:12],
        entry=box(table, b"stsd")[8:],
        durations=[(a, b) for a, b in _rows(box(table, b"stts"), ">II")],
        offsets=[(a, b) for a, b in _rows(entries[0], ">Ii")] if entries else [],
        sizes=each,
        places=places,
        sync=[number for (number,) in _rows(sync[0], ">I")] if sync else None,
    )


def sample_durations(path: Path) -> list[tuple[int, int]]:
    """Return (count, ticks) of each run in the time-to-sample box of the video track."""
    return next(track for track in tracks(path.read_bytes()) if track.kind == b"vide").durations


def check_boxes(path: Path) -> None:
    """Assert that the sample tables are consistent with one another and with the samples."""
    data = path.read_bytes()
    assert [data[at + 4 : at + 8] for at in _starts(data)][:2] == [b"ftyp", b"moov"]  # the index comes first
    within = [(at, at + size) for at, size in _data(data)]
    for track in tracks(data):
        count = len(track.sizes)
        assert len(track.places) == count
        assert sum(number for number, _ in track.durations) == count
        assert not track.offsets or sum(number for number, _ in track.offsets) == count
        for place, size in zip(track.places, track.sizes, strict=True):
            assert any(start <= place and place + size <= end for start, end in within)
        if track.kind == b"vide":
            _check_picture(data, track)


def _check_picture(data: bytes, track: Track) -> None:
    (entry,) = boxes(track.entry)
    assert track.entry[4:8] == b"avc1"
    sets = ParameterSets.parse(box(entry[78:], b"avcC"))
    samples = [
        AccessUnit.parse(memoryview(data)[place : place + size], sets.length_size)
        for place, size in zip(track.places, track.sizes, strict=True)
    ]
    begin_anew = {number for number, sample in enumerate(samples, 1) if sample.idr}
    assert begin_anew <= (set(range(1, len(samples) + 1)) if track.sync is None else set(track.sync))


def _starts(data: bytes) -> Iterator[int]:
    place = 0
    while place < len(data):
        yield place
        size = int.from_bytes(data[place : place + 4], "big")
        place += int.from_bytes(data[place + 8 : place + 16], "big") if size == 1 else size


def _data(data: bytes) -> Iterator[tuple[int, int]]:
    for place in _starts(data):
        if data[place + 4 : place + 8] == b"mdat":
            yield place, int.from_bytes(data[place : place + 4], "big")
