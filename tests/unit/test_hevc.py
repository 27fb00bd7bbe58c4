"""Which HEVC packets count as IDR pictures, and which are refused; the bytes are written by hand."""

from __future__ import annotations

import pytest

from reel_modal._smart_render.hevc import HevcUnits
from reel_modal.errors import SpliceError

TRAILING, BLA, IDR, CRA, VPS, SPS, PPS, DELIMITER, END, SEI = 1, 16, 20, 21, 32, 33, 34, 35, 36, 39
FIRST_SLICE, LATER_SLICE, DROPS_EARLIER = 0x80, 0x00, 0xC0


def unit(kind: int, *content: int, layer: int = 0) -> bytes:
    return bytes([kind << 1 | layer >> 5, (layer & 31) << 3 | 1, *content])


SETS = (unit(VPS, 0x00, 7), unit(SPS, 1, 2, 3), unit(PPS, 0x80, 9), unit(PPS, 0x40, 9))
"""One VPS, one SPS, and the PPS 0 and 1."""


def record(*sets: bytes) -> bytes:
    lists = b"".join(bytes([each[0] >> 1, 0, 1, 0, len(each)]) + each for each in sets)
    return bytes([1, *bytes(20), 0xFF, len(sets)]) + lists


def packet(*units: bytes) -> memoryview:
    return memoryview(b"".join(len(each).to_bytes(4, "big") + each for each in units))


def test_hevc_only_idr_pictures_count() -> None:
    units = HevcUnits.parse(record(*SETS))
    assert units.length_size == 4
    assert units.take(packet(unit(DELIMITER, 0x10), *SETS, unit(SEI, 1), unit(IDR, DROPS_EARLIER, 5)))
    assert not units.take(packet(unit(TRAILING, FIRST_SLICE), unit(TRAILING, LATER_SLICE)))
    assert not units.take(packet(unit(CRA, FIRST_SLICE)))
    assert units.take(packet(unit(19, FIRST_SLICE)))


@pytest.mark.parametrize(
    ("units", "reason"),
    [
        ((unit(IDR, FIRST_SLICE), unit(END, 0)), "type 36 in layer 0"),
        ((unit(IDR, FIRST_SLICE), unit(TRAILING, FIRST_SLICE, layer=1)), "type 1 in layer 1"),
        ((unit(BLA, FIRST_SLICE),), "type 16 in layer 0"),
        ((unit(IDR, FIRST_SLICE), unit(DELIMITER)), "without content"),
        ((unit(TRAILING, FIRST_SLICE), unit(TRAILING, FIRST_SLICE)), "not exactly one coded picture"),
        ((unit(TRAILING, FIRST_SLICE), unit(0, LATER_SLICE)), "not exactly one coded picture"),
        ((unit(TRAILING, LATER_SLICE),), "not exactly one coded picture"),
        ((unit(SEI, 1),), "not exactly one coded picture"),
        ((unit(SPS, 1, 2, 4), unit(IDR, FIRST_SLICE)), "its parameter sets change within the stream"),
        ((unit(IDR, DROPS_EARLIER),), "frames before one of its keyframes are not shown"),
    ],
)
def test_hevc_unsupported_packet_is_refused(units: tuple[bytes, ...], reason: str) -> None:
    track = HevcUnits.parse(record(*SETS))
    assert track.take(packet(unit(IDR, FIRST_SLICE)))
    with pytest.raises(SpliceError, match=reason):
        track.take(packet(*units))


@pytest.mark.parametrize("cut", [1, 5])
def test_hevc_truncated_packet_is_refused(cut: int) -> None:
    with pytest.raises(SpliceError, match="truncated"):
        HevcUnits.parse(record(*SETS)).take(packet(unit(IDR, FIRST_SLICE, 1, 2))[:-cut])


@pytest.mark.parametrize(
    ("sets", "reason"),
    [
        ((*SETS, unit(SPS, 1, 2, 4)), "its parameter sets change"),
        ((*SETS, unit(PPS, 0x80, 8)), "its parameter sets change"),
        ((unit(VPS, 0x00, 7), unit(PPS, 0x80, 9)), "its parameter sets change"),
        ((*SETS, unit(PPS)), "truncated"),
    ],
)
def test_hevc_ambiguous_parameter_sets_are_refused(sets: tuple[bytes, ...], reason: str) -> None:
    with pytest.raises(SpliceError, match=reason):
        HevcUnits.parse(record(*sets))


def test_hevc_with_start_codes_is_refused() -> None:
    with pytest.raises(SpliceError, match="not in an hvcC box"):
        HevcUnits.parse(b"\0\0\0\1" + SETS[0])


def test_hevc_keyframe_whose_data_is_not_read_is_refused() -> None:
    units = HevcUnits.parse(record(*SETS))
    assert not units.take_flag(keyframe=False)
    with pytest.raises(SpliceError, match="far from the kept part"):
        units.take_flag(keyframe=True)
