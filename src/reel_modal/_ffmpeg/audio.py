"""Audio of an output: align the source's streams with the video, and copy or encode each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Final, Self, TypeAlias

from reel_modal._ffmpeg.audio_files import SoundFile
from reel_modal._ffmpeg.audio_tempo import ChannelLayout
from reel_modal._ffmpeg.audio_unindexed import SoundFormat, copy_sound
from reel_modal._ffmpeg.filters import clock_arguments, seconds_text
from reel_modal._ffmpeg.muxing import muxer_takes
from reel_modal.media import AudioStream, MediaInfo
from reel_modal.media.open import COPIED, SOUND_WHITELIST, file_url, input_arguments
from reel_modal.schema.degradation import Degradation

__all__ = [
    "HEARD_SECONDS",
    "FinishedSound",
    "Sound",
    "SoundSource",
    "encoded_as",
    "encoded_codec",
    "is_taken",
    "kept_layout",
    "seconds_before_picture",
]

_MP4: Final = frozenset({"aac", "ac3", "alac", "eac3", "mp3", "opus"})
# Codecs that a container stores without re-encoding. Any other codec becomes AAC, Opus in WebM, or PCM in AVI.
_COPIED_CODECS: Final = {
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": frozenset({"aac", "ac3", "alac", "eac3", "mp3", "pcm_s16le", "pcm_s24le"}),
    ".mkv": _MP4 | {"flac", "pcm_s16le", "pcm_s24le", "vorbis"},
    ".webm": frozenset({"opus", "vorbis"}),
    **dict.fromkeys((".ts", ".mts", ".m2ts"), frozenset({"aac", "ac3", "eac3", "mp2", "mp3"})),
}
# Containers whose muxer decides about any other codec. The MP4 muxer accepts more codecs than MP4 players play.
_MUXER_DECIDES: Final = frozenset({".mov", ".mkv", ".webm"})


# They store no timestamps, so no player skips the priming samples of AAC.
_WITHOUT_TIMES: Final = frozenset({".avi", ".wav"})
_PCM: Final = "pcm_s16le"
_ENCODERS: Final = {"opus": "libopus"}
# Layouts that the encoders accept and store under the same name.
_OPUS_LAYOUTS: Final = frozenset({"mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1"})
_AAC_LAYOUTS: Final = frozenset(
    {"mono", "stereo", "2.1", "3.0", "4.0", "quad", "5.0", "5.1", "6.1(back)", "7.0", "7.1", "7.1(wide)"}
)
# Layouts that sound the same. In a file, a missing layout means the default one for the number of channels.
_SAME_SPEAKERS: Final = {
    "quad(side)": "quad",
    "5.0(side)": "5.0",
    "5.1(side)": "5.1",
    "6 channels": "5.1",
    "8 channels": "7.1",
}
HEARD_SECONDS: Final = Fraction(1, 10)
"""Audio before the first frame that is at least this long is not encoder delay: it is dropped, with a note."""

_BITRATE_KBPS: Final = 192
_CHANNEL_KBPS: Final = 64


@dataclass(frozen=True, slots=True)
class SoundSource:
    """The audio streams of a file, starting at the time of the first frame.

    Attributes:
        media: The file: a video, or an audio file.
        start_seconds: The timestamp in the file that corresponds to the first video frame.
        name: Name of the source, for messages.
        formats: The formats of each stream that changes its format, by stream index. Empty for a stream that was
            decoded while it was read. Both are re-encoded.
        temporary: Whether the file is a temporary copy of the source's audio.
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
        """Return the audio of `media`, or None if it has none.

        Args:
            media: The file.
            start_seconds: The timestamp in the file that corresponds to the first video frame. None means its first
                frame, or its first audio if it has no video.
            stage: Returns the path of a temporary file. The audio of a video without an index is copied there.

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
        """Return the options that open this audio as the second input of a command.

        They limit it to `length_seconds`. `-shortest` would cut the video to the length of a shorter audio stream.
        """
        clock = clock_arguments(self.start_seconds, first_seconds=self.media.container_start_seconds)
        # ffmpeg rejects a video option if the input has no video stream.
        skip_video = () if self.temporary or isinstance(self.media, SoundFile) else COPIED
        source = input_arguments(self.media.path, formats=SOUND_WHITELIST)
        return (*clock, "-t", seconds_text(length_seconds), *skip_video, *source)

    def output_arguments(self, target: Path, length_seconds: Fraction) -> tuple[str, ...]:
        """Return the options that write each stream of the second input to `target`, with its tags.

        Args:
            target: Its suffix decides which streams are copied.
            length_seconds: Time at which the audio ends. Decoded audio would end that long after its own first
                sample.
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
        """Return the differences from the source's audio; empty if all streams are copied."""
        encoded = []
        notes = []
        for stream in self.media.audio:
            if formats := self.formats.get(stream.index):
                reason = f"its format changes ({', then '.join(map(_format_text, formats))})"
            elif stream.codec == _PCM == encoded_codec(target):
                encoded.append(stream)  # its samples are the same
                continue
            elif not is_taken(stream, target, self.media.path):
                reason = f"{target.suffix} does not support it"
            elif stream.index in self.formats:
                reason = "its packets can only be read in their original container"
            else:
                continue
            encoded.append(stream)
            notes.append(Degradation("sound_reencoded", f"the {stream.codec} audio was re-encoded: {reason}"))
        return _unique([*notes, *_fewer_channels(encoded, target)])

    def discard(self) -> None:
        """Remove the file if it is temporary."""
        if self.temporary:
            self.media.path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class FinishedSound:
    """Encoded audio files, made for a video in a codec that its container accepts.

    Attributes:
        files: One file for each stream. It begins at the time of the first frame.
        streams: The source's streams that the files were made from, in the same order.
    """

    files: tuple[Path, ...]
    streams: tuple[AudioStream, ...]

    @property
    def name(self) -> str:
        """Name of the first file, for messages."""
        return self.files[0].name

    def input_arguments(self, length_seconds: Fraction) -> tuple[str, ...]:
        """Return the options that open the files after the first input; each file already has the right length."""
        # A limit would count from the encoder delay before the first sample and cut off the last packet.
        del length_seconds
        return tuple(word for path in self.files for word in ("-i", file_url(path)))

    def output_arguments(self, target: Path, length_seconds: Fraction) -> tuple[str, ...]:
        """Return the options that copy the files' streams into `target`, with the tags of the source."""
        del target, length_seconds
        arguments: tuple[str, ...] = ("-c:a", "copy")
        for number, stream in enumerate(self.streams):
            arguments += ("-map", f"{number + 1}:a:0", *_tags(stream, number))
        return arguments

    def notes(self, target: Path) -> tuple[Degradation, ...]:
        """Return the differences from the source's audio; empty if codec and channels are the same."""
        codec = encoded_codec(target)
        notes = [
            Degradation(
                "sound_reencoded", f"the {stream.codec} audio was encoded as {codec}, because its times change"
            )
            for stream in self.streams
            if stream.codec != codec
        ]
        return _unique([*notes, *_fewer_channels(self.streams, target)])

    def discard(self) -> None:
        """Remove the files."""
        for path in self.files:
            path.unlink(missing_ok=True)


