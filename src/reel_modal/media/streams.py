"""Contents of a file besides the video itself: all streams, chapters, tags, captions and transparency."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from reel_modal.media.pyav import has_closed_captions, readable_tags

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.frame import VideoFrame

__all__ = [
    "NOTHING",
    "Chapter",
    "Contents",
    "StreamInfo",
    "StreamKind",
    "chroma_samples",
    "contents_of",
    "is_cover",
    "title_of",
]

StreamKind: TypeAlias = Literal["picture", "sound", "subtitles", "timecode", "data", "attachment", "cover"]
"""Purpose of a stream."""

_KINDS: Final[Mapping[str, StreamKind]] = {
    "video": "picture",
    "audio": "sound",
    "subtitle": "subtitles",
    "attachment": "attachment",
}
# Tags that muxers write, and tags that a job of this package has written.
_TECHNICAL_TAGS: Final = re.compile(r"major_brand|minor_version|compatible_brands|encoder|timecode|reel_modal_.*")
# The alpha channel of VP8 and VP9 is an additional picture for each frame, which libav's own decoders ignore.
_ALPHA_TAG: Final = "alpha_mode"
_ALPHA_DECODERS: Final = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """One stream of a file.

    Attributes:
        index: Its index in the file.
        kind: Its purpose; `cover` is a still image that accompanies the clip, such as cover art.
        codec: ffmpeg's name of its codec; None if it is unknown.
        language: Three letters; None if the file does not state it.
        title: Its title.
        timecode: Timecode of the first frame, `hh:mm:ss:ff`.
        is_text: Whether it contains text subtitles, not images.
        in_other_program: Whether it belongs to another program than the video; such streams are dropped.
    """

    index: int
    kind: StreamKind
    codec: str | None = None
    language: str | None = None
    title: str | None = None
    timecode: str | None = None
    is_text: bool = False
    in_other_program: bool = False


@dataclass(frozen=True, slots=True)
class Chapter:
    """A chapter; times are timestamps in the file, in seconds."""

    start_seconds: Fraction
    end_seconds: Fraction
    title: str


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of a file.

    Attributes:
        streams: All streams, including the video stream, but not the track in which MP4 and MOV store chapter titles.
        chapters: The chapters in order.
        tags: Lowercase names and values of the tags of the whole file.
        closed_captions: Whether the first frame carries captions (CEA-608 or CEA-708).
        alpha: Whether its frames have transparency.
        alpha_decoder: The decoder that is required to keep the transparency; None if any decoder keeps it.
    """

    streams: tuple[StreamInfo, ...] = ()
    chapters: tuple[Chapter, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    closed_captions: bool = False
    alpha: bool = False
    alpha_decoder: str | None = None

    @property
    def unknown_sounds(self) -> tuple[int, ...]:
        """Indices of the audio streams with an unknown codec."""
        return tuple(each.index for each in self.streams if each.kind == "sound" and each.codec is None)


NOTHING: Final = Contents()
"""The contents of an empty file."""


def contents_of(
    container: InputContainer, picture_index: int, frame: VideoFrame, other_programs: frozenset[int] = frozenset()
) -> Contents:
    """Return the contents of the open file.

    Args:
        container: The file.
        picture_index: Index of the video stream.
        frame: The first frame that can be decoded.
        other_programs: Indices of the streams of other programs.
    """
    chapters = tuple(_chapters(container))
    all_streams = _streams(container, has_chapters=bool(chapters))
    streams = tuple(replace(each, in_other_program=each.index in other_programs) for each in all_streams)
    tags = {key.lower(): value for key, value in readable_tags(container.metadata).items()}
    picture = container.streams[picture_index]
    picture_tags = {key.lower(): value for key, value in picture.metadata.items()}
    separate_alpha = picture_tags.get(_ALPHA_TAG) == "1"
    return Contents(
        streams=streams,
        chapters=chapters,
        tags=tuple((key, value) for key, value in tags.items() if value and not _TECHNICAL_TAGS.fullmatch(key)),
        closed_captions=has_closed_captions(frame),
        alpha=separate_alpha or _is_transparent(frame, picture),
        alpha_decoder=_ALPHA_DECODERS.get(_codec(picture) or "") if separate_alpha else None,
    )


def chroma_samples(pixel_format: str) -> int:
    """Return the number of chroma samples in 16 x 16 pixels: 0 for gray, 64 for 4:2:0, 256 for 4:4:4 and RGB."""
    from av.video.format import VideoFormat

    described = VideoFormat(pixel_format, 16, 16)
    if described.is_rgb or described.has_palette:
        return 256
    colors = [part for part in described.components if not part.is_alpha and not part.is_luma]
    return colors[0].width * colors[0].height if colors else 0


def is_cover(stream: Stream) -> bool:
    """Return whether a stream contains still images that accompany the clip, such as cover art."""
    from av.stream import Disposition

    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def title_of(tags: Mapping[str, str]) -> str | None:
    """Return the title of a stream: libav writes it to MP4 as `title`, but reads it from there as `name`."""
    return tags.get("title") or tags.get("name")


def _streams(container: InputContainer, *, has_chapters: bool) -> Iterator[StreamInfo]:
    indexed = "mov" in container.format.name.split(",")
    for stream in container.streams:
        kind, codec = _kind(stream), _codec(stream)
        if indexed and has_chapters and kind == "data" and codec == "bin_data":
            continue  # the chapter titles
        tags = readable_tags(stream.metadata)
        context: object = stream.codec_context
        yield StreamInfo(
            index=stream.index,
            kind=kind,
            codec=codec,
            language=None if tags.get("language") == "und" else tags.get("language"),
            title=title_of(tags),
            timecode=tags.get("timecode"),
            is_text=kind == "subtitles" and context is not None and stream.codec_context.codec.text_sub,
        )


def _kind(stream: Stream) -> StreamKind:
    if is_cover(stream):
        return "cover"
    if stream.type == "data" and "timecode" in stream.metadata:
        return "timecode"
    return _KINDS.get(stream.type, "data")


def _codec(stream: Stream) -> str | None:
    """Return the name of a codec. If libav does not know it, PyAV's codec context is None despite its type hints."""
    context: object = stream.codec_context
    if context is not None:
        return stream.codec_context.codec.canonical_name
    return stream.name if stream.type == "data" else None


def _chapters(container: InputContainer) -> Iterator[Chapter]:
    for number, chapter in enumerate(container.chapters(), 1):
        base = chapter["time_base"] or Fraction(1)
        title = readable_tags(chapter["metadata"]).get("title") or f"Chapter {number}"
        tick = Fraction(base.numerator, base.denominator)
        yield Chapter(chapter["start"] * tick, chapter["end"] * tick, title)


def _is_transparent(frame: VideoFrame, stream: Stream) -> bool:
    """Return whether frames have an alpha channel; in GIF, which always has one, whether a pixel is transparent."""
    if not any(part.is_alpha for part in frame.format.components):
        return False
    if stream.codec_context.name != "gif":
        return True
    return bool((frame.to_ndarray(format="rgba")[:, :, 3] < 255).any())
