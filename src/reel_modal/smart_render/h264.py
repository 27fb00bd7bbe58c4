"""The few parts of an H.264 stream that a splice must know: which pictures stand alone, which parameter sets hold.

Sources: ITU-T H.264 (08/2021), 7.3 and annex A; ISO/IEC 14496-15 (2022), 5.3. Pure work on bytes; it must not know
files, times or libav.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Self

from reel_modal.errors import SpliceError

__all__ = ["ParameterSets", "PictureUnit", "Sps", "with_length_size"]

_SLICE, _IDR_SLICE, _SPS, _PPS = 1, 5, 7, 8
# Enhancement layers, auxiliary pictures and partitioned slices: coded otherwise than what is spliced here.
_FOREIGN: Final = frozenset({2, 3, 4, 13, 14, 15, 19, 20, 21})
# Profiles whose sequence parameter sets say their chroma format and bit depth (7.3.2.1.1).
_HIGH: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
# The profiles of 8-bit 4:2:0 that x264 writes, by `profile_idc`.
_PROFILES: Final = {66: "baseline", 77: "main", 100: "high"}
_MOST_IDS: Final = 32
_TOO_LONG_BITS: Final = 32


class _Bits:
    """Reads the raw byte sequence payload of a unit, most significant bit first."""

    def __init__(self, unit: bytes) -> None:
        # A 3 behind two zeros is there so that no start code appears within a unit (7.4.1).
        payload = unit[1:].replace(b"\0\0\3", b"\0\0")
        self._value = int.from_bytes(payload, "big")
        self._left = len(payload) * 8

    def read(self, count: int) -> int:
        if count > self._left:
            raise SpliceError("a parameter set breaks off")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def ue(self) -> int:
        """Read an unsigned Exp-Golomb code (9.1)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > _TOO_LONG_BITS:
                raise SpliceError("a parameter set cannot be read")
        return (1 << zeros) - 1 + self.read(zeros)

    def se(self) -> int:
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


@dataclass(frozen=True, slots=True)
class Sps:
    """What a sequence parameter set says.

    Attributes:
        id: 0 to 31.
        profile_idc: 66 baseline, 77 main, 100 high, and others.
        constraints: The eight bits behind it.
        level_idc: Ten times the level.
        chroma_format: 1 is 4:2:0.
        bit_depths: Of luma and chroma.
        reference_frames: Most that are kept for reference.
        frames_only: Whether every picture is a whole frame.
    """

    id: int
    profile_idc: int
    constraints: int
    level_idc: int
    chroma_format: int
    bit_depths: tuple[int, int]
    reference_frames: int
    frames_only: bool

    @classmethod
    def parse(cls, unit: bytes) -> Self:
        """Read a unit of type 7.

        Raises:
            SpliceError: It cannot be read.
        """
        bits = _Bits(unit)
        profile, constraints, level, number = bits.read(8), bits.read(8), bits.read(8), bits.ue()
        chroma, depths = 1, (8, 8)
        if profile in _HIGH:
            chroma = bits.ue()
            if chroma == 3:
                bits.read(1)
            depths = (8 + bits.ue(), 8 + bits.ue())
            bits.read(1)
            if bits.read(1):
                _pass_scaling_lists(bits, 12 if chroma == 3 else 8)
        bits.ue()
        _pass_picture_order(bits)
        references = bits.ue()
        bits.read(1)
        bits.ue(), bits.ue()
        return cls(number, profile, constraints, level, chroma, depths, references, bool(bits.read(1)))

    @property
    def profile(self) -> str | None:
        """x264's word for the profile, None where it is another than 8-bit 4:2:0 of whole frames."""
        plain = self.chroma_format == 1 and self.bit_depths == (8, 8) and self.frames_only
        return _PROFILES.get(self.profile_idc) if plain else None


def _pass_scaling_lists(bits: _Bits, count: int) -> None:
    for index in range(count):
        if not bits.read(1):
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.se()) % 256
            last = following or last


def _pass_picture_order(bits: _Bits) -> None:
    kind = bits.ue()
    if kind == 0:
        bits.ue()
    elif kind == 1:
        bits.read(1)
        bits.se(), bits.se()
        for _ in range(min(bits.ue(), 255)):
            bits.se()


