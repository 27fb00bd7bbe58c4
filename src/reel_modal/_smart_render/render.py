"""Decode, draw and re-encode the frames of a plan's render spans, matching the stream of the copied packets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
from typing_extensions import Buffer

from reel_modal._ffmpeg.libav_decoder import copy_planes
from reel_modal._ffmpeg.packet_seek import packets_from
from reel_modal._smart_render.plan import RenderSpan, SplicePlan
from reel_modal._smart_render.source import SpliceSource
from reel_modal._smart_render.x264_settings import X264Settings, keyframe_options
from reel_modal._support.prefetch import Prefetcher
from reel_modal.errors import SpliceError
from reel_modal.ffmpeg_pipe import FramePipe
from reel_modal.media.frames import AnyPlanes, PixelFormat, U8Array, frame_bytes, plane_views, sample_views
from reel_modal.media.open import decoder_pixels, opened
from reel_modal.schema import EncodeOptions
from reel_modal.settings import Settings

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

__all__ = [
    "Draw",
    "EncodedFrames",
    "Painter",
    "decoder_for",
    "encode_windows",
    "opened_frames",
    "packet_of",
    "window_pipe",
]

Draw: TypeAlias = Callable[[AnyPlanes, Fraction], None]
"""Draws in place on upright planes. Takes the planes and the frame's time in seconds from the first shown frame."""

Painter: TypeAlias = Callable[[PixelFormat], Draw]
"""Returns the draw function for planes of the source's pixel format: any chroma subsampling, 8 or 10 bits."""

_ENCODER: Final = "libx264"
# 4:2:2 halves chroma horizontally; after a quarter turn it is halved vertically (4:4:0).
_TURNED: Final[dict[PixelFormat, PixelFormat]] = {"yuv422p": "yuv440p", "yuv422p10le": "yuv440p10le"}
_AHEAD_FRAMES: Final = 4


@dataclass(frozen=True, slots=True)
class EncodedFrames:
    """The encoded frames of all render spans.

    Attributes:
        paths: The files that contain them, in order.
        starts: Ranks at which a span or a file begins; these frames must be IDR access units.
        pipe: The pipe that encodes them, or of which the files are parts.
    """

    paths: Sequence[Path]
    starts: Sequence[int]
    pipe: FramePipe


def encode_windows(
    plan: SplicePlan,
    folder: Path,
    *,
    encode: EncodeOptions,
    painter: Painter | None,
    settings: Settings,
    advance: Callable[[int], None],
) -> EncodedFrames:
    """Encode the frames of all render spans into one file; each span begins with an IDR access unit.

    Args:
        plan: The frames to encode.
        folder: The folder of the new file.
        encode: Quality, preset and threads; the quality is raised to match the source.
        painter: Returns the function that draws on each frame; None encodes the frames unchanged.
        settings: The ffmpeg binary, limits, and stall timeout.
        advance: Called after each frame with the number of finished frames; may raise to stop.

    Raises:
        EncoderUnavailableError: libx264 does not start on this machine.
        SpliceError: A frame does not decode, or has a different format.
        FFmpegError: Encoding failed.
    """
    pipe = window_pipe(plan, folder, encode, settings, keyframe_options(plan, plan.picture.media.fps))
    # Decoding begins while the encoder starts.
    with opened_frames(plan.picture, plan.windows, painter, settings) as frames, pipe:
        pipe.count_with(advance)
        for frame in frames:
            pipe.write(frame)
    return EncodedFrames((pipe.path,), [window.kept[0] for window in plan.windows], pipe)


def window_pipe(
    plan: SplicePlan,
    folder: Path,
    encode: EncodeOptions,
    settings: Settings,
    more_options: Mapping[str, str] | None = None,
) -> FramePipe:
    """Return the pipe that encodes frames of the render spans as parts of the source's stream.

    Args:
        plan: All frames to encode; x264's settings depend on their number.
        folder: The folder of the new file.
        encode: Quality, preset and threads; the quality is raised to match the source.
        settings: The ffmpeg binary, limits, and stall timeout.
        more_options: Further options of the encoder.
    """
    picture, media = plan.picture, plan.picture.media
    ratio = media.sample_aspect_ratio
    match = X264Settings.of(plan, picture, encode)
    return FramePipe(
        folder / "windows.mp4",
        size=media.coded_size,
        fps=media.fps,
        pixel_format=picture.pixel_format,
        encoder=_ENCODER,
        quality=match.quality,
        preset=match.preset,
        threads=encode.threads,
        encoder_options={**match.options(plan, picture), **(more_options or {})},
        color=media.color,
        hdr=media.hdr,
        sample_aspect_ratio=1 / ratio if media.orientation.turned else ratio,
        field_order=None if picture.field_order == "frame" else picture.field_order,
        odd_size="error",
        settings=settings,
    )


