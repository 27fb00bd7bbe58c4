"""Memory of the Python process against the length of the clip: it must not grow."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.harness import answer, clip_1080p, contest, measured, median
from benchmarks.overlay_speed import request
from reel_modal.functions import render_overlay
from reel_modal.functions.context import JobContext
from reel_modal.storage import PathStorage

LENGTHS = ("3", "12", "48")


def render(seconds: str, folder: Path) -> int:
    asked = replace(request("ultrafast", str(folder / "out.mp4")), input_key=str(clip_1080p(int(seconds))))
    return render_overlay.run(asked, JobContext(storage=PathStorage(), workdir=folder)).frames


def main(rounds: int = 1) -> list[str]:
    """Run and return the table as Markdown."""
    for seconds in LENGTHS:
        clip_1080p(int(seconds))
    samples = contest("benchmarks.memory", LENGTHS, rounds)
    lines = ["| clip | most memory above the imports | target |", "|---|---|---|"]
    peaks = {seconds: median(samples[seconds], "peak_mb") for seconds in LENGTHS}
    lines += [f"| {seconds} s of 1080p30 | {peak:.0f} MB | ≤ 150 MB, flat |" for seconds, peak in peaks.items()]
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as scratch:
            answer(measured(lambda: render(sys.argv[1], Path(scratch))))
    else:
        print("\n".join(main()))
