"""Smart rendering against everything that encodes all of it, by how many seconds are highlighted; and trims.

90 s of 1080p30, H.264 with a keyframe every two seconds, sound; x264 on both sides. A full render, a plain ffmpeg and
the loop that people write by hand cost the same however little changes, so each of them is measured once a round.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
from tests.clips import real
from tests.run_function import run_function

from benchmarks.hand_loop import encoded, hand_loop
from benchmarks.harness import OUT, Sample, answer, contest, context_for, measured, median
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.media import probe
from reel_modal.schema import (
    EncodeOptions,
    FramingRequest,
    HighlightKeyframe,
    HighlightRegion,
    OverlayRequest,
    RenderResult,
)
from reel_modal.settings import Settings

SECONDS = int(os.environ.get("SMART_RENDER_SECONDS", "90"))  # a multiple of 5; less for a first look
HIGHLIGHTED = (*(at for at in ("0", "2.5", "10", "45") if float(at) < SECONDS), str(SECONDS))
BEGIN = SECONDS * 31 // 90  # of the highlight, where it fits
TRIM = (SECONDS * Fraction(107, 900), SECONDS * Fraction(793, 900))
LINES = ("#2980b9", "#7f8c8d", "#c0392b", "#8e44ad")
TARGETS = {"smart-veryfast:2.5": "≤ 1/15 of plain:veryfast", f"smart:{SECONDS}": "≤ full"}


def clip() -> Path:
    """90 s out of a real clip, made once: five seconds are encoded, and copied behind one another."""
    OUT.mkdir(exist_ok=True)
    path, part = OUT / f"bunny_1080p30_gop60_{SECONDS}s.mp4", OUT / "bunny_1080p30_gop60.mp4"
    if not path.exists():
        ffmpeg = (find_ffmpeg(Settings()).path, "-loglevel", "error", "-y")
        encode = ("-an", "-c:v", "libx264", "-preset", "fast", "-crf", "20", "-g", "60")
        scale = ("-vf", "scale=1920:1080:flags=lanczos,fps=30", "-t", "5")
        subprocess.run([*ffmpeg, "-i", str(real("bigbuckbunny.mp4")), *scale, *encode, str(part)], check=True)
        # A part without sound is as long as its pictures, so that the next follows exactly.
        loop = ("-stream_loop", str(SECONDS // 5 - 1), "-i", str(part))
        sound = ("-stream_loop", "-1", "-i", str(real("bigbuckbunny.mp4")), "-map", "0:v", "-map", "1:a")
        rest = ("-c:v", "copy", "-c:a", "aac", "-ac", "2", "-t", str(SECONDS))
        subprocess.run([*ffmpeg, *loop, *sound, *rest, str(path)], check=True)
    return path


def overlay(highlighted: str, folder: Path, *, smart: bool, preset: str = "fast") -> RenderResult:
    seconds = Fraction(highlighted)
    begin = Fraction(BEGIN) if BEGIN + seconds < SECONDS else Fraction(0)
    keys = tuple(
        HighlightKeyframe(
            time_seconds=begin + seconds * part / 4, x=500 + 200 * part, y=540, radius_x=200, radius_y=260
        )
        for part in range(5 if seconds else 0)
    )
    regions = (
        (HighlightRegion(id="r", start_seconds=begin, end_seconds=begin + seconds, keyframes=keys),) if keys else ()
    )
    asked = OverlayRequest(
        job_id="bench",
        user_id="bench",
        input_key="in.mp4",
        output_key="out.mp4",
        regions=regions,
        encode=EncodeOptions(encoder="libx264", preset=preset, smart=smart),
    )
    return run_function(asked, context_for(clip(), folder))


def plain(preset: str, folder: Path) -> int:
    """One ffmpeg that decodes and encodes all of it, and draws nothing."""
    encode = ("-c:v", "libx264", "-preset", preset, "-crf", "23", "-c:a", "copy", str(folder / "out.mp4"))
    command = [find_ffmpeg(Settings()).path, "-loglevel", "error", "-i", str(clip()), *encode]
    subprocess.run(command, check=True)
    return SECONDS * 30


def by_hand(folder: Path) -> int:
    """The loop of the seed, which draws in the 2.5 s and encodes all."""
    output = encoded(clip(), "fast", folder / "out.mp4")
    return hand_loop(clip(), output, lambda seconds: 900 if BEGIN <= seconds <= BEGIN + 2.5 else None)


def trim(folder: Path, *, smart: bool) -> int:
    asked = FramingRequest(
        job_id="bench",
        user_id="bench",
        input_key="in.mp4",
        output_key="out.mp4",
        trim_start_seconds=TRIM[0],
        trim_end_seconds=TRIM[1],
        output_size=probe(clip()).size,
        encode=EncodeOptions(encoder="libx264", smart=smart),
    )
    result = run_function(asked, context_for(clip(), folder))
    print(describe(folder / "out.mp4"), file=sys.stderr)
    return result.frames


def smartcut_python() -> Path | None:
    """The interpreter that has smartcut, which wants a PyAV of its own; None where it does not install."""
    folder = OUT / "smartcut"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        venv.EnvBuilder(with_pip=True, symlinks=sys.platform != "win32").create(folder)
        subprocess.run([python, "-m", "pip", "--quiet", "install", "smartcut==1.7"], check=False)
    there = subprocess.run([python, "-c", "import smartcut, av"], capture_output=True, check=False)
    return python if there.returncode == 0 else None


def smartcut(folder: Path) -> int:
    """PyPI's smartcut, by its command line."""
    keep = ("--keep", f"{float(TRIM[0])},{float(TRIM[1])}")
    output = folder / "out.mp4"
    python = smartcut_python()
    if python is None:
        raise RuntimeError("smartcut is not there")
    subprocess.run([python, "-m", "smartcut", str(clip()), str(output), *keep], check=True, capture_output=True)
    print(describe(output), file=sys.stderr)
    with av.open(str(output)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def describe(path: Path) -> str:
    """Packets, how many of them are the source's, rate, and how many runs the table of durations has."""
    with av.open(str(clip())) as container:
        old = {hash(bytes(packet)) for packet in container.demux(video=0) if packet.size}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [(hash(bytes(packet)), packet.dts) for packet in container.demux(stream) if packet.size]
        steps = {after[1] - before[1] for before, after in pairwise(packets)}
        copied = sum(data in old for data, _ in packets)
        rate = f"{stream.average_rate} fps, steps of {sorted(steps)} ticks"
        return f"  {len(packets)} packets, {copied} of them the source's, {rate}, {stream.codec_tag}"


def work(name: str, folder: Path) -> int:
    who, _, what = name.partition(":")
    if who in {"smart", "smart-veryfast", "full"}:
        preset = "veryfast" if who == "smart-veryfast" else "fast"
        return overlay(what, folder, smart=who != "full", preset=preset).frames
    if who == "trim":
        return smartcut(folder) if what == "smartcut" else trim(folder, smart=what == "smart")
    return plain(what, folder) if who == "plain" else by_hand(folder)


def main(rounds: int = 1) -> list[str]:
    """Run the contest and return the table as Markdown; the plot goes to benchmarks/out."""
    clip()
    names = [
        *(f"smart:{seconds}" for seconds in HIGHLIGHTED),
        "full:2.5",
        f"full:{SECONDS}",
        "plain:veryfast",
        "plain:fast",
    ]
    names += ["smart-veryfast:2.5", "by_hand", "trim:smart", "trim:full"]
    if smartcut_python() is not None:
        names.append("trim:smartcut")
    chosen = os.environ.get("SMART_RENDER_ONLY")  # a part of it, where a machine has not the hour
    names = [name for name in names if chosen is None or name in chosen.split(",")]
    samples = contest("benchmarks.smart_render", names, rounds)
    plot(samples, OUT / "smart_render.png")
    return table(samples)


def table(samples: dict[str, list[Sample]]) -> list[str]:
    """Return what was measured as Markdown."""
    lines = ["| who | wall s | CPU s | peak MB | target |", "|---|---|---|---|---|"]
    for name, runs in samples.items():
        wall, cpu, peak = (median(runs, what) for what in ("wall_seconds", "cpu_seconds", "peak_mb"))
        lines.append(f"| {name} | {wall:.1f} | {cpu:.1f} | {peak:.0f} | {TARGETS.get(name, '')} |")
    if "trim:smartcut" not in samples:
        lines += ["", "smartcut was not measured: it did not install."]
    return lines


def plot(samples: dict[str, list[Sample]], path: Path) -> None:
    """Draw CPU seconds against highlighted seconds; what encodes all of it is a level line."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 4), layout="constrained")
    cost = {name: median(runs, "cpu_seconds") for name, runs in samples.items()}
    ours = [(float(name.partition(":")[2]), seconds) for name, seconds in cost.items() if name.startswith("smart:")]
    axis.plot(*zip(*sorted(ours), strict=True), marker="o", color="#1e8449", label="smart, preset fast")
    levels = {"full:2.5": "full render", "plain:fast": "ffmpeg, fast", "plain:veryfast": "ffmpeg, veryfast"}
    for (name, label), color in zip((levels | {"by_hand": "the loop"}).items(), LINES, strict=True):
        if name in cost:
            axis.axhline(cost[name], color=color, linestyle="--", label=label)
    axis.set(xlabel=f"seconds highlighted, of {SECONDS}", ylabel="CPU seconds", xlim=(0, SECONDS), ylim=(0, None))
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left", fontsize="small")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as scratch:
            answer(measured(lambda: work(sys.argv[1], Path(scratch))))
    else:
        print("\n".join(main()))
