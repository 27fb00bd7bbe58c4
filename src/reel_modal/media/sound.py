"""The sound that goes along with a picture: all of its streams, where they are, and which can be copied.

It must not know frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Final, Self, TypeAlias

from reel_modal.media import AudioStream, MediaInfo
from reel_modal.media.filters import clock_arguments, seconds_text
from reel_modal.media.muxing import muxer_takes
from reel_modal.media.sound_files import SoundFile
from reel_modal.media.tempo import ChannelLayout
from reel_modal.media.unindexed_sound import SoundFormat, copy_sound
from reel_modal.media.untrusted import COPIED, SOUND_WHITELIST, file_url, input_arguments
from reel_modal.schema.degradation import Degradation

__all__ = [
    "HEARD_SECONDS",
    "FinishedSound",
    "Sound",
    "SoundSource",
    "encoded_as",
    "is_taken",
    "kept_layout",
    "seconds_before_picture",
]

_MP4: Final = frozenset({"aac", "ac3", "alac", "eac3", "mp3", "opus"})
# What a container takes as it is. Anything else becomes AAC, Opus in WebM, or PCM in AVI.
_TAKES: Final = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": frozenset({"aac", "ac3", "alac", "eac3", "mp3", "pcm_s16le", "pcm_s24le"}),
    ".mkv": _MP4 | {"flac", "pcm_s16le", "pcm_s24le", "vorbis"},
    ".webm": frozenset({"opus", "vorbis"}),
    **dict.fromkeys((".ts", ".mts", ".m2ts"), frozenset({"aac", "ac3", "eac3", "mp2", "mp3"})),
}
# Their muxers are asked about any other codec. Those of MP4 would take more than players of MP4 play.
_ASKED: Final = frozenset({".mov", ".mkv", ".webm"})


# No times, so that no player leaves out what AAC puts before the first sample.
_WITHOUT_TIMES: Final = frozenset({".avi", ".wav"})
_PCM: Final = "pcm_s16le"
_ENCODERS: Final = {"opus": "libopus"}
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
HEARD_SECONDS: Final = Fraction(1, 10)
"""Sound before the picture that is longer is no matter of how a codec counts: it is left out, and named."""

_BITRATE_KBPS: Final = 192
_CHANNEL_KBPS: Final = 64


@dataclass(frozen=True, slots=True)
class SoundSource:
    """The audio streams of a file, from the moment of the first picture on.

    Attributes:
        media: The file, a video or sound alone.
        start_seconds: The time on the file's clock that belongs to the first frame of the picture.
        name: Of the source, for messages.
        formats: The formats of each stream that changes on the way, by its index, and none for one that was decoded
            as it was read; both are encoded again.
        temporary: Whether the file is a copy of the source's sound, to be removed.
    """

    media: MediaInfo | SoundFile
    start_seconds: Fraction
    name: str
    formats: Mapping[int, tuple[SoundFormat, ...]] = field(default_factory=dict)
    temporary: bool = False

    @classmethod
    def of(
        cls, media: MediaInfo | SoundFile, *, start_seconds: Fraction | None, stage: Callable[[], Path]
    ) -> Self | None:
        """Return the sound of `media`, or None if it has none.

        Args:
            media: The file.
            start_seconds: The time on its clock that belongs to the first frame; None is that of its first picture,
                or of its first sound if it has none.
            stage: Returns the path of a temporary file: the sound of a video without an index is copied there.

        Raises:
            InvalidMediaError: The file cannot be read.
        """
        if not media.audio:
            return None
        start = media.start_seconds if start_seconds is None else start_seconds
        name = media.path.name
        if isinstance(media, SoundFile) or media.has_index:
            return cls(media, start, name)
        copied, formats = copy_sound(media, stage(), start_seconds=start)
        audio = tuple(_widest(stream, formats.get(stream.index, ())) for stream in copied.audio)
        return cls(replace(copied, audio=audio), Fraction(0), name, formats, temporary=True)

    def input_arguments(self, length_seconds: Fraction) -> tuple[str, ...]:
        """Return the options that open this sound as the second input of a command.

        It is bounded by `length_seconds`; `-shortest` would instead cut the picture to a shorter sound.
        """
        clock = clock_arguments(self.start_seconds, first_seconds=self.media.container_start_seconds)
        # An option for pictures is refused if there are none.
        look = () if self.temporary or isinstance(self.media, SoundFile) else COPIED
        source = input_arguments(self.media.path, formats=SOUND_WHITELIST)
        return (*clock, "-t", seconds_text(length_seconds), *look, *source)

    def output_arguments(self, target: Path, length_seconds: Fraction) -> tuple[str, ...]:
        """Return the options that put the second input's sound into `target`, stream by stream, with its tags.

        Args:
            target: Its suffix says what is copied.
            length_seconds: Where the sound ends. What is decoded would end that long after its own first sample.
        """
        arguments: tuple[str, ...] = ()
        for number, stream in enumerate(self.media.audio):
            changes = stream.index in self.formats
            copied = not changes and is_taken(stream, target, self.media.path)
            rate = stream.sample_rate_hz if changes else None
            codec = (
                (f"-c:a:{number}", "copy")
                if copied
                else encoded_as(stream, target, number, rate_hz=rate, end=length_seconds)
            )
            arguments += ("-map", f"1:{stream.index}", *codec, *_tags(stream, number))
        return arguments

    def notes(self, target: Path) -> tuple[Degradation, ...]:
        """Return what is not as it was; nothing if the sound is copied."""
        encoded = []
        notes = []
        for stream in self.media.audio:
            if formats := self.formats.get(stream.index):
                reason = f"it changes on the way ({', then '.join(map(_described, formats))})"
            elif stream.codec == _PCM == _encoded_codec(target):
                encoded.append(stream)  # its samples are the same
                continue
            elif not is_taken(stream, target, self.media.path):
                reason = f"{target.suffix} does not take it"
            elif stream.index in self.formats:
                reason = "its packets can be read in their own container alone"
            else:
                continue
            encoded.append(stream)
            notes.append(Degradation("sound_reencoded", f"the {stream.codec} sound was encoded again: {reason}"))
        return _once([*notes, *_fewer_channels(encoded, target)])

    def discard(self) -> None:
        """Remove the file if it is temporary."""
        if self.temporary:
            self.media.path.unlink(missing_ok=True)


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

    def output_arguments(self, target: Path, length_seconds: Fraction) -> tuple[str, ...]:
        """Return the options that put them into `target` as they are, with the tags of the source."""
        del target, length_seconds
        arguments: tuple[str, ...] = ("-c:a", "copy")
        for number, stream in enumerate(self.streams):
            arguments += ("-map", f"{number + 1}:a:0", *_tags(stream, number))
        return arguments

    def notes(self, target: Path) -> tuple[Degradation, ...]:
        """Return what is not as it was; nothing if codec and channels are the same."""
        made = _encoded_codec(target)
        notes = [
            Degradation("sound_reencoded", f"the {stream.codec} sound was encoded as {made}, since its times change")
            for stream in self.streams
            if stream.codec != made
        ]
        return _once([*notes, *_fewer_channels(self.streams, target)])

    def discard(self) -> None:
        """Remove the files."""
        for path in self.files:
            path.unlink(missing_ok=True)


Sound: TypeAlias = SoundSource | FinishedSound
"""What goes along with a picture."""


def seconds_before_picture(media: MediaInfo) -> Fraction:
    """Return how much sound comes before the first picture; every output begins with that. 0 if it is not heard."""
    before = media.start_seconds - min((stream.start_seconds for stream in media.audio), default=media.start_seconds)
    return before if before >= HEARD_SECONDS else Fraction(0)


def is_taken(stream: AudioStream, target: Path, source: Path) -> bool:
    """Whether the container of `target` takes the stream of the file `source` as it is."""
    suffix = target.suffix.lower()
    if stream.codec in _TAKES.get(suffix, frozenset()):
        return True
    return suffix in _ASKED and muxer_takes(source, stream.index, target)


def kept_layout(stream: AudioStream, target: Path) -> ChannelLayout:
    """Return the channels that the stream has once it is encoded for `target`: its own, where the encoder can."""
    name = _SAME_SPEAKERS.get(stream.layout, stream.layout)
    if name in (_OPUS_LAYOUTS if _is_webm(target) else _AAC_LAYOUTS):
        return ChannelLayout(name, stream.channels)
    return ChannelLayout("mono", 1) if stream.channels == 1 else ChannelLayout("stereo", 2)


def encoded_as(
    stream: AudioStream,
    target: Path,
    number: int = 0,
    *,
    rate_hz: int | None = None,
    end: Fraction | None = None,
) -> tuple[str, ...]:
    """Return the options that encode the stream for `target`.

    Args:
        stream: The source.
        target: Its suffix chooses the codec.
        number: Of the sound in `target`, counted from 0.
        rate_hz: Sample rate of the output if the source has more than one. Opus is always 48 kHz.
        end: Seconds at which the sound is cut off.
    """
    layout = kept_layout(stream, target)
    rate = f":sample_rates={rate_hz}" if rate_hz and not _is_webm(target) else ""
    filters = [] if end is None else [f"atrim=end={seconds_text(end)}"]
    # Silence is put before sound that begins late, and into its gaps.
    filters += ["aresample=async=1:first_pts=0"] if target.suffix.lower() in _WITHOUT_TIMES else []
    filters += [f"aformat=channel_layouts={layout.name}{rate}"]
    codec = _encoded_codec(target)
    bits = f"{max(_BITRATE_KBPS, _CHANNEL_KBPS * layout.channels)}k"
    return (
        *(f"-c:a:{number}", _ENCODERS.get(codec, codec)),
        *(() if codec == _PCM else (f"-b:a:{number}", bits)),
        *(f"-filter:a:{number}", ",".join(filters)),
    )


def _encoded_codec(target: Path) -> str:
    """Return the codec of the sound that is encoded for `target`."""
    if target.suffix.lower() in _WITHOUT_TIMES:
        return _PCM
    return "opus" if _is_webm(target) else "aac"


def _tags(stream: AudioStream, number: int) -> Iterator[str]:
    """Yield the options that say of sound `number` of an output what was said of `stream`."""
    yield from (f"-disposition:a:{number}", "+".join(stream.dispositions) or "0")
    for key, value in (("language", stream.language), ("title", stream.title)):
        if value is not None:
            yield from (f"-metadata:s:a:{number}", f"{key}={value}")


def _widest(stream: AudioStream, formats: Iterable[SoundFormat]) -> AudioStream:
    """Return the stream with the highest rate and the most channels of `formats`."""
    for rate, channels in formats:
        layout = stream.layout if channels <= stream.channels else f"{channels} channels"
        stream = replace(
            stream,
            sample_rate_hz=max(rate, stream.sample_rate_hz),
            channels=max(channels, stream.channels),
            layout=layout,
        )
    return stream


def _described(format_: SoundFormat) -> str:
    return f"{format_[0]} Hz with {format_[1]} channel{'s' if format_[1] > 1 else ''}"


def _is_webm(target: Path) -> bool:
    return target.suffix.lower() == ".webm"


def _fewer_channels(streams: Iterable[AudioStream], target: Path) -> Iterator[Degradation]:
    for stream in streams:
        if (kept := kept_layout(stream, target).channels) < stream.channels:
            message = f"the {stream.channels} channels of the sound ({stream.layout}) became {kept}"
            yield Degradation("channels_reduced", message)


def _once(notes: Iterable[Degradation]) -> tuple[Degradation, ...]:
    return tuple(dict.fromkeys(notes))
