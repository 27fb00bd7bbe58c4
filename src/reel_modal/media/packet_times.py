"""Gives the frames of an encoded video times of their own, without touching their data.

It must not know who encoded it, nor what the frames show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reel_modal.errors import OutputMismatchError
from reel_modal.media.muxing import is_mp4_like
from reel_modal.media.pyav import open_output
from reel_modal.media.timestamps import PacketTimes
from reel_modal.media.untrusted import file_url, opened, packets_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["check_times", "keeping_last", "set_times"]

# MPEG's clock; times that need a finer one than containers keep are rounded to it.
_MPEG_HZ: Final = 90_000
_FINEST_HZ: Final = 1_000_000
_ROUNDED_SECONDS: Final = 0.0006  # Matroska keeps milliseconds


def set_times(
    source: Path,
    target: Path,
    seconds: Sequence[Fraction],
    last_seconds: Fraction,
    options: Mapping[str, str] | None = None,
) -> None:
    """Write the video `source` as `target`, its frame k shown from `seconds[k]` on.

    Args:
        source: A video of one stream, as an encoder wrote it.
        target: Its suffix chooses the container.
        seconds: Of each frame in the order in which they are shown, from the first on, rising.
        last_seconds: How long the last frame is shown.
        options: Of the container's muxer, such as `{"movflags": "+faststart"}`.

    Raises:
        OutputMismatchError: The video has another number of frames.
        InvalidMediaError: The file cannot be read or written.
    """
    hertz = math.lcm(*(moment.denominator for moment in (*seconds, last_seconds)))
    hertz = hertz if hertz <= _FINEST_HZ else _MPEG_HZ
    ticks = [round(moment * hertz) for moment in seconds]
    with opened(source) as video:
        coded = [packet.pts or 0 for packet in _packets(video, video.streams.video[0])]
    if len(coded) != len(ticks):
        raise OutputMismatchError(f"{len(ticks)} frames were written to the encoder but {len(coded)} are in its file")
    rank = {pts: number for number, pts in enumerate(sorted(coded))}
    # Decoding times rise from packet to packet and are never behind the time of their frame: as many frames late as
    # the frame that comes earliest before its turn.
    delay = max(number - rank[pts] for number, pts in enumerate(coded))
    lengths = [later - tick for tick, later in pairwise([*ticks, ticks[-1] + round(last_seconds * hertz)])]
    with opened(source) as video, open_output(file_url(target), options=options or {}) as output:
        output.metadata.update(video.metadata)
        written = output.add_stream_from_template(video.streams.video[0])
        written.time_base = Fraction(1, hertz)
        for number, packet in enumerate(_packets(video, video.streams.video[0])):
            frame = rank[packet.pts or 0]
            packet.dts = ticks[number - delay] if number >= delay else ticks[0] - (delay - number)
            packet.pts, packet.duration = ticks[frame], lengths[frame]
            if number == len(ticks) - 1 and is_mp4_like(target):  # it says there how long the last picture lasts
                packet.duration = lengths[-1]
            packet.time_base = Fraction(1, hertz)
            packet.stream = written
            output.mux(packet)


def check_times(
    found: PacketTimes, seconds: Sequence[Fraction], last_seconds: Fraction, *, frame_seconds: Fraction
) -> Fraction:
    """Check that frames are shown when they were to be, as exactly as the file keeps times.

    Args:
        found: Times in the finished file.
        seconds: Of each frame, as they were asked for.
        last_seconds: How long the last frame is shown.
        frame_seconds: The usual length of a frame, which a container may write for a shorter last one.

    Returns:
        Seconds from the first frame to the end of the last, by the file.

    Raises:
        OutputMismatchError: A frame is shown at another time, or the last one for another time.
    """
    allowed = found.tick_seconds + Fraction(1, _MPEG_HZ)
    starts = [(tick - found.ticks[0]) * found.tick_seconds for tick in found.ticks]
    for number, (start, asked) in enumerate(zip(starts, seconds, strict=True)):
        if abs(start - (asked - seconds[0])) > allowed:
            raise OutputMismatchError(
                f"frame {number} is shown at {float(start):g} s of the file, not at {float(asked - seconds[0]):g} s;"
                " nothing is kept"
            )
    lasts = found.last_duration_ticks * found.tick_seconds
    if abs(lasts - last_seconds) > allowed and not last_seconds < lasts <= frame_seconds + allowed:
        raise OutputMismatchError(
            f"the last frame is shown for {float(lasts):g} s in the file, not for {float(last_seconds):g} s;"
            " nothing is kept"
        )
    return starts[-1] + lasts


def keeping_last(video: Path, seconds: Sequence[Fraction], last_seconds: Fraction) -> tuple[str, ...]:
    """Return ffmpeg's options that keep how long the last frame lasts, which ffmpeg before 6 forgets in a copy.

    Args:
        video: What is copied.
        seconds: Of each of its frames; empty if it has a constant rate, which needs no option.
        last_seconds: How long the last one lasts.
    """
    if not seconds:
        return ()
    # MP4 has it in the packet that is decoded last, others in the one that is shown last.
    last = f"PTS*TB,{float(seconds[-1] - seconds[0]) - _ROUNDED_SECONDS!r}"
    last = f"N,{len(seconds) - 1}" if is_mp4_like(video) else last
    duration = f"if(gte({last}),round({float(last_seconds)!r}/TB),DURATION)"
    return ("-bsf:v", f"setts=pts=PTS:dts=DTS:duration='{duration}'")


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of `stream` without the empty one at the end."""
    yield from (packet for packet in packets_of(container, stream) if packet.size)
