"""Read upright frames from a video file, each with its exact timestamp."""

from __future__ import annotations

import math
import weakref
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

import numpy as np

from reel_modal._ffmpeg.binary import check_tone_mapping, find_ffmpeg
from reel_modal._ffmpeg.filters import (
    ON_BLACK,
    chroma_options,
    deinterlace_filter,
    exact_fraction,
    from_yuv_filters,
    seconds_text,
)
from reel_modal._ffmpeg.frame_slots import HALF_A_SLOT, FrameSpan, allows_late_frames, count_slots
from reel_modal._ffmpeg.frame_times import FrameTimes
from reel_modal._ffmpeg.hardware_decoding import DOWNLOAD, NVDEC, nvdec_ffmpeg
from reel_modal._ffmpeg.libav_decoder import InProcessDecoder, copy_planes
from reel_modal._ffmpeg.process import QUIET, FFmpegProcess
from reel_modal._support.prefetch import Prefetcher
from reel_modal.errors import ConfigError, InvalidMediaError
from reel_modal.media import MediaInfo, probe
from reel_modal.media.constant_rate import MOST_LATE_FRAMES
from reel_modal.media.frame_buffers import FrameBufferPool
from reel_modal.media.frames import PLANAR, Frame, PixelFormat, frame_bytes, frame_rate, is_420
from reel_modal.media.hdr import tone_map_filters
from reel_modal.media.headers import SEEK_MARGIN_SECONDS
from reel_modal.media.open import input_arguments
from reel_modal.media.picture_end import picture_end
from reel_modal.media.picture_sizes import changes_size, fitting_filters, has_even_size
from reel_modal.schema.options import Deinterlace
from reel_modal.settings import Settings

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["Decoder", "FrameReader"]

Decoder: TypeAlias = Literal["process", "in_process", "nvdec"]
"""How a video is decoded."""

_AHEAD_FRAMES: Final = 2
# Times are resampled with ticks so fine that rounding never changes a slot.
_TICKS: Final = "settb=1/100000000"


