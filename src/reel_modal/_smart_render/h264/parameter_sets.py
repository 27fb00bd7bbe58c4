"""Parse H.264 access units, parameter sets and `avcC` boxes, as far as a splice needs them.

Sources: ITU-T H.264 (08/2021), 7.3 and annexes A and E.1; ISO/IEC 14496-15 (2022), 5.3. Works on bytes and does
not import libav.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Self

from reel_modal.errors import SpliceError
from reel_modal.media.bitstream import BitstreamError
from reel_modal.media.frames import PixelFormat
from reel_modal.media.h264_headers import HIGH_PROFILES, LAST_SPS_ID, NAL_PPS, NAL_SPS, Pps, Sps

__all__ = [
    "IDR_SLICE",
    "SEI",
    "SLICE",
    "AccessUnit",
    "ParameterSets",
    "as_splice_errors",
    "iter_nal_units",
    "parse_pps",
    "parse_sps",
    "pixel_format_of",
    "set_nal_length_size",
    "x264_profile",
]

SLICE, IDR_SLICE, SEI = 1, 5, 6
# NAL unit types of enhancement layers, auxiliary pictures and data partitions, which are not supported.
_FOREIGN: Final = frozenset({2, 3, 4, 13, 14, 15, 19, 20, 21})
# x264's profile names: by `profile_idc` here, and by sample format below.
_LOW: Final = {66: "baseline", 77: "main"}
_PROFILES: Final[dict[tuple[int, int], tuple[PixelFormat, str]]] = {
    (1, 8): ("yuv420p", "high"),
    (1, 10): ("yuv420p10le", "high10"),
    (2, 8): ("yuv422p", "high422"),
    (2, 10): ("yuv422p10le", "high422"),
    (3, 8): ("yuv444p", "high444"),
    (3, 10): ("yuv444p10le", "high444"),
}
"""By chroma format and bits per sample: the pixel format, and the lowest profile that supports it."""

# Not in this set: profiles of scalable and stereo video, and CAVLC 4:4:4 Intra.
_PLAIN: Final = frozenset({66, 77, 100, 110, 122, 244})
# Limits of an avcC box (ISO/IEC 14496-15, 5.3.3.1).
_MOST_SPS: Final = 31
_MOST_PPS: Final = 255
_MOST_SET_BYTES: Final = 0xFFFF


@contextmanager
def as_splice_errors() -> Iterator[None]:
    """Convert the BitstreamError of a damaged header to SpliceError."""
    try:
        yield
    except BitstreamError as error:
        raise SpliceError(str(error)) from error


def parse_sps(unit: bytes) -> Sps:
    """Parse a NAL unit of type 7.

    Raises:
        SpliceError: The unit cannot be read.
    """
    with as_splice_errors():
        return Sps.parse(unit)


def parse_pps(unit: bytes) -> Pps:
    """Parse a NAL unit of type 8.

    Raises:
        SpliceError: The unit cannot be read.
    """
    with as_splice_errors():
        return Pps.parse(unit)


def pixel_format_of(sps: Sps) -> PixelFormat | None:
    """Return the pixel format of the frames; None if x264 cannot encode such frames."""
    return _sample_format(sps)[0]


def x264_profile(sps: Sps) -> str:
    """Return x264's profile name: baseline or main if it is one of these, else the lowest profile for the samples."""
    return _LOW.get(sps.profile_idc) or _sample_format(sps)[1]


def _sample_format(sps: Sps) -> tuple[PixelFormat | None, str]:
    luma, chroma = sps.bit_depths
    if sps.separate_planes or luma != chroma or sps.profile_idc not in _PLAIN:
        return None, ""
    return _PROFILES.get((sps.chroma_format, luma), (None, ""))


