"""Music under the clips of a reel: faded, repeated, and softer while the clips are audible."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from reel_modal._ffmpeg.audio_files import SoundFile
from reel_modal._ffmpeg.audio_tempo import ChannelLayout, Samples
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.process import QUIET, FFmpegProcess, output_size
from reel_modal.errors import RequestError
from reel_modal.media import MediaInfo
from reel_modal.media.headers import AudioStream
from reel_modal.media.open import SOUND_WHITELIST, file_url, input_arguments
from reel_modal.schema._numbers import shown
from reel_modal.schema.reel_music import ReelMusic
from reel_modal.settings import Settings

__all__ = ["EDGE_SECONDS", "MusicSound", "faded_gain", "in_blocks", "sound_blocks", "with_music"]

EDGE_SECONDS: Final = Fraction(5, 1000)
"""Audio fades in and out this fast at a cut, so that a cut in a loud passage makes no click."""

_Gains: TypeAlias = npt.NDArray[np.float64]

# The level of the clips is measured in steps of 10 ms. Above -40 dBFS (RMS) they are audible.
_STEPS_A_SECOND: Final = 100
_BLOCK_STEPS: Final = 50
_AUDIBLE: Final = 0.01
# The music gets softer during 100 ms, stays so until 300 ms after the clips, and returns during 500 ms.
_ATTACK_STEPS: Final = 10
_HOLD_STEPS: Final = 30
_RELEASE_STEPS: Final = 50
_SHORTEST_SECONDS: Final = Fraction(1, 10)


@dataclass(frozen=True, slots=True)
class MusicSound:
    """Music of a reel whose headers were read.

    Attributes:
        name: The music for messages, such as `music ('song.mp3')`.
        request: How it is used.
        media: The file; its first audio stream is used.
    """

    name: str
    request: ReelMusic
    media: MediaInfo | SoundFile

    @property
    def stream(self) -> AudioStream:
        """The audio stream."""
        return self.media.audio[0]


def faded_gain(share: _Gains) -> _Gains:
    """Return the gain of a fade that is at `share` of its length.

    The squares of the gains at `share` and at 1 - `share` add up to 1: a crossfade of two sounds keeps the power.
    """
    inside = np.clip(share, 0, 1)
    return np.sqrt(inside * inside * (3 - 2 * inside))


def with_music(
    clips: Generator[Samples],
    music: MusicSound,
    path: Path,
    *,
    count: int,
    rate_hz: int,
    layout: ChannelLayout,
    settings: Settings,
    check: Callable[[], None],
) -> Generator[Samples]:
    """Yield the audio of the clips with the music under it; neither is clipped.

    Args:
        clips: Audio of the clips, `count` samples; it is closed here.
        music: The music.
        path: A temporary file for its decoded samples, 4 bytes for each sample and channel.
        count: Number of samples of the reel.
        rate_hz: Sample rate, a multiple of 100.
        layout: Channel layout.
        settings: Which ffmpeg to use, the limits, and the stall timeout.
        check: Called regularly; it may raise an exception to stop.

    Raises:
        RequestError: The music has less than 0.1 s of audio after its start.
        FFmpegError: The music could not be decoded.
    """
    with closing(clips):
        try:
            _decode(music, path, count=count, rate_hz=rate_hz, layout=layout, settings=settings)
            played = _Played(music, path, count, rate_hz, layout)
            ducking = _Ducking(float(music.request.ducking_db), rate_hz // _STEPS_A_SECOND)
            at = 0
            for samples in in_blocks(clips, rate_hz // _STEPS_A_SECOND * _BLOCK_STEPS):
                check()
                gains = ducking.gains(samples)
                yield samples + played.read(at, len(samples), gains)
                at += len(samples)
        finally:
            path.unlink(missing_ok=True)


def in_blocks(samples: Generator[Samples], size: int) -> Iterator[Samples]:
    """Yield the same samples in blocks of `size`; the last one may be shorter."""
    held: list[Samples] = []
    count = 0
    for block in samples:
        held.append(block)
        count += len(block)
        if count < size:
            continue
        joined = np.concatenate(held)
        whole = count - count % size
        for at in range(0, whole, size):
            yield joined[at : at + size]
        held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)


def sound_blocks(path: Path, channels: int) -> npt.NDArray[np.float32]:
    """Return the samples in a file of float32, (samples, channels), without reading them yet."""
    count = path.stat().st_size // (4 * channels)
    if not count:  # an empty file cannot be mapped
        return np.empty((0, channels), np.float32)
    return np.memmap(path, np.float32, "r", shape=(count, channels))


class _Played:
    """The music at its volume, faded, and repeated if it is too short."""

    def __init__(self, music: MusicSound, path: Path, count: int, rate_hz: int, layout: ChannelLayout) -> None:
        self._samples = sound_blocks(path, layout.channels)
        length = len(self._samples)
        if length < min(count, round(_SHORTEST_SECONDS * rate_hz)):
            start = shown(music.request.start_seconds)
            raise RequestError(
                "music.start_seconds",
                f"is {start}, and {music.request.input_key!r} has less than {float(_SHORTEST_SECONDS):g} s of audio"
                " after it; start earlier",
            )
        self._end = count if music.request.loop else min(count, length)
        self._edge = round(EDGE_SECONDS * rate_hz)
        self._rise = max(self._edge, round(music.request.fade_in_seconds * rate_hz))
        self._fall = max(self._edge, round(music.request.fade_out_seconds * rate_hz))
        self._volume = float(music.request.volume)

    def read(self, start: int, count: int, gains: _Gains) -> Samples:
        """Return `count` samples from `start` on, multiplied by `gains`."""
        length = len(self._samples)
        places = np.arange(start, start + count)
        here = places % length
        middle = places + 0.5
        gain = faded_gain(middle / self._rise) * faded_gain((self._end - middle) / self._fall) * self._volume * gains
        if self._end > length:
            rounds = places // length
            last = (self._end - 1) // length
            gain *= np.where(rounds > 0, faded_gain((here + 0.5) / self._edge), 1)
            gain *= np.where(rounds < last, faded_gain((length - here - 0.5) / self._edge), 1)
        return (self._samples[here] * gain[:, None]).astype(np.float32)


class _Ducking:
    """Gain of the music that follows the level of the clips.

    Args:
        depth_db: How much softer the music is while the clips are audible.
        step: Samples in 10 ms.
    """

    def __init__(self, depth_db: float, step: int) -> None:
        self._depth_db = depth_db
        self._step = step
        self._lowered = 0.0
        self._hold = 0

    def gains(self, clips: Samples) -> _Gains:
        """Return the gain for each sample of `clips`, whole steps except at the end of the reel."""
        starts = range(0, len(clips), self._step)
        shares = np.empty(len(clips))
        for at in starts:
            part = clips[at : at + self._step].astype(np.float64)
            if np.sqrt(np.mean(part * part)) > _AUDIBLE:
                self._hold = _HOLD_STEPS + 1
            self._hold = max(0, self._hold - 1)
            change = 1 / _ATTACK_STEPS if self._hold else -1 / _RELEASE_STEPS
            after = min(1.0, max(0.0, self._lowered + change))
            places = np.arange(1, len(part) + 1) / self._step
            shares[at : at + len(part)] = self._lowered + (after - self._lowered) * places
            self._lowered = after
        return 10 ** (-self._depth_db / 20 * shares)


def _decode(
    music: MusicSound, path: Path, *, count: int, rate_hz: int, layout: ChannelLayout, settings: Settings
) -> None:
    """Decode at most `count` samples from the start of the music into `path`."""
    first = round(music.request.start_seconds * rate_hz)
    filters = (
        f"asetpts=PTS-({float(music.media.start_seconds)!r})/TB",
        f"aresample={rate_hz}:async=1:first_pts=0",
        f"aformat=sample_fmts=flt:channel_layouts={layout.name}",
        f"atrim=start_sample={first}:end_sample={first + count}",
    )
    command = (
        *(find_ffmpeg(settings).path, *QUIET, "-y", "-copyts"),
        *input_arguments(music.media.path, settings.limits, formats=SOUND_WHITELIST),
        *("-filter_complex", f"[0:{music.stream.index}]{','.join(filters)}[sound]"),
        *("-map", "[sound]", "-f", "f32le", file_url(path)),
    )
    process = FFmpegProcess(command, stall_seconds=settings.stall_seconds)
    try:
        if process.finish(lambda: output_size(path)) != 0:
            raise process.error(f"{music.name}: its audio could not be decoded")
    finally:
        process.kill()
