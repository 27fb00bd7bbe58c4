"""Run every measurement and write the tables to benchmarks/out/results.md."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime

from benchmarks import (
    encoder_threads,
    estimate_accuracy,
    framing_speed,
    many_simulators,
    memory,
    overlay_speed,
    pipe_overhead,
    progress_accuracy,
    reel_speed,
    registry_overhead,
    segment_workers,
    segments,
    smart_quality,
    smart_render,
    upscale_quality,
    upscale_speed,
    worker_prediction,
)
from benchmarks.harness import OUT
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.settings import Settings

CONTESTS = {
    "render_overlay": overlay_speed,
    "process_framing": framing_speed,
    "assemble_reel": reel_speed,
    "Smart rendering": smart_render,
    "Smart rendering: quality": smart_quality,
    "FramePipe": pipe_overhead,
    "Encoder threads": encoder_threads,
    "Segments of long outputs": segments,
    "Several workers for one output": segment_workers,
    "Prediction of several machines": worker_prediction,
    "Memory": memory,
    "Accuracy of progress": progress_accuracy,
    "Accuracy of estimates": estimate_accuracy,
    "Ten thousand simulators": many_simulators,
    "Registry": registry_overhead,
    "apply_upscale: quality": upscale_quality,
    "apply_upscale: speed": upscale_speed,
}


def main() -> None:
    OUT.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [f"{datetime.now(UTC):%Y-%m-%d}, {machine}, ffmpeg {find_ffmpeg(Settings()).version_text}"]
    for title, contest in CONTESTS.items():
        lines += ["", f"## {title}", "", *contest.main()]
        (OUT / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
