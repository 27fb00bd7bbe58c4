"""The pictures of a plan's windows: decoded, drawn on, and encoded to match those around them.

It must not know how the new packets come into the output, nor what is drawn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from typing_extensions import Buffer

from reel_modal.ahead import Ahead
from reel_modal.config import Settings
from reel_modal.errors import SpliceError
from reel_modal.ffmpeg_pipe import FramePipe, PipeResult
from reel_modal.frames import AnyPlanes, PixelFormat, U8Array, frame_bytes, plane_views, sample_views
from reel_modal.media.in_process import copy_planes
from reel_modal.media.untrusted import decoder_pixels, opened, packets_of
from reel_modal.schema import EncodeOptions
from reel_modal.smart_render.matching import Matching
from reel_modal.smart_render.packets import Picture
from reel_modal.smart_render.planning import RenderPlan, Window

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["Draw", "Painter", "decoder_for", "encode_windows", "packet_of"]

Draw: TypeAlias = Callable[[AnyPlanes, Fraction], None]
"""Draws on upright planes, in place, what is seen at a moment: seconds from the first picture on."""

Painter: TypeAlias = Callable[[PixelFormat], Draw]
"""Says who draws on planes of a layout, which is the source's own: any chroma, 8 bits or 10."""

_ENCODER: Final = "libx264"
# Halved across as stored, it is halved down once the picture is turned.
_TURNED: Final[dict[PixelFormat, PixelFormat]] = {"yuv422p": "yuv440p", "yuv422p10le": "yuv440p10le"}
_AHEAD_FRAMES: Final = 4


def encode_windows(
    plan: RenderPlan,
    picture: Picture,
    folder: Path,
    *,
    encode: EncodeOptions,
    painter: Painter | None,
    settings: Settings,
    advance: Callable[[int], None],
) -> PipeResult:
    """Make one file of all new pictures, each window beginning with a picture that depends on none before it.

    Args:
        plan: Which pictures.
        picture: Where they come from.
        folder: Where the file is made.
        encode: Quality, preset and threads; the quality is raised to what the source has.
        painter: Says what is done to each picture; None encodes them as they are.
        settings: Which ffmpeg, limits, and how long it may stall.
        advance: Called after each frame with the frames done; may raise to stop.

    Raises:
        EncoderUnavailableError: libx264 does not start here.
        SpliceError: A picture does not decode, or has another format.
        FFmpegError: Encoding failed.
    """
    media = picture.media
    ratio = media.sample_aspect_ratio
    match = Matching.of(plan, picture, encode)
    pipe = FramePipe(
        folder / "windows.mp4",
        size=media.coded_size,
        fps=media.fps,
        pixel_format=picture.pixel_format,
        encoder=_ENCODER,
        quality=match.quality,
        preset=match.preset,
        threads=encode.threads,
        encoder_options=match.options(plan, picture),
        color=media.color,
        hdr=media.hdr,
        sample_aspect_ratio=1 / ratio if media.orientation.turned else ratio,
        field_order=None if picture.field_order == "frame" else picture.field_order,
        odd_size="error",
        settings=settings,
    )
    canvas = _Canvas(picture, painter)
    # Decoding begins while the encoder starts.
    decoding = Ahead(_all_decoded(plan, picture, settings), depth=_AHEAD_FRAMES, name="windows")
    with decoding, pipe:
        for frame in decoding:
            pipe.write(canvas.drawn(frame, picture.times.seconds[frame.pts or 0]))
            advance(pipe.frames_written)
    return pipe.result


def decoder_for(extradata: bytes, settings: Settings) -> VideoCodecContext:
    """Return a decoder of H.264 that stands on no file."""
    from av.codec.context import CodecContext

    decoder = CodecContext.create("h264", "r")
    decoder.extradata = extradata
    decoder.options = {"max_pixels": str(decoder_pixels(settings.limits))}
    decoder.thread_count = settings.decoder_threads
    return decoder


def packet_of(data: Buffer) -> Packet[Stream]:
    """Return a packet with a copy of `data` in memory of libav's own.

    Memory of Python's would be given back by a decoder's threads, which need the interpreter for it: where that waits
    for them to end, as it does when a decoder is left in mid-stream, neither would go on.
    """
    from av.packet import Packet

    copy = bytes(data)
    packet: Packet[Stream] = Packet(len(copy))
    packet.update(copy)
    return packet