class FrameReader:
    """Reader of the upright frames of a video, with their exact timestamps.

    Broken packets are skipped and counted in `broken_packets`. A frame's memory is reused for a later frame;
    `frame.copy()` keeps it. Leaving the loop or the block early ends ffmpeg.

    Args:
        source: The video, or the result of `probe` for it.
        pixel_format: Layout of the frames; `yuv420p` is the fastest. The source's own planar format is exact.
        start: First source timestamp that is read, in seconds, inclusive; None means the beginning.
        end: Source timestamp at which reading ends, in seconds, exclusive; None means the end of the file.
        fps: Resample to this constant rate by repeating and dropping frames; None keeps every timestamp,
            also with a variable rate. At the rate that a probe reports for a variable source, frames may be slightly
            late so that fewer are dropped: see `FrameGrid`.
        size: (width, height) to resize to, in pixels; None keeps the upright size.
        decoder: How libav decodes. `process` is a separate ffmpeg process; a malicious file can crash only that.
            `in_process` uses a third less CPU, because frames need no pipe: for a process that exists only for this
            job, such as a render function's. `nvdec` is a process that decodes on an NVIDIA GPU, with the first
            ffmpeg that can. All run the same filters.
        deinterlace: For an interlaced video: `frame` makes one progressive frame of each interlaced one, `field`
            makes two, one from each field. None keeps the fields interleaved, as stored.
        to_sdr: Whether HDR video (PQ or HLG) is converted to SDR: BT.709 in 8 bits, which `media.color` then reports.
            This always uses a process, whatever `decoder` is, because PyAV's libav lacks the filter.
        zero_copy: Whether frames go to a `FramePipe`, which on Linux takes their memory without a copy. Such a frame
            must not be modified after it was written.
        retain_frames: Number of latest frames that stay valid, including the current one; 2 is for comparing a frame
            with the one before it.
        settings: Which ffmpeg to use, limits of input files, and the stall timeout.

    Raises:
        ConfigError: An argument is not valid.
        InvalidMediaError: The file is not a supported video.
        FFmpegNotFoundError: No ffmpeg was found.

    Example:
        >>> with FrameReader("clip.mp4", pixel_format="bgr24") as reader:
        ...     for frame in reader:
        ...         print(frame.index, frame.pts_seconds, frame.image.mean())
    """

    def __init__(
        self,
        source: str | Path | MediaInfo,
        *,
        pixel_format: PixelFormat = "bgr24",
        start: Fraction | float | None = None,
        end: Fraction | float | None = None,
        fps: Fraction | float | str | None = None,
        size: tuple[int, int] | None = None,
        decoder: Decoder = "process",
        deinterlace: Deinterlace | None = None,
        to_sdr: bool = False,
        zero_copy: bool = False,
        retain_frames: int = 1,
        settings: Settings | None = None,
    ) -> None:
        self._settings = settings or Settings.from_env()
        media = source if isinstance(source, MediaInfo) else probe(source, settings=self._settings)
        media = media if deinterlace is None else media.deinterlaced(deinterlace)
        self.media: MediaInfo = media.tone_mapped() if to_sdr else media
        self.path: Path = self.media.path
        self.pixel_format: PixelFormat = pixel_format
        self.frames_read: int = 0
        self.size: tuple[int, int] = size or self.media.size
        self.fps: Fraction | None = None if fps is None else frame_rate(fps)
        self._frame_bytes = frame_bytes(pixel_format, self.size)
        self._memory = FrameBufferPool(self._frame_bytes) if zero_copy and FrameBufferPool.usable() else None
        if retain_frames < 1 or (zero_copy and retain_frames > 1):
            raise ConfigError(f"retain_frames is {retain_frames}; it must be at least 1, and 1 with zero_copy")
        length_bytes = self._frame_bytes if self._memory is None else 0
        self._data = [np.empty(length_bytes, np.uint8) for _ in range(retain_frames)]
        self.start_seconds: Fraction | None = None if start is None else exact_fraction(start, "start")
        self._end = None if end is None else exact_fraction(end, "end")
        if self.start_seconds is not None and self._end is not None and self._end <= self.start_seconds:
            raise ConfigError(f"end {float(self._end):g} s must be after start {float(self.start_seconds):g} s")
        # Slots of a constant rate begin at the start of reading; times then count from there.
        self._origin = Fraction(0) if fps is None else self.start_seconds or self.media.start_seconds
        # The second field of a frame is displayed between two ticks of the file.
        tick = self.media.time_base / (2 if self.media.deinterlace == "field" else 1)
        self._times = FrameTimes(self._origin, tick if self.fps is None else 1 / self.fps)
        tone_maps = self.media.hdr_color is not None
        self._in_process = decoder == "in_process" and not tone_maps and self.media.contents.alpha_decoder is None
        self._nvdec = decoder == "nvdec" and not tone_maps
        self._decoder: InProcessDecoder | None = None
        self._pictures: Prefetcher[tuple[VideoFrame, Fraction]] | None = None
        self._span: FrameSpan | None = None
        # A strong reference in both directions would keep an abandoned reader and its ffmpeg until the next
        # collection.
        self._reading: weakref.ref[Generator[Frame]] | None = None

    @property
    def broken_packets(self) -> int:
        """Number of packets so far that could not be decoded, as reported by libav."""
        return self._times.broken_packets if self._decoder is None else self._decoder.broken_packets

    @property
    def broken_at_start(self) -> int:
        """Broken packets before the first frame; 0 if an ffmpeg process decodes, which does not report it."""
        return 0 if self._decoder is None else self._decoder.broken_at_start

    @property
    def fitted(self) -> int:
        """Number of frames so far that were scaled to the size of the first; 0 if an ffmpeg process decodes."""
        return 0 if self._decoder is None else self._decoder.fitted

    def read_span(self, span: FrameSpan) -> None:
        """Read only the frames of `span`, decoded in this process; internal to the package.

        Iterating raises SpanError if a frame might differ from the one that is read in a pass over the whole file.
        """
        self._span, self._in_process = span, True

    def __enter__(self) -> Self:
        if self._in_process and self._pictures is None:
            self._pictures = self._decode_ahead()  # decodes while the caller prepares its processing
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the decoder; safe to call twice."""
        if self._reading is not None and (reading := self._reading()) is not None:
            reading.close()
        if self._pictures is not None:
            self._pictures.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order of their timestamps.

        Raises:
            FFmpegError: ffmpeg failed while reading, or stalled.
            InvalidMediaError: No frame could be decoded.
        """
        if self._reading is not None:
            raise ConfigError("a FrameReader can be iterated only once; create another one to read the file again")
        reading = self._read_in_process() if self._in_process else self._read_process()
        self._reading = weakref.ref(reading)
        return reading

    def _read_process(self) -> Generator[Frame]:
        process = FFmpegProcess(
            self._command(), stdout=True, stall_seconds=self._settings.stall_seconds, sink=self._times
        )
        try:
            yield from self._frames(process)
        finally:
            process.kill()

    def _decode_ahead(self) -> Prefetcher[tuple[VideoFrame, Fraction]]:
        self._decoder = InProcessDecoder(
            self.media,
            self._filters(),
            seek_seconds=self._seek_seconds(),
            settings=self._settings,
            span=self._span,
        )
        return Prefetcher(self._decoder.frames(), depth=_AHEAD_FRAMES, name="decode").__enter__()

    def _read_in_process(self) -> Generator[Frame]:
        pictures = self._pictures or self._decode_ahead()
        try:
            for picture, seconds in pictures:
                frame = self._next_frame()
                copy_planes(picture, frame.planes)
                frame.pts_seconds += seconds
                yield frame
                self.frames_read += 1
        finally:
            pictures.close()
        self._expect_frames("libav decoded no frame")

    def _frames(self, process: FFmpegProcess) -> Iterator[Frame]:
        frame = self._next_frame()
        while (count := process.read_into(frame.data.data)) == self._frame_bytes:
            frame.pts_seconds = self._time_of_frame(process)
            yield frame
            self.frames_read += 1
            frame = self._next_frame()
        if process.stalled or process.finish() != 0 or count:
            raise process.error(f"{str(self.path)!r} could not be read to its end", frame_index=self.frames_read)
        self._expect_frames(process.tail)

    def _time_of_frame(self, process: FFmpegProcess) -> Fraction:
        """Return the timestamp of the frame that `process` has just written."""
        try:
            pts_seconds = self._times.next(self._settings.stall_seconds)
        except TimeoutError as error:
            process.give_up("print the timestamp of a frame that it had written")
            raise process.error("ffmpeg stalled", frame_index=self.frames_read) from error
        if pts_seconds is None:
            raise process.error("ffmpeg ended without the timestamp of a frame", frame_index=self.frames_read)
        return pts_seconds

    def _next_frame(self) -> Frame:
        """Return a frame whose memory may be filled; its time is the origin."""
        shared = None if self._memory is None else self._memory.take()
        data = self._data[self.frames_read % len(self._data)] if shared is None else shared.data
        return Frame(data, self.size, self.pixel_format, self._origin, self.frames_read, shared)

    def _expect_frames(self, reason: str) -> None:
        if self.frames_read == 0 and self.start_seconds is None and self._end is None:
            raise InvalidMediaError(
                f"{str(self.path)!r} has a video stream, but no frame of it can be decoded: {reason}"
            )

    def _command(self) -> tuple[str, ...]:
        """Return the command that writes frames to stdout, and before each frame its timestamp to stderr."""
        on_gpu = nvdec_ffmpeg(self.media, self._settings) if self._nvdec else None
        ffmpeg = on_gpu or find_ffmpeg(self._settings)
        if self.media.hdr_color is not None:
            check_tone_mapping(ffmpeg)
        size = self.media.coded_size
        fits = has_even_size(size) or changes_size(self.media, self._settings)
        decoded = (*(DOWNLOAD if self._nvdec else ()), *(fitting_filters(size) if fits else ()))
        graph = ",".join([*decoded, *self._filters(), *self._times.filters])
        return (
            *(ffmpeg.path, *QUIET, "-filter_complex_threads", str(self._settings.cores)),
            # Read the rest regardless of how many packets are broken; ffmpeg would fail if two thirds are.
            *("-max_error_rate", "1", "-threads", str(self._settings.decoder_threads)),
            *("-copyts", "-noautorotate", *(NVDEC if self._nvdec else ()), *self._seek()),
            *(() if self.media.contents.alpha_decoder is None else ("-c:v", self.media.contents.alpha_decoder)),
            *input_arguments(self.path, self._settings.limits),
            *("-filter_complex", f"[0:{self.media.stream_index}]{graph}[frames]", "-map", "[frames]"),
            *("-c:v", "rawvideo", "-threads:v", "1", "-fps_mode", "passthrough", "-f", "rawvideo", "pipe:1"),
        )

    def _filters(self) -> list[str]:
        filters = []
        if (untimed := self.media.untimed_start) is not None and not self._in_process:
            first, interval = float(self.media.start_seconds), float(untimed.interval_seconds)
            filters.append(f"setpts='if(lt(N,{untimed.count}),({first!r}+N*{interval!r})/TB,PTS)'")
        if self.start_seconds is not None or self._end is not None:
            bounds = {"start": self.start_seconds, "end": self._end}
            parameters = [f"{name}={seconds_text(value)}" for name, value in bounds.items() if value is not None]
            filters.append("trim=" + ":".join(parameters))
        if self.media.deinterlace is not None:
            filters.append(deinterlace_filter(self.media.deinterlace, self.media.unmarked_order))
        if self.media.deinterlace == "field" and self.fps is None and self.media.keeps_presentation_times:
            # The filter gives the last frame the duration of the one before, and shows its second field after half of
            # it.
            filters.append(f"trim=end={seconds_text(picture_end(self.media, self._settings.limits))}")
        filters += self.media.orientation.filters()
        filters += [ON_BLACK] if self.media.contents.alpha else []
        if self.media.hdr_color is not None:
            filters += tone_map_filters(self.media.hdr_color, self.media.hdr)
        if self.fps is not None:
            filters += self._resampling(self.fps)
        size = None if self.size == self.media.size else self.size
        origin = self.media.chroma_origin
        yuv_format = PLANAR.get(self.pixel_format, PLANAR["yuv420p"])
        chroma = chroma_options(
            origin if is_420(self.media.pixel_format) or self.media.hdr_color is not None else None,
            origin if yuv_format.step == (2, 2) else None,
        )
        return [
            *filters,
            *from_yuv_filters(self.pixel_format, self.media.color, size, self.media.size[1], chroma=chroma),
        ]

    def _resampling(self, fps: Fraction) -> tuple[str, ...]:
        """Return the filters that make a constant rate, beginning at the origin.

        ffmpeg versions differ in the duration of the last frame, and most drop it if the file does not store one. So
        it is repeated without end and cut at `picture_end`.
        """
        slots = f"fps=fps={fps.numerator}/{fps.denominator}:round=down"
        moved = (_TICKS, f"setpts='{self._moved(fps)}'")
        if not self.media.keeps_presentation_times:
            return (*moved, slots)
        count = count_slots(self.media, fps, self._origin, self._settings.limits)
        if self._end is not None:
            count = min(count, math.ceil((self._end - self._origin) * fps))
        return (*moved, f"{slots}:eof_action=pass", "tpad=stop=-1:stop_mode=clone", f"trim=end_pts={count}")

    def _moved(self, fps: Fraction) -> str:
        """Return the expression for a frame's time that makes `fps` put it into its slot, like `FrameGrid`."""
        if not allows_late_frames(self.media, fps):
            return f"PTS+({float(HALF_A_SLOT / fps - self._origin)!r})/TB"
        # Variable 0 is the time when the frame is due, in slots; 1 is its slot; 2 is the slot of the last frame.
        due = f"st(0,(PTS*TB-({float(self._origin)!r}))*{float(fps)!r})*0"
        nearest = f"st(1,floor(ld(0)+{float(HALF_A_SLOT)!r}))*0"
        next_free = f"if(eq(N,0),0,if(gt(ld(1),ld(2)),0,st(1,ld(2)+lte(ld(2)+1-ld(0),{MOST_LATE_FRAMES!r}))*0))"
        return f"({due}+{nearest}+{next_free}+st(2,ld(1))*0+ld(1)+0.5)/{float(fps)!r}/TB"

    def _seek(self) -> tuple[str, ...]:
        seconds = self._seek_seconds()
        return () if seconds is None else ("-ss", seconds_text(seconds - self.media.container_start_seconds))

    def _seek_seconds(self) -> Fraction | None:
        """Return the source timestamp at which reading may begin; None means the beginning of the file."""
        if self.start_seconds is None or not self.media.has_index:
            return None
        target = self.start_seconds - SEEK_MARGIN_SECONDS
        return target if target > self.media.container_start_seconds else None
