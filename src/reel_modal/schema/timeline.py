"""The time line of an edit: which moment of the source is shown when, exactly, through trims and speeds.

Pure; one mapping for frames, sound, keyframes and highlights. It must not know what is moved along it.
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
    """A stretch of the source that plays at one speed.

    Attributes:
        source_start: Seconds from the first picture of the source on.
        source_end: Seconds, exclusive; None is open, for a clip whose length nobody has said.
        speed: Source seconds that pass in one second of the output.
        output_start: Seconds from the first picture of the output on.
    """

    source_start: Fraction
    source_end: Fraction | None
    speed: Fraction
    output_start: Fraction

    @property
    def output_end(self) -> Fraction | None:
        """Where the next piece begins in the output."""
        if self.source_end is None:
            return None
        return self.output_start + (self.source_end - self.source_start) / self.speed

    def to_output(self, source_seconds: Fraction) -> Fraction:
        """Return the moment of the output, as if the piece went on for ever in both directions."""
        return self.output_start + (source_seconds - self.source_start) / self.speed

    def to_source(self, output_seconds: Fraction) -> Fraction:
        """Return the moment of the source, as if the piece went on for ever in both directions."""
        return self.source_start + (output_seconds - self.output_start) * self.speed


@dataclass(frozen=True, slots=True)
class Timeline:
    """Source time to output time and back, without a gap, exact in fractions.

    Before its start and behind its end it goes on at the first and at the last speed, so that every moment has
    its place and the two directions undo one another.

    Attributes:
        pieces: In order; each begins where the one before it ends, at another speed.

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
        """Return the time line of the source from `start` to `end`.

        Args:
            start: First moment of the source that is kept, in seconds.
            end: Where it ends, exclusive; None leaves it open.
            speeds: (start, end, speed) of source time, in order, not overlapping; what lies between plays at
                normal speed, what lies outside is not there.

        Raises:
            RequestError: Nothing is kept, or stretches overlap.
        """
        if end is not None and end <= start:
            raise RequestError("", f"nothing is left between {float(start):g} and {float(end):g} s")
        stretches: list[tuple[Fraction, Fraction | None, Fraction]] = []
        at = start
        for from_, to, speed in speeds:
            first, last = max(from_, start), to if end is None else min(to, end)
            if last <= first:
                continue
            if first < at:
                raise RequestError("", f"a stretch begins at {float(first):g} s, before the last one has ended")
            if first > at:
                stretches.append((at, first, _NORMAL))
            stretches.append((first, last, speed))
            at = last
        if end is None or at < end:
            stretches.append((at, end, _NORMAL))
        return cls(tuple(_laid_out(stretches)))

    @property
    def source_start(self) -> Fraction:
        """First moment of the source that is kept, in seconds."""
        return self.pieces[0].source_start

    @property
    def source_end(self) -> Fraction | None:
        """Where what is kept of the source ends, exclusive; None where that is open."""
        return self.pieces[-1].source_end

    @property
    def duration_seconds(self) -> Fraction:
        """Seconds of the output.

        Raises:
            RequestError: The time line is open.
        """
        end = self.pieces[-1].output_end
        if end is None:
            raise RequestError("", "the time line has no end; say how long the clip is")
        return end

    @property
    def untouched(self) -> bool:
        """Whether the output shows each moment when the source does; an end that is cut off changes none."""
        return len(self.pieces) == 1 and self.pieces[0].speed == 1 and self.source_start == 0

    def to_output(self, source_seconds: Fraction) -> Fraction:
        """Return when the moment `source_seconds` of the source is shown; outside of what is kept, when it were."""
        return self.piece_at_source(source_seconds).to_output(source_seconds)

    def to_source(self, output_seconds: Fraction) -> Fraction:
        """Return the moment of the source that is shown at `output_seconds`."""
        return self.piece_at_output(output_seconds).to_source(output_seconds)

    def piece_at_source(self, seconds: Fraction) -> Piece:
        """Return the piece that holds this moment of the source, else the nearest."""
        index = bisect_right(self.pieces, seconds, key=lambda piece: piece.source_start) - 1
        return self.pieces[max(0, index)]

    def piece_at_output(self, seconds: Fraction) -> Piece:
        """Return the piece that plays at this moment of the output, else the nearest."""
        index = bisect_right(self.pieces, seconds, key=lambda piece: piece.output_start) - 1
        return self.pieces[max(0, index)]

    def frame_count(self, fps: Fraction) -> int:
        """Return the frames of the output at `fps`: its duration, rounded to whole frames, at least one."""
        return max(1, round(self.duration_seconds * fps))

    def first_frame(self, source_seconds: Fraction, fps: Fraction) -> int:
        """Return the first output frame at `fps` that shows a picture of this time, the nearest to its moment.

        A picture is then never more than half a frame early or late. Halves go to the later frame.
        """
        return (self.to_output(source_seconds) * fps + Fraction(1, 2)).__floor__()


def _laid_out(stretches: Iterable[tuple[Fraction, Fraction | None, Fraction]]) -> list[Piece]:
    """Put stretches of source time behind one another; neighbours of one speed become one piece."""
    pieces: list[Piece] = []
    for start, end, speed in stretches:
        last = pieces[-1] if pieces else None
        if last is not None and last.speed == speed:
            pieces[-1] = Piece(last.source_start, end, speed, last.output_start)
        else:
            output_start = last.to_output(start) if last is not None else Fraction(0)
            pieces.append(Piece(start, end, speed, output_start))
    return pieces
