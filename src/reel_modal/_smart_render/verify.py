"""Verify a spliced file against its plan: copied packets are identical, and the file decodes across every joint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from reel_modal._smart_render.h264.parameter_sets import AccessUnit, ParameterSets
from reel_modal._smart_render.plan import RenderPlan
from reel_modal._smart_render.render import decoder_for, packet_of
from reel_modal._smart_render.source import SpliceSource
from reel_modal._smart_render.splice import Spliced
from reel_modal.errors import SpliceError
from reel_modal.media.open import opened
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.settings import Settings

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["decode_runs", "runs_around", "verify_splice"]

# Packets to decode after a joint. No decoder delays its output by this many, so an error after the joint is detected.
_AFTER_JOINT: Final = 24


def verify_splice(plan: RenderPlan, picture: SpliceSource, spliced: Spliced, settings: Settings) -> None:
    """Compare every packet of the spliced file with the plan, and decode the file around its joints.

    Args:
        plan: The plan of the splice.
        picture: The source.
        spliced: The written file.
        settings: Limits of the decoder.

    Raises:
        SpliceError: The file differs from the plan; the message names the difference.
    """
    with ThreadPoolExecutor(1, "reel_modal-joints") as executor:
        decoding = executor.submit(decode_runs, spliced, _around_joints(plan, picture, spliced.starts), settings)
        _compare(plan, picture, spliced)
        decoding.result()


def _compare(plan: RenderPlan, picture: SpliceSource, spliced: Spliced) -> None:
    """Compare all packets with the plan."""
    first, end = plan.kept
    copied = [False] * (end - first)
    for begin, stop in plan.copied:
        copied[begin - first : stop - first] = [True] * (stop - begin)
    idr_places = {rank - first for rank in spliced.starts}
    shown: list[int] = []
    others: Counter[int] = Counter()
    hidden = 0
    source_path, output_path = picture.media.path, spliced.path
    with opened(source_path, packets_only=True) as source, opened(output_path, packets_only=True) as output:
        video = output.streams.video[0]
        if video.codec_tag != "avc1" or ParameterSets.parse(video.codec_context.extradata or b"") != spliced.sets:
            raise SpliceError("the video track does not have the planned parameter sets")
        stream = next(s for s in source.streams.video if s.index == picture.media.stream_index)
        kept = islice((packet for packet in source.demux(stream) if packet.size), first, end)
        ticks = picture.times.tick_seconds / seconds_per_tick(video)
        for packet in output.demux():
            if not packet.size:
                continue
            if packet.stream_index != video.index:
                others[packet.stream_index] += 1
                continue
            old, place = next(kept, None), len(shown)
            if old is None or place >= len(copied):
                raise SpliceError("the output has more frames than planned")
            if copied[place] and bytes(old) != bytes(packet):
                raise SpliceError(f"packet {place} is not a copy of the source packet")
            due = picture.times.dts[first + place] - spliced.origin_ticks
            if packet.dts is None or packet.pts is None or packet.dts != due * ticks or packet.pts < packet.dts:
                raise SpliceError(f"packet {place} has a wrong decoding time")
            if place in idr_places and not AccessUnit.parse(memoryview(packet), spliced.sets.length_size).idr:
                raise SpliceError(f"packet {place} is not an IDR access unit")
            hidden += packet.is_discard
            shown.append(packet.pts)
    if len(shown) != len(copied) or [others[index + 1] for index in range(len(spliced.others))] != list(
        spliced.others
    ):
        raise SpliceError("the output does not have the planned number of packets")
    if hidden != plan.hidden:
        raise SpliceError(f"{hidden} frames are hidden instead of {plan.hidden}")
    if sorted(shown) != [(pts - spliced.origin_ticks) * ticks for pts in picture.times.pts[first:end]]:
        raise SpliceError("the frames have wrong presentation times")


def _around_joints(plan: RenderPlan, picture: SpliceSource, starts: Sequence[int]) -> list[tuple[int, int]]:
    """Return (first, end) of the packets to decode; see `runs_around`.

    A joint is between copied and re-encoded packets. The `starts` of re-encoded parts are only IDR access units.
    """
    first, end = plan.kept
    idr = bytearray(picture.table.idr[first:end])
    for window in plan.windows:
        start, stop = (edge - first for edge in window.kept)
        idr[start:stop] = bytes(stop - start)
    for rank in starts:
        idr[rank - first] = 1
    return runs_around({edge - first for window in plan.windows for edge in window.kept} - {end - first}, idr)


def runs_around(joints: Iterable[int], idr: bytearray) -> list[tuple[int, int]]:
    """Return (first, end) of the packets to decode: from the last IDR before each joint to well after the joint.

    Args:
        joints: Number of the first packet after each joint.
        idr: For each packet of the output, 1 if it is an IDR access unit; the first one is.
    """
    runs: list[tuple[int, int]] = []
    for joint in sorted(joints):
        begin, stop = idr.rindex(1, 0, max(1, joint)), min(joint + _AFTER_JOINT, len(idr))
        if runs and begin <= runs[-1][1]:
            begin = runs.pop()[0]
        runs.append((begin, stop))
    return runs


def decode_runs(spliced: Spliced, runs: Sequence[tuple[int, int]], settings: Settings) -> None:
    """Decode the packets of each run; raise SpliceError unless every packet gives one intact frame."""
    from av.error import FFmpegError

    place = 0
    with opened(spliced.path, packets_only=True) as output:
        packets = (packet for packet in output.demux(output.streams.video[0]) if packet.size)
        for start, end in runs:
            try:
                frames = _count_frames(islice(packets, start - place, end - place), spliced.sets.record(), settings)
            except FFmpegError as error:
                raise SpliceError(f"a joint between packets {start} and {end} does not decode: {error}") from error
            if frames != end - start:
                raise SpliceError(f"packets {start} to {end} around a joint give {frames} intact frames")
            place = end


def _count_frames(packets: Iterable[Packet[VideoStream]], extradata: bytes, settings: Settings) -> int:
    decoder = decoder_for(extradata, settings)
    # The deblocking filter changes samples only, and the samples are not checked.
    decoder.options = {**decoder.options, "err_detect": "explode", "skip_loop_filter": "all"}
    decoder.thread_type = "FRAME"
    queue = chain((packet_of(packet) for packet in packets), [None])
    return sum(not frame.is_corrupt for packet in queue for frame in decoder.decode(packet))
