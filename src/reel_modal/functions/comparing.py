"""What an output lacks of its source: computed from a look at both files, the same for every way of making one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from reel_modal.functions.context import JobContext
from reel_modal.media import MediaInfo
from reel_modal.media.alpha import is_opaque
from reel_modal.media.extras import Extras, kept_tags
from reel_modal.media.sound import HEARD_SECONDS, seconds_before_picture
from reel_modal.media.streams import StreamInfo, StreamKind, chroma_samples
from reel_modal.schema import Degradation, DegradationCode
from reel_modal.schema.encoding import MetadataPolicy

__all__ = ["Made", "losses"]

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
    "sound": "sound",
    "subtitles": "subtitles",
    "data": "data",
    "attachment": "an attachment",
    "cover": "cover art",
}


@dataclass(frozen=True, slots=True)
class Made:
    """A finished file, and what was asked of it.

    Attributes:
        media: The file.
        extras: What was to go along with picture and sound.
        policy: Which tags were to be kept.
        sound: Whether the sound was to be kept.
        pictures_remade: Whether some of its pictures were made anew and others copied.
    """

    media: MediaInfo
    extras: Extras
    policy: MetadataPolicy
    sound: bool = True
    pictures_remade: bool = False


def losses(source: MediaInfo, made: Made, context: JobContext, function: str) -> list[Degradation]:
    """Return what `source` has and the finished file lacks.

    Args:
        source: What was read.
        made: What was made of it.
        context: Of the job.
        function: Who asks, for the message of a cancellation.

    Cancellation:
        Raises JobCancelledError between two packets, if the alpha of the source has to be looked at.
    """

    def opaque() -> bool:
        return is_opaque(source, context.settings.limits, lambda: context.raise_if_cancelled(function))

    notes = [
        *_broken_end(source, made),
        *_pictures(source, made),
        *_streams(source, made),
        *_sound_ends(source, made),
        *_words(source, made),
    ]
    if source.contents.alpha and not made.media.contents.alpha and not opaque():
        message = "the transparency of the source is not in the output: it was laid on black"
        notes.append(Degradation("alpha_dropped", message))
    return notes


def _broken_end(source: MediaInfo, made: Made) -> Iterator[Degradation]:
    """Yield what of a source that breaks off is not there, unless the request leaves it out."""
    line, scan = made.extras.timeline, source.scan
    if not source.breaks_off or (
        line.source_end is not None and (scan is None or _is_within(line.source_end, source))
    ):
        return
    # If no packets were read, the source was copied up to its end.
    there = line.source_start + _length(made.media) if scan is None else scan.duration_seconds
    seconds, pictures = (source.duration_seconds or Fraction(0)) - there, source.frame_count_header
    lacking = [f"{float(seconds):.2f} s"] if seconds > 1 / source.fps else []
    if pictures is not None and scan is not None and pictures > scan.frame_count:
        lacking.append(f"{pictures - scan.frame_count} of {pictures} pictures")
    named = f": {' and '.join(lacking)} are not in it" if lacking else ""
    message = f"the source breaks off at {float(there):.2f} s, before its headers say so{named}"
    yield Degradation("source_breaks_off", message)


def _is_within(seconds: Fraction, media: MediaInfo) -> bool:
    """Whether a moment is more than a frame before the end of the picture."""
    return seconds < _length(media) - 1 / media.fps


def _pictures(source: MediaInfo, made: Made) -> Iterator[Degradation]:
    output = made.media
    if source.bit_depth > output.bit_depth:
        message = f"the {source.bit_depth}-bit source was rendered in {output.bit_depth} bits"
        yield Degradation("bit_depth_reduced", message)
    if chroma_samples(source.pixel_format) > chroma_samples(output.pixel_format):
        message = (
            f"the {source.pixel_format} source was rendered as {output.pixel_format}, which has less color detail"
        )
        yield Degradation("chroma_reduced", message)
    if source.contents.closed_captions and (made.pictures_remade or not output.contents.closed_captions):
        which = "the pictures that were made anew" if made.pictures_remade else "the output"
        yield Degradation("captions_dropped", f"the closed captions of the source are not in {which}")


def _streams(source: MediaInfo, made: Made) -> Iterator[Degradation]:
    left = list(made.media.contents.streams)
    for kind, code in _CODES.items():
        if kind == "sound" and not made.sound:
            continue
        there = [stream for stream in source.contents.streams if stream.kind == kind]
        kept = _kept(there, [stream for stream in left if stream.kind == kind], source.stream_index)
        for stream in there:
            if stream.index not in kept:
                alone = ", the only one," if kind == "sound" and len(there) == 1 else ""
                message = f"stream {stream.index} of the source ({_described(stream)}){alone} is not in the output"
                yield Degradation(code, message + _reason(stream, made))
    timecode = next((stream.timecode for stream in source.contents.streams if stream.timecode), None)
    if timecode is not None and not any(stream.timecode for stream in left):
        yield Degradation("timecode_dropped", f"the timecode {timecode} of the source is not in the output")


def _kept(there: list[StreamInfo], output: list[StreamInfo], picture_index: int) -> set[int]:
    """Return the numbers of the streams `there` that are in the `output`, whose streams have the same order."""
    kept: set[int] = set()
    for found in output:
        open_ = [each for each in there if each.index not in kept and each.codec and not each.in_other_program]
        alike = [each for each in open_ if (each.language, each.title) == (found.language, found.title)]
        picture = [each for each in open_ if each.index == picture_index]
        kept.update(each.index for each in (picture or alike or open_)[:1])
    return kept


def _described(stream: StreamInfo) -> str:
    codec = stream.codec or ("an unknown codec" if stream.kind in {"picture", "sound", "subtitles"} else None)
    parts = [_NOUNS[stream.kind], codec, stream.language, None if stream.title is None else repr(stream.title)]
    return ", ".join(part for part in parts if part is not None)


def _reason(stream: StreamInfo, made: Made) -> str:
    """Return why a stream is not in the output, as the end of a sentence; empty if that is clear."""
    suffix = made.extras.target.suffix.lower()
    if stream.in_other_program:
        return ": it belongs to another program than the picture"
    if stream.kind == "sound" and stream.codec is None:
        return ": nothing here decodes it"
    if stream in made.extras.streams:
        return ": it has nothing in the part that is kept, or could not be written"
    if stream.kind == "data" and made.policy == "strip":
        return ": data may hold places and is stripped"
    return f": {suffix} does not take it" if stream.kind in {"subtitles", "data"} else ""


def _sound_ends(source: MediaInfo, made: Made) -> Iterator[Degradation]:
    """Yield the sound before the first picture and after the last one that no part of the output has."""
    line = made.extras.timeline
    if not made.sound or not source.audio:
        return
    if line.source_start == 0 and (before := seconds_before_picture(source)):
        message = f"the output begins with the first picture; {float(before):.2f} s of sound before it are not in it"
        yield Degradation("sound_trimmed", message)
    after = _seconds_after_picture(source)
    if source.breaks_off:
        return  # that is named, and headers say nothing of what is there
    if line.untouched and _sound_end(made.media) > _sound_end(source) - HEARD_SECONDS:
        return  # all of it is there, whatever the headers say of the picture
    if line.source_end is not None and _is_within(line.source_end, source):
        return  # the request cuts the end off
    if after - _seconds_after_picture(made.media) >= HEARD_SECONDS:
        message = f"the output ends with the last picture; {float(after):.2f} s of sound after it are not in it"
        yield Degradation("sound_trimmed", message)


def _seconds_after_picture(media: MediaInfo) -> Fraction:
    """Return how much sound comes after the last picture, as far as headers and packets say."""
    return max(Fraction(0), _sound_end(media) - _length(media)) if _length(media) else Fraction(0)


def _sound_end(media: MediaInfo) -> Fraction:
    """Return how long after the first picture the last sound ends, as far as headers and packets say."""
    ends = [each.start_seconds + each.duration_seconds for each in media.audio if each.duration_seconds is not None]
    known = {each.index for each in media.audio}
    ends += [] if media.scan is None else [end for index, end in media.scan.sound_ends.items() if index in known]
    return max(ends, default=media.start_seconds) - media.start_seconds


def _length(media: MediaInfo) -> Fraction:
    """Return the seconds of the picture; 0 if they are not known."""
    return (media.duration_seconds if media.scan is None else media.scan.duration_seconds) or Fraction(0)


def _words(source: MediaInfo, made: Made) -> Iterator[Degradation]:
    """Yield what is lost of chapters and tags."""
    suffix = made.extras.target.suffix.lower()
    if made.extras.chapters and not made.media.contents.chapters:
        message = f"the {len(made.extras.chapters)} chapters of the source are not in the output"
        yield Degradation("chapters_dropped", message)
    there = {name for name, _ in made.media.contents.tags}
    wanted = kept_tags(source, made.policy)
    lost = [name for name, _ in source.contents.tags if name not in there]
    if stripped := [name for name in lost if name not in wanted]:
        yield Degradation("metadata_stripped", f"tags of the source that were stripped: {_listed(stripped)}")
    if dropped := [name for name in lost if name in wanted]:
        message = f"tags of the source that {suffix} does not keep: {_listed(dropped)}"
        yield Degradation("metadata_dropped", message)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
