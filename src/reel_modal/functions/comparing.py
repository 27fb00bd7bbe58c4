"""Find the losses of an output by comparing its probe result with the source's, for every way of rendering."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from reel_modal._ffmpeg.audio import HEARD_SECONDS, seconds_before_picture
from reel_modal._ffmpeg.extra_streams import Extras, kept_tags
from reel_modal.functions.context import JobContext
from reel_modal.media import MediaInfo
from reel_modal.media.alpha import is_opaque
from reel_modal.media.streams import StreamInfo, StreamKind, chroma_samples
from reel_modal.schema import Degradation, DegradationCode
from reel_modal.schema.options import MetadataPolicy

__all__ = ["FinishedFile", "losses"]

_CODES: Final[dict[StreamKind, DegradationCode]] = {
    "picture": "video_dropped",
    "sound": "sound_dropped",
    "subtitles": "subtitles_dropped",
    "data": "data_dropped",
    "attachment": "attachment_dropped",
    "cover": "cover_dropped",
}
_NOUNS: Final[dict[StreamKind, str]] = {
    "picture": "another video track",
    "sound": "audio",
    "subtitles": "subtitles",
    "data": "data",
    "attachment": "an attachment",
    "cover": "cover art",
}


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """A finished file, and the parts of the source that it should keep.

    Attributes:
        media: Probe result of the file.
        extras: The streams, chapters and timecode to keep, besides video and audio.
        policy: Which tags to keep.
        sound: Whether to keep the audio.
        pictures_remade: Whether some of its frames were re-encoded and the others copied.
    """

    media: MediaInfo
    extras: Extras
    policy: MetadataPolicy
    sound: bool = True
    pictures_remade: bool = False


def losses(source: MediaInfo, finished: FinishedFile, context: JobContext) -> list[Degradation]:
    """Return a note on each part of `source` that the finished file lacks.

    Args:
        source: The source.
        finished: The finished file.
        context: Context of the job.

    Cancellation:
        Raises JobCancelledError between two packets, if the alpha channel of the source is examined.
    """

    def opaque() -> bool:
        return is_opaque(source, context.settings.limits, context.raise_if_cancelled)

    notes = [
        *_broken_end(source, finished),
        *_pictures(source, finished),
        *_streams(source, finished),
        *_sound_ends(source, finished),
        *_words(source, finished),
    ]
    if source.contents.alpha and not finished.media.contents.alpha and not opaque():
        message = "the transparency of the source is not in the output: it was composited on black"
        notes.append(Degradation("alpha_dropped", message))
    return notes


def _broken_end(source: MediaInfo, finished: FinishedFile) -> Iterator[Degradation]:
    """Yield a note on the missing part of a truncated source, unless the request leaves that part out."""
    line, scan = finished.extras.timeline, source.scan
    if not source.breaks_off or (
        line.source_end is not None and (scan is None or _is_within(line.source_end, source))
    ):
        return
    # If no packets were read, the source was copied up to its end.
    end = line.source_start + _length(finished.media) if scan is None else scan.duration_seconds
    seconds, frames = (source.duration_seconds or Fraction(0)) - end, source.frame_count_header
    missing = [f"{float(seconds):.2f} s"] if seconds > 1 / source.fps else []
    if frames is not None and scan is not None and frames > scan.frame_count:
        missing.append(f"{frames - scan.frame_count} of {frames} frames")
    named = f": {' and '.join(missing)} are missing" if missing else ""
    message = f"the source is truncated at {float(end):.2f} s, before the end in its headers{named}"
    yield Degradation("source_breaks_off", message)


def _is_within(seconds: Fraction, media: MediaInfo) -> bool:
    """Return whether a time is more than one frame before the end of the video."""
    return seconds < _length(media) - 1 / media.fps


def _pictures(source: MediaInfo, finished: FinishedFile) -> Iterator[Degradation]:
    output = finished.media
    if source.bit_depth > output.bit_depth:
        message = f"the {source.bit_depth}-bit source was rendered in {output.bit_depth} bits"
        yield Degradation("bit_depth_reduced", message)
    if chroma_samples(source.pixel_format) > chroma_samples(output.pixel_format):
        message = (
            f"the {source.pixel_format} source was rendered as {output.pixel_format}, which has less color detail"
        )
        yield Degradation("chroma_reduced", message)
    if source.contents.closed_captions and (finished.pictures_remade or not output.contents.closed_captions):
        part = "the re-encoded frames" if finished.pictures_remade else "the output"
        yield Degradation("captions_dropped", f"the closed captions of the source are not in {part}")


def _streams(source: MediaInfo, finished: FinishedFile) -> Iterator[Degradation]:
    left = list(finished.media.contents.streams)
    for kind, code in _CODES.items():
        if kind == "sound" and not finished.sound:
            continue
        streams = [stream for stream in source.contents.streams if stream.kind == kind]
        kept = _kept(streams, [stream for stream in left if stream.kind == kind], source.stream_index)
        for stream in streams:
            if stream.index not in kept:
                alone = ", the only audio stream," if kind == "sound" and len(streams) == 1 else ""
                message = f"stream {stream.index} of the source ({_described(stream)}){alone} is not in the output"
                yield Degradation(code, message + _reason(stream, finished))
    timecode = next((stream.timecode for stream in source.contents.streams if stream.timecode), None)
    if timecode is not None and not any(stream.timecode for stream in left):
        yield Degradation("timecode_dropped", f"the timecode {timecode} of the source is not in the output")


def _kept(streams: list[StreamInfo], output: list[StreamInfo], picture_index: int) -> set[int]:
    """Return the indexes of the source's `streams` that are in `output`; both have the same order."""
    kept: set[int] = set()
    for written in output:
        left = [each for each in streams if each.index not in kept and each.codec and not each.in_other_program]
        alike = [each for each in left if (each.language, each.title) == (written.language, written.title)]
        picture = [each for each in left if each.index == picture_index]
        kept.update(each.index for each in (picture or alike or left)[:1])
    return kept


