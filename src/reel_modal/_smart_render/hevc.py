"""Read from HEVC packets at which of them decoding can begin.

Sources: ITU-T H.265 (08/2021), 7.3.1.2, 7.3.6.1 and table 7-1; ISO/IEC 14496-15 (2022), 8.3.2.1.
"""

from __future__ import annotations

from typing import Final, Self

from reel_modal._smart_render.h264.parameter_sets import as_splice_errors, iter_nal_units
from reel_modal.errors import SpliceError
from reel_modal.media.bitstream import BitReader, nal_length_size, parameter_sets, rbsp

__all__ = ["HevcUnits"]

# NAL unit types. Not in these sets: BLA pictures, the end of a sequence, enhancement layers, and reserved types.
_IDR: Final = frozenset({19, 20})
_PICTURES: Final = frozenset({*range(10), *_IDR, 21})
_SETS: Final = frozenset({32, 33, 34})
_SPS, _PPS = 33, 34
# Delimiters, filler data, SEI messages, and Dolby Vision metadata.
_WITHOUT_EFFECT: Final = frozenset({35, 38, 39, 40, 62})
_HEADER_BYTES: Final = 2
_MOST_ID_BYTES: Final = 8


class HevcUnits:
    """The NAL units of a track, in whose packets each IDR picture is recognized.

    No packet after an IDR picture refers to one before it. That is also true of a CRA picture, except for the leading
    pictures after it, which a decoder that begins there drops; so decoding does not begin at a CRA picture.

    Args:
        length_size: Bytes of the length before each NAL unit.
        sets: The parameter sets of the track.
    """

    def __init__(self, length_size: int, sets: frozenset[bytes]) -> None:
        self.length_size: int = length_size
        self._sets = sets
        self._began = False

    @classmethod
    def parse(cls, record: bytes) -> Self:
        """Parse an HEVCDecoderConfigurationRecord, the content of an `hvcC` box.

        Raises:
            SpliceError: The bytes are not such a record, or contain several parameter sets with one id.
        """
        length_size = nal_length_size(record, "hevc")
        if length_size is None:
            raise SpliceError("its parameter sets are not in an hvcC box")
        sets = {bytes(unit) for unit in parameter_sets(record, "hevc") if _kind(unit) in _SETS}
        with as_splice_errors():
            ids = [_id(unit) for unit in sets]
        if len(set(ids)) < len(ids) or sum(kind == _SPS for kind, _ in ids) != 1:
            raise SpliceError("its parameter sets change")
        return cls(length_size, frozenset(sets))

    def take(self, packet: memoryview) -> bool:
        """Return whether the next packet is an IDR picture.

        Raises:
            SpliceError: The packet is not exactly one coded picture, drops earlier ones, changes the parameter sets,
                or has unsupported NAL units.
        """
        kinds, pictures = set[int](), 0
        for unit in iter_nal_units(packet, self.length_size):
            if len(unit) <= _HEADER_BYTES:
                raise SpliceError("it has NAL units without content, which are not supported")
            kind, layer = _kind(unit), (unit[0] & 1) << 5 | unit[1] >> 3
            if layer or kind not in _PICTURES | _SETS | _WITHOUT_EFFECT:
                raise SpliceError(f"it has NAL units of type {kind} in layer {layer}, which are not supported")
            if kind in _SETS and bytes(unit) not in self._sets:
                raise SpliceError("its parameter sets change within the stream")
            if kind in _PICTURES:
                kinds.add(kind)
                pictures += unit[2] >> 7  # first_slice_segment_in_pic_flag
                if kind in _IDR and unit[2] & 0x40 and self._began:  # no_output_of_prior_pics_flag
                    raise SpliceError("frames before one of its keyframes are not shown")
        if pictures != 1 or len(kinds) != 1:
            raise SpliceError("one of its packets is not exactly one coded picture")
        self._began = True
        return kinds <= _IDR

    def take_flag(self, *, keyframe: bool) -> bool:
        """Return False for a packet whose data is not read and that is no keyframe.

        Raises:
            SpliceError: It is a keyframe: the flag does not distinguish IDR from CRA pictures.
        """
        if keyframe:
            raise SpliceError("its codec is hevc, and keyframes far from the kept part are not read")
        return False


def _kind(unit: bytes | memoryview) -> int:
    return unit[0] >> 1 & 63


def _id(unit: bytes) -> tuple[int, int]:
    """Return the type of a parameter set, and its id within the type; there is one SPS."""
    bits = BitReader(rbsp(unit[1:_MOST_ID_BYTES]), "a parameter set")
    if _kind(unit) == _SPS:
        return _SPS, 0
    return _kind(unit), bits.ue() if _kind(unit) == _PPS else bits.read(4)
