"""Frames out of a video file: every one upright, once, with its exact time.

It must not know what happens to the frames.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

import numpy as np

from reel_modal.ahead import Ahead
from reel_modal.config import Settings
from reel_modal.errors import ConfigError, InvalidMediaError
from reel_modal.frame_memory import FrameMemory
from reel_modal.frames import PLANAR, Frame, PixelFormat, frame_bytes, frame_rate, is_420
from reel_modal.media import MediaInfo, find_ffmpeg, probe
from reel_modal.media.ffmpeg_binary import check_tone_mapping
from reel_modal.media.ffmpeg_process import QUIET, FFmpegProcess
from reel_modal.media.filters import (
    ON_BLACK,
    chroma_options,
    deinterlace_filter,
    exact_fraction,
    from_yuv_filters,
    seconds_text,
)
from reel_modal.media.frame_times import FrameTimes
from reel_modal.media.hardware_decoding import DOWNLOAD, NVDEC, nvdec_ffmpeg
from reel_modal.media.hdr import tone_map_filters
from reel_modal.media.headers import SEEK_MARGIN_SECONDS
from reel_modal.media.in_process import InProcessDecoder, copy_planes
from reel_modal.media.output_rate import MOST_LATE_FRAMES, TIE_FRAMES
from reel_modal.media.picture_end import picture_end
from reel_modal.media.picture_sizes import changes_size, fitting_filters, has_even_size
from reel_modal.media.untrusted import input_arguments
from reel_modal.schema.encoding import Deinterlace

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["Decoder", "FrameReader"]

Decoder: TypeAlias = Literal["process", "in_process", "nvdec"]
"""Where a video is decoded."""

_AHEAD_FRAMES: Final = 2
# Times are resampled in ticks so fine that no slot of a rate depends on their rounding; one that is due halfway
# between two slots goes to the later one.
_TICKS: Final = "settb=1/100000000"
_HALF_A_SLOT: Final = Fraction(1, 2) + Fraction(TIE_FRAMES)


class FrameReader:
    """Read the upright frames of a video with their exact times.

    Broken packets are passed over, counted in `broken_packets`, and the rest is read. The memory of a frame is filled
    again for the next one, or a later one: `frame.copy()` keeps it. Leaving the loop or the block early ends ffmpeg.

    Args:
        source: The video, or what `probe` has found out about it.
        pixel_format: Layout of the frames; `yuv420p` is the fastest. The source's own planar one is exact.
        start: First time that is read, in seconds on the source's own clock, inclusive; None is the beginning.
        end: End of what is read, exclusive; None is the end of the file.
        fps: Resample to this constant rate by repeating and dropping frames; None keeps every frame at its
            own time, whatever the rate does. At the rate that a probe names for a variable source, frames may be a
            little late so that fewer are dropped: see `FrameGrid`.
        size: (width, height) to resize to, in pixels; None keeps the upright size.
        decoder: Where libav decodes. An ffmpeg `process` of its own may die of a hostile file, and nothing else
            does. `in_process` takes a third less CPU, since no frame goes through a pipe: for a process that
            exists for this one job, as a render function's does. `nvdec` is a process that decodes on an NVIDIA
            GPU, with the first ffmpeg that does. All run the same filters.
        deinterlace: What becomes of an interlaced video: `frame` makes one picture of each of its pictures, `field`
            two, one of each field. None reads the fields woven, as they are stored.
        to_sdr: Whether SDR is made of an HDR video (PQ or HLG): BT.709 in 8 bits, as `media.color` then says. This is
            done in a process, whatever `decoder` says, since the libav of PyAV lacks the filter for it.
        handed_on: Whether frames go on into a `FramePipe`, which on Linux then takes their memory as it is, without
            copying it. Such a frame must not be changed any more once it was written.
        valid_frames: How many frames stay as they are, counted from the newest back; 2 for whoever compares a frame
            with the one before it.
        settings: Which ffmpeg, limits of input files, and how long ffmpeg may stall.

    Raises:
        ConfigError: An argument cannot work.
        InvalidMediaError: The file is no video that we accept.
        FFmpegNotFoundError: There is no ffmpeg.

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
        handed_on: bool = False,
        valid_frames: int = 1,
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
        self._memory = FrameMemory(self._frame_bytes) if handed_on and FrameMemory.usable() else None
        if valid_frames < 1 or (handed_on and valid_frames > 1):
            raise ConfigError(f"valid_frames is {valid_frames}; give 1 or more, and 1 with handed_on")
        room = self._frame_bytes if self._memory is None else 0
        self._data = [np.empty(room, np.uint8) for _ in range(valid_frames)]
        self.start_seconds: Fraction | None = None if start is None else exact_fraction(start, "start")
        self._end = None if end is None else exact_fraction(end, "end")
        if self.start_seconds is not None and self._end is not None and self._end <= self.start_seconds:
            raise ConfigError(f"end {float(self._end):g} s must be after start {float(self.start_seconds):g} s")
        # A constant rate is laid on a grid that begins where reading begins; times then count from there.
        self._origin = Fraction(0) if fps is None else self.start_seconds or self.media.start_seconds
        # The second field of a picture comes between two ticks of the file.
        tick = self.media.time_base / (2 if self.media.deinterlace == "field" else 1)
        self._times = FrameTimes(self._origin, tick if self.fps is None else 1 / self.fps)
        maps = self.media.hdr_color is not None
        self._in_process = decoder == "in_process" and not maps and self.media.contents.alpha_decoder is None
        self._nvdec = decoder == "nvdec" and not maps
        self._decoder: InProcessDecoder | None = None
        self._pictures: Ahead[tuple[VideoFrame, Fraction]] | None = None
        # A reference in both directions would keep an abandoned reader, and its ffmpeg, until the next collection.
        self._reading: weakref.ref[Generator[Frame]] | None = None

    @property
    def broken_packets(self) -> int:
        """Packets so far that could not be decoded, by libav's own report."""
        return self._times.broken_packets if self._decoder is None else self._decoder.broken_packets

    @property
    def broken_at_start(self) -> int:
        """Of them, those before the first picture; 0 if a process of ffmpeg decodes, which does not say so."""
        return 0 if self._decoder is None else self._decoder.broken_at_start

    @property
    def fitted(self) -> int:
        """Pictures so far of another size than the first, fitted into it; 0 if a process of ffmpeg decodes."""
        return 0 if self._decoder is None else self._decoder.fitted

    def __enter__(self) -> Self:
        if self._in_process and self._pictures is None:
            self._pictures = self._decode_ahead()  # while the caller prepares what it does with the frames
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the decoder, wherever it is; safe to call twice."""
        if self._reading is not None and (reading := self._reading()) is not None:
            reading.close()
        if self._pictures is not None:
            self._pictures.close()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order of their times.

        Raises:
            FFmpegError: ffmpeg failed in mid-stream, or stalled.
            InvalidMediaError: Not one frame could be decoded.
        """
        if self._reading is not None:
            raise ConfigError("a FrameReader reads its file once; make another one to read it again")
        reading = self._read_in_process() if self._in_process else self._read_process()
        self._reading = weakref.ref(reading)
        return reading

    def _read_process(self) -> Generator[Frame]:
        process = FFmpegProcess(
            self._command(), yields=True, stall_seconds=self._settings.stall_seconds, sink=self._times
        )
        try:
            yield from self._frames(process)
        finally:
            process.kill()

    def _decode_ahead(self) -> Ahead[tuple[VideoFrame, Fraction]]:
        self._decoder = InProcessDecoder(
            self.media, self._filters(), seek_seconds=self._seek_seconds(), settings=self._settings
        )
        return Ahead(self._decoder.frames(), depth=_AHEAD_FRAMES, name="decode").__enter__()

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
        self._expect_frames("libav decodes none")

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
        """Return the time of the frame that `process` has just written."""
        try:
            pts_seconds = self._times.next(self._settings.stall_seconds)
        except TimeoutError as error:
            process.give_up("print the time of a frame that it had written")
            raise process.error("ffmpeg stalled", frame_index=self.frames_read) from error
        if pts_seconds is None:
            raise process.error("ffmpeg ended without the time of a frame", frame_index=self.frames_read)
        return pts_seconds

    def _next_frame(self) -> Frame:
        """Return a frame whose memory may be filled; its time is that of the first."""
        shared = None if self._memory is None else self._memory.take()
        data = self._data[self.frames_read % len(self._data)] if shared is None else shared.data
        return Frame(data, self.size, self.pixel_format, self._origin, self.frames_read, shared)

    def _expect_frames(self, words: str) -> None:
        if self.frames_read == 0 and self.start_seconds is None and self._end is None:
            raise InvalidMediaError(
                f"{str(self.path)!r} has a video stream, but not one frame of it decodes: {words}"
            )

    def _command(self) -> tuple[str, ...]:
        """Return the command that writes frames to stdout, and the time of each to stderr before it."""
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
            # However many packets are broken, the rest is read; ffmpeg would call it an error if two thirds are.
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
            said = [f"{name}={seconds_text(value)}" for name, value in bounds.items() if value is not None]
            filters.append("trim=" + ":".join(said))
        if self.media.deinterlace is not None:
            filters.append(deinterlace_filter(self.media.deinterlace, self.media.unmarked_order))
        if self.media.deinterlace == "field" and self.fps is None and self.media.keeps_presentation_times:
            # The filter takes the last picture to last as long as the one before, and shows its second field at half.
            filters.append(f"trim=end={seconds_text(picture_end(self.media, self._settings.limits))}")
        filters += self.media.orientation.filters()
        filters += [ON_BLACK] if self.media.contents.alpha else []
        if self.media.hdr_color is not None:
            filters += tone_map_filters(self.media.hdr_color, self.media.hdr)
        if self.fps is not None:
            filters += self._resampling(self.fps)
        size = None if self.size == self.media.size else self.size
        place = self.media.chroma_origin
        made_in = PLANAR.get(self.pixel_format, PLANAR["yuv420p"])
        chroma = chroma_options(
            place if is_420(self.media.pixel_format) or self.media.hdr_color is not None else None,
            place if made_in.step == (2, 2) else None,
        )
        return [
            *filters,
            *from_yuv_filters(self.pixel_format, self.media.color, size, self.media.size[1], chroma=chroma),
        ]

    def _resampling(self, fps: Fraction) -> tuple[str, ...]:
        """Return the filters that make a constant rate from the origin on.

        Versions of ffmpeg differ in how long the last picture lasts, and most lose it if the file does not say. So it
        is repeated without end and cut at `picture_end`.
        """
        slots = f"fps=fps={fps.numerator}/{fps.denominator}:round=down"
        moved = (_TICKS, f"setpts='{self._moved(fps)}'")
        if not self.media.keeps_presentation_times:
            return (*moved, slots)
        end = picture_end(self.media, self._settings.limits)
        count = math.floor((end - self._origin) * fps + Fraction(1, 2))
        count = max(count, int(end > self._origin))
        if self._end is not None:
            count = min(count, math.ceil((self._end - self._origin) * fps))
        return (*moved, f"{slots}:eof_action=pass", "tpad=stop=-1:stop_mode=clone", f"trim=end_pts={count}")

    def _moved(self, fps: Fraction) -> str:
        """Return the expression of a frame's time by which `fps` puts it into its slot: that of `FrameGrid`."""
        if self.media.constant_rate or fps != self.media.fps:
            return f"PTS+({float(_HALF_A_SLOT / fps - self._origin)!r})/TB"
        # Variable 0 is when the frame is due, in slots; 1 is the slot it takes; 2 is the slot that the last one took.
        due = f"st(0,(PTS*TB-({float(self._origin)!r}))*{float(fps)!r})*0"
        nearest = f"st(1,floor(ld(0)+{float(_HALF_A_SLOT)!r}))*0"
        next_free = f"if(eq(N,0),0,if(gt(ld(1),ld(2)),0,st(1,ld(2)+lte(ld(2)+1-ld(0),{MOST_LATE_FRAMES!r}))*0))"
        return f"({due}+{nearest}+{next_free}+st(2,ld(1))*0+ld(1)+0.5)/{float(fps)!r}/TB"

    def _seek(self) -> tuple[str, ...]:
        seconds = self._seek_seconds()
        return () if seconds is None else ("-ss", seconds_text(seconds - self.media.container_start_seconds))

    def _seek_seconds(self) -> Fraction | None:
        """Return where reading may begin, on the source's own clock; None is the beginning of the file."""
        if self.start_seconds is None or not self.media.has_index:
            return None
        target = self.start_seconds - SEEK_MARGIN_SECONDS
        return target if target > self.media.container_start_seconds else None
