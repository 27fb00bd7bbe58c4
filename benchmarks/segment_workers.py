"""One output by one and by two worker processes on this machine, each with one encoder thread; and their timeline.

An ellipse on each frame of a 32 s 1080p30 clip, by x264 preset. The timeline is of the last run with two.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from benchmarks import overlay_speed
from benchmarks.harness import OUT, answer, clip_1080p, contest, fps, measured, median
from reel_modal._segments import SEGMENT_SECONDS, Segment, segment_grid
from reel_modal.functions.builtin import render_overlay
from reel_modal.functions.fan_out import FanOut
from reel_modal.functions.local_calls import LocalCalls
from reel_modal.functions.runner import run_job
from reel_modal.schema import EncodeOptions, OverlayRequest, StoreOptions
from reel_modal.settings import Settings

SECONDS = 32
WHO = ("fast:1", "fast:2", "slow:1", "slow:2")
"""An x264 preset, and the number of workers."""
TIMELINE = OUT / "segment_workers.json"
COLORS = ("#1e8449", "#2874a6")


class TimedCalls(LocalCalls):
    """Worker processes, and when each run of segments began and ended."""

    def __init__(self, request: OverlayRequest, settings: Settings, workers: int) -> None:
        super().__init__(render_overlay, request.to_dict(), settings, workers=workers)
        self.spans: list[tuple[int, int, float, float]] = []
        self._first = time.monotonic()
        self._began: dict[str, tuple[Segment, float]] = {}

    def seconds(self) -> float:
        """Return the seconds since the job began."""
        return time.monotonic() - self._first

    async def start(self, run: Segment) -> str:
        """Start a run, and note the time."""
        call_id = await super().start(run)
        self._began[call_id] = run, self.seconds()
        return call_id

    async def result(self, call_id: str) -> Mapping[str, object]:
        """Wait for a run, and note the time."""
        report = await super().result(call_id)
        run, began = self._began[call_id]
        self.spans.append((run.first, run.end, began, self.seconds()))
        return report


def output(who: str) -> Path:
    return OUT / f"segment workers {who.replace(':', ' ')}.mp4"


def render(who: str) -> int:
    preset, _, count = who.partition(":")
    workers = int(count)
    encode = EncodeOptions(encoder="libx264", preset=preset, smart=False, threads=1)
    request = overlay_speed.request(encode)
    region = replace(request.regions[0], end_seconds=Fraction(SECONDS))
    scopes = StoreOptions(input_scope="global", output_scope="global")
    request = replace(request, regions=(region,), input_key="in.mp4", output_key="out.mp4", store=scopes)
    with tempfile.TemporaryDirectory() as store:
        shutil.copy2(clip_1080p(SECONDS), Path(store, "in.mp4"))
        settings = Settings(store_url=Path(store).as_uri(), cpu=2)
        calls = TimedCalls(request, settings, workers)
        fan_out = FanOut(calls, request.job_id, workers)
        result = run_job(render_overlay, request.to_dict(), settings=settings, send=lambda _: None, workers=fan_out)
        Path(store, "out.mp4").replace(output(who))
    if workers > 1:
        TIMELINE.write_text(json.dumps([calls.spans, calls.seconds()]), encoding="utf-8")
    return int(str(result["frames"]))


def plot(path: Path) -> None:
    """Draw which worker rendered which segments, and when; the rest of the job is on the coordinator."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    spans, total = json.loads(TIMELINE.read_text(encoding="utf-8"))
    grid = [segment.first for segment in segment_grid(30 * SECONDS, Fraction(30), SEGMENT_SECONDS)]
    figure, axis = pyplot.subplots(figsize=(8, 2.4), layout="constrained")
    free = [0.0, 0.0]
    for first, end, began, ended in sorted(spans, key=lambda span: span[2]):
        worker = min(range(2), key=lambda one: (free[one] > began + 0.05, one))
        free[worker] = ended
        axis.barh(worker, ended - began, left=began, height=0.7, color=COLORS[worker], edgecolor="white")
        label = f"{grid.index(first) + 1}\n{first}-{end - 1}"
        axis.text((began + ended) / 2, worker, label, ha="center", va="center", color="white", fontsize=7)
    for left, right in ((0.0, min(span[2] for span in spans)), (max(free), total)):
        axis.barh(2, right - left, left=left, height=0.7, color="#7d6608")
    axis.text(max(free) - 0.3, 2, "join, verify, publish", ha="right", va="center", fontsize=7)
    axis.set(yticks=range(3), yticklabels=("worker 1", "worker 2", "coordinator"), xlabel="seconds", xlim=(0, None))
    axis.invert_yaxis()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(rounds: int = 3) -> list[str]:
    """Run the contest, draw the timeline, and return the table as Markdown."""
    clip_1080p(SECONDS)
    samples = contest("benchmarks.segment_workers", WHO, rounds)
    plot(OUT / "segment_workers.png")
    lines = [
        "| x264 preset | workers | wall seconds | fps / one | CPU seconds | bytes |",
        "|---|---|---|---|---|---|",
    ]
    for who in WHO:
        preset, _, workers = who.partition(":")
        wall, cpu = (median(samples[who], what) for what in ("wall_seconds", "cpu_seconds"))
        ratio = fps(samples[who]) / fps(samples[f"{preset}:1"])
        same = "the same" if output(who).read_bytes() == output(f"{preset}:1").read_bytes() else "OTHERS"
        lines.append(f"| {preset} | {workers} | {wall:.1f} | {ratio:.2f} | {cpu:.1f} | {same} |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        answer(measured(lambda: render(sys.argv[1])))
    else:
        print("\n".join(main()))
