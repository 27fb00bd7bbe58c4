"""Decode with libav in this process: the same filters as a `FrameReader` process, without the cost of a pipe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from reel_modal._ffmpeg.frame_slots import FrameSpan, SpanError
from reel_modal._ffmpeg.picture_decoder import PictureDecoder
from reel_modal.media import MediaInfo
from reel_modal.media.frames import Planes, U8Array
from reel_modal.media.picture_sizes import fitting_filters
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.settings import Settings

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame

__all__ = ["InProcessDecoder", "copy_planes"]

_Shape: TypeAlias = tuple[int, int, str]
"""Width, height and pixel format."""


class InProcessDecoder:
    """The filtered frames of a video, decoded in libav's threads while the caller works.

    Args:
        media: The video.
        filters: ffmpeg filter strings, in order, without labels.
        seek_seconds: Source timestamp at or before which decoding begins; None means the beginning.
        settings: Memory limits of the decoder, and the number of its threads.
        span: The frames to read; None means all.
    """

    def __init__(
        self,
        media: MediaInfo,
        filters: Sequence[str],
        *,
        seek_seconds: Fraction | None,
        settings: Settings,
        span: FrameSpan | None = None,
    ) -> None:
        self._media = media
        self._filters = filters
        self._seek_seconds = seek_seconds
        self._span = span
        self._decoder = PictureDecoder(media, settings)
        self.fitted: int = 0
        """Number of frames so far with another size than the first, which were scaled to fit it."""

    @property
    def broken_packets(self) -> int:
        """Number of packets so far that could not be decoded."""
        return self._decoder.broken_packets

    @property
    def broken_at_start(self) -> int:
        """Number of those packets before the first frame."""
        return self._decoder.broken_at_start

    def frames(self) -> Iterator[tuple[VideoFrame, Fraction]]:
        """Yield each filtered frame with its time in seconds.

        Raises:
            InvalidMediaError: The file can no longer be opened, or its frames grow beyond the limits.
            SpanError: A frame of the span might differ from the one that is decoded when the whole file is read.
        """
        if self._span is None:
            yield from self._to_the_end(self._decoder.pictures(self._seek_seconds))
        else:
            intact = self._intact(self._decoder.pictures_from(self._span.keyframe_ticks))
            yield from self._span.placed(self._to_the_end(intact), self._media.time_base)

    def _to_the_end(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[VideoFrame, Fraction]]:
        # EOFError is the end of the graph: a filter needs no more frames, or has returned its last one.
        with suppress(EOFError):
            yield from self._filtered(frames)

    def _intact(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield `frames`; raise SpanError if one is damaged, or has another format than the first of the file."""
        expected = (*self._media.coded_size, self._media.pixel_format)
        for frame in frames:
            if frame.is_corrupt:
                raise SpanError("one of its packets is damaged")
            if _shape_of(frame) != expected or frame.interlaced_frame:
                raise SpanError("its frames change their size or format")
            yield frame
        if self.broken_packets:
            raise SpanError("one of its packets is damaged")

    def _filtered(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[VideoFrame, Fraction]]:
        graph = None
        for frame in self._one_shape(self._timed(frames)):
            if graph is None:
                graph = _graph_from(frame, self._filters)
            yield from _through(graph, frame)
        if graph is not None:
            yield from _through(graph, None)

    def _one_shape(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield `frames` in the size and pixel format of the first one; a stream may change them at any time."""
        first = None
        fitting: dict[_Shape, Graph] = {}
        for frame in frames:
            shape = _shape_of(frame)
            if first is None or shape == first:
                first = shape
                yield frame
                continue
            if shape not in fitting:
                fitting[shape] = _graph_from(frame, (*fitting_filters(first[:2]), f"format={first[2]}"))
            self.fitted += shape[:2] != first[:2]
            fitting[shape].push(frame)
            yield fitting[shape].vpull()

    def _timed(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield `frames` with timestamps; those that the container lacks are estimated in the same way as by ffmpeg.

        For AVI, timestamps follow decoding order; for raw H.264, the frame rate of the video; before the zero of
        Matroska, the interval at which they are counted back.
        """
        untimed = self._media.untimed_start
        interval = 1 / self._media.stored_fps if untimed is None else untimed.interval_seconds
        next_seconds = self._media.start_seconds
        for frame in frames:
            time_base = seconds_per_tick(frame)
            ticks = frame.pts if self._media.keeps_presentation_times else frame.dts
            frame.pts = round(next_seconds / time_base) if ticks is None else ticks
            next_seconds = (next_seconds if ticks is None else ticks * time_base) + interval
            yield frame


def _shape_of(frame: VideoFrame) -> _Shape:
    return frame.width, frame.height, frame.format.name


def _graph_from(first: VideoFrame, filters: Sequence[str]) -> Graph:
    """Return a graph of `filters` that accepts frames like `first`."""
    from av.filter import Graph

    graph = Graph()
    source = {
        "video_size": f"{first.width}x{first.height}",
        "pix_fmt": first.format.name,
        "time_base": str(seconds_per_tick(first)),
        "colorspace": str(int(first.colorspace)),
        "range": str(int(first.color_range)),
    }
    nodes = [graph.add("buffer", **source)]
    for filter_text in filters:
        name, _, arguments = filter_text.partition("=")
        nodes.append(graph.add(name, arguments) if arguments else graph.add(name))
    nodes.append(graph.add("buffersink"))
    graph.link_nodes(*nodes).configure()
    return graph


def _through(graph: Graph, frame: VideoFrame | None) -> Iterator[tuple[VideoFrame, Fraction]]:
    """Push `frame`, or None as the end, and yield the results; raise EOFError at the end of the graph."""
    from av.error import BlockingIOError as WantsMore

    graph.push(frame)
    while True:
        try:
            filtered = graph.vpull()
        except WantsMore:
            return
        yield filtered, (filtered.pts or 0) * seconds_per_tick(filtered)


def copy_planes(frame: VideoFrame, planes: Planes) -> None:
    """Copy the samples of `frame` into `planes`, each uint8, (H, W) or (H, W, C), C-contiguous."""
    for source, target in zip(frame.planes, planes, strict=True):
        rows: U8Array = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
        height, width = target.shape[0], target[0].size
        target.reshape(height, width)[:] = rows[:height, :width]
