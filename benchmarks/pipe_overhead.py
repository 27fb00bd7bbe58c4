"""FramePipe against writing the same bytes to the same ffmpeg by hand: what the care costs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import answer, contest, cpu_ms, fps, measured, median
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.encoders import encoder_arguments
from reel_modal.ffmpeg_pipe import FramePipe
from reel_modal.schema.options import ENCODER_THREADS
from reel_modal.settings import Settings

SIZE, FRAMES, DISTINCT = (1920, 1080), 600, 16
TARGET = 1.03


def frames() -> list[np.ndarray]:
    """A few distinct frames, so that the encoder has something to do and nothing to remember."""
    y, x = np.mgrid[0:1620, 0:1920].astype(np.float32)
    return [(128 + 90 * np.sin(x / 90 + n / 3) * np.cos(y / 70)).astype(np.uint8) for n in range(DISTINCT)]


def ours(folder: Path) -> int:
    pictures = frames()
    with FramePipe(
        folder / "out.mp4", size=SIZE, fps=30, pixel_format="yuv420p", encoder="libx264", preset="ultrafast"
    ) as pipe:
        for number in range(FRAMES):
            pipe.write(pictures[number % DISTINCT])
    return pipe.result.frames


def by_hand(folder: Path) -> int:
    """The same command line as FramePipe's, the same bytes, and no care at all."""
    pictures = frames()
    command = [find_ffmpeg(Settings()).path, "-nostdin", "-nostats", "-loglevel", "error", "-y"]
    command += ["-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", "1920x1080", "-framerate", "30/1"]
    command += ["-i", "pipe:0", "-vf", "format=yuv420p,setsar=1/1"]
    command += encoder_arguments("libx264", quality=23, preset="ultrafast", threads=ENCODER_THREADS)
    command += ["-movflags", "+faststart", str(folder / "out.mp4")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    if process.stdin is None:
        raise RuntimeError("no pipe")
    for number in range(FRAMES):
        process.stdin.write(pictures[number % DISTINCT])
    process.stdin.close()
    process.wait()
    return FRAMES


def main(rounds: int = 5) -> list[str]:
    """Run the contest and return the table as Markdown."""
    samples = contest("benchmarks.pipe_overhead", ["by_hand", "ours"], rounds)
    lines = ["| who | fps | CPU ms a frame | time / by hand | target |", "|---|---|---|---|---|"]
    base = median(samples["by_hand"], "wall_seconds")
    for who in ("by_hand", "ours"):
        ratio = median(samples[who], "wall_seconds") / base
        aim = f"≤ {TARGET}" if who == "ours" else ""
        lines.append(f"| {who} | {fps(samples[who]):.1f} | {cpu_ms(samples[who]):.2f} | {ratio:.3f} | {aim} |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as scratch:
            answer(measured(lambda: {"ours": ours, "by_hand": by_hand}[sys.argv[1]](Path(scratch))))
    else:
        print("\n".join(main()))
