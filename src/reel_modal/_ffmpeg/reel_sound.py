"""Audio of a reel: the clips' audio on one timeline, in one layout and sample rate, encoded once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from reel_modal._ffmpeg.audio import FinishedSound, encoded_codec
from reel_modal._ffmpeg.audio_retime import SoundReader, encode_samples, in_one_format, retimed, sound_file
from reel_modal._ffmpeg.audio_tempo import ChannelLayout, Samples
from reel_modal.media import MediaInfo
from reel_modal.media.headers import AudioStream
from reel_modal.schema import Degradation, PlacedClip
from reel_modal.settings import Settings

__all__ = ["ClipSound", "reel_layout", "reel_samples", "reel_sound", "reel_sound_notes"]

SAMPLE_RATE_HZ: Final = 48000
"""Sample rate of every reel."""

_BLOCK: Final = 8192
# Each clip fades in and out this fast at a cut, so that a cut in a loud passage makes no click.
_EDGE_SECONDS: Final = Fraction(5, 1000)
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


def reel_layout(clips: Sequence[ClipSound]) -> ChannelLayout:
    """Return the channel layout of a reel: stereo, or mono if all clips with audio are mono."""
    streams = [clip.stream for clip in clips if clip.stream is not None]
    return _MONO if streams and all(stream.channels == 1 for stream in streams) else _STEREO


def reel_sound(
    clips: Sequence[ClipSound], target: Path, *, settings: Settings, check: Callable[[], None]
) -> FinishedSound | None:
    """Encode the audio of a reel into a file next to `target`; return None if all clips are silent.

    Args:
        clips: All clips in order.
        target: The output file; its suffix selects the codec.
        settings: Which ffmpeg to use, the limits, and the stall timeout.
        check: Called regularly; it may raise an exception to stop.

    Raises:
        FFmpegError: The audio could not be decoded or encoded.
    """
    if all(clip.stream is None for clip in clips):
        return None
    layout, length = reel_layout(clips), clips[-1].placed.end_seconds
    codec = encoded_codec(target)
    stream = AudioStream(
        0, codec, SAMPLE_RATE_HZ, layout.channels, layout.name, Fraction(0), length, None, None, ("default",)
    )
    sound = FinishedSound((sound_file(target, 0),), (stream,))
    samples = reel_samples(clips, target, layout=layout, settings=settings)
    try:
        encode_samples(
            samples, sound.files[0], stream, rate_hz=SAMPLE_RATE_HZ, layout=layout, settings=settings, check=check
        )
    except BaseException:
        sound.discard()
        raise
    return sound


def reel_sound_notes(clip: ClipSound, layout: ChannelLayout, target: Path) -> Iterator[Degradation]:
    """Yield the differences between the audio of one clip and that of the reel."""
    stream, codec = clip.stream, encoded_codec(target)
    if stream is None:
        return
    if stream.codec != codec:
        message = f"the {stream.codec} audio was encoded as {codec}, because its times change"
        yield Degradation("sound_reencoded", message)
    if stream.channels > layout.channels:
        message = f"the {stream.channels} audio channels ({stream.layout}) were reduced to {layout.channels}"
        yield Degradation("channels_reduced", message)
    for other in clip.media.audio[1:]:
        message = f"audio stream {other.index} is not in the output: a reel has the first one of each clip"
        yield Degradation("sound_dropped", message)


def reel_samples(
    clips: Sequence[ClipSound], target: Path, *, layout: ChannelLayout, settings: Settings
) -> Generator[Samples]:
    """Yield the audio of a reel: exactly round(length x 48000) samples.

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
                    yield np.clip(samples[:own], -1, 1)
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
    count, edge = end - first, round(_EDGE_SECONDS * SAMPLE_RATE_HZ)
    rise = max(edge, _sample(placed.first + placed.entry_frames, placed.fps) - first)
    fall = max(edge, end - _sample(placed.end - placed.exit_frames, placed.fps))
    at = 0
    with closing(_source_samples(clip, target, layout, settings)) as source:
        for samples in _exactly(source, count, layout.channels):
            places = np.arange(at, at + len(samples), dtype=np.float64) + 0.5
            gain = _fade(places / rise) * _fade((count - places) / fall) * clip.volume
            yield (samples * gain[:, None]).astype(np.float32)
            at += len(samples)


def _fade(share: np.ndarray[tuple[int], np.dtype[np.float64]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the gain of a fade that is at `share` of its length.

    The squares of the gains at `share` and at 1 - `share` add up to 1: a crossfade of two clips keeps the power.
    """
    inside = np.clip(share, 0, 1)
    return np.sqrt(inside * inside * (3 - 2 * inside))


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
