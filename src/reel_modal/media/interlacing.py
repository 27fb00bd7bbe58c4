"""Detect whether a video is interlaced, by decoding some of its frames.

Headers and flags can be wrong in both directions: cameras store progressive video as interlaced, and editors store
interlaced video without a mark. So frames are compared with their neighbors, as in ffmpeg's filter `idet`.
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

from reel_modal.media.coded_size import CodedSizeGuard, allows_fields, opened_picture
from reel_modal.media.open import packets_of
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.settings import MediaLimits

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["FieldOrder", "Fields", "detect_fields", "may_have_fields"]

FieldOrder: TypeAlias = Literal["tff", "bff"]
"""The first field of a frame: top or bottom."""

_Luma: TypeAlias = npt.NDArray[np.int32]
_Vote: TypeAlias = Literal["tff", "bff", "progressive", "unknown"]

_MICROSECONDS: Final = 1_000_000
_INTERLACED_ORDERS: Final = frozenset({2, 3, 4, 5})  # AVFieldOrder: TT, BB, TB, BT
# libavcodec returns each field of HEVC as a separate frame.
_NEVER: Final = frozenset({"hevc", "vvc"})
_PLACES: Final = (Fraction(0), Fraction(1, 3), Fraction(2, 3))
_FRAMES_AT_EACH: Final = 12
_MOST_PACKETS: Final = 300
_EACH_COLUMN: Final = 4
_FEWEST_LINES: Final = 8
# The thresholds of `idet`. Motion of fine lines in a progressive frame can exceed the first one, so unmarked frames
# need a higher value. A verdict needs this many votes, and this many times the votes against it.
_FIELDS_DIFFER: Final = 1.04
_FIELDS_CLEARLY_DIFFER: Final = 1.4
_LINES_FIT: Final = 1.5
_FEWEST_VOTES: Final = 4


@dataclass(frozen=True, slots=True)
class Fields:
    """The result of the detection.

    Attributes:
        interlaced: Whether frames consist of two fields, captured one after the other.
        unmarked_order: The first field if the video is interlaced but its frames do not specify it; else None.
    """

    interlaced: bool
    unmarked_order: FieldOrder | None = None


def may_have_fields(stream: VideoStream, frame: VideoFrame) -> bool:
    """Return whether the header or the first frame `frame` allows interlaced frames."""
    context = stream.codec_context
    codec = context.codec.canonical_name
    if codec in _NEVER or frame.height < _FEWEST_LINES:
        return False
    if frame.interlaced_frame or int(context.field_order) in _INTERLACED_ORDERS:
        return True
    return codec == "h264" and allows_fields(context.extradata or b"")


def detect_fields(
    path: Path,
    stream_index: int,
    duration_seconds: Fraction | None,
    limits: MediaLimits,
    data: BinaryIO | None = None,
) -> Fields:
    """Decode some frames at three positions and detect whether they are interlaced.

    The image content decides if it is clear; otherwise, for example without motion, the flags decide.

    Args:
        path: The file.
        stream_index: Index of the video stream.
        duration_seconds: Its duration, from the headers; None checks only the beginning.
        limits: Larger frames are not decoded.
        data: A stream to read the file's bytes from, instead of `path`.
    """
    votes: Counter[_Vote] = Counter()
    marked = 0
    with opened_picture(path, stream_index, limits, data) as (container, stream, guard):
        stream.thread_type = "AUTO"  # a position may be many frames after a keyframe
        begins = Fraction(container.start_time or 0, _MICROSECONDS)
        for place in _PLACES if duration_seconds is not None else _PLACES[:1]:
            after = begins + place * (duration_seconds or 0)
            if place and not _seek_to(container, after):
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
    """Return the verdict for a video that has `marked` frames, or a header that is `declared` interlaced."""
    woven = votes["tff"] + votes["bff"]
    if marked:
        overruled = votes["progressive"] >= _FEWEST_VOTES * max(woven, 1)
        return Fields(interlaced=not overruled)
    if not declared or woven < _FEWEST_VOTES * max(votes["progressive"], 1):
        return Fields(interlaced=False)
    return Fields(interlaced=True, unmarked_order="tff" if votes["tff"] > votes["bff"] else "bff")


def _seek_to(container: InputContainer, seconds: Fraction) -> bool:
    from av.error import FFmpegError

    try:
        container.seek(int(seconds * _MICROSECONDS))
    except FFmpegError:
        return False
    return True


def _decoded(
    container: InputContainer, stream: VideoStream, guard: CodedSizeGuard, after: Fraction
) -> Iterator[VideoFrame]:
    """Yield the frames from the timestamp `after` (seconds) on, up to the end or to the point of truncation."""
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
    """Classify the second of three frames by which neighbor's lines fit best between its own lines.

    The measures are those of libavfilter/vf_idet.c. The lines of a progressive frame fit best between their own. This
    is checked first, because motion of fine lines alone may favor one neighbor.
    """
    before, frame, after = pictures
    around = frame[1:-3] + frame[3:-1]  # sums of the lines above and below lines 2 to the third from last

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