class _Canvas:
    """Memory of one frame as it is stored, and of one as it is seen."""

    def __init__(self, picture: Picture, painter: Painter | None) -> None:
        media, layout = picture.media, picture.pixel_format
        seen = _TURNED.get(layout, layout) if media.orientation.turned else layout
        self._draw = None if painter is None else painter(seen)
        self._orientation = media.orientation
        self._upright = media.orientation.rotation_degrees == 0 and not media.orientation.mirrored
        self._stored: U8Array = np.empty(frame_bytes(layout, media.coded_size), np.uint8)
        self._rows = plane_views(self._stored, layout, media.coded_size)
        self._planes = sample_views(self._stored, layout, media.coded_size)
        self._seen_planes = sample_views(np.empty_like(self._stored), seen, media.size)

    def drawn(self, frame: VideoFrame, seconds: Fraction) -> memoryview:
        """Return the bytes of `frame`, stored as they were, with what is drawn at `seconds`."""
        copy_planes(frame, self._rows)
        if self._draw is None:
            return self._stored.data
        if self._upright:
            self._draw(self._planes, seconds)
            return self._stored.data
        _copy(self._orientation.turn(self._planes), self._seen_planes)
        self._draw(self._seen_planes, seconds)
        _copy(self._orientation.turn_back(self._seen_planes), self._planes)
        return self._stored.data


def _copy(source: AnyPlanes, target: AnyPlanes) -> None:
    for old, new in zip(source, target, strict=True):
        np.copyto(new, old)


def _all_decoded(plan: RenderPlan, picture: Picture, settings: Settings) -> Generator[VideoFrame]:
    """Yield the pictures of all windows; see `_decoded`."""
    for window in plan.windows:
        with closing(_decoded(picture, window, settings)) as frames:
            yield from frames


def _decoded(picture: Picture, window: Window, settings: Settings) -> Generator[VideoFrame]:
    """Yield the pictures of `window` that are kept, in the order of showing; `pts` is their rank.

    Raises:
        SpliceError: One is missing, or has another format.
    """
    expected = window.kept[0]
    with closing(_decode_from(picture, window, settings)) as frames:
        for frame in frames:
            rank = frame.pts
            if rank is None or rank < expected:
                continue
            if rank >= window.kept[1]:
                break
            if rank != expected or frame.is_corrupt:
                raise SpliceError(f"picture {expected} of it does not decode")
            layout = frame.format.name.replace("yuvj", "yuv")
            if (layout, frame.width, frame.height) != (picture.pixel_format, *picture.media.coded_size):
                raise SpliceError("its pictures change their size or format")
            if frame.interlaced_frame != (picture.field_order != "frame"):
                raise SpliceError(f"picture {expected} of it is marked otherwise than the others")
            yield frame
            expected += 1
    if expected != window.kept[1]:
        raise SpliceError(f"picture {expected} of it does not decode")


def _decode_from(picture: Picture, window: Window, settings: Settings) -> Generator[VideoFrame]:
    """Decode from the picture with which `window` must begin to its end, whatever an edit list hides."""
    from av.error import FFmpegError

    with opened(picture.media.path, packets_only=True) as container:
        stream = next(stream for stream in container.streams.video if stream.index == picture.media.stream_index)
        decoder = decoder_for(stream.codec_context.extradata or b"", settings)
        decoder.thread_type = "AUTO"
        packets = _packets_from(container, stream, picture.table.pts[window.decode_from])
        try:
            for stored in islice(packets, window.end - window.decode_from):
                packet = packet_of(stored)
                packet.pts = bisect_left(picture.shown_pts, stored.pts or 0)
                yield from decoder.decode(packet)
            yield from decoder.decode(None)
        except FFmpegError as error:
            raise SpliceError(f"a picture of it does not decode: {error.strerror}") from error


def _packets_from(container: InputContainer, stream: VideoStream, pts: int) -> Iterator[Packet[VideoStream]]:
    """Yield the packets of `stream` from the one that is shown at `pts` on, which decoding can begin with."""
    container.seek(pts, stream=stream)
    packets = packets_of(container, stream)
    first = next(packets)
    early = [first]
    if first.pts is None or first.pts > pts:  # some indexes lead too far
        container.seek(0)
        early = []
        packets = packets_of(container, stream)
    found = False
    for packet in chain(early, packets):
        found = found or packet.pts == pts
        if found and packet.size:
            yield packet
