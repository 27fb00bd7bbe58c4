"""Set the timestamps of an encoded video without changing its data."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reel_modal._ffmpeg.muxing import is_mp4_like
from reel_modal.errors import FrameError, OutputMismatchError
from reel_modal.media.open import file_url, opened, packets_of
from reel_modal.media.pyav import open_output
from reel_modal.media.timestamps import PacketTimes

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["check_moment", "check_times", "join_videos", "last_duration_arguments", "set_times"]

# MPEG's clock rate; used if exact times need a finer time base than containers store.
_MPEG_HZ: Final = 90_000
_FINEST_HZ: Final = 1_000_000
_LEAST_MOVIE_HZ: Final = 1000
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
    edges = [round(moment * hertz) for moment in (*seconds, seconds[-1] + last_seconds)]
    _write_packets((source,), target, _Clock(edges, Fraction(1, hertz)), options or {})


def join_videos(
    sources: Sequence[Path],
    target: Path,
    *,
    frames: int,
    fps: Fraction,
    options: Mapping[str, str],
    metadata: Mapping[str, str],
) -> None:
    """Join videos as `target` by copying their packets, with evenly spaced frames from time 0 on.

    Args:
        sources: Videos of one stream, as written by an encoder with the same options. Each begins with a keyframe,
            and no frame refers to another video.
        target: An MP4 or MOV.
        frames: Number of frames of all videos.
        fps: Frames per second.
        options: Further options of the muxer.
        metadata: Tags of the file.

    Raises:
        OutputMismatchError: The videos have a different number of frames, or differ in their parameter sets.
        InvalidMediaError: A file cannot be read or written.
    """
    edges = range(0, (frames + 1) * fps.denominator, fps.denominator)
    # The header states the duration in this unit. The default depends on the version of libavformat.
    exact = {"movie_timescale": str(fps.numerator * math.ceil(_LEAST_MOVIE_HZ / fps.numerator))}
    _write_packets(sources, target, _Clock(edges, Fraction(1, fps.numerator)), {**exact, **options}, metadata)


@dataclass(frozen=True, slots=True)
class _Clock:
    """Times of frames in display order.

    Attributes:
        edges: Time of each frame in ticks, and the end of the last one.
        tick_seconds: Duration of a tick.
    """

    edges: Sequence[int]
    tick_seconds: Fraction

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.edges) - 1

    def duration(self, rank: int) -> int:
        """Return how long a frame is shown, in ticks."""
        return self.edges[rank + 1] - self.edges[rank]

    def decoding_tick(self, rank: int) -> int:
        """Return the time of a frame in display order; negative ranks are before the first frame."""
        if rank >= 0:
            return self.edges[rank]
        # The usual interval: MP4 stores the intervals of decoding times, from which readers compute the frame rate.
        return self.edges[0] + rank * max(1, (self.edges[-1] - self.edges[0]) // self.frames)


def _write_packets(
    sources: Sequence[Path],
    target: Path,
    clock: _Clock,
    options: Mapping[str, str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the packets of all `sources` with the times of `clock`; None keeps the tags of the first source."""
    ranks = _display_ranks(sources)
    if len(ranks) != clock.frames:
        raise OutputMismatchError(f"{clock.frames} frames were written to the encoder but its file has {len(ranks)}")
    # Decoding times increase from packet to packet and must not exceed the time of their frame. So they are delayed
    # by the largest number of positions that a frame has in decoding order after its position in display order.
    delay = max(number - rank for number, rank in enumerate(ranks))
    with _opened(sources[0]) as first, open_output(file_url(target), options=options) as output:
        output.metadata.update(first.metadata if metadata is None else metadata)
        template = first.streams.video[0]
        stream = output.add_stream_from_template(template)
        stream.time_base = clock.tick_seconds
        for number, packet in enumerate(_packets_of_all(sources, template.codec_context.extradata)):
            packet.dts = clock.decoding_tick(number - delay)
            packet.pts, packet.duration = clock.edges[ranks[number]], clock.duration(ranks[number])
            if number == clock.frames - 1 and is_mp4_like(target):  # MP4 stores the duration of the last frame there
                packet.duration = clock.duration(number)
            packet.time_base = clock.tick_seconds
            packet.stream = stream
            output.mux(packet)


def _display_ranks(sources: Sequence[Path]) -> Sequence[int]:
    """Return the rank in display order of each packet, in the order of the files and their packets."""
    ranks = array("q")
    for source in sources:
        with _opened(source) as video:
            coded = [packet.pts or 0 for packet in _packets(video, video.streams.video[0])]
        rank_of = {pts: rank for rank, pts in enumerate(sorted(coded), len(ranks))}
        ranks.extend(rank_of[pts] for pts in coded)
    return ranks


def _packets_of_all(sources: Sequence[Path], extradata: bytes | None) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of all videos.

    Raises:
        OutputMismatchError: A video has other parameter sets than `extradata`.
    """
    for source in sources:
        with _opened(source) as video:
            stream = video.streams.video[0]
            if stream.codec_context.extradata != extradata:
                raise OutputMismatchError(f"{source.name!r} has other parameter sets than the videos before it")
            yield from _packets(video, stream)


def check_moment(
    index: int, seconds: Fraction | None, duration_seconds: Fraction | None, earlier: Sequence[Fraction]
) -> None:
    """Check the time and the duration of a written frame.

    Args:
        index: Number of frames before it.
        seconds: Its time; None if it has none.
        duration_seconds: Its duration, if it is the last frame.
        earlier: Times of the frames before it; empty if they have none.

    Raises:
        FrameError: Time or duration is not valid, or earlier frames have a time and this one has none, or vice versa.
    """
    if (seconds is None) == bool(earlier) and index:
        raise FrameError(f"frame {index} has {'no' if seconds is None else 'a'} time, unlike earlier frames")
    if seconds is not None and earlier and seconds <= earlier[-1]:
        raise FrameError(f"frame {index} is at {float(seconds):g} s; it must be after {float(earlier[-1]):g} s")
    if duration_seconds is not None and (seconds is None or duration_seconds <= 0):
        problem = "but no time" if seconds is None else f"of {float(duration_seconds):g} s"
        raise FrameError(f"frame {index} has a duration {problem}; it must be above 0, and requires a time")


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


def _opened(source: Path) -> AbstractContextManager[InputContainer]:
    """Open a video of an encoder. MP4 stores the time of each packet; for others, libav has to decode some frames."""
    return opened(source, packets_only=is_mp4_like(source))
