"""Say whether the pictures of a video are two fields each, by decoding some of them.

Headers and flags are wrong in both directions: cameras store progressive pictures as interlaced, and editors store
interlaced ones without a mark. So pictures are compared with their neighbors, as ffmpeg's filter `idet` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from reel_modal.config import MediaLimits
from reel_modal.media.parameter_sets import CodedSizeGuard, allows_fields, opened_picture
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.media.untrusted import packets_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["FieldOrder", "Fields", "look_at_fields", "may_have_fields"]

FieldOrder: TypeAlias = Literal["tff", "bff"]
"""Which field of a picture comes first: the top or the bottom one."""

_Luma: TypeAlias = npt.NDArray[np.int32]
_Vote: TypeAlias = Literal["tff", "bff", "progressive", "unknown"]

_MICROSECONDS: Final = 1_000_000
_INTERLACED_ORDERS: Final = frozenset({2, 3, 4, 5})  # AVFieldOrder: TT, BB, TB, BT
# libavcodec gives each field of HEVC as a picture of its own.
_NEVER: Final = frozenset({"hevc", "vvc"})
_PLACES: Final = (Fraction(0), Fraction(1, 3), Fraction(2, 3))
_FRAMES_AT_EACH: Final = 12
_MOST_PACKETS: Final = 300
_EACH_COLUMN: Final = 4
_FEWEST_LINES: Final = 8
# The thresholds of `idet`. Motion of fine lines in a progressive picture can be above the first one, so pictures that
# are not marked need more. A verdict needs this many votes, and this many times those against it.
_FIELDS_DIFFER: Final = 1.04
_FIELDS_CLEARLY_DIFFER: Final = 1.4
_LINES_FIT: Final = 1.5
_FEWEST_VOTES: Final = 4


@dataclass(frozen=True, slots=True)
class Fields:
    """What was found.

    Attributes:
        interlaced: Whether pictures are two fields, taken one after the other.
        unmarked_order: Which field comes first if they are and their frames do not say so; None if they do.
    """

    interlaced: bool
    unmarked_order: FieldOrder | None = None


def may_have_fields(stream: VideoStream, frame: VideoFrame) -> bool:
    """Return whether a header, or the first picture `frame`, leaves room for interlaced pictures."""
    context = stream.codec_context
    codec = context.codec.canonical_name
    if codec in _NEVER or frame.height < _FEWEST_LINES:
        return False
    if frame.interlaced_frame or int(context.field_order) in _INTERLACED_ORDERS:
        return True
    return codec == "h264" and allows_fields(context.extradata or b"")


def look_at_fields(
    path: Path,
    stream_index: int,
    duration_seconds: Fraction | None,
    limits: MediaLimits,
    data: BinaryIO | None = None,
) -> Fields:
    """Decode some pictures at three places, and say whether they are interlaced.

    What pictures show decides if it is clear; if it is not, or nothing moves, their flags do.

    Args:
        path: The file.
        stream_index: Of the picture.
        duration_seconds: Of the picture, by the headers; None looks at the beginning alone.
        limits: Larger pictures are not decoded.
        data: Where the bytes of the file are read from instead.
    """
    votes: Counter[_Vote] = Counter()
    marked = 0
    with opened_picture(path, stream_index, limits, data) as (container, stream, guard):
        stream.thread_type = "AUTO"  # a place may be many pictures after a keyframe
        begins = Fraction(container.start_time or 0, _MICROSECONDS)
        for place in _PLACES if duration_seconds is not None else _PLACES[:1]:
            after = begins + place * (duration_seconds or 0)
            if place and not _gone_to(container, after):
                break
            last: list[_Luma] = []
            for frame in islice(_decoded(container, stream, guard, after), _FRAMES_AT_EACH):
                marked += frame.interlaced_frame
                last = [*last[-2:], _luma(frame)]
                if len(last) == 3 and len({luma.shape for luma in last}) == 1:
                    differ = _FIELDS_DIFFER if frame.interlaced_frame else _FIELDS_CLEARLY_DIFFER
                    votes[_vote(last, differ)] += 1
        declared = int(stream.codec_context.field_order) in _INTERLACED_ORDERS
    return _fields(votes, marked=marked > 0, declared=declared)


def _fields(votes: Counter[_Vote], *, marked: bool, declared: bool) -> Fields:
    """Return the verdict on a clip some of whose pictures are `marked`, or whose header is `declared` interlaced."""
    woven = votes["tff"] + votes["bff"]
    if marked:
        overruled = votes["progressive"] >= _FEWEST_VOTES * max(woven, 1)
        return Fields(interlaced=not overruled)
    if not declared or woven < _FEWEST_VOTES * max(votes["progressive"], 1):
        return Fields(interlaced=False)
    return Fields(interlaced=True, unmarked_order="tff" if votes["tff"] > votes["bff"] else "bff")


def _gone_to(container: InputContainer, seconds: Fraction) -> bool:
    from av.error import FFmpegError

    try:
        container.seek(int(seconds * _MICROSECONDS))
    except FFmpegError:
        return False
    return True


def _decoded(
    container: InputContainer, stream: VideoStream, guard: CodedSizeGuard, after: Fraction
) -> Iterator[VideoFrame]:
    """Yield the pictures from `after` on, in seconds on the file's clock, up to where the file breaks off."""
    from av.error import FFmpegError

    first = int(after / seconds_per_tick(stream))
    stream.codec_context.flush_buffers()
    packets = islice(packets_of(container, stream), _MOST_PACKETS)
    while True:
        packet = None
        frames: list[VideoFrame] = []
        with suppress(FFmpegError):
            packet = next(packets, None)
        if packet is None:
            return
        guard.check(packet)
        with suppress(FFmpegError, ValueError):
            frames = packet.decode()
        yield from (frame for frame in frames if frame.pts is None or frame.pts >= first)


def _luma(frame: VideoFrame) -> _Luma:
    """Return some columns of the first plane, with all lines."""
    plane = frame.planes[0]
    kind = np.uint8 if frame.format.components[0].bits <= 8 else np.dtype("<u2")
    rows = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)
    return rows[:, : frame.width : _EACH_COLUMN].astype(np.int32)


def _vote(pictures: Sequence[_Luma], differ: float) -> _Vote:
    """Return what the second of three pictures is, by which neighbor's lines fit best between its own.

    The measures are those of libavfilter/vf_idet.c. Lines of a progressive picture fit best between their own; it is
    asked first, since motion of fine lines alone may favor one neighbor.
    """
    before, frame, after = pictures
    around = frame[1:-3] + frame[3:-1]  # the lines above and below of lines 2 to the last but two

    def misfit(lines: _Luma) -> tuple[float, float]:
        off = np.abs(around - 2 * lines[2:-2]).sum(axis=1, dtype=np.float64)
        return float(off[::2].sum()), float(off[1::2].sum())

    even_before, odd_before = misfit(before)
    even_after, odd_after = misfit(after)
    top, bottom = even_before + odd_after, odd_before + even_after
    if min(top, bottom) > _LINES_FIT * sum(misfit(frame)):
        return "progressive"
    if top > differ * bottom:
        return "tff"
    return "bff" if bottom > differ * top else "unknown"
