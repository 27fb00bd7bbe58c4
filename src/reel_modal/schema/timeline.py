"""Exact mapping between source time and output time of an edit with trims and speeds.

Frames, audio, keyframes and highlights share this mapping.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Self

from reel_modal.errors import RequestError

__all__ = ["Piece", "Timeline"]

_NORMAL: Final = Fraction(1)


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of the source that plays at one speed.

    Attributes:
        source_start: Start, in seconds from the first frame of the source.
        source_end: End, exclusive, in seconds from the first frame of the source; None if the duration of the clip is
            unknown.
        speed: Source seconds per output second.
        output_start: Start, in seconds from the first frame of the output.
    """

    source_start: Fraction
    source_end: Fraction | None
    speed: Fraction
    output_start: Fraction

    @property
    def output_end(self) -> Fraction | None:
        """End in the output, exclusive, in seconds; None if the end is open."""
        if self.source_end is None:
            return None
        return self.output_start + (self.source_end - self.source_start) / self.speed

    def to_output(self, source_seconds: Fraction) -> Fraction:
        """Return the output time; outside the piece, extrapolate at its speed."""
        return self.output_start + (source_seconds - self.source_start) / self.speed

    def to_source(self, output_seconds: Fraction) -> Fraction:
        """Return the source time; outside the piece, extrapolate at its speed."""
        return self.source_start + (output_seconds - self.output_start) * self.speed


@dataclass(frozen=True, slots=True)
class Timeline:
    """Exact mapping between source time and output time, without gaps.

    Times before the start and after the end are extrapolated at the first and the last speed, so the mapping is
    defined for every time and is invertible.

    Attributes:
        pieces: Pieces in order. Each one begins at the end of the previous one and has another speed.

    Example:
        >>> slow = Timeline.of(Fraction(1), Fraction(5), [(Fraction(2), Fraction(4), Fraction(1, 2))])
        >>> slow.duration_seconds, slow.to_output(Fraction(3))
        (Fraction(6, 1), Fraction(3, 1))
    """

    pieces: tuple[Piece, ...]

    @classmethod
    def of(
        cls,
        start: Fraction = Fraction(0),
        end: Fraction | None = None,
        speeds: Iterable[tuple[Fraction, Fraction, Fraction]] = (),
    ) -> Self:
        """Return the timeline of the source from `start` to `end`.

        Args:
            start: Start of the kept part, in source seconds.
            end: End of the kept part, exclusive, in source seconds; None leaves it open.
            speeds: (start, end, speed) in source time, in order, not overlapping. The rest of the kept part plays at
                normal speed. Parts outside `start` and `end` are ignored.

        Raises:
            RequestError: Nothing is kept, or entries of `speeds` overlap.
        """
        if end is not None and end <= start:
            raise RequestError("", f"nothing is kept between {float(start):g} and {float(end):g} s")
        stretches: list[tuple[Fraction, Fraction | None, Fraction]] = []
        at = start
        for from_, to, speed in speeds:
            first, last = max(from_, start), to if end is None else min(to, end)
            if last <= first:
                continue
            if first < at:
                raise RequestError("", f"a segment begins at {float(first):g} s, before the previous one ends")
            if first > at:
                stretches.append((at, first, _NORMAL))
            stretches.append((first, last, speed))
            at = last
        if end is None or at < end:
            stretches.append((at, end, _NORMAL))
        return cls(tuple(_laid_out(stretches)))

    @property
    def source_start(self) -> Fraction:
        """Start of the kept part, in source seconds."""
        return self.pieces[0].source_start

    @property
    def source_end(self) -> Fraction | None:
        """End of the kept part, exclusive, in source seconds; None if it is open."""
        return self.pieces[-1].source_end

    @property
    def duration_seconds(self) -> Fraction:
        """Duration of the output in seconds.

        Raises:
            RequestError: The timeline has an open end.
        """
        end = self.pieces[-1].output_end
        if end is None:
            raise RequestError("", "the timeline has an open end; the duration of the clip is required")
        return end

    @property
    def untouched(self) -> bool:
        """Whether output time equals source time; the end may be trimmed."""
        return len(self.pieces) == 1 and self.pieces[0].speed == 1 and self.source_start == 0

    def to_output(self, source_seconds: Fraction) -> Fraction:
        """Return the output time of `source_seconds`; outside the kept part, extrapolate."""
        return self.piece_at_source(source_seconds).to_output(source_seconds)

    def to_source(self, output_seconds: Fraction) -> Fraction:
        """Return the source time that is shown at `output_seconds`."""
        return self.piece_at_output(output_seconds).to_source(output_seconds)

    def piece_at_source(self, seconds: Fraction) -> Piece:
        """Return the piece that contains this source time, else the nearest piece."""
        index = bisect_right(self.pieces, seconds, key=lambda piece: piece.source_start) - 1
        return self.pieces[max(0, index)]

    def piece_at_output(self, seconds: Fraction) -> Piece:
        """Return the piece that contains this output time, else the nearest piece."""
        index = bisect_right(self.pieces, seconds, key=lambda piece: piece.output_start) - 1
        return self.pieces[max(0, index)]

    def frame_count(self, fps: Fraction) -> int:
        """Return the number of output frames at `fps`: the duration rounded to whole frames, at least one."""
        return max(1, round(self.duration_seconds * fps))

    def first_frame(self, source_seconds: Fraction, fps: Fraction) -> int:
        """Return the index of the first output frame at `fps` that shows a source frame with this timestamp.

        It is the nearest output frame, so a source frame is never more than half an output frame early or late.
        Halves are rounded up.
        """
        return (self.to_output(source_seconds) * fps + Fraction(1, 2)).__floor__()


def _laid_out(stretches: Iterable[tuple[Fraction, Fraction | None, Fraction]]) -> list[Piece]:
    """Return (start, end, speed) parts of source time as consecutive pieces; merge neighbors with the same speed."""
    pieces: list[Piece] = []
    for start, end, speed in stretches:
        last = pieces[-1] if pieces else None
        if last is not None and last.speed == speed:
            pieces[-1] = Piece(last.source_start, end, speed, last.output_start)
        else:
            output_start = last.to_output(start) if last is not None else Fraction(0)
            pieces.append(Piece(start, end, speed, output_start))
    return pieces
