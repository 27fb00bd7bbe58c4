"""Which encoder to use and with what options: chosen by encoding one frame, never by a list of names.

It must not know files or jobs.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from reel_modal.errors import EncoderUnavailableError, FFmpegNotFoundError
from reel_modal.media.ffmpeg_process import QUIET

__all__ = [
    "AUTO_ORDER",
    "KNOWN_ENCODERS",
    "EncoderChoice",
    "choose_encoder",
    "encoder_arguments",
    "first_reason",
    "try_encoder",
]

AUTO_ORDER: Final = ("h264_nvenc", "libx264")
"""What `encoder="auto"` tries, best first: the GPU's own encoder, then the CPU."""

KNOWN_ENCODERS: Final = ("h264_nvenc", "hevc_nvenc", "libx264", "libx265", "ffv1")
"""Encoders whose quality and preset options are known here; any other takes `encoder_options` alone."""

# NVENC counts its presets from p1 (fast) to p7 (slow); people know x264's words.
_NVENC_PRESETS: Final = {
    "ultrafast": "p1",
    "superfast": "p1",
    "veryfast": "p2",
    "faster": "p3",
    "fast": "p4",
    "medium": "p5",
    "slow": "p6",
    "slower": "p7",
    "veryslow": "p7",
}

# These start a pool of threads by the machine's cores, whatever `-threads` says, and their output follows it.
_POOL_PARAMETERS: Final = {"libx265": ("x265-params", "pools"), "libsvtav1": ("svtav1-params", "lp")}

_TRIAL_SIZE = (320, 180)  # NVENC takes nothing narrower than 145 pixels

_lock = threading.Lock()
_started: set[tuple[str, ...]] = set()


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """The encoder that will be used, and what was not as asked.

    Attributes:
        name: ffmpeg's name of the encoder.
        arguments: Its options on the command line, with `-c:v`.
        passed_over: Encoders that were tried before it and did not start, each with its reason.
    """

    name: str
    arguments: tuple[str, ...]
    passed_over: tuple[str, ...] = ()


def encoder_arguments(
    name: str, *, quality: int, preset: str, threads: int, options: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Return the command-line options of the encoder `name`.

    Args:
        name: ffmpeg's name.
        quality: Constant quality, 0 (best) to 51: x264's and x265's `crf`, NVENC's `cq`.
        preset: x264's word for speed against size, `ultrafast` to `veryslow`.
        threads: Of the encoder, whatever the cores of this machine are.
        options: More options of the encoder, such as `{"g": "48"}`; they come last and win.
    """
    arguments = ["-c:v", name, "-threads:v", str(threads)]
    options = dict(options or {})
    if name in _POOL_PARAMETERS:
        option, key = _POOL_PARAMETERS[name]
        options[option] = ":".join(filter(None, (f"{key}={threads}", options.get(option))))
    if name in {"libx264", "libx265"}:
        arguments += ["-preset", preset, "-crf", str(quality)]
    elif name in {"h264_nvenc", "hevc_nvenc"}:
        arguments += [
            "-preset",
            _NVENC_PRESETS.get(preset, preset),
            "-rc",
            "vbr",
            "-cq",
            str(quality),
            "-b:v",
            "0",
        ]
    if name in {"libx265", "hevc_nvenc"}:
        arguments += ["-tag:v", "hvc1"]  # the sample entry that Apple's players accept
    for key, value in options.items():
        arguments += [f"-{key}", value]
    return tuple(arguments)


def choose_encoder(
    ffmpeg: str,
    name: str,
    *,
    before: Sequence[str],
    first_frame: bytes,
    quality: int,
    preset: str,
    threads: int,
    options: Mapping[str, str] | None,
    timeout_seconds: float,
    try_last: bool = True,
) -> EncoderChoice:
    """Return an encoder that has just encoded one frame here; what once started is not tried again.

    Args:
        ffmpeg: Path of the binary.
        name: ffmpeg's name, or `auto` for the first of `AUTO_ORDER` that starts.
        before: The command line from the input to the filters, as it will be used.
        first_frame: The bytes of one frame.
        quality: See `encoder_arguments`.
        preset: See `encoder_arguments`.
        threads: See `encoder_arguments`.
        options: See `encoder_arguments`.
        timeout_seconds: Longest that one try may take.
        try_last: Whether the last one that comes into question is tried as well. There is none to take instead, so
            whoever can start anew may as well do without, and ask again when that fails.

    Raises:
        EncoderUnavailableError: It does not start; with `auto`, none does.
        FFmpegNotFoundError: The binary does not run.
    """
    passed_over: list[str] = []
    last: EncoderUnavailableError | None = None
    candidates = AUTO_ORDER if name == "auto" else (name,)
    for candidate in candidates:
        arguments = encoder_arguments(candidate, quality=quality, preset=preset, threads=threads, options=options)
        try:
            if try_last or candidate != candidates[-1]:
                _try(ffmpeg, candidate, (*before, *arguments), first_frame, timeout_seconds)
        except EncoderUnavailableError as error:
            last = error
            passed_over.append(f"{candidate} does not start here ({first_reason(error.stderr_tail)})")
        else:
            return EncoderChoice(candidate, arguments, tuple(passed_over))
    raise last or EncoderUnavailableError(f"encoder {name!r} does not start")


def try_encoder(ffmpeg: str, name: str, *, timeout_seconds: float) -> None:
    """Encode one small frame with the encoder `name`.

    Raises:
        EncoderUnavailableError: It does not start here.
        FFmpegNotFoundError: The binary does not run.
    """
    width, height = _TRIAL_SIZE
    source = ("-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", f"{width}x{height}", "-i", "pipe:0")
    choose_encoder(
        ffmpeg,
        name,
        before=source,
        first_frame=bytes(width * height * 3 // 2),
        quality=23,
        preset="fast",
        threads=1,
        options=None,
        timeout_seconds=timeout_seconds,
    )


def _try(ffmpeg: str, name: str, arguments: Sequence[str], frame: bytes, timeout_seconds: float) -> None:
    """Encode one frame into nothing."""
    command = (ffmpeg, *QUIET, *arguments, "-frames:v", "1", "-f", "null", "-")
    with _lock:
        if command in _started:
            return
    try:
        done = subprocess.run(command, input=frame, capture_output=True, timeout=timeout_seconds, check=False)
    except subprocess.TimeoutExpired as error:
        raise EncoderUnavailableError(
            f"encoder {name!r} gave nothing for {timeout_seconds:g} s on its first frame", command=command
        ) from error
    except OSError as error:
        raise FFmpegNotFoundError(f"ffmpeg does not start: {error}", command=command) from error
    if done.returncode != 0:
        raise EncoderUnavailableError(
            f"encoder {name!r} does not start on this machine with these settings; "
            f"`python -m reel_modal doctor` lists the ones that do",
            command=command,
            exit_status=done.returncode,
            stderr_tail=done.stderr.decode("utf-8", "replace").strip()[-4000:],
        )
    with _lock:
        _started.add(command)


def first_reason(words: str) -> str:
    """Return the first line of ffmpeg's complaint, without the part that names addresses in memory."""
    first = next(iter(words.splitlines()), "no reason given")
    with contextlib.suppress(ValueError):
        first = first[first.index("] ") + 2 :] if first.startswith("[") else first
    return first.strip()
