"""What the pictures between copied ones lose where nothing is drawn: against the same pictures at x264's crf 18.

A highlight brightens an ellipse for 0.4 s in the middle of each clip; what is outside of it, and what is behind it up
to the next keyframe, is encoded again without having changed. All of that is compared with the source, sample by
sample, and so is an encode of the same pictures at crf 18 with the same preset: the loss that nobody sees.

Each clip is measured as it is, and 25 times behind itself: where few pictures are new, they are encoded quickly.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from tests.clips import REAL, Clips
from tests.media import splices  # noqa: F401 - its recipes
from tests.run_function import run_function

from benchmarks.harness import context_for
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._rendering.overlay import OverlayRenderer
from reel_modal._smart_render import RenderSpan, plan_render
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.media import MediaInfo, probe
from reel_modal.media.frames import AnyPlanes, sample_views
from reel_modal.schema import EncodeOptions, HighlightKeyframe, HighlightRegion, OverlayRequest
from reel_modal.settings import Settings

SOURCES = (*REAL, "rich.mp4", "main.mp4", "baseline.mp4", "high10.mp4", "high422_10.mp4", "top_first.mp4")
PRESETS = ("ultrafast", "veryfast", "fast", "medium")
REFERENCE = 18
TIMES = 25


def repeated(source: Path, folder: Path) -> Path:
    """The clip so many times behind itself that few of its pictures are new."""
    path = folder / "repeated.mp4"
    times = ("-stream_loop", str(TIMES - 1), "-i", str(source), "-map", "0:v:0", "-c", "copy", "-y", str(path))
    subprocess.run([find_ffmpeg(Settings()).path, "-v", "error", *times], check=True)
    return path


def request(source: Path, preset: str) -> OverlayRequest:
    length = probe(source).duration_seconds or Fraction(0)
    begin = length / 2
    key = HighlightKeyframe(time_seconds=begin, x=0.5, y=0.5, radius_x=0.15, radius_y=0.2)
    region = HighlightRegion(
        id="r",
        start_seconds=begin,
        end_seconds=begin + Fraction(2, 5),
        keyframes=(key,),
        video_size=(1, 1),
    )
    return OverlayRequest(
        job_id="bench",
        user_id="bench",
        input_key="in.mp4",
        output_key="smart.mp4",
        regions=(region,),
        effect="brightness_boost",
        encode=EncodeOptions(encoder="libx264", preset=preset),
    )


def pictures(path: Path, like: MediaInfo, first: int, end: int) -> Iterator[AnyPlanes]:
    """The pictures of some ranks, in the layout of `like`."""
    layout = like.pixel_format.replace("yuvj", "yuv")
    with FrameReader(path, pixel_format=layout) as reader:  # type: ignore[arg-type]
        for frame in reader:
            if first <= frame.index < end:
                yield sample_views(frame.data.copy(), layout, frame.size)  # type: ignore[arg-type]


def losses(source: Path, preset: str, folder: Path) -> tuple[int, list[tuple[float, float]]]:
    """Return the pictures in the window, and (PSNR of ours, at crf 18) in dB of luma and of chroma."""
    asked = request(source, preset)
    result = run_function(asked, context_for(source, folder, "smart.mp4"))
    media = probe(source)
    overlay = OverlayRenderer(asked, media.size, media.color, media.pixel_format.replace("yuvj", "yuv"))  # type: ignore[arg-type]
    planned = plan_render(media, overlay.changed_intervals, output=folder / "smart.mp4", encode=asked.encode)
    if result.plan != "smart":
        raise RuntimeError(f"{source.name}: {result.reason}")
    (window,) = planned.windows
    reference = at_reference(source, media, window, preset, folder)
    squares = np.zeros((2, 2))
    counts = np.zeros(2)
    triples = zip(
        pictures(source, media, *window.kept),
        pictures(folder / "smart.mp4", media, *window.kept),
        pictures(reference, media, 0, sys.maxsize),
        strict=True,
    )
    for number, (old, ours, theirs) in enumerate(triples):
        drawn = tuple(plane.copy() for plane in old)
        seconds = (window.kept[0] + number) / media.fps
        if overlay.active(seconds):
            overlay.render(drawn, seconds)
        for plane in range(3):
            same = drawn[plane] == old[plane]
            counts[min(plane, 1)] += same.sum()
            for who, made in enumerate((ours, theirs)):
                off = (made[plane].astype(float) - old[plane])[same]
                squares[min(plane, 1), who] += (off * off).sum()
    most = (1 << media.bit_depth) - 1
    quality = 10 * np.log10(most * most / (squares / counts[:, None]))
    return window.kept[1] - window.kept[0], [(float(one), float(other)) for one, other in quality]


def at_reference(source: Path, media: MediaInfo, window: RenderSpan, preset: str, folder: Path) -> Path:
    """Encode the same pictures, untouched, at crf 18."""
    layout = media.pixel_format.replace("yuvj", "yuv")
    path = folder / "reference.mp4"
    with FramePipe(
        path,
        size=media.size,
        fps=media.fps,
        pixel_format=layout,  # type: ignore[arg-type]
        encoder="libx264",
        quality=REFERENCE,
        preset=preset,
        color=media.color,
    ) as pipe:
        for planes in pictures(source, media, *window.kept):
            pipe.write(planes)
    return path


def main() -> list[str]:
    """Return the table as Markdown."""
    lines = [
        f"| clip | preset | pictures | luma dB | at crf {REFERENCE} | more | chroma dB | at crf {REFERENCE} | more |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        clips = Clips(Path(scratch))
        for name in os.environ.get("SMART_QUALITY_CLIPS", ",".join(SOURCES)).split(","):
            once = clips.get(name)
            for kind, source in (("once", once), (f"{TIMES} times", repeated(once, Path(scratch)))):
                for preset in PRESETS:
                    with tempfile.TemporaryDirectory() as folder:
                        count, pairs = losses(source, preset, Path(folder))
                    figures = " | ".join(
                        f"{ours:.2f} | {theirs:.2f} | {ours - theirs:+.2f}" for ours, theirs in pairs
                    )
                    lines.append(f"| {name} | {preset} | {count}, {kind} | {figures} |")
                    print(lines[-1], file=sys.stderr, flush=True)
    return lines


if __name__ == "__main__":
    print("\n".join(main()))
