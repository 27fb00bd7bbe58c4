"""process_framing against one ffmpeg that crops and scales, and against the way that apps begin with.

A 9:16 reel of 810 x 1440 out of 1080p30, x264 crf 23, sound copied. The pan is the same for all; ffmpeg alone moves
its crop by whole pixels.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import cv2
from tests.run_function import run_function

from benchmarks.hand_loop import x264_arguments
from benchmarks.harness import answer, clip_1080p, contest, context_for, cpu_ms, fps, measured
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.process import QUIET
from reel_modal.schema import CropKeyframe, EncodeOptions, FramingRequest
from reel_modal.settings import Settings

PRESETS = ("fast", "ultrafast")
TARGETS = {("ours", "moving", "limit"): 0.90, ("ours", "static", "limit"): 0.98, ("ours", "moving", "seed"): 10.0}
SECONDS = 12
SEED_SECONDS = 4
"""One seek a frame is slow; it is compared on a shorter clip."""

RATE = 30
CROP = (608, 1080)
SIZE = (810, 1440)
STILL_PX = 656
FIRST_PX, SPEED_PX = 100.25, 97.3


def request(kind: str, preset: str, seconds: int) -> FramingRequest:
    def keyframe(at: int, x: float) -> CropKeyframe:
        return CropKeyframe(time_seconds=Fraction(at), x=x, y=0, width=CROP[0], height=CROP[1])

    crop = (keyframe(0, STILL_PX),)
    if kind == "moving":
        crop = (keyframe(0, FIRST_PX), keyframe(seconds, FIRST_PX + SPEED_PX * seconds))
    return FramingRequest(
        job_id="bench",
        user_id="bench",
        input_key="in.mp4",
        output_key="out.mp4",
        crop=crop,
        output_size=SIZE,
        encode=EncodeOptions(encoder="libx264", preset=preset),
    )


def ours(kind: str, preset: str, seconds: int, folder: Path) -> int:
    asked = request(kind, preset, seconds)
    cv2.setNumThreads(1)  # as where a job runs
    return run_function(asked, context_for(clip_1080p(seconds), folder)).frames


def limit(kind: str, preset: str, seconds: int, folder: Path) -> int:
    """One ffmpeg that crops, scales and encodes."""
    left = f"'{FIRST_PX}+{SPEED_PX}*t'" if kind == "moving" else str(STILL_PX)
    filters = f"crop={CROP[0]}:{CROP[1]}:{left}:0,scale={SIZE[0]}:{SIZE[1]}:flags=bicubic"
    command = [find_ffmpeg(Settings()).path, *QUIET, "-i", str(clip_1080p(seconds)), "-vf", filters]
    command += [*x264_arguments(preset), "-c:a", "copy", "-movflags", "+faststart"]
    subprocess.run([*command, str(folder / "out.mp4")], check=True)
    return seconds * RATE


def seed(kind: str, preset: str, seconds: int, folder: Path) -> int:
    """One seek a frame, one PNG a frame, and an ffmpeg that encodes the PNGs."""
    capture = cv2.VideoCapture(str(clip_1080p(seconds)))
    frames = seconds * RATE
    for number in range(frames):
        capture.set(cv2.CAP_PROP_POS_FRAMES, number)
        _, frame = capture.read()
        left = round(FIRST_PX + SPEED_PX * number / RATE) if kind == "moving" else STILL_PX
        cropped = frame[: CROP[1], left : left + CROP[0]]
        cv2.imwrite(str(folder / f"{number:06d}.png"), cv2.resize(cropped, SIZE, interpolation=cv2.INTER_LANCZOS4))
    command = [find_ffmpeg(Settings()).path, *QUIET, "-framerate", str(RATE), "-i", str(folder / "%06d.png")]
    command += ["-i", str(clip_1080p(seconds)), "-map", "0:v", "-map", "1:a?", "-c:v", "libx264", "-preset", preset]
    command += ["-crf", "23", "-pix_fmt", "yuv420p", "-c:a", "copy", str(folder / "out.mp4")]
    subprocess.run(command, check=True)
    return frames


def main(rounds: int = 5) -> list[str]:
    """Run the contests and return the tables as Markdown."""
    for seconds in (SECONDS, SEED_SECONDS):
        clip_1080p(seconds)
    kinds = [(kind, preset) for preset in PRESETS for kind in ("moving", "static")]
    names = [f"{who}:{kind}:{preset}:{SECONDS}" for kind, preset in kinds for who in ("limit", "ours")]
    samples = contest("benchmarks.framing_speed", names, rounds)
    lines = [
        "| preset | crop | fps of the limit | ours | ours / limit | CPU ms a frame | ours | limit / ours | target |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, preset in kinds:
        both = [samples[f"{who}:{kind}:{preset}:{SECONDS}"] for who in ("limit", "ours")]
        (slow, fast), (theirs, own) = map(fps, both), map(cpu_ms, both)
        target = f"≥ {TARGETS['ours', kind, 'limit']:.2f}" if preset == "fast" else ""
        lines.append(
            f"| {preset} | {kind} | {slow:.1f} | {fast:.1f} | {fast / slow:.3f}"
            f" | {theirs:.1f} | {own:.1f} | {theirs / own:.3f} | {target} |"
        )
    short = [f"{who}:moving:fast:{SEED_SECONDS}" for who in ("seed", "ours")]
    samples = contest("benchmarks.framing_speed", short, 1)
    (slow, fast), (theirs, own) = (map(figure, (samples[name] for name in short)) for figure in (fps, cpu_ms))
    lines += ["", f"| {SEED_SECONDS} s, fast | the seed's way | ours | ratio | target |", "|---|---|---|---|---|"]
    target = f"≥ {TARGETS['ours', 'moving', 'seed']:g}"
    lines.append(f"| fps | {slow:.2f} | {fast:.1f} | {fast / slow:.1f} | {target} |")
    lines.append(f"| CPU ms a frame | {theirs:.0f} | {own:.1f} | {theirs / own:.1f} | |")
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        contestant, *what = sys.argv[1].split(":")
        with tempfile.TemporaryDirectory() as scratch:
            run = {"ours": ours, "limit": limit, "seed": seed}[contestant]
            answer(measured(lambda: run(what[0], what[1], int(what[2]), Path(scratch))))
    else:
        print("\n".join(main()))
