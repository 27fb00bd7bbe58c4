"""Clips with subtitles, chapters, tags and several streams, and their renders in every mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from tests.clips import ffmpeg
from tests.local_files import key_of, root_storage
from tests.run_function import run_function

from reel_modal.functions.context import JobContext
from reel_modal.media import probe
from reel_modal.schema import EncodeOptions, FramingRequest, OverlayRequest, RenderResult, UpscaleRequest

Mode = Literal["smart", "full", "copy", "graph", "moving", "faster", "upscale"]
MODES: tuple[Mode, ...] = ("smart", "full", "copy", "graph", "moving", "faster", "upscale")
SECONDS = 3
LINES = ((0.2, 0.9, "Hello"), (1.0, 1.8, "<i>Bye</i>"), (2.2, 2.6, "Late"))
CHAPTERS = ((0.0, 1.0, "One"), (1.0, 2.5, "Two é"), (2.5, 3.0, "Three"))
FAST = EncodeOptions(encoder="libx264", preset="ultrafast")


def make(
    path: Path,
    *,
    sounds: tuple[str, ...] = ("aac",),
    subtitles: tuple[str, ...] = (),
    chapters: bool = False,
    tags: dict[str, str] | None = None,
    arguments: tuple[str | Path, ...] = (),
) -> Path:
    """Make a clip of three seconds with the given streams."""
    words, lines = path.with_suffix(".txt"), path.with_suffix(".srt")
    written = "".join(
        f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={a * 1000:.0f}\nEND={b * 1000:.0f}\ntitle={t}\n" for a, b, t in CHAPTERS
    )
    words.write_text(";FFMETADATA1\n" + (written if chapters else ""), encoding="utf-8")
    lines.write_text(
        "".join(f"{n}\n{clock(a)} --> {clock(b)}\n{text}\n\n" for n, (a, b, text) in enumerate(LINES, 1))
    )
    inputs = ("-f", "lavfi", "-i", f"testsrc2=size=64x48:rate=25:duration={SECONDS}", "-i", words)
    inputs += tuple(
        word for n in range(len(sounds)) for word in ("-f", "lavfi", "-i", f"sine={300 + n}:duration={SECONDS}")
    )
    inputs += tuple(word for _ in subtitles for word in ("-i", lines))
    maps = tuple(word for n in range(2 + len(sounds) + len(subtitles)) if n != 1 for word in ("-map", str(n)))
    codecs = tuple(word for n, codec in enumerate(sounds) for word in (f"-c:a:{n}", codec))
    codecs += tuple(word for n, codec in enumerate(subtitles) for word in (f"-c:s:{n}", codec))
    codecs += tuple(
        word for n in range(len(subtitles)) for word in (f"-metadata:s:s:{n}", f"language={('deu', 'fra')[n]}")
    )
    tag_arguments = tuple(word for key, value in (tags or {}).items() for word in ("-metadata", f"{key}={value}"))
    flags = ("-movflags", "use_metadata_tags") if tags and path.suffix in {".mp4", ".mov"} else ()
    video = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p")
    ffmpeg(
        *inputs,
        *maps,
        "-map_metadata",
        "1",
        "-map_chapters",
        "1",
        *video,
        *codecs,
        *tag_arguments,
        *flags,
        *arguments,
        path,
    )
    return path


def clock(seconds: float) -> str:
    return f"00:00:{seconds:06.3f}".replace(".", ",")


def render(source: Path, mode: Mode, output: Path, **encode: object) -> RenderResult:
    """Make `output` from `source` in the given mode."""
    keys: dict[str, Any] = {"job_id": "j", "user_id": "u", "input_key": key_of(source), "output_key": key_of(output)}
    keys["encode"] = EncodeOptions.parse({**FAST.to_dict(), "smart": mode in {"smart", "copy"}, **encode})
    work = output.parent / "work"
    work.mkdir(exist_ok=True)
    context = JobContext(storage=root_storage(), workdir=work)
    if mode in {"smart", "full"}:
        keyframe = {"time": 1.1, "x": 30, "y": 20, "radiusX": 9, "radiusY": 9}
        region = {"id": "r", "start_time": 1.1, "end_time": 1.4, "keyframes": [keyframe]}
        result = run_function(OverlayRequest(**keys, regions=[region]), context)
    elif mode == "upscale":
        result = run_function(UpscaleRequest(**keys, scale=2), context)
    else:
        crop = {"y": 0, "width": 32, "height": 48}
        moving = [{"time": 0, "x": 0, **crop}, {"time": 3, "x": 20, **crop}]
        edits: dict[Mode, dict[str, Any]] = {
            "copy": {"trim_start_seconds": 1, "output_size": probe(source).size},
            "graph": {"crop": [{"time": 0, "x": 20, **crop}], "output_size": (32, 48)},
            "moving": {"crop": moving, "output_size": (32, 48)},
            "faster": {"segments": [{"start": 0, "end": 3, "speed": 2}], "output_size": (64, 48)},
        }
        result = run_function(FramingRequest.parse({**keys, **edits[mode]}), context)
    assert list(work.iterdir()) == []
    return result


def codes(result: RenderResult) -> set[str]:
    return {note.code for note in result.degraded}
