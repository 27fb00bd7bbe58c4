"""Memory of the Python process against the length of the clip: it must not grow."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from tests.run_function import run_function

from benchmarks import framing_speed, overlay_speed
from benchmarks.harness import answer, clip_1080p, contest, context_for, measured, median
from reel_modal.schema import EncodeOptions, SpeedSegment

LENGTHS = (3, 12, 48)
KINDS = ("overlay", "framing", "retimed")


def render(kind: str, seconds: int, folder: Path) -> int:
    context = context_for(clip_1080p(seconds), folder)
    if kind == "overlay":
        request = overlay_speed.request(EncodeOptions(encoder="libx264", preset="ultrafast"))
        return run_function(request, context).frames
    framed = framing_speed.request("moving", "ultrafast", seconds)
    if kind == "retimed":  # all of the sound is made anew
        whole = SpeedSegment(start_seconds=Fraction(0), end_seconds=Fraction(seconds), speed=Fraction(3, 2))
        framed = replace(framed, segments=(whole,))
    return run_function(framed, context).frames


def main(rounds: int = 1) -> list[str]:
    """Run and return the table as Markdown."""
    for seconds in LENGTHS:
        clip_1080p(seconds)
    samples = contest("benchmarks.memory", [f"{kind}:{seconds}" for kind in KINDS for seconds in LENGTHS], rounds)
    lines = [
        f"| most memory above the imports | {' | '.join(f'{seconds} s' for seconds in LENGTHS)} | target |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS:
        peaks = [median(samples[f"{kind}:{seconds}"], "peak_mb") for seconds in LENGTHS]
        lines.append(f"| {kind} | {' | '.join(f'{peak:.0f} MB' for peak in peaks)} | ≤ 150 MB, flat |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as scratch:
            what, length = sys.argv[1].split(":")
            answer(measured(lambda: render(what, int(length), Path(scratch))))
    else:
        print("\n".join(main()))
