"""Streams whose fields are pictures of their own (PAFF), which no encoder at hand writes: H.264 and MPEG-2 by hand.

ITU-T H.264 (08/2021), 7.3, with macroblocks of samples as they are (I_PCM); ITU-T H.262 (02/2012), 6.2, with flat blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, Self

import av
import numpy as np

WIDTH, HEIGHT, RATE, GOP = 96, 64, 25, 12
STEP_PX = 6
"""How far the bar moves from field to field."""

Order = Literal["tff", "bff"]
_DELIMITER = b"\0\0\0\1\x09\xf0"
_LUMA_SIZES = ("100", "00", "01", "101", "110", "1110", "11110", "111110", "1111110")
_CHROMA_SIZES = ("00", "01", "10", "110", "1110", "11110", "111110", "1111110", "11111110")


class Bits:
    """Writes bits."""

    def __init__(self) -> None:
        self.bits: list[int] = []

    def put(self, value: int, count: int) -> Self:
        self.bits += [value >> place & 1 for place in range(count - 1, -1, -1)]
        return self

    def flags(self, *values: int) -> Self:
        self.bits += values
        return self

    def golomb(self, *values: int) -> Self:
        for value in values:
            length = (value + 1).bit_length()
            self.put(0, length - 1).put(value + 1, length)
        return self

    def code(self, text: str) -> Self:
        self.bits += map(int, text)
        return self

    def align(self) -> Self:
        return self.put(0, -len(self.bits) % 8)

    def raw(self, data: bytes) -> Self:
        self.bits += np.unpackbits(np.frombuffer(data, np.uint8)).tolist()
        return self

    def data(self) -> bytes:
        return np.packbits(np.array(self.align().bits, np.uint8)).tobytes()


def picture(moment: int) -> np.ndarray:
    """The picture at a field's moment: a bright bar on black."""
    luma = np.full((HEIGHT, WIDTH), 16, np.uint8)
    luma[:, (np.arange(WIDTH) - moment * STEP_PX) % WIDTH < 24] = 235
    return luma


