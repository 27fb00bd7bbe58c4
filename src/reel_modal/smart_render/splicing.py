"""Copied and new packets into one file, with everything else of the source that the container takes.

It must not know how the new packets were made. What it writes is looked at in `checking` before anybody gets it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reel_modal.errors import SpliceError
from reel_modal.ffmpeg_pipe import PipeResult
from reel_modal.media.extras import Extras, Track, put
from reel_modal.media.muxing import muxer_options
from reel_modal.media.pyav import open_output, seconds_per_tick
from reel_modal.media.sound import is_taken, seconds_before_picture
from reel_modal.media.streams import title_of
from reel_modal.media.untrusted import file_url, opened, packets_of
from reel_modal.smart_render.h264 import ParameterSets, PictureUnit, Sps, with_length_size
from reel_modal.smart_render.packets import Picture
from reel_modal.smart_render.planning import RenderPlan
from reel_modal.smart_render.windows import packet_of

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.packet import Packet
    from av.stream import Stream

__all__ = ["SUFFIXES", "Spliced", "splice_packets"]

_FORMATS: Final = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}
SUFFIXES: Final = frozenset(_FORMATS)
"""Containers that are written."""

# Without them the bytes of an output differ between versions of libavformat: it writes its own version as a tag, and
# version 63 (PyAV 19) chooses another clock for lengths in the headers.
_SAME_BYTES: Final = {"fflags": "+bitexact", "movie_timescale": "1000"}
_NEW_LENGTH_SIZE: Final = 4
_ROUNDED_SECONDS: Final = Fraction(2, 1000)


@dataclass(frozen=True, slots=True)
class Spliced:
    """What has been written.

    Attributes:
        path: The file.
        origin_ticks: The time of the source's picture that is time 0 here, in ticks of its `PictureTimes`.
        sets: The parameter sets of its picture.
        others: Packets of each further stream, in the order of the streams.
    """

    path: Path
    origin_ticks: int
    sets: ParameterSets
    others: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NewPacket:
    """A packet that takes the place of another.

    Attributes:
        data: With lengths as the source has them.
        rank: Of its picture among the new ones.
        idr: Whether it begins anew.
    """

    data: bytes
    rank: int
    idr: bool


def splice_packets(
    plan: RenderPlan,
    picture: Picture,
    made: PipeResult | None,
    target: Path,
    *,
    metadata: Mapping[str, str],
    extras: Extras,
    tracks: Sequence[Track],
) -> Spliced:
    """Write `target`: the packets that `plan` copies, and between them those of the new pictures.

    Args:
        plan: What is copied.
        picture: Where from.
        made: The file of new pictures, None where there are none.
        target: The file that is written.
        metadata: Its tags.
        extras: Its chapters and its timecode.
        tracks: Its further streams.

    Raises:
        SpliceError: The new packets are not what the plan wants, or the container does not take it all.
    """
    from av.error import FFmpegError

    sets = picture.sets if made is None else _with_new_sets(picture, made.path)
    fresh = iter(()) if made is None else new_packets(made, picture.sets.length_size)
    splice = _Splice(plan, picture, fresh, sets)
    with opened(picture.media.path) as source:
        try:
            kind = _FORMATS[target.suffix.lower()]
            options = _SAME_BYTES | muxer_options(target, metadata)
            with open_output(file_url(target), container_format=kind, options=options) as output:
                output.metadata.update(metadata)
                return splice.written(source, output, target, extras, tracks)
        except (FFmpegError, ValueError) as error:
            raise SpliceError(f"{target.suffix} does not take it: {error}") from error


def new_packets(made: PipeResult, length_size: int) -> Iterator[NewPacket]:
    """Yield the packets of new pictures in the order of decoding.

    Raises:
        SpliceError: One is not one picture, or is too long.
    """
    with opened(made.path, packets_only=True) as container:
        stream = container.streams.video[0]
        tick_seconds = seconds_per_tick(stream)
        for packet in packets_of(container, stream):
            if packet.size:
                data = with_length_size(memoryview(packet), _NEW_LENGTH_SIZE, length_size)
                unit = PictureUnit.parse(memoryview(data), length_size)
                yield NewPacket(data, round((packet.pts or 0) * tick_seconds * made.fps), unit.idr)


def _with_new_sets(picture: Picture, windows: Path) -> ParameterSets:
    """Return the source's parameter sets and the new one of each kind, which a decoder of the source can take."""
    with opened(windows, packets_only=True) as container:
        new = ParameterSets.parse(container.streams.video[0].codec_context.extradata or b"")
    (unit,), old = new.sps, picture.sps
    sps = Sps.parse(unit)
    if new.length_size != _NEW_LENGTH_SIZE or sps.id != picture.sets.free_id():
        raise SpliceError("the encoder did not take the free id of a parameter set")
    if (sps.pixel_format, sps.frames_only, sps.profile) != (old.pixel_format, old.frames_only, old.profile):
        raise SpliceError("the encoder wrote another kind of frames than the source's")
    # The numbers of profiles rise with what they want of a decoder.
    wanted, there = ((s.profile_idc, s.level_idc, s.reference_frames) for s in (sps, old))
    if any(more > most for more, most in zip(wanted, there, strict=True)):
        raise SpliceError("the encoder asks for more of a decoder than the source does")
    return picture.sets.with_units((*new.sps, *new.pps))


