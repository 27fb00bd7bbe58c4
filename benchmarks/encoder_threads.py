"""The fixed number of encoder threads against x264's own choice, which follows the cores of the machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import answer, clip_1080p, contest, cpu_ms, fps, measured
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.encoders import encoder_arguments
from reel_modal._ffmpeg.process import QUIET
from reel_modal.schema.options import ENCODER_THREADS
from reel_modal.settings import Settings

SECONDS = 12
PRESETS = ("fast", "veryfast", "ultrafast")
WHO = ("by cores", "four", "fixed")
"""x264's own choice, four threads with x264's lookahead thread, and four threads with repeatable bytes."""


def encode(preset: str, who: str, folder: Path) -> int:
    """Decode and encode the clip in one ffmpeg."""
    arguments = ("-c:v", "libx264", "-preset", preset, "-crf", "23")
    if who == "four":
        arguments += ("-threads", str(ENCODER_THREADS))
    elif who == "fixed":
        arguments = encoder_arguments("libx264", quality=23, preset=preset, threads=ENCODER_THREADS)
    source = ("-i", str(clip_1080p(SECONDS)), "-an")
    subprocess.run([find_ffmpeg(Settings()).path, *QUIET, *source, *arguments, str(folder / "out.mp4")], check=True)
    return SECONDS * 30


def main(rounds: int = 5) -> list[str]:
    """Run the contest and return the table as Markdown."""
    clip_1080p(SECONDS)
    samples = contest("benchmarks.encoder_threads", [f"{preset}:{who}" for preset in PRESETS for who in WHO], rounds)
    lines = [
        "| preset | CPU ms a frame: by cores | four | fixed | CPU, four and fixed / by cores | fps, the same |",
        "|---|---|---|---|---|---|",
    ]
    for preset in PRESETS:
        own, four, fixed = (samples[f"{preset}:{who}"] for who in WHO)
        milliseconds = " | ".join(f"{cpu_ms(each):.1f}" for each in (own, four, fixed))
        cpu = ", ".join(f"{cpu_ms(each) / cpu_ms(own):.3f}" for each in (four, fixed))
        rate = ", ".join(f"{fps(each) / fps(own):.3f}" for each in (four, fixed))
        lines.append(f"| {preset} | {milliseconds} | {cpu} | {rate} |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        preset, _, who = sys.argv[1].partition(":")
        with TemporaryDirectory() as scratch:
            answer(measured(lambda: encode(preset, who, Path(scratch))))
    else:
        print("\n".join(main()))
