"""A long overlay in segments against the same overlay in one piece: CPU, bytes, and what a second attempt costs.

An ellipse on every frame of a 60 s 1080p30 clip, x264 crf 23, sound copied.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from unittest import mock

from tests.run_function import run_function

from benchmarks import overlay_speed
from benchmarks.harness import OUT, answer, clip_1080p, contest, context_for, measured, median
from reel_modal._segments import SegmentStore
from reel_modal.functions.segmented import SegmentedRender
from reel_modal.schema import EncodeOptions
from reel_modal.storage import FolderStorage

SECONDS = 60
PRESET = "fast"
WHO = ("one piece", "segments", "again")
"""Without segments; with segments and a store; the same when all segments are in the store."""


def output(who: str) -> Path:
    return OUT / f"segments {who}.mp4"


def render(who: str, store: Path) -> int:
    request = overlay_speed.request(EncodeOptions(encoder="libx264", preset=PRESET, smart=False))
    region = replace(request.regions[0], end_seconds=Fraction(SECONDS))
    request = replace(request, regions=(region,))
    with tempfile.TemporaryDirectory() as workdir:
        segments = SegmentStore(FolderStorage(store), user_id="bench", source=f"{SECONDS} s")
        context = replace(context_for(clip_1080p(SECONDS), Path(workdir)), segments=segments)
        one_piece = mock.patch.object(SegmentedRender, "plan", return_value=None)
        with one_piece if who == "one piece" else nullcontext():
            frames = run_function(request, context).frames
        Path(workdir, "out.mp4").replace(output(who))
    return frames


def main(rounds: int = 3) -> list[str]:
    """Run the contest and return the table as Markdown."""
    clip_1080p(SECONDS)
    samples = contest("benchmarks.segments", WHO, rounds)
    whole = samples["one piece"]
    lines = [
        "| 60 s of 1080p30, x264 fast | CPU seconds | / one piece | wall seconds | bytes / one piece | memory |",
        "|---|---|---|---|---|---|",
    ]
    for who in WHO:
        cpu, wall = (median(samples[who], what) for what in ("cpu_seconds", "wall_seconds"))
        size = output(who).stat().st_size / output("one piece").stat().st_size
        memory = median(samples[who], "peak_mb")
        ratio = cpu / median(whole, "cpu_seconds")
        lines.append(f"| {who} | {cpu:.1f} | {ratio:.3f} | {wall:.1f} | {size:.4f} | {memory:.0f} MB |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as scratch:
            if sys.argv[1] == "again":
                render("segments", Path(scratch))
            answer(measured(lambda: render(sys.argv[1], Path(scratch))))
    else:
        print("\n".join(main()))
