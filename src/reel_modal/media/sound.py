"""The sound that goes along with a picture: where it is, where it starts, whether it can be copied.

It must not know frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Self, TypeAlias

from reel_modal.config import Settings
from reel_modal.media import AudioStream, MediaInfo, probe
from reel_modal.media.filters import seconds_text
from reel_modal.media.untrusted import COPIED, file_url, input_arguments

__all__ = ["FinishedSound", "Sound", "SoundSource", "encoded_as"]

_MP4: Final = frozenset({"aac", "ac3", "alac", "eac3", "mp3", "opus"})
# What a container takes as it is. Anything else becomes AAC, or Opus in WebM.
_TAKES: Final = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": frozenset({"aac", "ac3", "alac", "eac3", "mp3", "pcm_s16le", "pcm_s24le"}),
    ".mkv": _MP4 | {"flac", "pcm_s16le", "pcm_s24le", "vorbis"},
    ".webm": frozenset({"opus", "vorbis"}),
}


@dataclass(frozen=True, slots=True)
class SoundSource:
    """The first audio stream of a file, from the moment of the first picture on.

    Attributes:
        media: The file.
        stream: The audio stream in it.
        start_seconds: The time on the file's clock that belongs to the first frame of the picture.
    """

    media: MediaInfo
    stream: AudioStream
    start_seconds: Fraction

    @classmethod
    def of(cls, source: Path | MediaInfo, *, start_seconds: Fraction | None, settings: Settings) -> Self | None:
        """Return the sound of `source`, or None where it has none.

        Args:
            source: The file, or what `probe` has found out about it.
            start_seconds: The time on its clock that belongs to the first frame; None is that of its first picture.
            settings: Its limits say what is refused.

        Raises:
            InvalidMediaError: The file cannot be read.
        """
        media = source if isinstance(source, MediaInfo) else probe(source, settings=settings)
        if not media.audio:
            return None
        return cls(media, media.audio[0], media.start_seconds if start_seconds is None else start_seconds)

    def copied_into(self, target: Path) -> bool:
        """Whether the container of `target` takes the stream as it is."""
        return self.stream.codec in _TAKES.get(target.suffix.lower(), frozenset())

    @property
    def name(self) -> str:
        """Of the file, for messages."""
        return self.media.path.name

    def input_arguments(self, length_seconds: Fraction) -> tuple[str, ...]:
        """Return the options that open this sound as the second input of a command.

        It is bounded by `length_seconds`; `-shortest` would instead cut the picture to a shorter sound.
        """
        skipped = self.start_seconds - self.media.container_start_seconds
        seek = ("-ss", seconds_text(skipped)) if skipped > 0 else ()
        return (*seek, "-t", seconds_text(length_seconds), *COPIED, *input_arguments(self.media.path))

    def output_arguments(self, target: Path) -> tuple[str, ...]:
        """Return the options that put the second input's sound into `target`."""
        codec = ("-c:a", "copy") if self.copied_into(target) else encoded_as(target)
        return ("-map", f"1:{self.stream.index}", *codec)

    def note(self, target: Path) -> str | None:
        """Return what is not as it was, None where the sound is copied."""
        if self.copied_into(target):
            return None
        return f"the {self.stream.codec} sound was encoded anew: {target.suffix} does not take it"


@dataclass(frozen=True, slots=True)
class FinishedSound:
    """A file of sound that was made for a picture, encoded as its container wants it.

    Attributes:
        path: The file; its first audio stream begins with the first frame.
        notes: What of the source's sound is not in it, a phrase each.
    """

    path: Path
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the file, for messages."""
        return self.path.name

    def input_arguments(self, length_seconds: Fraction) -> tuple[str, ...]:
        """Return the options that open it as the second input of a command; it was made as long as it has to be."""
        # A bound would count from what the codec puts before the first sample, and cut the last packet off.
        del length_seconds
        return ("-i", file_url(self.path))

    def output_arguments(self, target: Path) -> tuple[str, ...]:
        """Return the options that put the second input's sound into `target`, as it is."""
        del target
        return ("-map", "1:a:0", "-c:a", "copy")

    def note(self, target: Path) -> str | None:
        """Return what is not as it was: the notes of whoever made the sound."""
        del target
        return "; ".join(self.notes) or None


Sound: TypeAlias = SoundSource | FinishedSound
"""What goes along with a picture."""


def encoded_as(target: Path) -> tuple[str, ...]:
    """Return the options of the encoder for the container `target`."""
    return ("-c:a", "libopus" if target.suffix.lower() == ".webm" else "aac", "-b:a", "192k")