def _described(stream: StreamInfo) -> str:
    codec = stream.codec or ("an unknown codec" if stream.kind in {"picture", "sound", "subtitles"} else None)
    parts = [_NOUNS[stream.kind], codec, stream.language, None if stream.title is None else repr(stream.title)]
    return ", ".join(part for part in parts if part is not None)


def _reason(stream: StreamInfo, finished: FinishedFile) -> str:
    """Return why a stream is not in the output, as the end of a sentence; empty if that is obvious."""
    suffix = finished.extras.target.suffix.lower()
    if stream.in_other_program:
        return ": it belongs to another program than the video"
    if stream.kind == "sound" and stream.codec is None:
        return ": no decoder supports it"
    if stream in finished.extras.streams:
        return ": it has no packets in the kept part, or could not be written"
    if stream.kind == "data" and finished.policy == "strip":
        return ": data may contain locations and is removed"
    return f": {suffix} does not support it" if stream.kind in {"subtitles", "data"} else ""


def _sound_ends(source: MediaInfo, finished: FinishedFile) -> Iterator[Degradation]:
    """Yield notes on audio before the first and after the last frame that is not in the output."""
    line = finished.extras.timeline
    if not finished.sound or not source.audio:
        return
    if line.source_start == 0 and (before := seconds_before_picture(source)):
        message = f"the output begins with the first frame; {float(before):.2f} s of audio before it are missing"
        yield Degradation("sound_trimmed", message)
    after = _seconds_after_picture(source)
    if source.breaks_off:
        return  # already reported, and the headers do not describe the existing part
    if line.untouched and _sound_end(finished.media) > _sound_end(source) - HEARD_SECONDS:
        return  # all audio is in the output, even if the headers of the video suggest otherwise
    if line.source_end is not None and _is_within(line.source_end, source):
        return  # the request cuts the end off
    if after - _seconds_after_picture(finished.media) >= HEARD_SECONDS:
        message = f"the output ends with the last frame; {float(after):.2f} s of audio after it are missing"
        yield Degradation("sound_trimmed", message)


def _seconds_after_picture(media: MediaInfo) -> Fraction:
    """Return the seconds of audio after the last frame, according to headers and packets."""
    return max(Fraction(0), _sound_end(media) - _length(media)) if _length(media) else Fraction(0)


def _sound_end(media: MediaInfo) -> Fraction:
    """Return the end of the last audio, in seconds from the first frame, according to headers and packets."""
    ends = [each.start_seconds + each.duration_seconds for each in media.audio if each.duration_seconds is not None]
    indexes = {each.index for each in media.audio}
    ends += [] if media.scan is None else [end for index, end in media.scan.sound_ends.items() if index in indexes]
    return max(ends, default=media.start_seconds) - media.start_seconds


def _length(media: MediaInfo) -> Fraction:
    """Return the duration of the video in seconds; 0 if it is unknown."""
    return (media.duration_seconds if media.scan is None else media.scan.duration_seconds) or Fraction(0)


def _words(source: MediaInfo, finished: FinishedFile) -> Iterator[Degradation]:
    """Yield notes on lost chapters and tags."""
    suffix = finished.extras.target.suffix.lower()
    if finished.extras.chapters and not finished.media.contents.chapters:
        message = f"the {len(finished.extras.chapters)} chapters of the source are not in the output"
        yield Degradation("chapters_dropped", message)
    written = {name for name, _ in finished.media.contents.tags}
    expected = kept_tags(source, finished.policy)
    lost = [name for name, _ in source.contents.tags if name not in written]
    if stripped := [name for name in lost if name not in expected]:
        yield Degradation("metadata_stripped", f"tags of the source that were removed: {_listed(stripped)}")
    if dropped := [name for name in lost if name in expected]:
        message = f"tags of the source that {suffix} does not support: {_listed(dropped)}"
        yield Degradation("metadata_dropped", message)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
