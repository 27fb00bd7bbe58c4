"""assemble_reel against one ffmpeg, moviepy, three jobs, and a re-encode of clips that need not change.

Two crossfades between three clips of 720p30, 16 s in all; five whole clips of one camera, 1080p30, 20 s in all; two
clips of 1080p30 with a highlight, cropped to 810 x 1440, with a crossfade. x264 with preset fast and crf 23.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
from tests.clips import real
from tests.run_function import run_function

from benchmarks.hand_loop import x264_arguments
from benchmarks.harness import OUT, answer, contest, cpu_ms, measured, median
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.process import QUIET
from reel_modal.functions.context import JobContext
from reel_modal.schema import FramingRequest, OverlayRequest, ReelRequest
from reel_modal.settings import Settings
from reel_modal.storage import Storage

TARGETS = {"graph": 0.90, "moviepy": 5.0, "camera": 20.0}
RATE = 30
FADE = 0.5
THREE = {"reel_720_a.mp4": 6, "reel_720_b.mp4": 6, "reel_720_c.mp4": 5}
CAMERA = {f"reel_1080_{number}.mp4": 4 for number in range(5)}
EDITED = ("reel_1080_0.mp4", "reel_1080_1.mp4")
SIZE = (810, 1440)
KEYS = {"job_id": "bench", "user_id": "bench", "store": {"input_scope": "global", "output_scope": "global"}}
ENCODE = {"encoder": "libx264", "preset": "fast"}


def clip(name: str, seconds: int) -> Path:
    """A clip with sound out of a real one, made once; each has another color, and all of a size the same settings."""
    OUT.mkdir(exist_ok=True)
    path = OUT / name
    if not path.exists():
        number = sorted([*THREE, *CAMERA]).index(name)
        size = "1280:720" if name in THREE else "1920:1080"
        command = [find_ffmpeg(Settings()).path, *QUIET, "-stream_loop", "-1", "-i", str(real("bigbuckbunny.mp4"))]
        command += ["-t", str(seconds), "-vf", f"scale={size}:flags=lanczos,hue=h={40 * number}", "-r", str(RATE)]
        command += ["-c:v", "libx264", "-preset", "fast", "-crf", "18", "-c:a", "aac", "-ac", "2", str(path)]
        subprocess.run(command, check=True)
    return path


def run(request: object, folder: Path) -> int:
    """Run a job that reads and writes in `OUT`; return its frames."""
    cv2.setNumThreads(1)  # as where a job runs
    storage = Storage.from_url(OUT.as_uri())
    return run_function(request, JobContext(storage=storage, workdir=folder)).frames  # type: ignore[arg-type]


def ours_three(folder: Path) -> int:
    """The reel of two crossfades; all of its frames are rendered."""
    fade = {"kind": "crossfade", "duration": FADE}
    encode = {**ENCODE, "smart": False}
    clips = [{"input_key": name} for name in THREE]
    fields = {"output_key": "reel_ours.mp4", "encode": encode, "clips": clips, "transitions": [fade, fade]}
    return run(ReelRequest.parse({**KEYS, **fields}), folder)


def graph_three(folder: Path) -> int:
    """The same by one ffmpeg with a filter graph."""
    first, second, _ = THREE.values()
    offsets = (first - FADE, first + second - 2 * FADE)
    filters = (
        f"[0:v][1:v]xfade=transition=fade:duration={FADE}:offset={offsets[0]}[v1];"
        f"[v1][2:v]xfade=transition=fade:duration={FADE}:offset={offsets[1]}[v];"
        f"[0:a][1:a]acrossfade=d={FADE}:c1=qsin:c2=qsin[a1];[a1][2:a]acrossfade=d={FADE}:c1=qsin:c2=qsin[a]"
    )
    inputs = [word for name in THREE for word in ("-i", str(OUT / name))]
    command = [
        find_ffmpeg(Settings()).path,
        *QUIET,
        *inputs,
        "-filter_complex",
        filters,
        "-map",
        "[v]",
        "-map",
        "[a]",
    ]
    command += [*x264_arguments("fast"), "-c:a", "aac", "-movflags", "+faststart", str(folder / "out.mp4")]
    subprocess.run(command, check=True)
    return 16 * RATE


def moviepy_three(folder: Path) -> int:
    """The same by moviepy 2."""
    os.environ["FFMPEG_BINARY"] = find_ffmpeg(Settings()).path
    from moviepy import CompositeVideoClip, VideoFileClip, afx, vfx

    at, shown = 0.0, []
    for number, name in enumerate(THREE):
        source = VideoFileClip(str(OUT / name))
        if number:
            source = source.with_effects([vfx.CrossFadeIn(FADE), afx.AudioFadeIn(FADE)])
        shown.append(source.with_start(at))
        at += THREE[name] - FADE
    reel = CompositeVideoClip(shown).with_duration(16)
    reel.write_videofile(
        str(folder / "out.mp4"),
        fps=RATE,
        codec="libx264",
        preset="fast",
        audio_codec="aac",
        temp_audiofile_path=str(folder),
        threads=4,
        ffmpeg_params=["-crf", "23"],
        logger=None,
    )
    return 16 * RATE


def ours_camera(folder: Path) -> int:
    """Five whole clips, whose packets are copied."""
    clips = [{"input_key": name} for name in CAMERA]
    request = {**KEYS, "output_key": "reel_camera.mp4", "encode": ENCODE, "clips": clips}
    return run(ReelRequest.parse(request), folder)


def reencoded_camera(folder: Path) -> int:
    """The same clips, joined and encoded again by one ffmpeg."""
    listed = folder / "clips.txt"
    listed.write_text("".join(f"file '{OUT / name}'\n" for name in CAMERA))
    command = [find_ffmpeg(Settings()).path, *QUIET, "-f", "concat", "-safe", "0", "-i", str(listed)]
    command += [*x264_arguments("fast"), "-c:a", "aac", "-movflags", "+faststart", str(folder / "out.mp4")]
    subprocess.run(command, check=True)
    return sum(CAMERA.values()) * RATE


def edits() -> tuple[dict[str, object], dict[str, object]]:
    """The highlight and the crop of each edited clip."""
    keyframe = {"time": 0, "x": 960, "y": 500, "radius_x": 150, "radius_y": 220}
    region = {"id": "a", "start_time": 0, "end_time": 4, "keyframes": [keyframe]}
    crop = [{"time": time, "x": x, "y": 0, "width": 608, "height": 1080} for time, x in ((0, 500), (4, 800))]
    return {"regions": [region]}, {"crop": crop}


def one_pass(folder: Path, output: str = "reel_one.mp4", **encode: object) -> int:
    """Highlight, crop, resize and join in one job."""
    drawn, cropped = edits()
    clips = [{"input_key": name, **drawn, **cropped} for name in EDITED]
    fields = {"output_key": output, "encode": {**ENCODE, **encode}, "clips": clips, "output_size": SIZE}
    fade = {"kind": "crossfade", "duration": FADE}
    return run(ReelRequest.parse({**KEYS, **fields, "transitions": [fade]}), folder)


def three_jobs(folder: Path) -> int:
    """The same by a job of each kind: highlight and crop each clip, then join them."""
    drawn, cropped = edits()
    for name in EDITED:
        keys = {**KEYS, "encode": ENCODE, "input_key": name, "output_key": f"drawn_{name}"}
        run(OverlayRequest.parse({**keys, **drawn}), folder)
        keys |= {"input_key": f"drawn_{name}", "output_key": f"framed_{name}"}
        run(FramingRequest.parse({**keys, **cropped, "output_size": SIZE}), folder)
    fade = {"kind": "crossfade", "duration": FADE}
    fields = {"output_key": "reel_jobs.mp4", "encode": ENCODE, "transitions": [fade]}
    clips = [{"input_key": f"framed_{name}"} for name in EDITED]
    return run(ReelRequest.parse({**KEYS, **fields, "clips": clips}), folder)


def vmaf(path: Path, reference: Path) -> float:
    """Mean VMAF of a file, by ffmpeg's libvmaf with its default model."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "vmaf.json")
        graph = f"[0:v][1:v]libvmaf=log_fmt=json:log_path={log}:n_threads=2"
        command = [find_ffmpeg(Settings()).path, *QUIET, "-i", str(path), "-i", str(reference)]
        subprocess.run([*command, "-lavfi", graph, "-f", "null", "-"], check=True)
        return float(json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"])


CONTESTANTS: dict[str, Callable[[Path], int]] = {
    "ours": ours_three,
    "graph": graph_three,
    "moviepy": moviepy_three,
    "camera": ours_camera,
    "reencoded": reencoded_camera,
    "one": one_pass,
    "jobs": three_jobs,
}


def size_mb(*names: str) -> float:
    return sum((OUT / name).stat().st_size for name in names) / 1e6


def main(rounds: int = 3) -> list[str]:
    """Run the contests and return the tables as Markdown."""
    for name, seconds in (THREE | CAMERA).items():
        clip(name, seconds)
    samples = contest("benchmarks.reel_speed", list(CONTESTANTS), rounds)
    wall = {name: median(samples[name], "wall_seconds") for name in samples}
    cpu = {name: median(samples[name], "cpu_seconds") for name in samples}
    lines = [
        "| reel | other way | s | CPU s | ours, s | CPU s | ratio of s | of CPU s | target |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for title, other, own, target in (
        ("3 clips of 720p, 2 crossfades, 16 s", "graph", "ours", f"≥ {TARGETS['graph']:.2f}"),
        ("the same", "moviepy", "ours", f"≥ {TARGETS['moviepy']:g}"),
        ("5 whole clips of 1080p, 20 s", "reencoded", "camera", f"≥ {TARGETS['camera']:g}"),
        ("2 clips, highlight, crop, crossfade", "jobs", "one", ""),
    ):
        lines.append(
            f"| {title} | {other} | {wall[other]:.2f} | {cpu[other]:.2f} | {wall[own]:.2f} | {cpu[own]:.2f}"
            f" | {wall[other] / wall[own]:.2f} | {cpu[other] / cpu[own]:.2f} | {target} |"
        )
    with tempfile.TemporaryDirectory() as scratch:
        one_pass(Path(scratch), "reel_lossless.mp4", quality=0, smart=False)
    between = [f"{kind}_{name}" for kind in ("drawn", "framed") for name in EDITED]
    reference = OUT / "reel_lossless.mp4"
    lines += ["", "| | clips read, MB | output, MB | VMAF |", "|---|---|---|---|"]
    for title, output, names in (
        ("one pass", "reel_one.mp4", EDITED),
        ("three kinds of jobs", "reel_jobs.mp4", (*EDITED, *between)),
    ):
        score = vmaf(OUT / output, reference)
        lines.append(f"| {title} | {size_mb(*names):.1f} | {size_mb(output):.2f} | {score:.2f} |")
    lines.append(f"\nCPU ms a frame of the reel of three clips: {cpu_ms(samples['ours']):.1f}.")
    return lines


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as work:
            answer(measured(lambda: CONTESTANTS[sys.argv[1]](Path(work))))
    else:
        print("\n".join(main()))
