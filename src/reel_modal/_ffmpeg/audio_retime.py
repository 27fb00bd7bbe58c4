"""Audio of an edited clip: play each piece of the timeline at its speed, in sync with the frames to the sample."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from reel_modal._ffmpeg.audio import FinishedSound, Sound, SoundSource, encoded_as, kept_layout
from reel_modal._ffmpeg.audio_tempo import ChannelLayout, Samples, Tempo
from reel_modal._ffmpeg.audio_unindexed import sound_formats
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.filters import seconds_text
from reel_modal._ffmpeg.process import QUIET, FFmpegProcess, output_size
from reel_modal.media import AudioStream, MediaInfo
from reel_modal.media.headers import SEEK_MARGIN_SECONDS
from reel_modal.media.open import file_url, input_arguments
from reel_modal.schema import Piece, Timeline
from reel_modal.settings import Settings

__all__ = ["SoundReader", "encode_samples", "in_one_format", "retimed", "sound_file", "sound_for"]

_BLOCK: Final = 8192
# Adjacent pieces overlap by this time: long enough to avoid a click, too short to be audible.
_JOIN_SECONDS: Final = Fraction(5, 1000)
# Source audio that the tempo filter gets before a piece begins, so that its first window is complete.
_RUN_UP_SECONDS: Final = Fraction(1, 10)
_USUAL_RATE_HZ: Final = 48000
_HIGHEST_RATE_HZ: Final = 96000
_SAMPLE_BYTES: Final = 4
# Suffix of the audio files for a container; the others use AAC in M4A.
_FILES: Final = {".webm": ".webm", ".avi": ".wav"}


def sound_for(
    media: MediaInfo,
    timeline: Timeline,
    target: Path,
    *,
    length_seconds: Fraction,
    settings: Settings,
    check: Callable[[], None],
) -> Sound | None:
    """Return the audio of `media` on `timeline`: the source's if nothing changes, else files next to `target`.

    Every audio stream is processed separately: the streams may differ in start, end and sample rate.

    Args:
        media: The source.
        timeline: Maps source time to output time.
        target: The output file; its suffix selects the codec.
        length_seconds: Length of the output video. The audio has the same length, to the sample.
        settings: Which ffmpeg to use, the limits, and the stall timeout.
        check: Called regularly; it may raise an exception to stop.

    Returns:
        None if the source has no audio.

    Raises:
        FFmpegError: The audio could not be decoded or encoded.
    """
    if not media.audio:
        return None
    if timeline.untouched:
        return _source(media, target)
    with in_one_format(media, target, settings) as steady, ExitStack() as undo:
        files = tuple(sound_file(target, number) for number in range(len(steady.audio)))
        result = FinishedSound(files, steady.audio)
        undo.callback(result.discard)
        for path, stream in zip(result.files, result.streams, strict=True):
            rate, layout = _rate_of(stream, path.suffix), kept_layout(stream, path)
            reader = SoundReader(
                steady, stream, timeline.source_start, sample_rate_hz=rate, layout=layout, settings=settings
            )
            samples = retimed(reader, timeline, length_seconds)
            encode_samples(samples, path, stream, rate_hz=rate, layout=layout, settings=settings, check=check)
        undo.pop_all()
        return result


def sound_file(target: Path, number: int) -> Path:
    """Return the path of a file next to `target` for the encoded audio stream `number`."""
    return target.with_name(f"{target.stem}.sound{number}{_FILES.get(target.suffix.lower(), '.m4a')}")


def _source(media: MediaInfo, target: Path) -> SoundSource | None:
    """Return the audio of `media` without re-encoding; a copy, if one is needed, is made next to `target`."""
    return SoundSource.of(media, start_seconds=None, stage=lambda: target.with_name(f"{target.stem}.sound.nut"))


@contextmanager
def in_one_format(media: MediaInfo, target: Path, settings: Settings) -> Iterator[MediaInfo]:
    """Yield `media` with audio that has one format from start to end.

    Audio that changes its format is first decoded into a file next to `target`: ffmpeg sets up its filters again at
    each change, and the filters that fill gaps would restart at zero.
    """
    source = _source(media, target) if sound_formats(media) else None
    if source is None:
        yield media
        return
    path = target.with_name(f"{target.stem}.steady.nut")
    try:
        _decode_into(path, source, settings)
        zero, audio = Fraction(0), source.media.audio
        yield replace(media, path=path, format="nut", audio=audio, start_seconds=zero, container_start_seconds=zero)
    finally:
        path.unlink(missing_ok=True)
        source.discard()


def _decode_into(path: Path, source: SoundSource, settings: Settings) -> None:
    """Decode the streams of `source` into `path` as PCM, each in the widest of its formats."""
    arguments: list[str] = []
    for number, stream in enumerate(source.media.audio):
        layout, rate = kept_layout(stream, path), _rate_of(stream, path.suffix)
        one_format = f"aformat=sample_fmts=flt:channel_layouts={layout.name}:sample_rates={rate}"
        arguments += ["-map", f"0:{stream.index}", f"-filter:a:{number}", one_format]
    inputs = ("-copyts", *input_arguments(source.media.path, settings.limits))
    command = (find_ffmpeg(settings).path, *QUIET, "-y", *inputs, *arguments, "-c:a", "pcm_f32le", file_url(path))
    process = FFmpegProcess(command, stall_seconds=settings.stall_seconds)
    try:
        if process.finish(lambda: output_size(path)) != 0:
            raise process.error(f"the audio of {source.name!r} could not be decoded")
    finally:
        process.kill()


def encode_samples(
    sound: Generator[Samples],
    path: Path,
    stream: AudioStream,
    *,
    rate_hz: int,
    layout: ChannelLayout,
    settings: Settings,
    check: Callable[[], None],
) -> None:
    """Encode samples into the file `path`; `sound` is closed also after an error.

    Args:
        sound: The samples, block by block.
        path: Its suffix selects the codec.
        stream: The stream that they belong to; its layout is kept if the encoder supports it.
        rate_hz: Sample rate of the samples.
        layout: Channel layout of the samples.
        settings: Which ffmpeg to use, and the stall timeout.
        check: Called for each block; it may raise an exception to stop.

    Raises:
        FFmpegError: The audio could not be encoded.
    """
    raw = ("-f", "f32le", "-ar", str(rate_hz), "-channel_layout", layout.name, "-i", "pipe:0")
    encoding = (*encoded_as(stream, path), file_url(path))
    command = (find_ffmpeg(settings).path, *QUIET, "-y", *raw, *encoding)
    process = FFmpegProcess(command, stdin=True, stall_seconds=settings.stall_seconds)
    try:
        for samples in sound:
            check()
            process.write(np.ascontiguousarray(samples).data.cast("B"))
        if process.finish(lambda: output_size(path)) != 0:
            raise process.error("the audio could not be encoded")
    except BrokenPipeError as error:
        raise process.error("ffmpeg ended before all audio was written") from error
    finally:
        sound.close()
        process.kill()


def _rate_of(stream: AudioStream, suffix: str) -> int:
    """Return the sample rate of the output."""
    usual = suffix == ".webm" or not 0 < stream.sample_rate_hz <= _HIGHEST_RATE_HZ
    return _USUAL_RATE_HZ if usual else stream.sample_rate_hz


class SoundReader:
    """An audio stream of a file as samples, starting at the time of the first frame.

    Gaps, a late start and an early end are filled with silence: sample n is always the one at n / rate seconds. Reads
    go forward only; samples are kept only as far back as requested.

    Args:
        media: The file.
        stream: One of its streams.
        start_seconds: Time from which reads begin, in seconds after the first frame. A second before it can still be
            read.
        sample_rate_hz: Sample rate of the result.
        layout: Channel layout of the result.
        settings: Which ffmpeg to use, the limits, and the stall timeout.
    """

    def __init__(
        self,
        media: MediaInfo,
        stream: AudioStream,
        start_seconds: Fraction,
        *,
        sample_rate_hz: int,
        layout: ChannelLayout,
        settings: Settings,
    ) -> None:
        self.stream: AudioStream = stream
        self.sample_rate_hz: int = sample_rate_hz
        self.layout: ChannelLayout = layout
        self._media = media
        self._settings = settings
        self._first = max(0, int((start_seconds - 1) * sample_rate_hz))
        self._held = np.empty((0, layout.channels), np.float32)
        self._held_from = self._first
        self._ended = False
        self._process: FFmpegProcess | None = None

    def __enter__(self) -> Self:
        command = self._command()
        self._process = FFmpegProcess(command, stdout=True, stall_seconds=self._settings.stall_seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()

    def read(self, start: int, count: int, *, keep_from: int) -> Samples:
        """Return `count` samples starting at `start`; silence if the source has no audio there.

        Args:
            start: Number of the first sample.
            count: Number of samples.
            keep_from: Samples before this one, and before `start` + `count`, will not be requested again.
        """
        while not self._ended and self._held_from + len(self._held) < start + count:
            self._fill()
        samples = np.zeros((count, self.layout.channels), np.float32)
        at = max(start, self._held_from)
        available = self._held[at - self._held_from : max(0, start + count - self._held_from)]
        samples[at - start : at - start + len(available)] = available
        drop = min(keep_from, start + count) - self._held_from
        if drop > 0:
            self._held = self._held[drop:]
            self._held_from += drop
        return samples

    def _fill(self) -> None:
        """Read the next samples of the file."""
        process = self._process
        if process is None:
            self._ended = True
            return
        block = np.empty((_BLOCK, self.layout.channels), np.float32)
        count = process.read_into(block.data.cast("B")) // (_SAMPLE_BYTES * self.layout.channels)
        if count < _BLOCK:
            self._ended = True
            if process.stalled or process.finish() != 0:
                raise process.error(f"the audio of {self._media.path.name!r} could not be read to its end")
        self._held = np.concatenate((self._held, block[:count]))

    def _command(self) -> tuple[str, ...]:
        """Return the command that writes samples to stdout, starting at sample number `_first`."""
        rate = self.sample_rate_hz
        origin = self._media.start_seconds + Fraction(self._first, rate)
        filters = (
            # async fills gaps and cuts overlaps; first_pts does the same before the first sample.
            f"asetpts=PTS-({float(origin)!r})/TB",
            f"aresample={rate}:async=1:first_pts=0",
            f"aformat=sample_fmts=flt:channel_layouts={self.layout.name}",
        )
        seek: tuple[str, ...] = ()
        target = origin - SEEK_MARGIN_SECONDS - self._media.container_start_seconds
        if target > 0 and self._media.has_index:
            seek = ("-ss", seconds_text(target))
        return (
            *(find_ffmpeg(self._settings).path, *QUIET, "-copyts", *seek),
            *input_arguments(self._media.path, self._settings.limits),
            *("-filter_complex", f"[0:{self.stream.index}]{','.join(filters)}[sound]"),
            *("-map", "[sound]", "-f", "f32le", "pipe:1"),
        )


@dataclass(frozen=True, slots=True)
class _Part:
    """One piece of the timeline in output samples, and the length of its overlap with the next piece."""

    piece: Piece
    start: int
    count: int
    overlap: int


def retimed(reader: SoundReader, timeline: Timeline, length_seconds: Fraction) -> Generator[Samples]:
    """Yield the audio of the output, exactly round(length x rate) samples.

    Each piece begins at the sample for its start time, so rounding errors do not accumulate. Each continues for 5 ms
    after the next one begins, which is faded in during that time.

    Args:
        reader: The source; it is opened and closed here.
        timeline: Maps source time to output time.
        length_seconds: Length of the output.
    """
    with reader:
        over = _Overlap(np.empty((0, reader.layout.channels), np.float32))
        parts = _parts(timeline, length_seconds, reader.sample_rate_hz)
        for index, part in enumerate(parts):
            following = parts[index + 1].piece if index + 1 < len(parts) else None
            left, tail = part.count, []
            for samples in _piece_samples(reader, part, following):
                if left:
                    yield over.fade_in(samples[:left])
                if len(samples) > left:  # an empty slice would keep all of `samples` in memory
                    tail.append(samples[left:])
                left -= min(left, len(samples))
            over = _Overlap(np.concatenate(tail) if tail else np.empty((0, reader.layout.channels), np.float32))


class _Overlap:
    """The end of a piece, which overlaps the beginning of the next one.

    Args:
        tail: It fades out linearly over its whole length, while the next piece fades in.
    """

    def __init__(self, tail: Samples) -> None:
        self._rise: Samples = np.linspace(0, 1, len(tail) + 2, dtype=np.float32)[1:-1, None]
        self._tail: Samples = tail * (1 - self._rise)

    def fade_in(self, samples: Samples) -> Samples:
        """Return the next samples, mixed with the rest of the tail."""
        count = min(len(samples), len(self._tail))
        if not count:
            return samples
        joined = samples.copy()
        joined[:count] = samples[:count] * self._rise[:count] + self._tail[:count]
        self._rise, self._tail = self._rise[count:], self._tail[count:]
        return joined


def _parts(timeline: Timeline, length_seconds: Fraction, rate: int) -> list[_Part]:
    """Convert the pieces to output samples; the last one extends to the end of the output."""
    end = round(length_seconds * rate)
    borders = [*(min(end, round(piece.output_start * rate)) for piece in timeline.pieces), end]
    counts = [max(0, after - before) for before, after in pairwise(borders)]
    join = round(_JOIN_SECONDS * rate)
    return [
        _Part(piece, border, count, min(join, after))
        for piece, border, count, after in zip(timeline.pieces, borders, counts, [*counts[1:], 0], strict=False)
        if count
    ]


def _piece_samples(reader: SoundReader, part: _Part, following: Piece | None) -> Iterator[Samples]:
    """Yield the samples of one piece and its overlap; the reader keeps the samples that the next piece needs."""
    rate, remaining = reader.sample_rate_hz, part.count + part.overlap
    begin = part.piece.to_source(Fraction(part.start, rate))
    # Samples before this are needed neither here nor by the next piece.
    keep = round((following.source_start - _run_up(following)) * rate) if following is not None else 1 << 62
    if part.piece.speed == 1:
        at = round(begin * rate)
        for done in range(0, remaining, _BLOCK):
            yield reader.read(at + done, min(_BLOCK, remaining - done), keep_from=keep)
        return
    tempo = Tempo(part.piece.speed, sample_rate_hz=rate, layout=reader.layout)
    run_up = _run_up(part.piece)
    at = round((begin - run_up) * rate)
    skip = round((float(begin - Fraction(at, rate)) / float(part.piece.speed) + tempo.offset_seconds) * rate)
    while remaining > 0:
        samples = tempo.push(reader.read(at, _BLOCK, keep_from=keep))
        at += _BLOCK
        ready = samples[skip:][:remaining]
        skip = max(0, skip - len(samples))
        remaining -= len(ready)
        if len(ready):
            yield ready


def _run_up(piece: Piece) -> Fraction:
    """Return the length of source audio that the tempo filter gets before a piece begins."""
    return _RUN_UP_SECONDS * max(Fraction(1), piece.speed) if piece.speed != 1 else Fraction(0)
