"""Notes for `RenderResult.degraded` on losses that the finished file does not show; `comparing` finds the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.media import MediaInfo
from reel_modal.schema import Degradation

__all__ = ["DecodingReport", "degradation_notes", "listed", "rate_notes"]


def listed(names: Sequence[str], most: int) -> str:
    """Return the first `most` names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


@dataclass(frozen=True, slots=True)
class DecodingReport:
    """Problems that a decoder found in the source.

    Attributes:
        broken_before_first: Number of undecodable packets before the first frame; their time is not in the output.
        broken_later: Number of other undecodable packets; their time is in the output.
        fitted: Number of frames that were scaled to the size of the first.
    """

    broken_before_first: int = 0
    broken_later: int = 0
    fitted: int = 0

    @classmethod
    def of(cls, reader: FrameReader) -> Self:
        """Return the report of `reader`. If it began in the middle, broken packets at its start are ignored."""
        before, later = reader.broken_at_start, reader.broken_packets - reader.broken_at_start
        return cls(0 if reader.start_seconds is not None else before, later, reader.fitted)

    def notes(self) -> Iterator[Degradation]:
        """Yield a note on each kind of problem."""
        if self.broken_before_first:
            message = (
                f"{_packets(self.broken_before_first)} before the first frame could not be decoded and are left out"
            )
            yield Degradation("pictures_undecodable", message)
        if self.broken_later:
            message = f"{_packets(self.broken_later)} could not be decoded; the frame before each is shown for longer"
            yield Degradation("pictures_undecodable", message)
        if self.fitted:
            message = f"the frame size changes; {self.fitted} frames were scaled to fit the size of the first"
            yield Degradation("pictures_fitted", message)


def _packets(count: int) -> str:
    return f"{count} packet{'s' if count > 1 else ''} of the source"


def rate_notes(
    media: MediaInfo,
    rate: Fraction | None,
    *,
    requested: bool,
    dropped: int | None = None,
    pictures: int | None = None,
) -> list[Degradation]:
    """Return notes on resampling a variable frame rate to a constant one.

    Args:
        media: The source, with the rate of the whole clip.
        rate: Rate of the output; None if each frame keeps its time.
        requested: Whether the request names the rate; dropped frames are then not a loss.
        dropped: Number of dropped frames; None counts those of the whole clip if its packets were scanned, else 0.
        pictures: Number of source frames; None means all of the clip.
    """
    if rate is None or requested or media.constant_rate:
        return []
    if dropped is None:
        dropped = 0 if media.scan is None else media.scan.grid(rate).dropped
    message = f"the variable frame rate was resampled to {float(rate):g} frames per second"
    notes = [Degradation("frame_rate_changed", message)]
    if dropped:
        message = (
            f"{dropped} of {pictures or media.frame_count} frames were dropped,"
            f" since they come faster than {float(rate):g} per second"
        )
        notes.append(Degradation("pictures_dropped", message))
    return notes


def degradation_notes(media: MediaInfo, decoding: DecodingReport) -> list[Degradation]:
    """Return the notes on decoding, deinterlacing and tone mapping.

    Args:
        media: The source.
        decoding: The report of its decoder.
    """
    notes = [*decoding.notes()]
    if media.deinterlace is not None:
        unit = "field" if media.deinterlace == "field" else "source frame"
        message = f"the source is interlaced; one frame was made of each {unit}, {float(media.fps):g} per second"
        notes.append(Degradation("deinterlaced", message))
    if media.hdr_color is not None:
        kind = "PQ" if media.hdr_color.transfer == "smpte2084" else "HLG"
        message = f"the source is HDR ({kind}); it was converted to SDR (BT.709), see encode.hdr"
        notes.append(Degradation("tone_mapped", message))
    return notes
