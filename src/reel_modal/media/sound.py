"""The sound that goes along with a picture: all of its streams, where they are, and which can be copied.

It must not know frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Self, TypeAlias

from reel_modal.config import Settings
from reel_modal.media import AudioStream, MediaInfo, probe
from reel_modal.media.filters import clock_arguments, seconds_text
from reel_modal.media.tempo import ChannelLayout
from reel_modal.media.untrusted import COPIED, file_url, input_arguments
from reel_modal.schema.degradation import Degradation

__all__ = ["FinishedSound", "Sound", "SoundSource", "encoded_as", "is_taken", "kept_layout"]

_MP4: Final = frozenset({"aac", "ac3", "alac", "eac3", "mp3", "opus"})
# What a container takes as it is. Anything else becomes AAC, or Opus in WebM.
_TAKES: Final = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": frozenset({"aac", "ac3", "alac", "eac3", "mp3", "pcm_s16le", "pcm_s24le"}),
    ".mkv": _MP4 | {"flac", "pcm_s16le", "pcm_s24le", "vorbis"},
    ".webm": frozenset({"opus", "vorbis"}),
}


# Layouts that the encoders take and name as they were.
_OPUS_LAYOUTS: Final = frozenset({"mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1"})
_AAC_LAYOUTS: Final = frozenset(
    {"mono", "stereo", "2.1", "3.0", "4.0", "quad", "5.0", "5.1", "6.1(back)", "7.0", "7.1", "7.1(wide)"}
)
# The same speakers to a listener; files without a layout mean the usual one of so many channels.
_SAME_SPEAKERS: Final = {
    "quad(side)": "quad",
    "5.0(side)": "5.0",
    "5.1(side)": "5.1",
    "6 channels": "5.1",
    "8 channels": "7.1",
}
_BITRATE_KBPS: Final = 192
_CHANNEL_KBPS: Final = 64


@dataclass(frozen=True, slots=True)
class SoundSource:
    """The audio streams of a file, from the moment of the first picture on.

    Attributes:
        media: The file.
        start_seconds: The time on the file's clock that belongs to the first frame of the picture.
    """

    media: MediaInfo
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
        return cls(media, media.start_seconds if start_seconds is None else start_seconds)

    @property
    def name(self) -> str:
        """Of the file, for messages."""
        return self.media.path.name

    def input_arguments(self, length_seconds: Fraction) -> tuple[str, ...]:
        """Return the options that open this sound as the second input of a command.

        It is bounded by `length_seconds`; `-shortest` would instead cut the picture to a shorter sound.
        """
        clock = clock_arguments(self.start_seconds, first_seconds=self.media.container_start_seconds)
        return (*clock, "-t", seconds_text(length_seconds), *COPIED, *input_arguments(self.media.path))

    def output_arguments(self, target: Path) -> tuple[str, ...]:
        """Return the options that put the second input's sound into `target`, stream by stream, with its tags."""
        arguments: tuple[str, ...] = ()
        for number, stream in enumerate(self.media.audio):
            codec = (f"-c:a:{number}", "copy") if is_taken(stream, target) else encoded_as(stream, target, number)
            arguments += ("-map", f"1:{stream.index}", *codec, *_tags(stream, number))
        return arguments

    def notes(self, target: Path) -> tuple[Degradation, ...]:
        """Return what is not as it was; nothing if the sound is copied."""
        encoded = [stream for stream in self.media.audio if not is_taken(stream, target)]
        codecs = (
            Degradation(
                "sound_reencoded", f"the {stream.codec} sound was encoded anew: {target.suffix} does not take it"
            )
            for stream in encoded
        )
        return _once([*codecs, *_fewer_channels(encoded, target)])


@dataclass(frozen=True, slots=True)
class FinishedSound:
    """Files of sound that were made for a picture, encoded as its container wants them.

    Attributes:
        files: One for each stream, in which that begins with the first frame.
        streams: Those of the source from which they were made, in the same order.
    """

    files: tuple[Path, ...]
    streams: tuple[AudioStream, ...]

    @property
    def name(self) -> str:
        """Of the first file, for messages."""
        return self.files[0].name

    def input_arguments(self, length_seconds: Fraction) -> tuple[str, ...]:
        """Return the options that open them behind the first input of a command; each is as long as it has to be."""
        # A bound would count from what the codec puts before the first sample, and cut the last packet off.
        del length_seconds
        return tuple(word for path in self.files for word in ("-i", file_url(path)))

    def output_arguments(self, target: Path) -> tuple[str, ...]:
        """Return the options that put them into `target` as they are, with the tags of the source."""
        del target
        arguments: tuple[str, ...] = ("-c:a", "copy")
        for number, stream in enumerate(self.streams):
            arguments += ("-map", f"{number + 1}:a:0", *_tags(stream, number))
        return arguments

    def notes(self, target: Path) -> tuple[Degradation, ...]:
        """Return what is not as it was; nothing if all channels are there."""
        return _once(_fewer_channels(self.streams, target))

    def discard(self) -> None:
        """Remove the files."""
        for path in self.files:
            path.unlink(missing_ok=True)


Sound: TypeAlias = SoundSource | FinishedSound
"""What goes along with a picture."""


def is_taken(stream: AudioStream, target: Path) -> bool:
    """Whether the container of `target` takes the stream as it is."""
    return stream.codec in _TAKES.get(target.suffix.lower(), frozenset())


def kept_layout(stream: AudioStream, target: Path) -> ChannelLayout:
    """Return the channels that the stream has once it is encoded for `target`: its own, where the encoder can."""
    name = _SAME_SPEAKERS.get(stream.layout, stream.layout)
    if name in (_OPUS_LAYOUTS if _is_webm(target) else _AAC_LAYOUTS):
        return ChannelLayout(name, stream.channels)
    return ChannelLayout("mono", 1) if stream.channels == 1 else ChannelLayout("stereo", 2)


def encoded_as(stream: AudioStream, target: Path, number: int = 0) -> tuple[str, ...]:
    """Return the options that encode the stream for `target`, in which it is sound `number`, counted from 0."""
    layout = kept_layout(stream, target)
    return (
        *(f"-c:a:{number}", "libopus" if _is_webm(target) else "aac"),
        *(f"-b:a:{number}", f"{max(_BITRATE_KBPS, _CHANNEL_KBPS * layout.channels)}k"),
        *(f"-filter:a:{number}", f"aformat=channel_layouts={layout.name}"),
    )


def _tags(stream: AudioStream, number: int) -> Iterator[str]:
    """Yield the options that say of sound `number` of an output what was said of `stream`."""
    yield from (f"-disposition:a:{number}", "+".join(stream.dispositions) or "0")
    for key, value in (("language", stream.language), ("title", stream.title)):
        if value is not None:
            yield from (f"-metadata:s:a:{number}", f"{key}={value}")


def _is_webm(target: Path) -> bool:
    return target.suffix.lower() == ".webm"


def _fewer_channels(streams: Iterable[AudioStream], target: Path) -> Iterator[Degradation]:
    for stream in streams:
        if (kept := kept_layout(stream, target).channels) < stream.channels:
            message = f"the {stream.channels} channels of the sound ({stream.layout}) became {kept}"
            yield Degradation("channels_reduced", message)


def _once(notes: Iterable[Degradation]) -> tuple[Degradation, ...]:
    return tuple(dict.fromkeys(notes))