@contextmanager
def opened_frames(
    picture: SpliceSource,
    spans: Iterable[RenderSpan],
    painter: Painter | None,
    settings: Settings,
    *,
    exact: bool = False,
) -> Iterator[Iterator[memoryview]]:
    """Open the frames of some spans, in stored orientation and with the drawing.

    Each frame is valid until the next one is read. The iterator raises SpliceError if a frame does not decode, or has
    a different format.

    Args:
        picture: The source of the frames.
        spans: The frames.
        painter: Returns the function that draws on each frame; None leaves the frames unchanged.
        settings: Limits and threads of the decoder.
        exact: Decode in one thread and stop at any error. Several threads miss an error in some runs.
    """
    canvas = _Canvas(picture, painter)
    decoding = Prefetcher(_all_decoded(picture, spans, settings, exact=exact), depth=_AHEAD_FRAMES, name="windows")
    with decoding:
        yield (canvas.drawn(frame, picture.times.seconds[frame.pts or 0]) for frame in decoding)


def decoder_for(extradata: bytes, settings: Settings) -> VideoCodecContext:
    """Return an H.264 decoder that is not attached to a container."""
    from av.codec.context import CodecContext

    decoder = CodecContext.create("h264", "r")
    decoder.extradata = extradata
    decoder.options = {"max_pixels": str(decoder_pixels(settings.limits))}
    decoder.thread_count = settings.decoder_threads
    return decoder


def packet_of(data: Buffer) -> Packet[Stream]:
    """Return a packet with a copy of `data` in memory that libav owns.

    A decoder's threads would need the GIL to release memory that Python owns. If the interpreter waits for these
    threads to end, as it does when a decoder is closed in mid-stream, this would be a deadlock.
    """
    from av.packet import Packet

    copy = bytes(data)
    packet: Packet[Stream] = Packet(len(copy))
    packet.update(copy)
    return packet


class _Canvas:
    """Buffers for one frame in stored orientation and one in upright orientation."""

    def __init__(self, picture: SpliceSource, painter: Painter | None) -> None:
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
        """Return the bytes of `frame`, in stored orientation, with the drawing for the time `seconds`."""
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


def _all_decoded(
    picture: SpliceSource, spans: Iterable[RenderSpan], settings: Settings, *, exact: bool
) -> Generator[VideoFrame]:
    """Yield the frames of all `spans`; see `_decoded`."""
    for span in spans:
        with closing(_decoded(picture, span, settings, exact=exact)) as frames:
            yield from frames


def _decoded(
    picture: SpliceSource, window: RenderSpan, settings: Settings, *, exact: bool = False
) -> Generator[VideoFrame]:
    """Yield the kept frames of `window` in output order; `pts` is the rank.

    Raises:
        SpliceError: A frame is missing, or has a different format.
    """
    expected = window.kept[0]
    with closing(_decode_from(picture, window, settings, exact=exact)) as frames:
        for frame in frames:
            rank = frame.pts
            if rank is None or rank < expected:
                continue
            if rank >= window.kept[1]:
                break
            if rank != expected or frame.is_corrupt:
                raise SpliceError(f"its frame {expected} does not decode")
            layout = frame.format.name.replace("yuvj", "yuv")
            if (layout, frame.width, frame.height) != (picture.pixel_format, *picture.media.coded_size):
                raise SpliceError("its frames change their size or format")
            if frame.interlaced_frame != (picture.field_order != "frame"):
                raise SpliceError(f"its frame {expected} differs from the others in its interlaced flag")
            yield frame
            expected += 1
    if expected != window.kept[1]:
        raise SpliceError(f"its frame {expected} does not decode")


def _decode_from(
    picture: SpliceSource, window: RenderSpan, settings: Settings, *, exact: bool
) -> Generator[VideoFrame]:
    """Yield the decoded frames from `window.decode_from` to the end of `window`, hidden ones included."""
    from av.error import FFmpegError

    with opened(picture.media.path, packets_only=True) as container:
        stream = next(stream for stream in container.streams.video if stream.index == picture.media.stream_index)
        decoder = decoder_for(stream.codec_context.extradata or b"", settings)
        decoder.thread_type = "AUTO"
        if exact:
            decoder.thread_count = 1
            decoder.options = {**decoder.options, "err_detect": "explode"}
        packets = packets_from(container, stream, picture.table.pts[window.decode_from])
        try:
            for stored in islice(packets, window.end - window.decode_from):
                packet = packet_of(stored)
                packet.pts = bisect_left(picture.shown_pts, stored.pts or 0)
                yield from decoder.decode(packet)
            yield from decoder.decode(None)
        except FFmpegError as error:
            raise SpliceError(f"one of its frames does not decode: {error.strerror}") from error
