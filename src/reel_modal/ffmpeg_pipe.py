"""Frames into a video file and out of one, through ffmpeg that never hangs, leaks or leaves half a file.

It must not know what is drawn on the frames, nor where the files come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeAlias

from typing_extensions import Buffer

from reel_modal.config import Settings
from reel_modal.errors import (
    ConfigError,
    FFmpegError,
    FrameError,
    OutputMismatchError,
)
from reel_modal.frame_memory import SharedBuffer
from reel_modal.frames import (
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
from reel_modal.media import MediaInfo, find_ffmpeg, scan_packets
from reel_modal.media.encoders import choose_encoder
from reel_modal.media.ffmpeg_process import QUIET, FFmpegProcess, output_size
from reel_modal.media.filters import (
    even_size,
    exact_fraction,
    range_arguments,
    tag_filters,
    to_yuv_filters,
)
from reel_modal.media.frame_reader import FrameReader
from reel_modal.media.hdr import HdrMetadata
from reel_modal.media.muxing import finishing_arguments, is_mp4_like, muxer_options
from reel_modal.media.packet_times import check_times, keeping_last, set_times
from reel_modal.media.sound import Sound, SoundSource
from reel_modal.media.sound_files import probe_sound, unheard
from reel_modal.media.untrusted import COPIED, file_url
from reel_modal.schema.degradation import Degradation
from reel_modal.schema.encoding import ENCODER_THREADS, MOST_THREADS
from reel_modal.storage import publish_file, staging_name

__all__ = ["FramePipe", "FrameReader", "PipeResult", "Writable"]

Writable: TypeAlias = Frame | U8Array | AnyPlanes | Buffer
"""What `FramePipe.write` takes: see there."""


@dataclass(frozen=True, slots=True)
class PipeResult:
    """What a `FramePipe` has made.

    Attributes:
        path: The finished file.
        frames: Frames in it, as counted in the file.
        size: (width, height) of the encoded picture in pixels.
        fps: Exact frame rate.
        duration_seconds: frames / fps; if frames had times, from the first one to the end of the last in the file.
        bytes: Size of the file.
        encoder: ffmpeg's name of the encoder that was used.
        ffmpeg: Version, build and origin of the ffmpeg that ran it: for a hardware encoder it may be another one than
            usual. Empty if nothing was encoded.
        command: The encoding command line.
        degraded: What is not as asked; empty if all is.
        constant_rate: Whether frames are evenly spaced; false where they were written with times of their own.
    """

    path: Path
    frames: int
    size: tuple[int, int]
    fps: Fraction
    duration_seconds: Fraction
    bytes: int
    encoder: str
    ffmpeg: str
    command: tuple[str, ...]
    degraded: tuple[Degradation, ...] = ()
    constant_rate: bool = True


class FramePipe:
    """Write frames to a video file: the file appears whole when the block ends, or not at all.

    On any exception, Ctrl-C included, ffmpeg is killed and reaped and no file is left under the final or a
    temporary name. ffmpeg's stderr is drained all the while, so it cannot block; every wait is bounded.

    Args:
        path: The final name; its suffix chooses the container. An existing file is replaced at the end.
        size: (width, height) of the frames in pixels.
        fps: Frames a second; 29.97 and its like mean NTSC rates, see `frame_rate`. If frames are written with times,
            what the encoder takes for the rate.
        pixel_format: Layout of the frames that `write` takes. `yuv420p` saves half the bytes and every
            colour conversion. Planar frames are encoded as they are, others in 4:2:0.
        encoder: `auto` (NVENC where it starts, else libx264, said in the result; VP9 for WebM) or ffmpeg's name of
            one.
        quality: 0 (best) to 51; x264's crf or NVENC's cq. 23 is x264's own default.
        preset: x264's word for speed against size; mapped for NVENC.
        threads: Threads of the encoder and its filters, 1 to 64. The default is a constant, not the cores of this
            machine: x264 writes other bytes for another number.
        encoder_options: More options of the encoder, such as `{"g": "48"}`.
        audio_from: A file, or what `probe` has found out about it, whose audio streams go along: copied if the
            container takes them, at most as long as the picture. It may be a video, whose lack of sound is no error,
            or sound alone, such as `music.m4a`. A `Sound` says itself how.
        audio_start_seconds: The time on that file's clock that belongs to the first frame. Default: the
            time of its own first picture, or of its first sound if it has none.
        expected_frames: How many will be written, where that is known: then the sound need not wait for the last of
            them. Where it was wrong, the sound is put in anew.
        color: Colour tags of the frames. For RGB layouts the picture is converted to this matrix and range
            (default BT.709, limited); YUV frames are only tagged. HDR (PQ or HLG) wants frames of 10 bits; `auto`
            then is HEVC.
        hdr: What is written of the light of an HDR picture: `MediaInfo.hdr` of its source.
        sample_aspect_ratio: Width / height of one pixel.
        field_order: Marks the frames as two fields each, of which the top or the bottom one is first; whether it is
            coded so is the encoder's business. None marks whole frames.
        odd_size: What to do with an odd width or height, which encoders of halved chroma refuse: `pad` repeats the
            last column or row, `crop` drops it, `error` raises. Padding and cropping are named in the result.
        metadata: Tags of the file, such as `{"title": "Reel"}`.
        settings: Which ffmpeg, and how long it may stall.

    Raises:
        ConfigError: An argument cannot work.
        EncoderUnavailableError: The named encoder does not start here; raised before the first frame.
        FFmpegNotFoundError: There is no ffmpeg.

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
        audio_from: str | Path | MediaInfo | Sound | None = None,
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
        frame_bytes(pixel_format, size)  # refuses a size or a format that no frame has
        if not self.path.suffix:
            raise ConfigError(f"{str(self.path)!r} has no suffix to choose a container by; use .mp4, .mov or .mkv")
        if not self.path.parent.is_dir():
            raise ConfigError(f"the folder {str(self.path.parent)!r} of the output is not there; create it first")
        step = PLANAR.get(pixel_format, PLANAR["yuv420p"]).step
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
        self._audio_start_seconds = (
            None if audio_start_seconds is None else exact_fraction(audio_start_seconds, "audio_start_seconds")
        )
        self._color = color or (BT709 if pixel_format in {"bgr24", "rgb24"} else ColorTags())
        self._bits = PLANAR[pixel_format].bits if pixel_format in PLANAR else 8
        if self._color.is_hdr and self._bits == 8:
            raise ConfigError(
                f"frames of {pixel_format} cannot be tagged {self._color.transfer}: HDR wants 10 bits, such as"
                " yuv420p10le; write those, or read the source with FrameReader(to_sdr=True)"
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
        _check_words(str(path), encoder, preset, *named, *named.values())
        self._staged: list[Path] = []
        self._unheard: list[Degradation] = []
        self._seconds: list[Fraction] = []
        self._last_seconds = 1 / self.fps
        self._process: FFmpegProcess | None = None
        self._ended: bool = False
        self._failure: FFmpegError | None = None
        self._result: PipeResult | None = None

    @property
    def result(self) -> PipeResult:
        """What was made.

        Raises:
            ConfigError: The block has not ended, or it ended with an error.
        """
        if self._result is None:
            raise ConfigError("FramePipe.result is there after its `with` block has ended without an error")
        return self._result

    @property
    def stderr_tail(self) -> str:
        """The last lines that ffmpeg wrote so far."""
        return "" if self._process is None else self._process.tail

    def __enter__(self) -> Self:
        if self._process is not None:
            raise ConfigError("a FramePipe writes one file; make another one for another file")
        self._ffmpeg = find_ffmpeg(self._settings).path
        raw, filters = self._raw_input(), self._filters()
        self._choice = choose_encoder(
            self._settings,
            self._encoder,
            suffix=self.path.suffix,
            before=(*raw, *filters),
            first_frame=bytes(self._frame_bytes),
            quality=self._quality,
            preset=self._preset,
            threads=self._threads,
            options=self._encoder_options,
            hdr=self._hdr,
            for_hdr=self._color.is_hdr,
            ten_bits=self._bits > 8,
        )
        try:
            self._sound = self._find_sound()
            self._video_path = self._stage()
            inputs, ending = raw, tuple[str, ...]()
            if self._sound is None:
                ending = finishing_arguments(self.path, self._metadata)
            elif self._expected_frames is not None:
                length = self._expected_frames / self.fps
                inputs = (*raw, *self._sound.input_arguments(length))
                ending = self._joining(self._sound, length)
            encoding = (*filters, *self._choice.arguments)
            command = (
                self._choice.ffmpeg.path,
                *QUIET,
                "-y",
                *inputs,
                *encoding,
                *ending,
                file_url(self._video_path),
            )
            self._process = FFmpegProcess(command, feeds=True, stall_seconds=self._settings.stall_seconds)
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
                (H * 3 / 2, W), in uint16 where they have 10 bits; or a bytes-like object of exactly one frame.
                C-contiguous memory is written without a copy, and can be changed as soon as this returns, but for
                that of a `FrameReader` with `handed_on`.
            seconds: When the frame is shown, from the first one on, for a video of a variable rate; either all
                frames have a time, which rises, or none. The finished file is checked against them.
            duration_seconds: How long a frame with a time is shown if it is the last one; every other is shown until
                the next. None is one frame of `fps`.

        Raises:
            FrameError: The shape or length is another, or the time is not behind the last one's; nothing of the
                frame was written.
            FrameTypeError: It is no uint8 array and not bytes-like.
            FFmpegError: ffmpeg has ended; with its last words.
        """
        if self._failure is not None:
            raise self._failure
        if self._process is None or self._ended:
            raise ConfigError("write frames inside the `with` block of the FramePipe")
        if (seconds is None) == bool(self._seconds) and self.frames_written:
            raise FrameError(
                f"frame {self.frames_written} has {'no' if seconds is None else 'a'} time, unlike others"
            )
        if seconds is not None and self._seconds and seconds <= self._seconds[-1]:
            raise FrameError(
                f"frame {self.frames_written} is at {float(seconds):g} s, not behind {float(self._seconds[-1]):g} s"
            )
        if duration_seconds is not None and (seconds is None or duration_seconds <= 0):
            lack = "has no time" if seconds is None else f"lasts {float(duration_seconds):g} s"
            raise FrameError(f"frame {self.frames_written} {lack}; give a duration above 0 beside a time")
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
            # A caller that goes on after a Ctrl-C would have every later frame begin in the middle of this one.
            self._failure = self._process.error(
                "a frame was written in part, so no other can follow", frame_index=self.frames_written
            )
            raise
        self.frames_written += 1
        if seconds is not None:
            self._seconds.append(seconds)
            self._last_seconds = duration_seconds or 1 / self.fps

    def _chunks(self, frame: Writable) -> Sequence[memoryview | SharedBuffer]:
        """Return what goes into the pipe for `frame`, once it has been checked."""
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
            if self._process is not None:
                self._process.kill()
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
            raise FFmpegError("no frame was written, so there is no video", command=process.command, frame_index=0)
        self._end(process, self._video_path, "ffmpeg failed while it finished the video")
        if self._seconds:
            timed = self._stage()
            options = muxer_options(self.path, self._metadata)
            set_times(self._video_path, timed, self._seconds, self._last_seconds, options)
            self._video_path = timed
        lacks_sound = self._sound is not None and (self._seconds or self.frames_written != self._expected_frames)
        finished = self._add_sound(self._sound) if self._sound is not None and lacks_sound else self._video_path
        scan = scan_packets(finished)
        frames = scan.frame_count
        if frames != self.frames_written:
            raise OutputMismatchError(
                f"{self.frames_written} frames were written to ffmpeg but {frames} are in the file;"
                f" nothing is kept. ffmpeg's last words: {process.tail or '(none)'}"
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
            encoder=self._choice.name,
            ffmpeg=str(self._choice.ffmpeg),
            command=process.command,
            degraded=self._degraded(),
            constant_rate=not self._seconds,
        )

    @property
    def _length_seconds(self) -> Fraction:
        if not self._seconds:
            return self.frames_written / self.fps
        return self._seconds[-1] + self._last_seconds

    def _end(self, process: FFmpegProcess, output: Path, message: str) -> None:
        """Wait for a process that has all its input, and raise unless it succeeded."""
        if process.finish(lambda: output_size(output)) != 0:
            raise process.error(message, frame_index=self.frames_written)

    def _ended_early(self) -> FFmpegError:
        """Return the error for a pipe that broke: an exit status of 0 is no excuse."""
        process = self._process
        if process is None:
            return FFmpegError("ffmpeg is not running")
        if not process.stalled:
            process.finish(lambda: output_size(self._video_path))
        return process.error("ffmpeg ended before all frames were written", frame_index=self.frames_written)

    def _stage(self) -> Path:
        path = staging_name(self.path)
        self._staged.append(path)
        return path

    def _raw_input(self) -> tuple[str, ...]:
        """Return the options of the first input."""
        width, height = self._encoded_size
        # Gray frames travel as luma with neutral chroma: a conversion from gray would squeeze their range.
        raw_format = "yuv420p" if self.pixel_format == "gray8" else self.pixel_format
        source = ("-f", "rawvideo", "-pixel_format", raw_format, "-video_size", f"{width}x{height}")
        rate = f"{self.fps.numerator}/{self.fps.denominator}"
        # Without `-r`, ffmpeg takes a rate near 120 for 120.
        return (*source, "-framerate", rate, "-r", rate, "-i", "pipe:0")

    def _filters(self) -> tuple[str, ...]:
        """Return the options that make the raw frames what the encoder takes."""
        filters = to_yuv_filters(self.pixel_format, self._color)
        filters += tag_filters(self._color, self._sample_aspect_ratio)
        filters += [] if self._field_order is None else [f"setfield={self._field_order}"]
        threads = ("-filter_threads", str(self._threads))
        return (*threads, "-vf", ",".join(filters), *range_arguments(self._color))

    def _find_sound(self) -> Sound | None:
        given = self._audio_from
        if not isinstance(given, Path | MediaInfo):
            return given
        media = given if isinstance(given, MediaInfo) else probe_sound(given, self._settings)
        self._unheard += unheard(media) if isinstance(given, Path) else []
        return SoundSource.of(media, start_seconds=self._audio_start_seconds, stage=self._stage)

    def _add_sound(self, sound: Sound) -> Path:
        """Put the finished picture and the sound that belongs to it together."""
        target = self._stage()
        # Matroska keeps no decoding times: ffmpeg guesses them, once it has decoded some pictures.
        look = COPIED if is_mp4_like(self._video_path) else ()
        last = keeping_last(self._video_path, self._seconds, self._last_seconds)
        command = (
            *(self._ffmpeg, *QUIET, "-y", *look, "-i", file_url(self._video_path)),
            *sound.input_arguments(self._length_seconds),
            *("-c:v", "copy", *last, *self._joining(sound, self._length_seconds), file_url(target)),
        )
        process = FFmpegProcess(command, stall_seconds=self._settings.stall_seconds)
        try:
            self._end(process, target, f"the sound of {sound.name!r} could not be added")
        finally:
            process.kill()
        return target

    def _joining(self, sound: Sound, length: Fraction) -> tuple[str, ...]:
        """Return the options of the output where the first input is the picture and the second is `sound`."""
        streams = ("-map", "0:v:0", *sound.output_arguments(self.path, length))
        alone = ("-map_metadata", "-1", "-map_chapters", "-1")
        return (*streams, *alone, *finishing_arguments(self.path, self._metadata))

    def _degraded(self) -> tuple[Degradation, ...]:
        notes = [*self._choice.passed_over, *self._unheard]
        if self._encoded_size != self.size:
            message = (
                f"the odd size {self.size[0]}x{self.size[1]} was encoded as"
                f" {self._encoded_size[0]}x{self._encoded_size[1]}, since its chroma wants an even one"
            )
            notes.append(Degradation("size_changed", message))
        if self._hdr is not None and self._hdr.parameters(self._choice.name) is None:
            message = f"{self._choice.name} does not write what the source says of its mastering display and light"
            notes.append(Degradation("hdr_metadata_dropped", message))
        if self._sound is not None:
            notes += self._sound.notes(self.path)
        return tuple(notes)


def _check_words(*words: str) -> None:
    """Refuse what cannot stand on a command line."""
    for word in words:
        if not isinstance(word, str) or "\0" in word:
            raise ConfigError(f"{word!r} cannot be an argument of ffmpeg; give text without null characters")
