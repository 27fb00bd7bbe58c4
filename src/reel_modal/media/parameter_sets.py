"""Check the coded size in H.264 and HEVC parameter sets, which determines how much a decoder allocates.

Frames may be cropped: a clip of 320 x 240 pixels may have coded frames of 16000 x 16000, and the decoder's own limit
applies to the size after cropping. Syntax: ITU-T H.264 7.3.2.1.1 and H.265 7.3.2.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from reel_modal.media.h264_headers import Bits, H264Sequence
from reel_modal.media.open import decoder_pixels, opened, oversized
from reel_modal.settings import MediaLimits

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["CodedSizeGuard", "allows_fields", "opened_picture"]

_START_CODE: Final = b"\0\0\1"
_RECORD_HEADER_BYTES: Final = {"h264": 5, "hevc": 22}
_LONGEST_SPS_BYTES: Final = 4096


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
        codec = stream.codec_context.codec.canonical_name
        self._codec = codec if codec in _RECORD_HEADER_BYTES else None
        self._path, self._limits = path, limits
        self._length_size = 0
        record = stream.codec_context.extradata or b""
        if self._codec is not None:
            self._take_record(record)

    def check(self, packet: Packet[VideoStream]) -> None:
        """Check the parameter sets in a packet.

        Raises:
            InvalidMediaError: They declare a size beyond the limits.
        """
        if self._codec is None or not packet.size:
            return
        if packet.has_sidedata("new_extradata"):
            self._take_record(bytes(packet.get_sidedata("new_extradata")))
        data = memoryview(packet)
        if self._length_size:
            self._check_units(_prefixed_units(data, self._length_size, self._codec))
        if not self._length_size or _START_CODE in bytes(data[:4]):
            self._check_units(_units(bytes(data), self._codec))

    def _take_record(self, record: bytes) -> None:
        """Parse a decoder configuration: an MP4 record, or NAL units with start codes."""
        codec = self._codec or "h264"
        self._check_units(_units(record, codec))
        header = _RECORD_HEADER_BYTES[codec]
        if len(record) > header and record[0] == 1:
            self._length_size = (record[header - 1] & 3) + 1
            self._check_units(_recorded_units(record, codec))

    def _check_units(self, units: Iterator[bytes]) -> None:
        for unit in units:
            size = _coded_size(unit, self._codec or "h264")
            if size is not None and size[0] * size[1] > decoder_pixels(self._limits):
                raise oversized(size, self._path, self._limits)


def allows_fields(record: bytes) -> bool:
    """Return whether an H.264 decoder configuration allows fields: its `frame_mbs_only_flag` is 0."""
    units = _recorded_units(record, "h264") if record[:1] == b"\x01" else _units(record, "h264")
    try:
        return any(not H264Sequence.read(Bits.of(unit)).frames_only for unit in units)
    except (ValueError, IndexError):  # damaged or missing
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


def _units(data: bytes, codec: str) -> Iterator[bytes]:
    """Yield the sequence parameter sets after start codes."""
    at = data.find(_START_CODE)
    while 0 <= at < len(data) - len(_START_CODE):
        at += len(_START_CODE)
        if _is_sps(data[at], codec):
            yield data[at : at + _LONGEST_SPS_BYTES]
        at = data.find(_START_CODE, at)


def _prefixed_units(data: memoryview, length_size: int, codec: str) -> Iterator[bytes]:
    """Yield the sequence parameter sets among length-prefixed NAL units."""
    at = 0
    while at + length_size < len(data):
        length = int.from_bytes(data[at : at + length_size], "big")
        at += length_size
        if _is_sps(data[at], codec):
            yield bytes(data[at : at + min(length, _LONGEST_SPS_BYTES)])
        at += length


def _recorded_units(record: bytes, codec: str) -> Iterator[bytes]:
    """Yield the sequence parameter sets of an MP4 configuration record (ISO/IEC 14496-15 5.3.3 and 8.3.3)."""
    header = _RECORD_HEADER_BYTES[codec]
    at = header + 1
    arrays = [record[header] & 31] if codec == "h264" else None
    for _ in range(1 if arrays else record[header]):
        count = arrays[0] if arrays else int.from_bytes(record[at + 1 : at + 3], "big")
        at += 0 if arrays else 3
        for _ in range(count):
            length = int.from_bytes(record[at : at + 2], "big")
            unit = record[at + 2 : at + 2 + length]
            at += 2 + length
            if unit and _is_sps(unit[0], codec):
                yield unit[:_LONGEST_SPS_BYTES]


def _is_sps(first: int, codec: str) -> bool:
    return first & 31 == 7 if codec == "h264" else first >> 1 & 63 == 33


def _coded_size(unit: bytes, codec: str) -> tuple[int, int] | None:
    """Return (width, height) in pixels of a sequence parameter set; None if it cannot be parsed, as in a decoder."""
    bits = Bits.of(unit)
    try:
        return H264Sequence.read(bits).size if codec == "h264" else _hevc_size(bits)
    except ValueError:
        return None


def _hevc_size(bits: Bits) -> tuple[int, int]:
    bits.skip(16 + 4)
    sublayers = bits.take(3)
    bits.skip(1 + 96)
    present = [(bits.take(1), bits.take(1)) for _ in range(sublayers)]
    bits.skip(2 * (8 - sublayers) if sublayers else 0)
    for profile, level in present:
        bits.skip(88 * profile + 8 * level)
    bits.golomb()
    if bits.golomb() == 3:
        bits.skip(1)
    return bits.golomb(), bits.golomb()