Sound: TypeAlias = SoundSource | FinishedSound
"""The audio of an output."""


def seconds_before_picture(media: MediaInfo) -> Fraction:
    """Return the length of the audio before the first frame, which each output omits; 0 if it is inaudible."""
    before = media.start_seconds - min((stream.start_seconds for stream in media.audio), default=media.start_seconds)
    return before if before >= HEARD_SECONDS else Fraction(0)


def is_taken(stream: AudioStream, target: Path, source: Path) -> bool:
    """Return whether the container of `target` accepts the stream of the file `source` without re-encoding."""
    suffix = target.suffix.lower()
    if stream.codec in _COPIED_CODECS.get(suffix, frozenset()):
        return True
    return suffix in _MUXER_DECIDES and muxer_takes(source, stream.index, target)


def kept_layout(stream: AudioStream, target: Path) -> ChannelLayout:
    """Return the stream's channel layout after encoding for `target`: the same layout if the encoder supports it."""
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
        target: Its suffix selects the codec.
        number: Number of the audio stream in `target`, starting at 0.
        rate_hz: Sample rate of the output, if the source has more than one. Opus is always 48 kHz.
        end: Time in seconds at which the audio is cut off.
    """
    layout = kept_layout(stream, target)
    rate = f":sample_rates={rate_hz}" if rate_hz and not _is_webm(target) else ""
    filters = [] if end is None else [f"atrim=end={seconds_text(end)}"]
    # Silence fills the time before a late start, and the gaps.
    filters += ["aresample=async=1:first_pts=0"] if target.suffix.lower() in _WITHOUT_TIMES else []
    filters += [f"aformat=channel_layouts={layout.name}{rate}"]
    codec = encoded_codec(target)
    bits = f"{max(_BITRATE_KBPS, _CHANNEL_KBPS * layout.channels)}k"
    return (
        *(f"-c:a:{number}", _ENCODERS.get(codec, codec)),
        *(() if codec == _PCM else (f"-b:a:{number}", bits)),
        *(f"-filter:a:{number}", ",".join(filters)),
    )


def encoded_codec(target: Path) -> str:
    """Return the codec of the audio that is encoded for `target`."""
    if target.suffix.lower() in _WITHOUT_TIMES:
        return _PCM
    return "opus" if _is_webm(target) else "aac"


def _tags(stream: AudioStream, number: int) -> Iterator[str]:
    """Yield the options that copy the tags of `stream` to audio stream `number` of an output."""
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


def _format_text(format_: SoundFormat) -> str:
    return f"{format_[0]} Hz with {format_[1]} channel{'s' if format_[1] > 1 else ''}"


def _is_webm(target: Path) -> bool:
    return target.suffix.lower() == ".webm"


def _fewer_channels(streams: Iterable[AudioStream], target: Path) -> Iterator[Degradation]:
    for stream in streams:
        if (channels := kept_layout(stream, target).channels) < stream.channels:
            message = f"the {stream.channels} audio channels ({stream.layout}) were reduced to {channels}"
            yield Degradation("channels_reduced", message)


def _unique(notes: Iterable[Degradation]) -> tuple[Degradation, ...]:
    return tuple(dict.fromkeys(notes))