@dataclass(frozen=True, slots=True)
class ParameterSets:
    """The sequence and picture parameter sets of a track, as an `avcC` box holds them.

    Attributes:
        sps: Whole units of type 7.
        pps: Whole units of type 8.
        length_size: Bytes of the length in front of each unit of a packet.
    """

    sps: tuple[bytes, ...]
    pps: tuple[bytes, ...]
    length_size: int = 4

    @classmethod
    def parse(cls, record: bytes) -> Self:
        """Read an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1).

        Raises:
            SpliceError: It is none, or holds what is not spliced here.
        """
        if len(record) < 7 or record[0] != 1:
            raise SpliceError("its parameter sets are not in an avcC box")
        try:
            sps, place = _units(record, 6, record[5] & 31)
            pps, place = _units(record, place + 1, record[place])
        except IndexError as error:
            raise SpliceError("its avcC box breaks off") from error
        if not sps or not pps:
            raise SpliceError("its avcC box has no parameter sets")
        return cls(tuple(sps), tuple(pps), (record[4] & 3) + 1)

    def with_units(self, units: Iterable[bytes]) -> Self:
        """Return these and the parameter sets among `units`.

        Raises:
            SpliceError: One of them has the id of another, and is not the same.
        """
        sps = {_sps_id(unit): unit for unit in self.sps}
        pps = {_pps_id(unit): unit for unit in self.pps}
        for unit in units:
            known, number = (sps, _sps_id(unit)) if unit[0] & 31 == _SPS else (pps, _pps_id(unit))
            if known.setdefault(number, unit) != unit:
                raise SpliceError("its parameter sets change in mid-stream")
        return replace(self, sps=tuple(sps.values()), pps=tuple(pps.values()))

    def free_id(self) -> int:
        """Return an id that neither kind of set has yet; x264 gives both of its own the same.

        Raises:
            SpliceError: There is none.
        """
        used = {_sps_id(unit) for unit in self.sps} | {_pps_id(unit) for unit in self.pps}
        free = next((number for number in range(1, _MOST_IDS) if number not in used), None)
        if free is None:
            raise SpliceError("it uses every id that a parameter set can have")
        return free

    def record(self) -> bytes:
        """Return the AVCDecoderConfigurationRecord: the profile of the first set, the highest level of all."""
        read = [Sps.parse(unit) for unit in self.sps]
        first, constraints = read[0], 255
        for sps in read:
            constraints &= sps.constraints
        level = max(sps.level_idc for sps in read)
        head = bytes([1, first.profile_idc, constraints, level, 252 | (self.length_size - 1), 224 | len(self.sps)])
        body = _listed(self.sps) + bytes([len(self.pps)]) + _listed(self.pps)
        if first.profile_idc not in _HIGH:
            return head + body
        luma, chroma = first.bit_depths
        return head + body + bytes([252 | first.chroma_format, 248 | (luma - 8), 248 | (chroma - 8), 0])


@dataclass(frozen=True, slots=True)
class PictureUnit:
    """What is in one packet.

    Attributes:
        idr: Whether nothing behind it refers to anything before it.
        sets: Parameter sets that travel in it.
    """

    idr: bool
    sets: tuple[bytes, ...]

    @classmethod
    def parse(cls, packet: memoryview, length_size: int) -> Self:
        """Look at the units of `packet` (bytes), each behind its length.

        Raises:
            SpliceError: It is no picture, or coded in a way that is not spliced here.
        """
        kinds, sets = set(), []
        for unit in _split(packet, length_size):
            kind = unit[0] & 31
            kinds.add(kind)
            if kind in {_SPS, _PPS}:
                sets.append(bytes(unit))
        if kinds & _FOREIGN:
            raise SpliceError("it has layers or partitions besides plain pictures")
        if not kinds & {_SLICE, _IDR_SLICE} or {_SLICE, _IDR_SLICE} <= kinds:
            raise SpliceError("one of its packets is not one picture")
        return cls(_IDR_SLICE in kinds, tuple(sets))


def with_length_size(packet: memoryview, length_size: int, wanted: int) -> bytes:
    """Return `packet` with lengths of `wanted` bytes instead of `length_size`.

    Raises:
        SpliceError: A unit is too long for that.
    """
    if length_size == wanted:
        return bytes(packet)
    units = list(_split(packet, length_size))
    if any(len(unit) >> (8 * wanted) for unit in units):
        raise SpliceError(f"a picture is too long for lengths of {wanted} bytes")
    return b"".join(len(unit).to_bytes(wanted, "big") + bytes(unit) for unit in units)


def _split(packet: memoryview, length_size: int) -> Iterator[memoryview]:
    place = 0
    while place < len(packet):
        length = int.from_bytes(packet[place : place + length_size], "big")
        place += length_size
        if not 0 < length <= len(packet) - place:
            raise SpliceError("one of its packets breaks off")
        yield packet[place : place + length]
        place += length


def _units(record: bytes, place: int, count: int) -> tuple[list[bytes], int]:
    units = []
    for _ in range(count):
        end = place + 2 + (record[place] << 8 | record[place + 1])
        if end > len(record) or end == place + 2:
            raise SpliceError("its avcC box breaks off")
        units.append(record[place + 2 : end])
        place = end
    return units, place


def _listed(units: Iterable[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def _sps_id(unit: bytes) -> int:
    return Sps.parse(unit).id


def _pps_id(unit: bytes) -> int:
    return _Bits(unit).ue()