def h264(count: int, order: Order = "tff", *, whole: Callable[[int], bool] = lambda _: False) -> list[list[bytes]]:
    """`count` frames, each as one or two coded pictures: those of `whole` are one."""
    frames = []
    for number in range(count):
        place = number % GOP
        sets = _sps() + _pps() if place == 0 else b""
        if whole(number):
            frames.append([_DELIMITER + sets + _coded(picture(2 * number), place, 2 * place, None, number // GOP)])
            continue
        fields = []
        for index in (0, 1):
            bottom = index if order == "tff" else 1 - index
            luma = picture(2 * number + index)[bottom::2]
            coded = _coded(luma, place, 2 * place + index, bottom, number // GOP, idr=place == 0 and index == 0)
            fields.append(_DELIMITER + (sets if index == 0 else b"") + coded)
        frames.append(fields)
    return frames


def mpeg2(count: int, order: Order = "tff") -> list[list[bytes]]:
    """`count` frames of two coded pictures each."""
    frames = []
    for number in range(count):
        place = number % GOP
        fields = []
        for index in (0, 1):
            bottom = index if order == "tff" else 1 - index
            sets = _sequence() if place == 0 and index == 0 else b""
            fields.append(sets + _mpeg2_field(picture(2 * number + index)[bottom::2], place, bottom))
        frames.append(fields)
    return frames


def write(path: Path, frames: Sequence[Sequence[bytes]], *, together: bool, raw_format: str = "h264") -> Path:
    """Put coded frames into a container: `together`, or each field in a packet with a time of its own."""
    raw = path.with_name(f"{path.name}.{raw_format}")
    raw.write_bytes(b"".join(field for frame in frames for field in frame))
    with (
        av.open(str(raw), format={"h264": "h264", "m2v": "mpegvideo"}[raw_format]) as source,
        av.open(str(path), "w") as output,
    ):
        stream = output.add_stream_from_template(source.streams.video[0])
        stream.time_base = Fraction(1, 90_000)
        for number, frame in enumerate(frames):
            units = [b"".join(frame)] if together else list(frame)
            ticks = 90_000 // RATE // len(units)
            for index, unit in enumerate(units):
                packet = av.Packet(unit)
                packet.stream, packet.time_base = stream, Fraction(1, 90_000)
                packet.pts = packet.dts = number * 90_000 // RATE + index * ticks
                packet.duration, packet.is_keyframe = ticks, number % GOP == 0 and index == 0
                output.mux(packet)
    return path


def _unit(header: int, bits: Bits) -> bytes:
    payload = bits.put(1, 1).data()
    made, zeros = bytearray([header]), 0
    for byte in payload:
        if zeros >= 2 and byte <= 3:
            made.append(3)
            zeros = 0
        made.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\0\0\0\1" + bytes(made)


def _sps() -> bytes:
    bits = Bits().put(100, 8).put(0, 8).put(30, 8)
    bits.golomb(0, 1, 0, 0).flags(0, 0)  # 4:2:0 in 8 bits
    bits.golomb(0, 0, 4, 1).flags(0)  # 4 bits number a frame, 8 its order; one reference
    bits.golomb(WIDTH // 16 - 1, HEIGHT // 32 - 1).flags(0, 0, 1, 0)  # fields, but not within frames
    bits.flags(1, 0, 0, 0, 0, 1).put(1, 32).put(2 * RATE, 32).flags(1, 0, 0, 0, 0)
    return _unit(0x67, bits)


def _pps() -> bytes:
    return _unit(0x68, Bits().golomb(0, 0).flags(0, 0).golomb(0, 0, 0).flags(0, 0, 0).golomb(0, 0, 0).flags(1, 0, 0))


def _coded(
    luma: np.ndarray, place: int, order: int, bottom: int | None, number: int, *, idr: bool | None = None
) -> bytes:
    idr = place == 0 if idr is None else idr
    bits = Bits().golomb(0, 7, 0).put(place, 4)
    bits.flags(0) if bottom is None else bits.flags(1, bottom)
    if idr:
        bits.golomb(number % 2)
    bits.put(order, 8)
    bits.flags(*((0, 0) if idr else (0,))).golomb(0, 1)
    for top in range(0, len(luma), 16):
        for left in range(0, WIDTH, 16):
            bits.golomb(25).align().raw(luma[top : top + 16, left : left + 16].tobytes() + bytes([128]) * 128)
    return _unit(0x65 if idr else 0x61, bits)


def _sequence() -> bytes:
    header = (
        Bits().put(WIDTH, 12).put(HEIGHT, 12).put(1, 4).put(3, 4).put(5000, 18).put(1, 1).put(50, 10).flags(0, 0, 0)
    )
    extension = Bits().put(1, 4).put(0x48, 8).put(0, 1).put(1, 2).put(0, 16).put(1, 1).put(0, 16)
    group = Bits().put(0, 12).put(1, 1).put(0, 12).flags(1, 0)
    return b"\0\0\1\xb3" + header.data() + b"\0\0\1\xb5" + extension.data() + b"\0\0\1\xb8" + group.data()


def _mpeg2_field(luma: np.ndarray, place: int, bottom: int) -> bytes:
    made = b"\0\0\1\0" + Bits().put(place, 10).put(1, 3).put(0xFFFF, 16).put(0, 1).data()
    made += b"\0\0\1\xb5" + Bits().put(8, 4).put(0xFFFF, 16).put(0, 2).put(2 if bottom else 1, 2).put(0, 10).data()
    for row in range(len(luma) // 16):
        bits, before = Bits().put(8, 5).put(0, 1), 128
        for left in range(0, WIDTH, 16):
            bits.code("11")
            for top, more in ((0, 0), (0, 8), (8, 0), (8, 8)):
                block = luma[16 * row + top :, left + more :][:8, :8]
                level = round(float(block.mean()))
                _flat(bits, level - before, _LUMA_SIZES)
                before = level
            _flat(bits, 0, _CHROMA_SIZES)
            _flat(bits, 0, _CHROMA_SIZES)
        made += b"\0\0\1" + bytes([row + 1]) + bits.data()
    return made


def _flat(bits: Bits, difference: int, sizes: Sequence[str]) -> None:
    size = abs(difference).bit_length()
    bits.code(sizes[size])
    if size:
        bits.put(difference if difference > 0 else difference + (1 << size) - 1, size)
    bits.code("10")
