"""Audio of a reel: the clips' audio on one timeline, in one layout and sample rate, encoded once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from reel_modal._ffmpeg.audio import FinishedSound, encoded_codec
from reel_modal._ffmpeg.audio_retime import SoundReader, encode_samples, in_one_format, retimed, sound_file
from reel_modal._ffmpeg.audio_tempo import ChannelLayout, Samples
from reel_modal._ffmpeg.loudness import encode_at_loudness
from reel_modal._ffmpeg.reel_music import EDGE_SECONDS, MusicSound, faded_gain, sound_blocks, with_music
from reel_modal.media import MediaInfo
from reel_modal.media.headers import AudioStream
from reel_modal.schema import Degradation, PlacedClip
from reel_modal.settings import Settings

__all__ = ["ClipSound", "music_notes", "reel_layout", "reel_samples", "reel_sound", "reel_sound_notes"]

SAMPLE_RATE_HZ: Final = 48000
"""Sample rate of every reel."""

_BLOCK: Final = 8192
_MONO: Final = ChannelLayout("mono", 1)
_STEREO: Final = ChannelLayout("stereo", 2)


@dataclass(frozen=True, slots=True)
class ClipSound:
    """Audio of one clip of a reel.

    Attributes:
        placed: The clip on the timeline.
        media: The source; its first audio stream is used.
        volume: Factor of the samples; 0 is silence.
    """

    placed: PlacedClip
    media: MediaInfo
    volume: float

    @property
    def stream(self) -> AudioStream | None:
        """The audio stream; None if the clip is silent."""
        return self.media.audio[0] if self.media.audio and self.volume > 0 else None


def reel_layout(clips: Sequence[ClipSound], music: MusicSound | None = None) -> ChannelLayout:
    """Return the channel layout of a reel: stereo, or mono if the music and all clips with audio are mono."""
    streams = [clip.stream for clip in clips if clip.stream is not None]
    streams += [music.stream] if music is not None else []
    return _MONO if streams and all(stream.channels == 1 for stream in streams) else _STEREO


def reel_sound(
    clips: Sequence[ClipSound],
    target: Path,
    *,
    music: MusicSound | None = None,
    loudness_lufs: float | None = None,
    settings: Settings,
    check: Callable[[], None],
) -> tuple[FinishedSound | None, tuple[Degradation, ...]]:
    """Encode the audio of a reel into a file next to `target`.

    Args:
        clips: All clips in order.
        target: The output file; its suffix selects the codec.
        music: Music under the clips.
        loudness_lufs: Loudness to reach, in LUFS; None leaves the samples and clips what exceeds full scale.
        settings: Which ffmpeg to use, the limits, and the stall timeout.
        check: Called regularly; it may raise an exception to stop.

    Returns:
        The audio, None if all clips are silent and there is no music; and a note if the loudness was not reached.

    Raises:
        RequestError: The music has no audio after its start.
        FFmpegError: The audio could not be decoded or encoded.
    """
    if music is None and all(clip.stream is None for clip in clips):
        return None, ()
    layout, last = reel_layout(clips, music), clips[-1].placed
    codec = encoded_codec(target)
    stream = AudioStream(
        *(0, codec, SAMPLE_RATE_HZ, layout.channels, layout.name, Fraction(0), last.end_seconds, None, None),
        ("default",),
    )
    sound = FinishedSound((sound_file(target, 0),), (stream,))
    samples = reel_samples(clips, target, layout=layout, settings=settings)
    if music is not None:
        samples = with_music(
            samples,
            music,
            target.with_name(f"{target.stem}.music.f32"),
            count=_sample(last.end, last.fps),
            rate_hz=SAMPLE_RATE_HZ,
            layout=layout,
            settings=settings,
            check=check,
        )

    def encode(mixed: Generator[Samples]) -> None:
        encode_samples(
            mixed, sound.files[0], stream, rate_hz=SAMPLE_RATE_HZ, layout=layout, settings=settings, check=check
        )

    try:
        if loudness_lufs is None:
            encode(_clipped(samples))
            return sound, ()
        with _written(samples, target.with_name(f"{target.stem}.mix.f32"), check) as raw:
            notes = encode_at_loudness(
                sound_blocks(raw, layout.channels),
                raw,
                sound.files[0],
                target_lufs=loudness_lufs,
                rate_hz=SAMPLE_RATE_HZ,
                layout=layout,
                encode=encode,
                settings=settings,
                check=check,
            )
    except BaseException:
        sound.discard()
        raise
    return sound, notes


def _clipped(samples: Generator[Samples]) -> Generator[Samples]:
    """Yield the samples, clipped at full scale."""
    with closing(samples):
        for block in samples:
            yield np.clip(block, -1, 1)


@contextmanager
def _written(samples: Generator[Samples], path: Path, check: Callable[[], None]) -> Iterator[Path]:
    """Write the samples as float32 to the temporary file `path`, and yield it."""
    try:
        with closing(samples), path.open("wb") as file:
            for block in samples:
                check()
                file.write(np.ascontiguousarray(block, np.float32).data.cast("B"))
        yield path
    finally:
        path.unlink(missing_ok=True)


def reel_sound_notes(clip: ClipSound, layout: ChannelLayout, target: Path) -> Iterator[Degradation]:
    """Yield the differences between the audio of one clip and that of the reel."""
    stream, codec = clip.stream, encoded_codec(target)
    if stream is None:
        return
    if stream.codec != codec:
        message = f"the {stream.codec} audio was encoded as {codec}, because its times change"
        yield Degradation("sound_reencoded", message)
    if stream.channels > layout.channels:
        yield Degradation("channels_reduced", _reduced(stream, layout))
    for other in clip.media.audio[1:]:
        message = f"audio stream {other.index} is not in the output: a reel has the first one of each clip"
        yield Degradation("sound_dropped", message)


def music_notes(music: MusicSound, layout: ChannelLayout) -> Iterator[Degradation]:
    """Yield the differences between the audio of the music and that of the reel."""
    stream = music.stream
    if stream.channels > layout.channels:
        yield Degradation("channels_reduced", f"{music.name}: {_reduced(stream, layout)}")
    for other in music.media.audio[1:]:
        message = f"audio stream {other.index} is not in the output: the first one is the music"
        yield Degradation("sound_dropped", f"{music.name}: {message}")


def _reduced(stream: AudioStream, layout: ChannelLayout) -> str:
    return f"the {stream.channels} audio channels ({stream.layout}) were reduced to {layout.channels}"


def reel_samples(
    clips: Sequence[ClipSound], target: Path, *, layout: ChannelLayout, settings: Settings
) -> Generator[Samples]:
    """Yield the audio of the clips of a reel: exactly round(length x 48000) samples, which may exceed full scale.

    A clip begins and ends at the samples for the times of its first and last frame.

    Args:
        clips: All clips in order.
        target: The output file; temporary files are next to it.
        layout: Channel layout of the result.
        settings: Which ffmpeg to use, the limits, and the stall timeout.
    """
    tail = np.zeros((0, layout.channels), np.float32)
    for clip in clips:
        placed = clip.placed
        own = _sample(placed.end - placed.shared_frames, placed.fps) - _sample(placed.first, placed.fps)
        later: list[Samples] = []
        with closing(_faded(clip, target, layout, settings)) as faded:
            for samples in faded:
                mixed = min(len(tail), len(samples))
                samples[:mixed] += tail[:mixed]
                tail = tail[mixed:]
                if own:
                    yield samples[:own]
                if len(samples) > own:
                    later.append(samples[own:])
                own -= min(own, len(samples))
        tail = np.concatenate(later) if later else tail


def _sample(frame: int, fps: Fraction) -> int:
    """Return the number of the sample at which a frame begins."""
    return round(frame / fps * SAMPLE_RATE_HZ)


def _faded(clip: ClipSound, target: Path, layout: ChannelLayout, settings: Settings) -> Generator[Samples]:
    """Yield the samples of one clip, faded in and out, at its volume."""
    placed = clip.placed
    first, end = _sample(placed.first, placed.fps), _sample(placed.end, placed.fps)
    count, edge = end - first, round(EDGE_SECONDS * SAMPLE_RATE_HZ)
    rise = max(edge, _sample(placed.first + placed.entry_frames, placed.fps) - first)
    fall = max(edge, end - _sample(placed.end - placed.exit_frames, placed.fps))
    at = 0
    with closing(_source_samples(clip, target, layout, settings)) as source:
        for samples in _exactly(source, count, layout.channels):
            places = np.arange(at, at + len(samples), dtype=np.float64) + 0.5
            gain = faded_gain(places / rise) * faded_gain((count - places) / fall) * clip.volume
            yield (samples * gain[:, None]).astype(np.float32)
            at += len(samples)


def _source_samples(clip: ClipSound, target: Path, layout: ChannelLayout, settings: Settings) -> Generator[Samples]:
    """Yield the samples of the kept part of a clip at its speeds; none if the clip is silent."""
    if clip.stream is None:
        return
    line, length = clip.placed.line, clip.placed.frames / clip.placed.fps
    beside = target.with_name(f"{target.stem}-clip{clip.placed.index}")
    with in_one_format(clip.media, beside, settings) as media:
        reader = SoundReader(
            media, media.audio[0], line.source_start, sample_rate_hz=SAMPLE_RATE_HZ, layout=layout, settings=settings
        )
        yield from retimed(reader, line, length)


def _exactly(blocks: Generator[Samples], count: int, channels: int) -> Iterator[Samples]:
    """Yield `count` samples: those of `blocks`, then silence."""
    for samples in blocks:
        part = samples[:count]
        count -= len(part)
        yield part
    for done in range(0, count, _BLOCK):
        yield np.zeros((min(_BLOCK, count - done), channels), np.float32)
