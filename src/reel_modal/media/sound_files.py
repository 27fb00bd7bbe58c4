"""What a file of sound alone is, such as music for a picture that is made."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal.config import Settings
from reel_modal.errors import InvalidMediaError
from reel_modal.media.headers import AudioStream, audio_streams
from reel_modal.media.probing import MediaInfo, probe
from reel_modal.media.streams import is_cover
from reel_modal.media.untrusted import check_length, opened
from reel_modal.schema.degradation import Degradation

__all__ = ["SoundFile", "probe_sound", "unheard"]

_MICROSECONDS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class SoundFile:
    """A file without a picture but cover art.

    Attributes:
        path: The file.
        audio: Its audio streams of a codec that is known here.
        start_seconds: Time of its first sound.
        unknown_sounds: Numbers of the streams of sound whose codec is not known here.
    """

    path: Path
    audio: tuple[AudioStream, ...]
    start_seconds: Fraction
    unknown_sounds: tuple[int, ...]

    @property
    def container_start_seconds(self) -> Fraction:
        """Earliest time of any stream, which ffmpeg's seeks count from."""
        return self.start_seconds


def probe_sound(path: Path, settings: Settings) -> MediaInfo | SoundFile:
    """Say what `path` is: a video, with sound or without, or sound alone.

    Raises:
        InvalidMediaError: It is missing, unreadable, beyond the limits, or has neither picture nor sound.
    """
    with opened(path, packets_only=True, sound=True) as container:
        alone = all(map(is_cover, container.streams.video))
        audio = tuple(audio_streams(container))
        unknown = tuple({stream.index for stream in container.streams.audio} - {each.index for each in audio})
        start = Fraction(container.start_time or 0, _MICROSECONDS)
        check_length(Fraction(container.duration or 0, _MICROSECONDS), path, settings.limits)
    if not alone:
        return probe(path, settings=settings)
    if not audio:
        raise InvalidMediaError(f"{str(path)!r} has no sound of a codec that is known here; give a file that plays")
    return SoundFile(path, audio, start, unknown)


def unheard(media: MediaInfo | SoundFile) -> list[Degradation]:
    """Return a note for each sound of the file whose codec is not known here."""
    indices = media.contents.unknown_sounds if isinstance(media, MediaInfo) else media.unknown_sounds
    return [
        Degradation(
            "sound_dropped",
            f"stream {index} of {media.path.name!r} is sound of an unknown codec, which is not in the output",
        )
        for index in indices
    ]