class _Splice:
    """One pass over the source, which is as much as is kept of it in memory."""

    def __init__(self, plan: RenderPlan, picture: Picture, fresh: Iterator[NewPacket], sets: ParameterSets) -> None:
        self._plan = plan
        self._picture = picture
        self._fresh = fresh
        self._sets = sets
        times, (first, _) = picture.times, plan.kept
        media = picture.media
        self._cuts_before = plan.trim is not None or seconds_before_picture(media) > 0
        begins = media.start_seconds if self._cuts_before else max(Fraction(0), media.container_start_seconds)
        self._origin = times.pts[first] if plan.trim else round(begins / times.tick_seconds)
        self._step = times.pts[1] - times.pts[0] if times.constant and len(times.pts) > 1 else None
        self._windows = deque(plan.windows)
        self._written = 0
        if plan.hidden and times.pts[first + plan.hidden] != self._origin:
            raise SpliceError("its edit list hides pictures behind a gap")

    def written(
        self,
        source: InputContainer,
        output: OutputContainer,
        target: Path,
        extras: Extras,
        tracks: Sequence[Track],
    ) -> Spliced:
        """Write all packets of `source` that are kept to `output`."""
        picture = next(s for s in source.streams.video if s.index == self._picture.media.stream_index)
        silent = self._plan.trim is not None and not self._plan.trim.sound
        copied = [] if silent else _sounds(self._picture, source, target)
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
            raise SpliceError("the source and the new pictures do not have the packets that were planned")
        counts = (*(other.count for other in others.values()), *(len(track.packets) for track in tracks))
        return Spliced(target, self._origin, self._sets, counts)

    @property
    def _bounds(self) -> tuple[Fraction, Fraction | None]:
        """When the output begins on the source's clock, and where a trim has cut it, how long it is."""
        times, (first, end) = self._picture.times, self._plan.kept
        length = None
        if self._plan.trim:
            length = times.end_of(end, self._picture.media.fps) - times.seconds[first]
        return self._origin * times.tick_seconds, length

    def _lasts(self, rank: int) -> int:
        """How long a picture is shown, in ticks, by the times of the output."""
        times = self._picture.times
        return round((times.end_of(rank + 1, self._picture.media.fps) - times.seconds[rank]) / times.tick_seconds)

    def _picture_packet(self, packet: Packet[Stream], place: int) -> Packet[Stream] | None:
        """Return what stands in the output for the packet at `place`, None where nothing does."""
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
                raise SpliceError("the new pictures do not come in the order that was planned")
            rank = start + new.rank - self._written
            packet = packet_of(new.data)
            packet.is_keyframe = new.idr
        times = self._picture.times
        packet.pts, packet.dts = times.pts[rank] - self._origin, times.dts[place] - self._origin
        if place == self._plan.kept[1] - 1:  # in MP4 it is this one that says how long the last picture lasts
            packet.duration = self._lasts(place)
        elif self._step is not None:
            packet.duration = self._step
        else:  # a demuxer says the time until the next one is decoded: with it a file ends long after a gap
            packet.duration = self._lasts(rank)
        packet.time_base = times.tick_seconds
        return packet

    def _leave(self) -> None:
        start, end = self._windows.popleft().kept
        self._written += end - start


class _OtherStream:
    """A stream beside the picture, copied.

    Args:
        stream: Of the source.
        output: Where it goes.
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
        """Return `packet` at its time in the output, None where it is not in it."""
        if packet.pts is None or packet.dts is None:
            raise SpliceError("a packet of its sound has no time")
        begins = packet.pts * self._tick_seconds - origin_seconds
        lasts = (packet.duration or 0) * self._tick_seconds
        # One packet earlier, since sound is decoded with the help of the one before; it is not heard.
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
    """Exact times for sound whose container has rounded them.

    Args:
        rate_hz: Samples a second.
        samples: Of one packet.
    """

    def __init__(self, rate_hz: int, samples: int) -> None:
        self._rate_hz = rate_hz
        self._samples = samples
        self._due: int | None = None

    def set(self, packet: Packet[Stream], seconds: Fraction) -> None:
        """Give `packet` the time behind the one before, where that is within the rounding of `seconds`."""
        said = round(seconds * self._rate_hz)
        if self._due is None or abs(said - self._due) > _ROUNDED_SECONDS * self._rate_hz:
            self._due = said
        packet.pts = packet.dts = self._due
        packet.duration, packet.time_base = self._samples, Fraction(1, self._rate_hz)
        self._due += self._samples


def _samples_of(stream: Stream) -> tuple[int, int] | None:
    """Return the rate in Hz and the samples of a packet, None where they are not said."""
    from av.audio.stream import AudioStream

    if not isinstance(stream, AudioStream):
        return None
    rate, samples = stream.codec_context.sample_rate or 0, stream.codec_context.frame_size
    return (rate, samples) if rate and samples else None


def _sounds(picture: Picture, source: InputContainer, target: Path) -> list[Stream]:
    """Return the sounds, all of which the container takes as they are.

    Raises:
        SpliceError: It does not take one of them, which a full render encodes anew.
    """
    sounds = {sound.index: sound for sound in picture.media.audio}
    for sound in sounds.values():
        if not is_taken(sound, target, picture.media.path):
            raise SpliceError(f"{target.suffix} does not take its {sound.codec} sound as it is")
    return [stream for stream in source.streams if stream.index in sounds]
