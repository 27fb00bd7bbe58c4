"""Check the coded size in H.264 and HEVC parameter sets, which determines how much a decoder allocates.

Frames may be cropped: a clip of 320 x 240 pixels may have coded frames of 16000 x 16000, and the decoder's own limit
applies to the size after cropping. Syntax: ITU-T H.264 7.3.2.1.1 and H.265 7.3.2.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from reel_modal.errors import InvalidMediaError
from reel_modal.media.bitstream import (
    START_CODE,
    BitReader,
    BitstreamError,
    NalCodec,
    TruncatedError,
    nal_length_size,
    nal_units,
    nal_units_with_lengths,
    parameter_sets,
    rbsp,
    signed,
)
from reel_modal.media.h264_headers import NAL_SPS, Sps
from reel_modal.media.open import decoder_pixels, opened, oversized
from reel_modal.settings import MediaLimits

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["CodedSizeGuard", "allows_fields", "coded_sizes", "opened_picture"]

_CODECS: Final[dict[str, NalCodec]] = {"h264": "h264", "hevc": "hevc"}
_HEVC_SPS: Final = 33
# The longest H.264 SPS that a decoder accepts: 12 scaling lists and 257 offsets, with emulation prevention bytes.
_MOST_SPS_BYTES: Final = 8192
_MOST_LEADING_ZEROS: Final = 31
_UNIT_END: Final = re.compile(rb"\0\0[\1\2]")
_PADDING_BYTES: Final = 16


class CodedSizeGuard:
    """A check that rejects a stream with coded frames beyond the limits, before a decoder gets them.

    Args:
        stream: The stream; other codecs are always accepted.
        path: Path of the file, for the message.
        limits: The accepted sizes.

    Raises:
        InvalidMediaError: The stream's header declares a larger size.
    """

    def __init__(self, stream: VideoStream, path: Path, limits: MediaLimits) -> None:
        self._codec = _CODECS.get(stream.codec_context.codec.canonical_name)
        self._path, self._limits = path, limits
        self._length_size = 0
        if self._codec is not None:
            self._check_record(stream.codec_context.extradata or b"", self._codec)

    def check(self, packet: Packet[VideoStream]) -> None:
        """Check the parameter sets in a packet.

        Raises:
            InvalidMediaError: They declare a size beyond the limits.
        """
        if self._codec is None or not packet.size:
            return
        if packet.has_sidedata("new_extradata"):
            self._check_record(bytes(packet.get_sidedata("new_extradata")), self._codec)
        data = memoryview(packet)
        if self._length_size:
            for unit in nal_units_with_lengths(data, self._length_size):
                self._check_units((unit, *nal_units(bytes(unit))), self._codec)
        if not self._length_size or START_CODE in bytes(data[:4]):
            self._check_last_cut(bytes(data), self._codec)

    def _check_record(self, record: bytes, codec: NalCodec) -> None:
        length_size = nal_length_size(record, codec)
        if length_size is not None:
            self._length_size = length_size
            self._check_units(parameter_sets(record, codec), codec)
        self._check_last_cut(record, codec)

    def _check_last_cut(self, data: bytes, codec: NalCodec) -> None:
        """Check the NAL units after start codes; at the end of a truncated file, the last one may be cut off."""
        units = list(nal_units(data))
        self._check_units(units[:-1], codec)
        self._check_units((bytes(unit) + bytes(_PADDING_BYTES) for unit in units[-1:]), codec)

    def _check_units(self, units: Iterable[bytes | memoryview], codec: NalCodec) -> None:
        for unit in units:
            if not _is_sps(unit[0], codec):
                continue
            try:
                sizes = coded_sizes(bytes(unit[:_MOST_SPS_BYTES]), codec)
            except TruncatedError as error:
                raise InvalidMediaError(f"{str(self._path)!r} cannot be decoded: {error}") from error
            for size in sizes:
                if size[0] * size[1] > decoder_pixels(self._limits):
                    raise oversized(size, self._path, self._limits)


def allows_fields(record: bytes) -> bool:
    """Return whether an H.264 decoder configuration allows fields: its `frame_mbs_only_flag` is 0."""
    units = (bytes(unit) for unit in parameter_sets(record, "h264") if _is_sps(unit[0], "h264"))
    try:
        return any(not Sps.read(BitReader(rbsp(unit), "a parameter set")).frames_only for unit in units)
    except BitstreamError:
        return False


@contextmanager
def opened_picture(
    path: Path, stream_index: int, limits: MediaLimits, data: BinaryIO | None = None
) -> Iterator[tuple[InputContainer, VideoStream, CodedSizeGuard]]:
    """Open a file for decoding within the limits; the caller must pass each packet to the guard.

    Args:
        path: The file.
        stream_index: Index of the video stream.
        limits: Larger frames are not decoded.
        data: A stream to read the file's bytes from, instead of `path`.

    Raises:
        InvalidMediaError: The file cannot be read, or its header declares a size beyond the limits.
    """
    with opened(path, data, limits=limits) as container:
        stream = next(stream for stream in container.streams.video if stream.index == stream_index)
        stream.codec_context.options = {"max_pixels": str(decoder_pixels(limits))}
        yield container, stream, CodedSizeGuard(stream, path, limits)


def _is_sps(first: int, codec: NalCodec) -> bool:
    return first & 31 == NAL_SPS if codec == "h264" else first >> 1 & 63 == _HEVC_SPS


def coded_sizes(unit: bytes, codec: NalCodec) -> list[tuple[int, int]]:
    """Return each (width, height) in pixels that a decoder may read from a sequence parameter set; [] if damaged.

    Raises:
        TruncatedError: The unit ends before the size; libavcodec continues to read in the bytes that follow.
    """
    sizes = []
    if codec == "hevc":
        with suppress(BitstreamError):
            sizes.append(_hevc_size(BitReader(rbsp(unit), "a parameter set")))
        return sizes
    unit = _UNIT_END.split(unit, maxsplit=1)[0]
    unescaped = rbsp(unit)
    try:
        sizes.append(Sps.read(_DecoderBits(unescaped, "a parameter set")).coded_size)
    except TruncatedError:
        raise
    except BitstreamError:
        pass
    if unescaped != unit[1:]:  # libavcodec tries again with the emulation prevention bytes
        with suppress(BitstreamError):
            sizes.append(Sps.read(_DecoderBits(unit[1:], "a parameter set")).coded_size)
    return sizes


class _DecoderBits(BitReader):
    """Reader of an H.264 SPS that accepts what libavcodec accepts (`h264_ps.c`, `h2645_parse.c` and `golomb.h`)."""

    def se(self) -> int:
        """Read a signed Exp-Golomb code, of at most 63 bits if it has more leading zeros than the standard allows."""
        zeros = 0
        while zeros <= _MOST_LEADING_ZEROS and not self.flag():
            zeros += 1
        if zeros > _MOST_LEADING_ZEROS:
            return signed(self.read(_MOST_LEADING_ZEROS) - 1)
        return signed((1 << zeros) - 1 + self.read(zeros))


def _hevc_size(bits: BitReader) -> tuple[int, int]:
    bits.read(8 + 4)
    sublayers = bits.read(3)
    bits.read(1 + 96)
    present = [(bits.read(1), bits.read(1)) for _ in range(sublayers)]
    bits.read(2 * (8 - sublayers) if sublayers else 0)
    for profile, level in present:
        bits.read(88 * profile + 8 * level)
    bits.ue()
    if bits.ue() == 3:
        bits.read(1)
    return bits.ue(), bits.ue()
