"""Decoding by libav within this process: the filters of a `FrameReader` without the cost of a pipe.

It must not know what the frames are for; the filters that it runs come from `filters` as ffmpeg's words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Final

import numpy as np

from reel_modal.config import Settings
from reel_modal.frames import Planes, U8Array
from reel_modal.media import MediaInfo
from reel_modal.media.parameter_sets import CodedSizeGuard
from reel_modal.media.pyav import seconds_per_tick
from reel_modal.media.untrusted import decoder_pixels, opened, packets_of

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.filter import Graph
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

__all__ = ["InProcessDecoder", "copy_planes"]

_MICROSECONDS: Final = 1_000_000


class InProcessDecoder:
    """The filtered frames of a video, decoded on libav's own threads while the caller works.

    Args:
        media: The video.
        filters: ffmpeg's words, in order, without labels.
        seek_seconds: Where to begin at the latest, on the file's own clock; None is the beginning.
        settings: Limits of what a decoder may allocate, and its threads.
    """

    def __init__(
        self, media: MediaInfo, filters: Sequence[str], *, seek_seconds: Fraction | None, settings: Settings
    ) -> None:
        self._media = media
        self._filters = filters
        self._seek_seconds = seek_seconds
        self._settings = settings
        self.broken_packets: int = 0

    def frames(self) -> Iterator[tuple[VideoFrame, Fraction]]:
        """Yield each filtered frame with its time in seconds.

        Raises:
            InvalidMediaError: The file cannot be opened any more, or its pictures grow beyond the limits.
        """
        with opened(self._media.path, limits=self._settings.limits) as container:
            stream = next(s for s in container.streams.video if s.index == self._media.stream_index)
            stream.codec_context.options = {"max_pixels": str(decoder_pixels(self._settings.limits))}
            stream.thread_type = "AUTO"
            guard = CodedSizeGuard(stream, self._media.path, self._settings.limits)
            stream.codec_context.thread_count = self._settings.decoder_threads
            if self._seek_seconds is not None:
                container.seek(int(self._seek_seconds * _MICROSECONDS))
            # The end of the graph: a filter wants no more, or has given the last of what it held.
            with suppress(EOFError):
                yield from self._filtered(self._decoded(container, stream, guard))

    def _decoded(self, container: InputContainer, stream: VideoStream, guard: CodedSizeGuard) -> Iterator[VideoFrame]:
        from av.error import FFmpegError

        packets = packets_of(container, stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:  # the file breaks off; what came before counts
                self.broken_packets += 1
                packet = None
            if packet is None:
                break
            guard.check(packet)
            yield from self._frames_of(packet)
        with suppress(FFmpegError, EOFError):
            yield from stream.codec_context.decode(None)

    def _frames_of(self, packet: Packet[VideoStream]) -> Sequence[VideoFrame]:
        from av.error import FFmpegError

        try:
            return packet.decode()
        except EOFError:  # the empty packet at the end was given already
            return ()
        except FFmpegError:
            self.broken_packets += 1
            return ()

    def _filtered(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[VideoFrame, Fraction]]:
        graph = shape = None
        for frame in self._timed(frames):
            if graph is None or shape is None:
                graph, shape = self._graph(frame), (frame.width, frame.height, frame.format.name)
            if (frame.width, frame.height, frame.format.name) != shape:
                # A stream that changes in its middle goes on in the shape that it began with.
                frame = frame.reformat(*shape)  # noqa: PLW2901 - the loop is about this frame
            yield from _through(graph, frame)
        if graph is not None:
            yield from _through(graph, None)

    def _timed(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        """Yield `frames`, each with a time, as ffmpeg guesses those that the container does not keep.

        Frames of AVI get them in the order of decoding, those of raw H.264 by the rate of the video.
        """
        next_seconds = self._media.start_seconds
        for frame in frames:
            time_base = seconds_per_tick(frame)
            known = frame.pts if self._media.keeps_presentation_times else frame.dts
            frame.pts = round(next_seconds / time_base) if known is None else known
            next_seconds = frame.pts * time_base + 1 / self._media.fps
            yield frame

    def _graph(self, first: VideoFrame) -> Graph:
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
        for words in self._filters:
            name, _, arguments = words.partition("=")
            nodes.append(graph.add(name, arguments) if arguments else graph.add(name))
        nodes.append(graph.add("buffersink"))
        graph.link_nodes(*nodes).configure()
        return graph


def _through(graph: Graph, frame: VideoFrame | None) -> Iterator[tuple[VideoFrame, Fraction]]:
    """Push `frame`, or the end, and yield what comes out; EOFError once nothing more will."""
    from av.error import BlockingIOError as WantsMore

    graph.push(frame)
    while True:
        try:
            done = graph.vpull()
        except WantsMore:
            return
        yield done, (done.pts or 0) * seconds_per_tick(done)


def copy_planes(frame: VideoFrame, planes: Planes) -> None:
    """Copy the samples of `frame` into `planes`, uint8, (H, W) or (H, W, C) each, C-contiguous."""
    for source, target in zip(frame.planes, planes, strict=True):
        rows: U8Array = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)
        height, width = target.shape[0], target[0].size
        target.reshape(height, width)[:] = rows[:height, :width]
