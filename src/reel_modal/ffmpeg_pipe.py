"""Write frames to a video file and read them from one, through ffmpeg.

ffmpeg processes never hang or leak, and never leave a partial file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

from typing_extensions import Buffer

from reel_modal._ffmpeg.audio import Sound, SoundSource
from reel_modal._ffmpeg.audio_files import probe_sound, unknown_audio_notes
from reel_modal._ffmpeg.binary import FFmpeg, find_ffmpeg
from reel_modal._ffmpeg.encoders import EncoderChoice, choose_encoder
from reel_modal._ffmpeg.filters import even_size, exact_fraction
from reel_modal._ffmpeg.frame_count import PROGRESS, FrameCount
from reel_modal._ffmpeg.muxing import finishing_arguments, muxer_options
from reel_modal._ffmpeg.packet_times import check_moment, check_times, join_videos, last_duration_arguments, set_times
from reel_modal._ffmpeg.pipe_result import PipeResult
from reel_modal._ffmpeg.process import QUIET, FFmpegProcess, output_size
from reel_modal._ffmpeg.raw_video import check_arguments, format_notes, raw_filters, raw_input
from reel_modal._ffmpeg.reader import FrameReader
from reel_modal._ffmpeg.sound_muxing import add_sound, muxing_arguments
from reel_modal.errors import ConfigError, FFmpegError, OutputMismatchError
from reel_modal.media import MediaInfo, scan_packets
from reel_modal.media.frame_buffers import SharedBuffer
from reel_modal.media.frames import (
    BT709,
    PLANAR,
    AnyPlanes,
    ColorTags,
    Frame,
    PixelFormat,
    U8Array,
    fit_edges,
    frame_bytes,
    frame_rate,
    raw_bytes,
)
from reel_modal.media.hdr import HdrMetadata
from reel_modal.media.open import file_url
from reel_modal.schema.degradation import Degradation
from reel_modal.schema.options import ENCODER_THREADS, MOST_THREADS
from reel_modal.settings import Settings
from reel_modal.storage import publish_file, staging_name

__all__ = ["FFmpeg", "FramePipe", "FrameReader", "PipeResult", "Writable", "find_ffmpeg"]

Writable: TypeAlias = Frame | U8Array | AnyPlanes | Buffer
"""Frame types that `FramePipe.write` accepts."""


class FramePipe:
    """Write frames to a video file; the complete file appears when the block ends, or no file at all.

    On any exception, including Ctrl-C, ffmpeg is killed and reaped, and no final or temporary file is left. ffmpeg's
    stderr is drained continuously, so it cannot block; every wait has a timeout.

    Args:
        path: The output file; its suffix selects the container. An existing file is replaced at the end.
        size: (width, height) of the frames in pixels.
        fps: Frames per second; values such as 29.97 mean NTSC rates, see `frame_rate`. If frames are written with
            times, it is only the encoder's nominal rate.
        pixel_format: Layout of the frames passed to `write`. `yuv420p` halves the bytes and avoids colour
            conversions. Planar frames are encoded in their own format, others in 4:2:0.
        encoder: `auto` or ffmpeg's name of an encoder. `auto` is NVENC if it starts, else libx264, reported in the
            result; VP9 for WebM.
        quality: 0 (best) to 51; x264's CRF or NVENC's CQ, scaled for VP9 and AV1. 23 is x264's own default.
        preset: x264 preset; for NVENC, VP9 and AV1 it is mapped to their presets.
        threads: Threads of the encoder and its filters, 1 to 64. The default is a constant, not the cores of this
            machine, because x264's output depends on the number of threads.
        encoder_options: Further options of the encoder, such as `{"g": "48"}`.
        audio_from: A file, or its `probe` result, whose audio streams are added: copied if the container accepts
            them, and at most as long as the video. A video without audio is not an error; an audio file such as
            `music.m4a` is accepted too.
        audio_start_seconds: The timestamp in that file that matches the first frame. Default: the timestamp of its
            first video frame, or of its first audio if it has no video.
        expected_frames: Number of frames that will be written, if known; the audio is then added during encoding
            and not after the last frame. If the number was wrong, the audio is added again.
        color: Colour tags of the frames. RGB frames are converted to this matrix and range (default BT.709,
            limited); YUV frames are only tagged. HDR (PQ or HLG) requires 10-bit frames; `auto` is then HEVC.
        hdr: Mastering display and light levels to write for HDR video: `MediaInfo.hdr` of its source.
        sample_aspect_ratio: Width / height of one pixel.
        field_order: Marks each frame as two fields, top (`tff`) or bottom (`bff`) field first; the encoder decides
            whether it codes them as fields. None marks progressive frames.
        odd_size: Handling of an odd width or height, which encoders with subsampled chroma refuse: `pad` repeats
            the last column or row, `crop` drops it, `error` raises. The result reports padding and cropping.
        metadata: Tags of the file, such as `{"title": "Reel"}`.
        settings: Selects the ffmpeg and its stall limit.

    Raises:
        ConfigError: An argument is not valid.
        EncoderUnavailableError: The encoder does not start on this machine; raised before the first frame.
        FFmpegNotFoundError: ffmpeg was not found.

    Example:
        >>> with FramePipe("out.mp4", size=(320, 180), fps=25) as pipe:
        ...     for shade in range(50):
        ...         pipe.write(np.full((180, 320, 3), shade, np.uint8))
        >>> pipe.result.frames
        50
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size: tuple[int, int],
        fps: Fraction | float | str,
        pixel_format: PixelFormat = "bgr24",
        encoder: str = "auto",
        quality: int = 23,
        preset: str = "fast",
        threads: int = ENCODER_THREADS,
        encoder_options: Mapping[str, str] | None = None,
        audio_from: str | Path | MediaInfo | None = None,
        audio_start_seconds: Fraction | float | None = None,
        expected_frames: int | None = None,
        color: ColorTags | None = None,
        hdr: HdrMetadata | None = None,
        sample_aspect_ratio: Fraction | int = 1,
        field_order: Literal["tff", "bff"] | None = None,
        odd_size: Literal["pad", "crop", "error"] = "pad",
        metadata: Mapping[str, str] | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.path: Path = Path(path)
        self.size = size
        self.fps: Fraction = frame_rate(fps)
        self.pixel_format: PixelFormat = pixel_format
        self.frames_written: int = 0
        frame_bytes(pixel_format, size)  # validates size and format
        if not self.path.suffix:
            raise ConfigError(f"{str(self.path)!r} has no suffix to select a container; use .mp4, .mov or .mkv")
        if not self.path.parent.is_dir():
            raise ConfigError(f"the output folder {str(self.path.parent)!r} does not exist; create it first")
        step = PLANAR.get(pixel_format, PLANAR["yuv420p"]).step
        self._odd_size: Literal["pad", "crop", "error"] = odd_size
        self._encoded_size = even_size(size, odd_size, step)
        self._frame_bytes = frame_bytes("yuv420p" if pixel_format == "gray8" else pixel_format, self._encoded_size)
        self._chroma = bytes([128]) * (self._frame_bytes // 3) if pixel_format == "gray8" else b""
        self._settings = settings or Settings.from_env()
        self._encoder = encoder
        self._quality = quality
        self._preset = preset
        self._threads = threads
        self._encoder_options = dict(encoder_options or {})
        self._audio_from = Path(audio_from) if isinstance(audio_from, str) else audio_from
        self._sound: Sound | None = None
        self._audio_start_seconds = (
            None if audio_start_seconds is None else exact_fraction(audio_start_seconds, "audio_start_seconds")
        )
        self._color = color or (BT709 if pixel_format in {"bgr24", "rgb24"} else ColorTags())
        self._bits = PLANAR[pixel_format].bits if pixel_format in PLANAR else 8
        if self._color.is_hdr and self._bits == 8:
            raise ConfigError(
                f"frames of {pixel_format} cannot be tagged {self._color.transfer}: HDR requires 10 bits; use"
                " a format such as yuv420p10le, or read the source with FrameReader(to_sdr=True)"
            )
        self._hdr = hdr if self._color.is_hdr else None
        self._field_order = field_order
        self._expected_frames = expected_frames
        self._sample_aspect_ratio = exact_fraction(sample_aspect_ratio, "sample_aspect_ratio")
        if self._sample_aspect_ratio <= 0:
            raise ConfigError(f"sample_aspect_ratio is {sample_aspect_ratio!r}; it must be above 0")
        if not 1 <= threads <= MOST_THREADS:
            raise ConfigError(f"threads is {threads!r}; it must be 1 to {MOST_THREADS}")
        self._metadata = dict(metadata or {})
        named = {**self._encoder_options, **self._metadata}
        check_arguments(str(path), encoder, preset, *named, *named.values())
        self._staged: list[Path] = []
        self._unknown_audio: list[Degradation] = []
        self._seconds: list[Fraction] = []
        self._last_seconds = 1 / self.fps
        self._choice: EncoderChoice | None = None
        self._process: FFmpegProcess | None = None
        self._count = FrameCount()
        self._ended = False
        self._failure: FFmpegError | None = None
        self._result: PipeResult | None = None

    @property
    def result(self) -> PipeResult:
        """The finished file and its properties.

        Raises:
            ConfigError: The block has not ended, or it ended with an error.
        """
        if self._result is None:
            raise ConfigError("FramePipe.result is available only after its `with` block has ended without an error")
        return self._result

    @property
    def stderr_tail(self) -> str:
        """The last lines of ffmpeg's stderr so far."""
        return "" if self._process is None else self._process.tail

    def use_sound(self, sound: Sound | None) -> None:
        """Add audio that was prepared before, instead of that of `audio_from`; internal to the package."""
        self._sound = sound

    def count_with(self, advance: Callable[[int], None]) -> None:
        """Call `advance` with the number of finished frames, at each write and after it; internal to the package."""
        self._count.advance = advance

    def choice(self) -> EncoderChoice:
        """Return the encoder, which is chosen by the first call; internal to the package.

        Raises:
            EncoderUnavailableError: The encoder does not start on this machine.
            FFmpegNotFoundError: ffmpeg was not found.
        """
        if self._choice is None:
            self._choice = choose_encoder(
                self._settings,
                self._encoder,
                suffix=self.path.suffix,
                before=(*self._raw_input(), *self._filters()),
                first_frame=bytes(self._frame_bytes),
                quality=self._quality,
                preset=self._preset,
                threads=self._threads,
                options=self._encoder_options,
                hdr=self._hdr,
                for_hdr=self._color.is_hdr,
                ten_bits=self._bits > 8,
            )
        return self._choice

    def encoding_arguments(self) -> tuple[str, ...]:
        """Return the arguments that determine the encoded frames; internal to the package."""
        return (*self._raw_input(), *self._filters(), *self.choice().arguments)

    def part(self, path: Path, x264_parameters: str = "") -> FramePipe:
        """Return a pipe that encodes some of the frames in the same way, without audio; internal to the package.

        `x264_parameters`, such as `scenecut=0`, are added to the options of the encoder.
        """
        options = dict(self._encoder_options)
        if x264_parameters:
            options["x264-params"] = ":".join(filter(None, (options.get("x264-params"), x264_parameters)))
        return FramePipe(
            path,
            size=self.size,
            fps=self.fps,
            pixel_format=self.pixel_format,
            encoder=self.choice().name,
            quality=self._quality,
            preset=self._preset,
            threads=self._threads,
            encoder_options=options,
            color=self._color,
            hdr=self._hdr,
            sample_aspect_ratio=self._sample_aspect_ratio,
            field_order=self._field_order,
            odd_size=self._odd_size,
            settings=self._settings,
        )

    def join(self, parts: Sequence[Path], frames: int) -> PipeResult:
        """Write the file from parts by copying their packets, and add the audio; internal to the package.

        Args:
            parts: Files of pipes that `part` has returned, in order.
            frames: Number of frames of all parts.

        Raises:
            OutputMismatchError: The parts have another number of frames, or do not belong together.
            FFmpegError: The audio could not be added.
        """
        self._ended, self.frames_written = True, frames
        try:
            if self._audio_from is not None:
                self._sound = self._find_sound(self._audio_from)
            joined = self._stage()
            options = muxer_options(self.path, self._metadata)
            join_videos(parts, joined, frames=frames, fps=self.fps, options=options, metadata=self._metadata)
            command = (self.choice().ffmpeg.path, *self.encoding_arguments())
            return self._complete(joined, has_sound=False, command=command)
        finally:
            self._discard_staged()

    def __enter__(self) -> Self:
        if self._process is not None:
            raise ConfigError("a FramePipe writes only one file; create another one for another file")
        choice = self.choice()
        try:
            if self._audio_from is not None:
                self._sound = self._find_sound(self._audio_from)
            self._video_path = self._stage()
            inputs, ending = self._raw_input(), tuple[str, ...]()
            if self._sound is None:
                ending = finishing_arguments(self.path, self._metadata)
            elif self._expected_frames is not None:
                length = self._expected_frames / self.fps
                inputs = (*inputs, *self._sound.input_arguments(length))
                ending = muxing_arguments(self._sound, self.path, length, self._metadata)
            command = (
                choice.ffmpeg.path,
                *QUIET,
                *PROGRESS,
                "-y",
                *inputs,
                *self._filters(),
                *choice.arguments,
                *ending,
                file_url(self._video_path),
            )
            limit = self._settings.stall_seconds
            self._process = FFmpegProcess(command, stdin=True, stall_seconds=limit, sink=self._count)
        except BaseException:
            self._discard_staged()
            raise
        return self

    def write(
        self, frame: Writable, *, seconds: Fraction | None = None, duration_seconds: Fraction | None = None
    ) -> None:
        """Write one frame.

        Args:
            frame: A `Frame` of this size and format; or an array: uint8, (H, W, 3) for bgr24 and rgb24,
                (H, W) for gray8; for planar formats (Y, U, V), or all samples flat, or for yuv420p OpenCV's
                (H * 3 / 2, W); uint16 if the format has 10 bits; or a bytes-like object of exactly one frame.
                C-contiguous memory is written without a copy and may be modified after this returns, except frames
                of a `FrameReader` with `zero_copy`.
            seconds: Display time relative to the first frame, for video with a variable frame rate. Either all
                frames have a time, strictly increasing, or none. The finished file is checked against these times.
            duration_seconds: Display duration, above 0, of a frame with a time if it is the last one; other frames
                are shown until the next one. None is 1 / `fps`.

        Raises:
            FrameError: The shape, length, time or duration is not valid; no part of the frame was written.
            FrameTypeError: The frame is neither bytes-like nor an array of the format's element type.
            FFmpegError: ffmpeg has ended; the error contains the end of its stderr.
            ConfigError: The call is outside the `with` block.
        """
        if self._failure is not None:
            raise self._failure
        if self._process is None or self._ended:
            raise ConfigError("write frames inside the `with` block of the FramePipe")
        check_moment(self.frames_written, seconds, duration_seconds, self._seconds)
        chunks = self._chunks(frame)
        try:
            for chunk in chunks:
                self._process.write(chunk)
            if self._chroma:
                self._process.write(memoryview(self._chroma))
        except BrokenPipeError as error:
            self._failure = self._ended_early()
            raise self._failure from error
        except BaseException:
            # If the caller continued after a Ctrl-C, every later frame would start in the middle of this one.
            self._failure = self._process.error(
                "a frame was written only partly, so no more frames can be written", frame_index=self.frames_written
            )
            raise
        self.frames_written += 1
        if seconds is not None:
            self._seconds.append(seconds)
            self._last_seconds = duration_seconds or 1 / self.fps
        self._count.wrote(self.frames_written, self._process.blocked_seconds)

    def _chunks(self, frame: Writable) -> Sequence[memoryview | SharedBuffer]:
        """Validate `frame` and return the bytes to write to the pipe."""
        chunks = raw_bytes(frame, self.pixel_format, self.size, self.frames_written)
        if self._encoded_size != self.size:
            return fit_edges(chunks, self.pixel_format, self.size, self._encoded_size)
        if isinstance(frame, Frame) and frame.shared is not None and frame.shared.data is frame.data:
            return [frame.shared]
        return chunks

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        try:
            if kind is None:
                self._finish()
        finally:
            try:
                if self._process is not None:
                    self._process.kill()
            finally:  # also after a second Ctrl-C
                self._discard_staged()

    def _discard_staged(self) -> None:
        for path in self._staged:
            path.unlink(missing_ok=True)

    def _finish(self) -> None:
        if self._failure is not None:
            raise self._failure
        process = self._process
        if process is None:
            raise ConfigError("the FramePipe was never entered")
        if self.frames_written == 0:
            raise FFmpegError(
                "no frame was written, so the video would be empty", command=process.command, frame_index=0
            )
        self._end(process, self._video_path, "ffmpeg failed while it finished the video")
        if self._seconds:
            timed = self._stage()
            options = muxer_options(self.path, self._metadata)
            set_times(self._video_path, timed, self._seconds, self._last_seconds, options)
            self._video_path = timed
        complete = not self._seconds and self.frames_written == self._expected_frames
        self._complete(self._video_path, has_sound=complete, command=process.command, stderr=process.tail)

    def _complete(self, video: Path, *, has_sound: bool, command: tuple[str, ...], stderr: str = "") -> PipeResult:
        """Add the audio unless the file has it, check the file and publish it."""
        finished = video if self._sound is None or has_sound else self._with_sound(video, self._sound)
        scan = scan_packets(finished)
        frames, choice = scan.frame_count, self.choice()
        if frames != self.frames_written:
            raise OutputMismatchError(
                f"{self.frames_written} frames were written to ffmpeg but the file has {frames}; it is deleted."
                f" Last lines of ffmpeg's stderr: {stderr or '(none)'}"
            )
        length = frames / self.fps
        if self._seconds:
            length = check_times(scan.times, self._seconds, self._last_seconds, frame_seconds=1 / self.fps)
        size_bytes = publish_file(finished, self.path)
        self._result = PipeResult(
            path=self.path,
            frames=frames,
            size=self._encoded_size,
            fps=self.fps,
            duration_seconds=length,
            bytes=size_bytes,
            encoder=choice.name,
            ffmpeg=str(choice.ffmpeg),
            command=command,
            degraded=self._degraded(choice),
            constant_rate=not self._seconds,
        )
        return self._result

    @property
    def _length_seconds(self) -> Fraction:
        if not self._seconds:
            return self.frames_written / self.fps
        return self._seconds[-1] + self._last_seconds

    def _end(self, process: FFmpegProcess, output: Path, message: str) -> None:
        """Wait for a process that has received all its input; raise FFmpegError unless it succeeded."""
        if process.finish(lambda: self._count.drained(output_size(output))) != 0:
            raise process.error(message, frame_index=self.frames_written)
        self._count.drained(0)

    def _ended_early(self) -> FFmpegError:
        """Return the error for a broken pipe; exit status 0 is an error too."""
        process = self._process
        if process is None:
            return FFmpegError("ffmpeg is not running")
        if not process.stalled:
            process.finish(lambda: output_size(self._video_path))
        return process.error("ffmpeg ended before all frames were written", frame_index=self.frames_written)

    def _stage(self) -> Path:
        self._staged.append(staging_name(self.path))
        return self._staged[-1]

    def _raw_input(self) -> tuple[str, ...]:
        return raw_input(self.pixel_format, self._encoded_size, self.fps)

    def _filters(self) -> tuple[str, ...]:
        ratio = self._sample_aspect_ratio
        return raw_filters(self.pixel_format, self._color, ratio, self._field_order, self._threads)

    def _find_sound(self, source: Path | MediaInfo) -> Sound | None:
        media = source if isinstance(source, MediaInfo) else probe_sound(source, self._settings)
        self._unknown_audio += unknown_audio_notes(media) if isinstance(source, Path) else []
        return SoundSource.of(media, start_seconds=self._audio_start_seconds, stage=self._stage)

    def _with_sound(self, video: Path, sound: Sound) -> Path:
        """Return a new file with the finished video stream and `sound`."""
        target = self._stage()
        add_sound(
            video,
            sound,
            target,
            length_seconds=self._length_seconds,
            metadata=self._metadata,
            ffmpeg=find_ffmpeg(self._settings).path,
            stall_seconds=self._settings.stall_seconds,
            more=last_duration_arguments(video, self._seconds, self._last_seconds),
        )
        return target

    def _degraded(self, choice: EncoderChoice) -> tuple[Degradation, ...]:
        notes = format_notes(self.size, self._encoded_size, self._hdr, choice.name)
        notes += [] if self._sound is None else self._sound.notes(self.path)
        return (*choice.passed_over, *self._unknown_audio, *notes)
