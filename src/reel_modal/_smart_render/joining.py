"""Join packets of several sources and re-encoded ones at one constant rate, with finished audio, and verify the file.

Frames are numbered as in the output. A run of copied packets begins with an IDR access unit, and no packet before a
cut between two runs is shown after it.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from reel_modal._ffmpeg.muxing import muxer_options
from reel_modal._ffmpeg.packet_seek import packets_from
from reel_modal._smart_render.h264.parameter_sets import AccessUnit, ParameterSets
from reel_modal._smart_render.plan import SplicePlan
from reel_modal._smart_render.render import EncodedFrames, packet_of
from reel_modal._smart_render.source import SpliceSource
from reel_modal._smart_render.splice import (
    FORMATS,
    SAME_BYTES,
    NewPacket,
    Spliced,
    new_packets,
    with_new_sets,
)
from reel_modal._smart_render.verify import decode_runs, runs_around
from reel_modal.errors import SpliceError
from reel_modal.ffmpeg_pipe import PipeResult
from reel_modal.media.open import file_url, opened, packets_of
from reel_modal.media.pyav import open_output, seconds_per_tick
from reel_modal.settings import Settings
from reel_modal.storage import publish_file, staging_name

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

__all__ = ["CopiedRun", "join_runs"]

_LEAST_TICKS_A_SECOND: Final = 10_000

_Timed: TypeAlias = "tuple[Fraction, int, Packet[Stream]]"
"""Decoding time in seconds, number of the track, and the packet."""


@dataclass(frozen=True, slots=True)
class CopiedRun:
    """Packets that are copied from one source.

    Attributes:
        picture: The source.
        first: Rank of the first frame, which is also the index of its packet.
        end: Rank after the last frame.
        at: Number of the first frame in the output.
    """

    picture: SpliceSource
    first: int
    end: int
    at: int


@dataclass(frozen=True, slots=True)
class _Clock:
    """Evenly spaced times, in ticks: frame n is shown at n steps, and packet n decoded `depth` steps earlier."""

    tick_seconds: Fraction
    step: int
    depth: int

    @classmethod
    def of(cls, fps: Fraction, depth: int) -> _Clock:
        scale = 1
        while fps.numerator * scale < _LEAST_TICKS_A_SECOND:
            scale *= 2
        return cls(Fraction(1, fps.numerator * scale), fps.denominator * scale, depth)

    def set(self, packet: Packet[Stream], place: int, frame: int) -> None:
        """Set the times of the packet at `place`, in decoding order, which has the frame `frame`."""
        packet.pts, packet.dts = frame * self.step, (place - self.depth) * self.step
        packet.duration, packet.time_base = self.step, self.tick_seconds


def join_runs(
    plan: SplicePlan,
    runs: Sequence[CopiedRun],
    output: Path,
    encoded: EncodedFrames | None,
    *,
    sound: Path | None,
    settings: Settings,
    metadata: Mapping[str, str],
    check: Callable[[], None],
) -> PipeResult:
    """Write `output`, verify it, and publish it only if it is complete and correct.

    Args:
        plan: Which frames of the output are re-encoded; its source is that of the first run.
        runs: The copied packets, in order; all have the same parameter sets and frame rate.
        output: The final path.
        encoded: The re-encoded frames; None if there are none.
        sound: A file with the audio of the output; None if it has none.
        settings: Limits of the decoder.
        metadata: Metadata tags of the file.
        check: Called for each packet that is copied; may raise to stop.

    Raises:
        SpliceError: The packets cannot be joined, or the result failed verification. No file is left.
    """
    staged = staging_name(output)
    joining = _Joining(plan, runs, encoded, check)
    try:
        joining.write(staged, output, sound, metadata)
        joining.verify(staged, settings)
        size_bytes = publish_file(staged, output)
    finally:
        staged.unlink(missing_ok=True)
    media = plan.picture.media
    choice = None if encoded is None else encoded.pipe.choice()
    return PipeResult(
        path=output,
        frames=plan.frames,
        size=media.size,
        fps=media.fps,
        duration_seconds=plan.frames / media.fps,
        bytes=size_bytes,
        encoder="copy" if choice is None else "libx264",
        ffmpeg="" if choice is None else str(choice.ffmpeg),
        command=() if choice is None or encoded is None else (choice.ffmpeg.path, *encoded.pipe.encoding_arguments()),
        constant_rate=True,
    )


class _Joining:
    """One output: its planned packets, in decoding order."""

    def __init__(
        self, plan: SplicePlan, runs: Sequence[CopiedRun], encoded: EncodedFrames | None, check: Callable[[], None]
    ) -> None:
        self._plan, self._runs, self._encoded, self._check = plan, runs, encoded, check
        picture = plan.picture
        self._sets: ParameterSets = picture.sets if encoded is None else with_new_sets(picture, encoded.paths)
        depth = max(plan.reorder_depth, *(run.picture.table.reorder_depth for run in runs))
        self._clock = _Clock.of(picture.media.fps, depth)
        self._sound_packets = 0

    def write(self, staged: Path, target: Path, sound: Path | None, metadata: Mapping[str, str]) -> None:
        """Write all packets to `staged`, in the container of `target`."""
        from av.error import FFmpegError

        media = self._plan.picture.media
        options = SAME_BYTES | muxer_options(target, metadata)
        with ExitStack() as stack:
            source = stack.enter_context(opened(media.path))
            heard = None if sound is None else stack.enter_context(opened(sound, packets_only=True))
            try:
                kind = FORMATS[target.suffix.lower()]
                output = stack.enter_context(open_output(file_url(staged), container_format=kind, options=options))
                output.metadata.update(metadata)
                template = next(s for s in source.streams.video if s.index == media.stream_index)
                video = output.add_stream_from_template(template, opaque=True)
                video.codec_context.extradata = self._sets.record()
                video.time_base = self._clock.tick_seconds
                streams: list[Stream] = [video]
                tracks: list[Iterator[_Timed]] = [self._pictures()]
                if heard is not None:
                    stream = heard.streams.audio[0]
                    streams.append(output.add_stream_from_template(stream, opaque=True))
                    streams[1].disposition = stream.disposition
                    tracks.append(self._heard(packets_of(heard, stream), seconds_per_tick(stream)))
                for _, track, packet in heapq.merge(*tracks, key=lambda timed: timed[:2]):
                    packet.stream = streams[track]
                    output.mux_one(packet)
            except (FFmpegError, ValueError) as error:
                raise SpliceError(f"{target.suffix} does not support it: {error}") from error

    def _heard(self, packets: Iterator[Packet[Stream]], tick_seconds: Fraction) -> Iterator[_Timed]:
        for packet in packets:
            if packet.size and packet.dts is not None:
                self._sound_packets += 1
                yield packet.dts * tick_seconds, 1, packet

    def _pictures(self) -> Iterator[_Timed]:
        """Yield the packets of the video stream at their times."""
        for place, (packet, frame, _) in enumerate(self._planned()):
            self._check()
            self._clock.set(packet, place, frame)
            yield (place - self._clock.depth) / self._plan.picture.media.fps, 0, packet

    def _planned(self) -> Generator[tuple[Packet[Stream], int, bool]]:
        """Yield each packet, its frame in the output, and whether it must be an IDR access unit."""
        fresh: Iterator[NewPacket] = iter(())
        if self._encoded is not None:
            fresh = new_packets(self._encoded, self._plan.picture.sets.length_size)
        copied = {run.at: run for run in self._runs}
        written = 0
        edges = sorted({*copied, *(window.kept[0] for window in self._plan.windows)})
        for start, end in zip(edges, [*edges[1:], self._plan.kept[1]], strict=True):
            if (run := copied.get(start)) is not None:
                with closing(_packets_of(run)) as packets:
                    yield from packets
                continue
            for place in range(start, end):
                new = next(fresh, None)
                if new is None or not 0 <= new.rank - written < end - start or (place == start and not new.idr):
                    raise SpliceError("the re-encoded frames are not in the planned order")
                packet = packet_of(new.data)
                packet.is_keyframe = new.idr
                yield packet, start + new.rank - written, place == start
            written += end - start
        if next(fresh, None) is not None:
            raise SpliceError("there are more re-encoded frames than planned")

    def verify(self, path: Path, settings: Settings) -> None:
        """Compare every packet of the written file with the plan, and decode the file around its joints."""
        step, depth = self._clock.step, self._clock.depth
        idr = bytearray()
        with opened(path, packets_only=True) as output, closing(self._planned()) as planned:
            video, heard = output.streams.video[0], 0
            if video.codec_tag != "avc1" or ParameterSets.parse(video.codec_context.extradata or b"") != self._sets:
                raise SpliceError("the video track does not have the planned parameter sets")
            ticks = self._clock.tick_seconds / seconds_per_tick(video)
            for packet in output.demux():
                if not packet.size:
                    continue
                if packet.stream_index != video.index:
                    heard += 1
                    continue
                self._check()
                place = len(idr)
                due = next(planned, None)
                if due is None:
                    raise SpliceError("the output has more frames than planned")
                old, frame, first = due
                if bytes(old) != bytes(packet):
                    raise SpliceError(f"packet {place} is not the planned one")
                shown, decoded = frame * step * ticks, (place - depth) * step * ticks
                wrong = packet.pts != shown or packet.dts != decoded or shown < decoded
                if wrong or packet.is_discard:
                    raise SpliceError(f"packet {place} has a wrong time")
                idr.append(AccessUnit.parse(memoryview(packet), self._sets.length_size).idr)
                if first and not idr[-1]:
                    raise SpliceError(f"packet {place} is not an IDR access unit")
            if next(planned, None) is not None or heard != self._sound_packets:
                raise SpliceError("the output does not have the planned number of packets")
        spliced = Spliced(path, 0, self._sets, (), ())
        decode_runs(spliced, runs_around(self._joints(), idr), settings)

    def _joints(self) -> set[int]:
        """Return the frames at which a run or a re-encoded part begins, except the first one."""
        starts = {run.at for run in self._runs} | {window.kept[0] for window in self._plan.windows}
        return starts - {0}


def _packets_of(run: CopiedRun) -> Generator[tuple[Packet[Stream], int, bool]]:
    """Yield copies of the packets of a run, which no other reader changes; see `_Joining._planned`."""
    picture = run.picture
    with opened(picture.media.path, packets_only=True) as container:
        stream = next(s for s in container.streams.video if s.index == picture.media.stream_index)
        count = 0
        packets = packets_from(container, stream, picture.table.pts[run.first])
        for stored in islice((packet for packet in packets if packet.size), run.end - run.first):
            rank = bisect_left(picture.shown_pts, stored.pts or 0)
            if not run.first <= rank < run.end:
                raise SpliceError(f"packet {run.first + count} of the source is not the planned one")
            packet = packet_of(stored)
            packet.is_keyframe = stored.is_keyframe
            yield packet, run.at + rank - run.first, count == 0
            count += 1
    if count != run.end - run.first:
        raise SpliceError("the source does not have the planned packets")
