"""Whether a splice is what was planned: every copied packet as it was, every joint decodable.

It must not know how it was written; it reads the file like anybody else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from reel_modal.config import Settings
from reel_modal.errors import SpliceError
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.media.untrusted import opened
from reel_modal.smart_render.h264 import ParameterSets, PictureUnit
from reel_modal.smart_render.packets import Picture
from reel_modal.smart_render.planning import RenderPlan
from reel_modal.smart_render.splicing import Spliced
from reel_modal.smart_render.windows import decoder_for, packet_of

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

__all__ = ["check_splice"]

# More than any decoder holds back: what is wrong behind a joint shows within.
_BEHIND_JOINT: Final = 24


def check_splice(plan: RenderPlan, picture: Picture, spliced: Spliced, settings: Settings) -> None:
    """Look at every packet of the spliced file, and decode it around its joints.

    Args:
        plan: What was planned.
        picture: The source.
        spliced: What was written.
        settings: Limits of a decoder.

    Raises:
        SpliceError: Something is not as planned; the message says what.
    """
    with ThreadPoolExecutor(1, "reel_modal-joints") as beside:
        decoding = beside.submit(_decode, spliced, _around_joints(plan, picture), settings)
        _compare(plan, picture, spliced)
        decoding.result()


def _compare(plan: RenderPlan, picture: Picture, spliced: Spliced) -> None:
    """Compare all packets with what was planned."""
    first, end = plan.kept
    copied = [False] * (end - first)
    for begin, stop in plan.copied:
        copied[begin - first : stop - first] = [True] * (stop - begin)
    begins_anew = {window.kept[0] - first for window in plan.windows}
    shown: list[int] = []
    others: Counter[int] = Counter()
    hidden = 0
    source_path, output_path = picture.media.path, spliced.path
    with opened(source_path, packets_only=True) as source, opened(output_path, packets_only=True) as output:
        video = output.streams.video[0]
        if video.codec_tag != "avc1" or ParameterSets.parse(video.codec_context.extradata or b"") != spliced.sets:
            raise SpliceError("the track does not hold its parameter sets as it should")
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
                raise SpliceError("the output has more pictures than were planned")
            if copied[place] and bytes(old) != bytes(packet):
                raise SpliceError(f"packet {place} is not the copy that it should be")
            due = picture.times.dts[first + place] - spliced.origin_ticks
            if packet.dts is None or packet.pts is None or packet.dts != due * ticks or packet.pts < packet.dts:
                raise SpliceError(f"packet {place} is not decoded when it should be")
            if place in begins_anew and not PictureUnit.parse(memoryview(packet), spliced.sets.length_size).idr:
                raise SpliceError(f"packet {place} does not begin anew as it should")
            hidden += packet.is_discard
            shown.append(packet.pts)
    if len(shown) != len(copied) or [others[index + 1] for index in range(len(spliced.others))] != list(
        spliced.others
    ):
        raise SpliceError("the output has not as many packets as were planned")
    if hidden != plan.hidden:
        raise SpliceError(f"{hidden} pictures are hidden instead of {plan.hidden}")
    if sorted(shown) != [(pts - spliced.origin_ticks) * ticks for pts in picture.times.pts[first:end]]:
        raise SpliceError("the pictures are not shown when they should be")


def _around_joints(plan: RenderPlan, picture: Picture) -> list[tuple[int, int]]:
    """Return (first, end) of the packets to be decoded: from where decoding can begin to well behind each joint."""
    first, end = plan.kept
    anew = bytearray(picture.table.idr[first:end])
    for window in plan.windows:
        start, stop = (edge - first for edge in window.kept)
        anew[start:stop] = bytes([1, *bytes(stop - start - 1)])
    joints = {edge - first for window in plan.windows for edge in window.kept} - {end - first}
    runs: list[tuple[int, int]] = []
    for joint in sorted(joints):
        begin = anew.rindex(1, 0, max(1, joint))
        stop = min(joint + _BEHIND_JOINT, end - first)
        if runs and begin <= runs[-1][1]:
            begin = runs.pop()[0]
        runs.append((begin, stop))
    return runs


def _decode(spliced: Spliced, runs: Sequence[tuple[int, int]], settings: Settings) -> None:
    """Decode the packets of each of `runs`, and count the pictures that come out."""
    from av.error import FFmpegError

    place = 0
    with opened(spliced.path, packets_only=True) as output:
        packets = (packet for packet in output.demux(output.streams.video[0]) if packet.size)
        for start, end in runs:
            try:
                pictures = _pictures(islice(packets, start - place, end - place), spliced.sets.record(), settings)
            except FFmpegError as error:
                raise SpliceError(f"a joint between packets {start} and {end} does not decode: {error}") from error
            if pictures != end - start:
                raise SpliceError(f"packets {start} to {end} around a joint give {pictures} whole pictures")
            place = end


def _pictures(packets: Iterable[Packet[VideoStream]], extradata: bytes, settings: Settings) -> int:
    decoder = decoder_for(extradata, settings)
    # Their samples are not looked at; whether they decode does not go by the filter that smooths them.
    decoder.options = {**decoder.options, "err_detect": "explode", "skip_loop_filter": "all"}
    decoder.thread_type = "FRAME"
    given = chain((packet_of(packet) for packet in packets), [None])
    return sum(not frame.is_corrupt for packet in given for frame in decoder.decode(packet))
