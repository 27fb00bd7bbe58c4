"""Probe files that may contain only audio, such as music for a generated video."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal.errors import InvalidMediaError
from reel_modal.media.headers import AudioStream, audio_streams
from reel_modal.media.open import check_length, opened
from reel_modal.media.probing import MediaInfo, probe
from reel_modal.media.streams import is_cover
from reel_modal.schema.degradation import Degradation
from reel_modal.settings import Settings

__all__ = ["SoundFile", "probe_sound", "unknown_audio_notes"]

_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class SoundFile:
    """A file without video except cover art.

    Attributes:
        path: The file.
        audio: Its audio streams with a known codec.
        start_seconds: Timestamp of its first audio.
        unknown_sounds: Indices of the audio streams with an unknown codec.
    """

    path: Path
    audio: tuple[AudioStream, ...]
    start_seconds: Fraction
    unknown_sounds: tuple[int, ...]

    @property
    def container_start_seconds(self) -> Fraction:
        """Earliest timestamp of any stream; ffmpeg's seeks count from it."""
        return self.start_seconds


def probe_sound(path: Path, settings: Settings) -> MediaInfo | SoundFile:
    """Probe `path`: a video with or without audio, or an audio file.

    Raises:
        InvalidMediaError: The file is missing, unreadable, exceeds a limit, or has neither video nor audio.
    """
    with opened(path, packets_only=True, sound=True) as container:
        without_video = all(map(is_cover, container.streams.video))
        audio = tuple(audio_streams(container))
        unknown = tuple({stream.index for stream in container.streams.audio} - {each.index for each in audio})
        start = Fraction(container.start_time or 0, _MICROSECONDS)
        check_length(Fraction(container.duration or 0, _MICROSECONDS), path, settings.limits)
    if not without_video:
        return probe(path, settings=settings)
    if not audio:
        raise InvalidMediaError(f"{str(path)!r} has no audio stream with a known codec; use a file that plays")
    return SoundFile(path, audio, start, unknown)


def unknown_audio_notes(media: MediaInfo | SoundFile) -> list[Degradation]:
    """Return a note for each audio stream of the file with an unknown codec."""
    indices = media.contents.unknown_sounds if isinstance(media, MediaInfo) else media.unknown_sounds
    return [
        Degradation(
            "sound_dropped",
            f"audio stream {index} of {media.path.name!r} has an unknown codec and is not in the output",
        )
        for index in indices
    ]
