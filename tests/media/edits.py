"""Edits of clips with beats, and the times of the beats after an edit."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from tests.media.beats import LENGTH_SECONDS

from reel_modal.schema import CropKeyframe, Timeline

# Half of the threshold of detectability in ITU-R BT.1359-1 (audio 45 ms early).
NEAR_SECONDS = 0.020
# With a pan of a pixel every frame is cropped separately.
PAN = tuple(CropKeyframe(time_seconds=Fraction(at), x=at / 5, y=0, width=60, height=45) for at in (0, 5))
EDITS: dict[str, tuple[object, object, list[tuple[object, object, object]]]] = {
    "quarter": (0, None, [(0, 5, "0.25")]),
    "half": (0, None, [(0, 5, "0.5")]),
    "faster": (0, None, [(0, 5, "1.5")]),
    "double": (0, None, [(0, 5, 2)]),
    "fourfold": (0, None, [(0, 5, 4)]),
    "trimmed": ("1.013", "4.2", []),
    "mixed": ("0.3", "4.9", [(1, 2, "0.5"), (2, 3, 2), (3, "3.9", "0.25"), ("4.2", 5, 4)]),
}


def expected_times(times: Iterable[Fraction], line: Timeline) -> list[Fraction]:
    """Return the output times of the beats that are completely inside one piece of the timeline."""
    end = line.source_end or Fraction(1000)
    return [line.to_output(t) for t in times if line.source_start < t and t + LENGTH_SECONDS < end]
