"""Mux copied and re-encoded packets into one file, with the other streams of the source.

`verify` checks the file before it is published.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reel_modal._ffmpeg.audio import is_taken, seconds_before_picture
from reel_modal._ffmpeg.extra_streams import Extras, Track, put
from reel_modal._ffmpeg.muxing import muxer_options
from reel_modal._smart_render.h264.parameter_sets import (
    AccessUnit,
    ParameterSets,
    parse_sps,
    pixel_format_of,
    set_nal_length_size,
    x264_profile,
)
from reel_modal._smart_render.plan import RenderPlan
from reel_modal._smart_render.render import EncodedFrames, packet_of
from reel_modal._smart_render.source import SpliceSource
from reel_modal.errors import SpliceError
from reel_modal.media.open import file_url, opened, packets_of
from reel_modal.media.pyav import open_output, seconds_per_tick
from reel_modal.media.streams import title_of

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

__all__ = [
    "FORMATS",
    "SAME_BYTES",
    "SUFFIXES",
    "NewPacket",
    "Spliced",
    "new_packets",
    "splice_packets",
    "with_new_sets",
]

FORMATS: Final = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}
SUFFIXES: Final = frozenset(FORMATS)
"""Supported output containers, by suffix."""

# Without these options the bytes of an output depend on the version of libavformat: it writes its version as a tag,
# and version 63 (PyAV 19) uses a different time base for durations in the headers.
SAME_BYTES: Final = {"fflags": "+bitexact", "movie_timescale": "1000"}
_NEW_LENGTH_SIZE: Final = 4
_ROUNDED_SECONDS: Final = Fraction(2, 1000)


@dataclass(frozen=True, slots=True)
class Spliced:
    """A written file.

    Attributes:
        path: The file.
        origin_ticks: The source time that is time 0 in the file, in ticks of the source's `PictureTimes`.
        sets: The parameter sets of the video stream.
        others: Number of packets of each other stream, in stream order.
        starts: Ranks of the source whose packets must be re-encoded IDR access units.
    """

    path: Path
    origin_ticks: int
    sets: ParameterSets
    others: tuple[int, ...]
    starts: Sequence[int]


@dataclass(frozen=True, slots=True)
class NewPacket:
    """A re-encoded packet that replaces one of the source.

    Attributes:
        data: The access unit, with NAL unit lengths of the source's size.
        rank: Rank of its frame among the re-encoded frames.
        idr: Whether it is an IDR access unit.
    """

    data: bytes
    rank: int
    idr: bool


def splice_packets(
    plan: RenderPlan,
    picture: SpliceSource,
    encoded: EncodedFrames | None,
    target: Path,
    *,
    metadata: Mapping[str, str],
    extras: Extras,
    tracks: Sequence[Track],
) -> Spliced:
    """Write `target`: the packets that `plan` copies, and the re-encoded ones between them.

    Args:
        plan: The plan of the splice.
        picture: The source.
        encoded: The re-encoded frames; None if there are none.
        target: The file to write.
        metadata: Metadata tags of the file.
        extras: Chapters and timecode.
        tracks: Further streams.

    Returns:
        The written file.

    Raises:
        SpliceError: The re-encoded packets do not match the plan, or the container does not support a stream.
    """
    from av.error import FFmpegError

    sets = picture.sets if encoded is None else with_new_sets(picture, encoded.paths)
    fresh = iter(()) if encoded is None else new_packets(encoded, picture.sets.length_size)
    splice = _Splice(plan, picture, fresh, sets, () if encoded is None else encoded.starts)
    with opened(picture.media.path) as source:
        try:
            kind = FORMATS[target.suffix.lower()]
            options = SAME_BYTES | muxer_options(target, metadata)
            with open_output(file_url(target), container_format=kind, options=options) as output:
                output.metadata.update(metadata)
                return splice.written(source, output, target, extras, tracks)
        except (FFmpegError, ValueError) as error:
            raise SpliceError(f"{target.suffix} does not support it: {error}") from error


def new_packets(encoded: EncodedFrames, length_size: int) -> Iterator[NewPacket]:
    """Yield the re-encoded packets in decoding order.

    Raises:
        SpliceError: A packet is not exactly one coded picture, or is too long.
    """
    number = 0
    for path in encoded.paths:
        with opened(path, packets_only=True) as container:
            stream, first = container.streams.video[0], number
            tick_seconds = seconds_per_tick(stream)
            for packet in packets_of(container, stream):
                if packet.size:
                    data = set_nal_length_size(memoryview(packet), _NEW_LENGTH_SIZE, length_size)
                    unit = AccessUnit.parse(memoryview(data), length_size)
                    rank = round((packet.pts or 0) * tick_seconds * encoded.pipe.fps)
                    yield NewPacket(data, first + rank, unit.idr)
                    number += 1


def with_new_sets(picture: SpliceSource, encoded: Sequence[Path]) -> ParameterSets:
    """Return the source's parameter sets and those of the encoder.

    Raises:
        SpliceError: The encoder did not use the given id, or a decoder of the source might not decode the new frames.
    """
    records = set()
    for path in encoded:
        with opened(path, packets_only=True) as container:
            records.add(container.streams.video[0].codec_context.extradata or b"")
    if len(records) > 1:
        raise SpliceError("the re-encoded parts differ in their parameter sets")
    new = ParameterSets.parse(records.pop())
    (unit,), old = new.sps, picture.sps
    sps = parse_sps(unit)
    if new.length_size != _NEW_LENGTH_SIZE or sps.id != picture.sets.free_id():
        raise SpliceError("the encoder did not use the free id of a parameter set")
    new_format, old_format = ((pixel_format_of(s), s.frames_only, x264_profile(s)) for s in (sps, old))
    if new_format != old_format:
        raise SpliceError("the encoder wrote frames of another format than the source")
    # A higher profile_idc requires more of a decoder.
    needed, allowed = ((s.profile_idc, s.level_idc, s.reference_frames) for s in (sps, old))
    if any(more > most for more, most in zip(needed, allowed, strict=True)):
        raise SpliceError("the encoded frames require more of a decoder than the source")
    return picture.sets.with_units((*new.sps, *new.pps))


class _Splice:
    """One pass over the source that writes each packet at once and keeps none in memory."""

    def __init__(
        self,
        plan: RenderPlan,
        picture: SpliceSource,
        fresh: Iterator[NewPacket],
        sets: ParameterSets,
        starts: Sequence[int],
    ) -> None:
        self._plan = plan
        self._picture = picture
        self._fresh = fresh
        self._sets = sets
        self._starts = starts
        times, (first, _) = picture.times, plan.kept
        media = picture.media
        self._cuts_before = plan.trim is not None or seconds_before_picture(media) > 0
        begins = media.start_seconds if self._cuts_before else max(Fraction(0), media.container_start_seconds)
        self._origin = times.pts[first] if plan.trim else round(begins / times.tick_seconds)
        self._step = times.pts[1] - times.pts[0] if times.constant and len(times.pts) > 1 else None
        self._windows = deque(plan.windows)
        self._written = 0
        if plan.hidden and times.pts[first + plan.hidden] != self._origin:
            raise SpliceError("its edit list hides frames after a gap")

    def written(
        self,
        source: InputContainer,
        output: OutputContainer,
        target: Path,
        extras: Extras,
        tracks: Sequence[Track],
    ) -> Spliced:
        """Write all kept packets of `source` to `output`."""
        picture = next(s for s in source.streams.video if s.index == self._picture.media.stream_index)
        muted = self._plan.trim is not None and not self._plan.trim.sound
        copied = [] if muted else _sounds(self._picture, source, target)
        video = output.add_stream_from_template(picture, opaque=True)
        video.codec_context.extradata = self._sets.record()
        video.time_base = self._picture.times.tick_seconds
        others = {stream.index: _OtherStream(stream, output) for stream in copied}
        extras.mark(output, video)
        put(tracks, output)
        place = 0
        for packet in source.demux(picture, *copied):
            if not packet.size:
                continue
            if packet.stream_index == picture.index:
                if (new := self._picture_packet(packet, place)) is not None:
                    new.stream = video
                    output.mux_one(new)
                place += 1
            elif (
                moved := others[packet.stream_index].moved(packet, *self._bounds, cuts_before=self._cuts_before)
            ) is not None:
                output.mux_one(moved)
        if place != len(self._picture.table) or next(self._fresh, None) is not None:
            raise SpliceError("the source and the re-encoded frames do not have the planned packets")
        counts = (*(other.count for other in others.values()), *(len(track.packets) for track in tracks))
        return Spliced(target, self._origin, self._sets, counts, self._starts)

    @property
    def _bounds(self) -> tuple[Fraction, Fraction | None]:
        """Start of the output on the source's clock and, if it is trimmed, its duration (else None), in seconds."""
        times, (first, end) = self._picture.times, self._plan.kept
        length = None
        if self._plan.trim:
            length = times.end_of(end, self._picture.media.fps) - times.seconds[first]
        return self._origin * times.tick_seconds, length

    def _lasts(self, rank: int) -> int:
        """Return how long the frame of `rank` is shown in the output, in ticks."""
        times = self._picture.times
        return round((times.end_of(rank + 1, self._picture.media.fps) - times.seconds[rank]) / times.tick_seconds)

    def _picture_packet(self, packet: Packet[Stream], place: int) -> Packet[Stream] | None:
        """Return the output packet for the source packet at `place`; None if the output has no packet for it."""
        while self._windows and place >= self._windows[0].end:
            self._leave()
        if not self._plan.kept[0] <= place < self._plan.kept[1]:
            return None
        rank = bisect_left(self._picture.shown_pts, packet.pts or 0)
        if self._windows and place >= self._windows[0].first:
            start, end = self._windows[0].kept
            if not start <= place < end:
                return None
            new = next(self._fresh, None)
            if new is None or not 0 <= new.rank - self._written < end - start or (place == start and not new.idr):
                raise SpliceError("the re-encoded frames are not in the planned order")
            rank = start + new.rank - self._written
            packet = packet_of(new.data)
            packet.is_keyframe = new.idr
        times = self._picture.times
        packet.pts, packet.dts = times.pts[rank] - self._origin, times.dts[place] - self._origin
        if place == self._plan.kept[1] - 1:  # MP4 stores the duration of the last shown frame in this packet
            packet.duration = self._lasts(place)
        elif self._step is not None:
            packet.duration = self._step
        else:  # a demuxer's duration is the time to the next dts, which makes a file with a gap too long
            packet.duration = self._lasts(rank)
        packet.time_base = times.tick_seconds
        return packet

    def _leave(self) -> None:
        start, end = self._windows.popleft().kept
        self._written += end - start