@dataclass(frozen=True, slots=True)
class ParameterSets:
    """The sequence and picture parameter sets of a track, as stored in an `avcC` box.

    Attributes:
        sps: Whole NAL units of type 7.
        pps: Whole NAL units of type 8.
        length_size: Bytes of the length before each NAL unit of a packet.
    """

    sps: tuple[bytes, ...]
    pps: tuple[bytes, ...]
    length_size: int = 4

    @classmethod
    def parse(cls, record: bytes) -> Self:
        """Parse an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, 5.3.3.1).

        Raises:
            SpliceError: The bytes are not such a record, or it holds unsupported NAL units.
        """
        if len(record) < 7 or record[0] != 1:
            raise SpliceError("its parameter sets are not in an avcC box")
        try:
            sps, place = _units(record, 6, record[5] & 31)
            pps, place = _units(record, place + 1, record[place])
        except IndexError as error:
            raise SpliceError("its avcC box is truncated") from error
        if not sps or not pps:
            raise SpliceError("its avcC box has no parameter sets")
        if {unit[0] & 31 for unit in sps} != {NAL_SPS} or {unit[0] & 31 for unit in pps} != {NAL_PPS}:
            raise SpliceError("its avcC box has unsupported parameter sets")
        return cls(tuple(sps), tuple(pps), (record[4] & 3) + 1)

    def with_units(self, units: Iterable[bytes]) -> Self:
        """Return these parameter sets together with `units`.

        Raises:
            SpliceError: Two different sets have the same id, or an avcC box cannot hold all sets.
        """
        sps = {parse_sps(unit).id: unit for unit in self.sps}
        pps = {parse_pps(unit).id: unit for unit in self.pps}
        for unit in units:
            if len(unit) > _MOST_SET_BYTES:
                raise SpliceError("one of its parameter sets is too long for an avcC box")
            by_id, number = (sps, parse_sps(unit).id) if unit[0] & 31 == NAL_SPS else (pps, parse_pps(unit).id)
            if by_id.setdefault(number, unit) != unit:
                raise SpliceError("its parameter sets change within the stream")
        if len(sps) > _MOST_SPS or len(pps) > _MOST_PPS:
            raise SpliceError("it has more parameter sets than an avcC box can hold")
        return replace(self, sps=tuple(sps.values()), pps=tuple(pps.values()))

    def free_id(self) -> int:
        """Return an id that no SPS and no PPS uses; x264 uses one id for both of its sets.

        Raises:
            SpliceError: Every id is in use.
        """
        used = {parse_sps(unit).id for unit in self.sps} | {parse_pps(unit).id for unit in self.pps}
        free = next((number for number in range(1, LAST_SPS_ID + 1) if number not in used), None)
        if free is None:
            raise SpliceError("it uses every possible id of a parameter set")
        return free

    def record(self) -> bytes:
        """Return the AVCDecoderConfigurationRecord, with the profile of the first SPS and the highest level."""
        read = [parse_sps(unit) for unit in self.sps]
        first, constraints = read[0], 255
        for sps in read:
            constraints &= sps.constraints
        level = max(sps.level_idc for sps in read)
        head = bytes([1, first.profile_idc, constraints, level, 252 | (self.length_size - 1), 224 | len(self.sps)])
        body = _listed(self.sps) + bytes([len(self.pps)]) + _listed(self.pps)
        if first.profile_idc not in HIGH_PROFILES:
            return head + body
        luma, chroma = first.bit_depths
        return head + body + bytes([252 | first.chroma_format, 248 | (luma - 8), 248 | (chroma - 8), 0])


@dataclass(frozen=True, slots=True)
class AccessUnit:
    """The contents of one packet.

    Attributes:
        idr: Whether it is an IDR picture: no later packet refers to anything before it.
        sets: The parameter sets inside the packet.
    """

    idr: bool
    sets: tuple[bytes, ...]

    @classmethod
    def parse(cls, packet: memoryview, length_size: int) -> Self:
        """Parse the NAL units of `packet` (bytes), each stored after its length.

        Raises:
            SpliceError: The packet is not exactly one coded picture, or uses unsupported NAL units.
        """
        kinds, sets = set(), []
        for unit in iter_nal_units(packet, length_size):
            kind = unit[0] & 31
            kinds.add(kind)
            if kind in {NAL_SPS, NAL_PPS}:
                sets.append(bytes(unit))
        if kinds & _FOREIGN:
            raise SpliceError("it has unsupported layers or data partitions")
        if not kinds & {SLICE, IDR_SLICE} or {SLICE, IDR_SLICE} <= kinds:
            raise SpliceError("one of its packets is not exactly one coded picture")
        return cls(IDR_SLICE in kinds, tuple(sets))


def set_nal_length_size(packet: memoryview, length_size: int, new_size: int) -> bytes:
    """Return `packet` with NAL unit lengths of `new_size` bytes instead of `length_size`.

    Raises:
        SpliceError: A NAL unit is too long for `new_size` bytes.
    """
    if length_size == new_size:
        return bytes(packet)
    units = list(iter_nal_units(packet, length_size))
    if any(len(unit) >> (8 * new_size) for unit in units):
        raise SpliceError(f"a frame is too long for lengths of {new_size} bytes")
    return b"".join(len(unit).to_bytes(new_size, "big") + bytes(unit) for unit in units)


def iter_nal_units(packet: memoryview, length_size: int) -> Iterator[memoryview]:
    """Yield the NAL units of `packet`, without the lengths before them.

    Raises:
        SpliceError: The packet is truncated.
    """
    place = 0
    while place < len(packet):
        length = int.from_bytes(packet[place : place + length_size], "big")
        place += length_size
        if not 0 < length <= len(packet) - place:
            raise SpliceError("one of its packets is truncated")
        yield packet[place : place + length]
        place += length


def _units(record: bytes, place: int, count: int) -> tuple[list[bytes], int]:
    units = []
    for _ in range(count):
        end = place + 2 + (record[place] << 8 | record[place + 1])
        if end > len(record) or end == place + 2:
            raise SpliceError("its avcC box is truncated")
        units.append(record[place + 2 : end])
        place = end
    return units, place


def _listed(units: Iterable[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)
