"""What of a source is not in the output and shows in no look at the finished file: `comparing` finds the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.media import MediaInfo
from reel_modal.schema import Degradation

__all__ = ["DecodingReport", "not_kept", "rate_notes"]


@dataclass(frozen=True, slots=True)
class DecodingReport:
    """What a decoder met in the source.

    Attributes:
        broken_before_first: Packets before the first picture that do not decode; their time is not in the output.
        broken_later: The other packets that do not decode; their time is.
        fitted: Pictures of another size than the first, which were fitted into it.
    """

    broken_before_first: int = 0
    broken_later: int = 0
    fitted: int = 0

    @classmethod
    def of(cls, reader: FrameReader) -> Self:
        """Return the report of `reader`. If it began in the middle, broken packets before do not matter."""
        before, later = reader.broken_at_start, reader.broken_packets - reader.broken_at_start
        return cls(0 if reader.start_seconds is not None else before, later, reader.fitted)

    def notes(self) -> Iterator[Degradation]:
        """Yield what became of them."""
        if self.broken_before_first:
            message = (
                f"{_packets(self.broken_before_first)} before the first picture could not be decoded and are left out"
            )
            yield Degradation("pictures_undecodable", message)
        if self.broken_later:
            message = (
                f"{_packets(self.broken_later)} could not be decoded; the picture before each is shown for longer"
            )
            yield Degradation("pictures_undecodable", message)
        if self.fitted:
            message = (
                f"the size of the picture changes; {self.fitted} pictures were fitted into the size of the first"
            )
            yield Degradation("pictures_fitted", message)


def _packets(count: int) -> str:
    return f"{count} packet{'s' if count > 1 else ''} of the source"


def rate_notes(
    media: MediaInfo, rate: Fraction | None, *, asked: bool, dropped: int | None = None, pictures: int | None = None
) -> list[Degradation]:
    """Return what a constant rate changes about pictures that are not evenly spaced.

    Args:
        media: The source, with the rate of the whole clip.
        rate: Of the output; None if it keeps the time of each picture.
        asked: Whether the request says which rate: what that drops is as asked.
        dropped: Pictures that no frame shows; None counts those of the whole clip, as far as its packets were read.
        pictures: Those that could be shown; None is all of the clip.
    """
    if rate is None or asked or media.constant_rate:
        return []
    if dropped is None:
        dropped = 0 if media.scan is None else media.scan.grid(rate).dropped
    message = f"the variable frame rate was resampled to {float(rate):g} frames a second"
    notes = [Degradation("frame_rate_changed", message)]
    if dropped:
        message = (
            f"{dropped} of {pictures or media.expected_pictures} pictures were dropped,"
            f" since they come faster than {float(rate):g} a second"
        )
        notes.append(Degradation("pictures_dropped", message))
    return notes


def not_kept(media: MediaInfo, decoding: DecodingReport) -> list[Degradation]:
    """Return the notes.

    Args:
        media: The source.
        decoding: What the decoder met.
    """
    notes = [*decoding.notes()]
    if media.deinterlace is not None:
        made = (
            "a picture was made of each field"
            if media.deinterlace == "field"
            else "its fields were made into pictures"
        )
        message = f"the source is interlaced; {made}, {float(media.fps):g} a second"
        notes.append(Degradation("deinterlaced", message))
    if media.hdr_color is not None:
        kind = "PQ" if media.hdr_color.transfer == "smpte2084" else "HLG"
        message = f"the source is HDR ({kind}); SDR was made of it (BT.709), which encode.hdr decides"
        notes.append(Degradation("tone_mapped", message))
    return notes