class _OtherStream:
    """A copied stream other than the video stream.

    Args:
        stream: The stream of the source.
        output: The container to which the stream is added.
    """

    def __init__(self, stream: Stream, output: OutputContainer) -> None:
        self.count: int = 0
        self._stream = output.add_stream_from_template(stream, opaque=True)
        tags = {"language": stream.metadata.get("language"), "title": title_of(stream.metadata)}
        self._stream.metadata.update({key: value for key, value in tags.items() if value is not None})
        self._stream.disposition = stream.disposition
        self._tick_seconds = seconds_per_tick(stream)
        self._clock: _SampleClock | None = None
        if (sound := _samples_of(stream)) is not None and self._tick_seconds > 1 / Fraction(sound[0]):
            self._clock = _SampleClock(*sound)

    def moved(
        self, packet: Packet[Stream], origin_seconds: Fraction, length_seconds: Fraction | None, *, cuts_before: bool
    ) -> Packet[Stream] | None:
        """Return `packet` at its time in the output; None if it is outside the output."""
        if packet.pts is None or packet.dts is None:
            raise SpliceError("a packet of its audio has no timestamp")
        begins = packet.pts * self._tick_seconds - origin_seconds
        lasts = (packet.duration or 0) * self._tick_seconds
        # Keep one packet before the start: audio decoding needs the previous packet. It is not played.
        if cuts_before and begins + 2 * lasts <= 0:
            return None
        if length_seconds is not None and begins >= length_seconds:
            return None
        if self._clock is not None:
            self._clock.set(packet, begins)
        else:
            shift = round(origin_seconds / self._tick_seconds)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = self._stream
        self.count += 1
        return packet


