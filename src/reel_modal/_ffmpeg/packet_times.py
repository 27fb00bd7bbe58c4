"""Set the timestamps of an encoded video without changing its data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reel_modal._ffmpeg.muxing import is_mp4_like
from reel_modal.errors import OutputMismatchError
from reel_modal.media.open import file_url, opened, packets_of
from reel_modal.media.pyav import open_output
from reel_modal.media.timestamps import PacketTimes

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["check_times", "last_duration_arguments", "set_times"]

# MPEG's clock rate; used if exact times need a finer time base than containers store.
_MPEG_HZ: Final = 90_000
_FINEST_HZ: Final = 1_000_000
_ROUNDED_SECONDS: Final = 0.0006  # Matroska stores milliseconds


def set_times(
    source: Path,
    target: Path,
    seconds: Sequence[Fraction],
    last_seconds: Fraction,
    options: Mapping[str, str] | None = None,
) -> None:
    """Write the video `source` as `target`, with frame k shown from `seconds[k]` on.

    Args:
        source: A video of one stream, as written by an encoder.
        target: Its suffix selects the container.
        seconds: Time of each frame in display order, beginning with the first frame, increasing.
        last_seconds: Duration of the last frame.
        options: Options of the container's muxer, such as `{"movflags": "+faststart"}`.

    Raises:
        OutputMismatchError: The video has a different number of frames.
        InvalidMediaError: The file cannot be read or written.
    """
    hertz = math.lcm(*(moment.denominator for moment in (*seconds, last_seconds)))
    hertz = hertz if hertz <= _FINEST_HZ else _MPEG_HZ
    ticks = [round(moment * hertz) for moment in seconds]
    with opened(source) as video:
        coded = [packet.pts or 0 for packet in _packets(video, video.streams.video[0])]
    if len(coded) != len(ticks):
        raise OutputMismatchError(f"{len(ticks)} frames were written to the encoder but its file has {len(coded)}")
    rank = {pts: number for number, pts in enumerate(sorted(coded))}
    # Decoding times increase from packet to packet and must not exceed the time of their frame. So they are delayed
    # by the largest number of positions that a frame has in decoding order after its position in display order.
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
            if number == len(ticks) - 1 and is_mp4_like(target):  # MP4 stores the duration of the last frame there
                packet.duration = lengths[-1]
            packet.time_base = Fraction(1, hertz)
            packet.stream = written
            output.mux(packet)


def check_times(
    times: PacketTimes, seconds: Sequence[Fraction], last_seconds: Fraction, *, frame_seconds: Fraction
) -> Fraction:
    """Check that the frames are shown at the requested times, within the precision of the file.

    Args:
        times: Times in the finished file.
        seconds: The requested time of each frame.
        last_seconds: Duration of the last frame.
        frame_seconds: The usual duration of a frame, which a container may store for a shorter last one.

    Returns:
        Seconds from the first frame to the end of the last one in the file.

    Raises:
        OutputMismatchError: A frame is shown at another time, or the last one has another duration.
    """
    allowed = times.tick_seconds + Fraction(1, _MPEG_HZ)
    starts = [(tick - times.ticks[0]) * times.tick_seconds for tick in times.ticks]
    for number, (start, requested) in enumerate(zip(starts, seconds, strict=True)):
        if abs(start - (requested - seconds[0])) > allowed:
            raise OutputMismatchError(
                f"frame {number} is shown at {float(start):g} s in the file instead of"
                f" {float(requested - seconds[0]):g} s; the file is deleted"
            )
    duration = times.last_duration_ticks * times.tick_seconds
    if abs(duration - last_seconds) > allowed and not last_seconds < duration <= frame_seconds + allowed:
        raise OutputMismatchError(
            f"the last frame is shown for {float(duration):g} s in the file instead of {float(last_seconds):g} s;"
            " the file is deleted"
        )
    return starts[-1] + duration


def last_duration_arguments(video: Path, seconds: Sequence[Fraction], last_seconds: Fraction) -> tuple[str, ...]:
    """Return ffmpeg's options that keep the duration of the last frame, which ffmpeg before 6 loses in a stream copy.

    Args:
        video: The video that is copied.
        seconds: Times of its frames; empty for a constant rate, which needs no option.
        last_seconds: Duration of the last frame.
    """
    if not seconds:
        return ()
    # MP4 stores it in the packet that is last in decoding order, other containers in the last one in display order.
    last = f"PTS*TB,{float(seconds[-1] - seconds[0]) - _ROUNDED_SECONDS!r}"
    last = f"N,{len(seconds) - 1}" if is_mp4_like(video) else last
    duration = f"if(gte({last}),round({float(last_seconds)!r}/TB),DURATION)"
    return ("-bsf:v", f"setts=pts=PTS:dts=DTS:duration='{duration}'")


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of `stream` without the empty one at the end."""
    yield from (packet for packet in packets_of(container, stream) if packet.size)
