"""render_overlay against one ffmpeg that does work of equal content, and against the loop that people write by hand.

A moving ellipse on every frame of a 12 s 1080p30 clip, x264 crf 23, sound copied.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

from tests.run_function import run_function

from benchmarks.hand_loop import encoded, hand_loop, x264_arguments
from benchmarks.harness import answer, clip_1080p, contest, context_for, cpu_ms, fps, measured, median
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.process import QUIET, FFmpegProcess
from reel_modal._rendering.overlay import OverlayRenderer
from reel_modal.ffmpeg_pipe import FrameReader
from reel_modal.media import probe
from reel_modal.schema import EncodeOptions, HighlightKeyframe, HighlightRegion, OverlayRequest
from reel_modal.settings import Settings

PRESETS = ("fast", "veryfast", "ultrafast", "none")
TARGETS = {
    ("ours", "limit", "fast"): 0.95,
    ("ours", "limit", "veryfast"): 0.93,
    ("ours", "limit", "ultrafast"): 0.90,
    ("ours", "seed", "fast"): 1.3,
    ("ours", "seed", "none"): 4.0,
}
SIZE = (1920, 1080)
SECONDS = 12
DARKER = "lutyuv=y=16+0.4*(val-16):u=128+0.4*(val-128):v=128+0.4*(val-128)"
NULL = ("-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-f", "null", "-")


def request(encode: EncodeOptions) -> OverlayRequest:
    keys = tuple(
        HighlightKeyframe(time_seconds=Fraction(t), x=400 + 100 * t, y=540, radius_x=200, radius_y=260)
        for t in range(SECONDS + 1)
    )
    region = HighlightRegion(id="r", start_seconds=Fraction(0), end_seconds=Fraction(SECONDS), keyframes=keys)
    return OverlayRequest(
        job_id="bench",
        user_id="bench",
        input_key="in.mp4",
        output_key="out.mp4",
        regions=(region,),
        encode=encode,
    )


def ours(preset: str, folder: Path) -> int:
    if preset == "none":
        return _ours_without_encoder(request(EncodeOptions()))
    asked = request(EncodeOptions(encoder="libx264", preset=preset))
    return run_function(asked, context_for(clip_1080p(SECONDS), folder)).frames


def _ours_without_encoder(asked: OverlayRequest) -> int:
    """The same reader, kernels and process, into an ffmpeg that only takes the frames."""
    media = probe(clip_1080p(SECONDS))
    overlay = OverlayRenderer(asked, media.size, media.color)
    raw = (
        "-f",
        "rawvideo",
        "-pixel_format",
        "yuv420p",
        "-video_size",
        "1920x1080",
        "-framerate",
        "30",
        "-i",
        "pipe:0",
    )
    sink = FFmpegProcess((find_ffmpeg(Settings()).path, *QUIET, *raw, *NULL), stdin=True, stall_seconds=60)
    with FrameReader(media, pixel_format="yuv420p", fps=media.fps, decoder="in_process", zero_copy=True) as reader:
        for frame in reader:
            overlay.render(frame.planes, frame.pts_seconds)
            sink.write(frame.shared or frame.data.data)
    sink.finish()
    return reader.frames_read


def dark(preset: str, folder: Path) -> int:
    """One ffmpeg that decodes, darkens every sample and encodes, and dark pictures are easier to encode."""
    return _one_ffmpeg(preset, folder, DARKER)


def limit(preset: str, folder: Path) -> int:
    """The same, with a bright window as large as the ellipse that moves as it does: content that is equal to ours."""
    width, height = 354, 460
    place = f"x=400+100*t-{width // 2}:y=540-{height // 2}"
    window = f"[a]{DARKER}[dark];[b]crop={width}:{height}:{place}[window];[dark][window]overlay={place}"
    return _one_ffmpeg(preset, folder, f"split[a][b];{window}")


def _one_ffmpeg(preset: str, folder: Path, graph: str) -> int:
    encode = NULL if preset == "none" else (*x264_arguments(preset), "-c:a", "copy")
    output = () if preset == "none" else ("-movflags", "+faststart", str(folder / "out.mp4"))
    clip = str(clip_1080p(SECONDS))
    subprocess.run([find_ffmpeg(Settings()).path, *QUIET, "-i", clip, "-vf", graph, *encode, *output], check=True)
    return SECONDS * 30


def seed(preset: str, folder: Path) -> int:
    """The loop of the seed, on every frame."""
    clip = clip_1080p(SECONDS)
    output = NULL if preset == "none" else encoded(clip, preset, folder / "out.mp4")
    return hand_loop(clip, output, lambda seconds: int(400 + 100 * seconds))


CONTESTANTS = {"limit": limit, "dark": dark, "ours": ours, "seed": seed}


def main(rounds: int = 3) -> list[str]:
    """Run the contest and return the table as Markdown."""
    clip_1080p(SECONDS)
    names = [f"{who}:{preset}" for preset in PRESETS for who in CONTESTANTS]
    samples = contest("benchmarks.overlay_speed", names, rounds)
    lines = [
        "| preset | who | fps | CPU ms a frame | fps / limit | fps / dark | fps / seed | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for preset in PRESETS:
        speed = {who: fps(samples[f"{who}:{preset}"]) for who in CONTESTANTS}
        for who, value in speed.items():
            aims = [f"≥ {t} x {other}" for (a, other, p), t in TARGETS.items() if (a, p) == (who, preset)]
            cost = cpu_ms(samples[f"{who}:{preset}"])
            ratios = " | ".join(f"{value / speed[other]:.3f}" for other in ("limit", "dark", "seed"))
            lines.append(f"| {preset} | {who} | {value:.1f} | {cost:.1f} | {ratios} | {', '.join(aims)} |")
    peak = max(median(samples[f"ours:{preset}"], "peak_mb") for preset in PRESETS)
    lines += ["", f"Most memory of the Python process above its imports: {peak:.0f} MB (target ≤ 150 MB)."]
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        who, preset = sys.argv[1].split(":")
        with tempfile.TemporaryDirectory() as folder:
            answer(measured(lambda: CONTESTANTS[who](preset, Path(folder))))
    else:
        print("\n".join(main()))