class _SampleClock:
    """Exact times for audio whose times the container has rounded.

    Args:
        rate_hz: Sample rate in Hz.
        samples: Samples per packet.
    """

    def __init__(self, rate_hz: int, samples: int) -> None:
        self._rate_hz = rate_hz
        self._samples = samples
        self._due: int | None = None

    def set(self, packet: Packet[Stream], seconds: Fraction) -> None:
        """Set the time of `packet` to the end of the previous one, or to `seconds` if they differ by over 2 ms."""
        start = round(seconds * self._rate_hz)
        if self._due is None or abs(start - self._due) > _ROUNDED_SECONDS * self._rate_hz:
            self._due = start
        packet.pts = packet.dts = self._due
        packet.duration, packet.time_base = self._samples, Fraction(1, self._rate_hz)
        self._due += self._samples


def _samples_of(stream: Stream) -> tuple[int, int] | None:
    """Return the sample rate in Hz and the samples per packet; None if either is unknown."""
    from av.audio.stream import AudioStream

    if not isinstance(stream, AudioStream):
        return None
    rate, samples = stream.codec_context.sample_rate or 0, stream.codec_context.frame_size
    return (rate, samples) if rate and samples else None


def _sounds(picture: SpliceSource, source: InputContainer, target: Path) -> list[Stream]:
    """Return the audio streams, all of which the container supports.

    Raises:
        SpliceError: The container does not support the codec of an audio stream; a full render re-encodes it.
    """
    sounds = {sound.index: sound for sound in picture.media.audio}
    for sound in sounds.values():
        if not is_taken(sound, target, picture.media.path):
            raise SpliceError(f"its {sound.codec} audio cannot be copied to {target.suffix}")
    return [stream for stream in source.streams if stream.index in sounds]
