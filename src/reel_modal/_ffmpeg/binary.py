"""Find the ffmpeg binaries on this machine and check that they have the required features."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, NamedTuple, TypeAlias

from reel_modal.errors import FFmpegNotFoundError, FFmpegUnsupportedError
from reel_modal.settings import Settings

__all__ = [
    "Binary",
    "FFmpeg",
    "binaries",
    "check_binary",
    "check_tone_mapping",
    "find_binary",
    "find_ffmpeg",
    "first_reason",
    "takes_ten_bits",
]

Origin: TypeAlias = Literal["settings", "imageio-ffmpeg", "PATH"]
"""How a binary was found."""

_log = logging.getLogger(__name__)

_LEAST_VERSION: Final = "5.1"
_NEWEST: Final = (999,)
_CHECK_SECONDS: Final = 30.0
_BUILD_DIGITS: Final = 8

# All filters and options of ffmpeg that the library uses, in one command. `-fps_mode` requires ffmpeg 5.1.
_FILTERS: Final = (
    "settb=1/25",
    "setpts=PTS-STARTPTS",
    "fps=25:eof_action=pass",
    "tpad=stop=1:stop_mode=clone",
    "trim=end_frame=1",
    "crop=32:32:0:0:exact=1",
    "transpose=clock",
    "hflip",
    "vflip",
    "scale=64:64:flags=bicubic:in_range=tv:out_range=tv:in_h_chr_pos=0",
    "format=yuv420p",
    "setparams=range=tv",
    "setsar=1/1:max=1000",
    "setfield=tff",
    "yadif=mode=send_frame:parity=auto:deint=interlaced",
    "sidedata=mode=delete:type=DISPLAYMATRIX",
    "metadata=mode=add:key=reel_modal:value=1",
    r"metadata=mode=print:key=reel_modal:file=pipe\\:2:direct=1",
    "extractplanes=y",
)
_SOUND_FILTERS: Final = (
    "anullsrc",
    "atrim=end=0.1",
    "asetpts=PTS",
    "aresample=48000:async=1:first_pts=0",
    "aformat=flt",
)
_ENCODERS: Final = ("rawvideo", "aac")
_FRAME_SIZE: Final = (64, 64)
_CHECK: Final = (
    *(
        "-f",
        "rawvideo",
        "-pixel_format",
        "yuv420p",
        "-video_size",
        f"{_FRAME_SIZE[0]}x{_FRAME_SIZE[1]}",
        "-i",
        "pipe:0",
    ),
    *("-filter_complex", f"[0:0]{','.join(_FILTERS)}[picture];{','.join(_SOUND_FILTERS)}[sound]"),
    *("-map", "[picture]", "-fps_mode", "passthrough", "-frames:v", "1", "-c:v", "rawvideo", "-f", "null", "-"),
    *("-map", "[sound]", "-c:a", "aac", "-f", "null", "-"),
)


@dataclass(frozen=True, slots=True)
class FFmpeg:
    """An ffmpeg that runs and has the required features.

    Attributes:
        path: Path of the binary.
        version: Such as `(7, 0, 2)`. A build without a number, such as `N-118193-g5f38c82536`, compares as the
            newest.
        version_text: The version as the binary prints it.
        build: Eight hexadecimal digits: a hash of version, compiler and configuration.
        origin: `settings`, `imageio-ffmpeg` or `PATH`.
    """

    path: str
    version: tuple[int, ...]
    version_text: str
    build: str
    origin: Origin

    def __str__(self) -> str:
        return f"{self.version_text} (build {self.build}) from {self.origin}"


class Binary(NamedTuple):
    """A binary that may be an ffmpeg."""

    path: str
    origin: Origin


def find_ffmpeg(settings: Settings | None = None) -> FFmpeg:
    """Return the ffmpeg for everything except hardware encoding and hardware decoding.

    It is the first of: the one that the settings name; the one in the package imageio-ffmpeg, which is the same build
    on a host and in a container; the one on PATH, if that package has no binary for this machine. Each binary is
    checked once per process, by running it for some milliseconds.

    Args:
        settings: `settings.ffmpeg` names a binary. Default: the settings from the environment (`REEL_MODAL_FFMPEG`).

    Raises:
        FFmpegNotFoundError: No ffmpeg was found, or it does not run; the message says how to fix it.
        FFmpegUnsupportedError: It is too old, or built without a required feature.
    """
    ffmpeg = check_binary(find_binary(settings or Settings.from_env()))
    if ffmpeg.origin == "PATH":
        _warn_once(ffmpeg)
    return ffmpeg


def find_binary(settings: Settings) -> Binary:
    """Return the preferred binary, unchecked.

    Raises:
        FFmpegNotFoundError: No binary was found.
    """
    available = binaries(settings)
    if not available:
        raise FFmpegNotFoundError(
            "ffmpeg not found: the package imageio-ffmpeg has no binary for this machine, and PATH contains none;"
            " pip install imageio-ffmpeg, or install ffmpeg, or set REEL_MODAL_FFMPEG to a binary"
        )
    return available[0]


def binaries(settings: Settings) -> tuple[Binary, ...]:
    """Return the available binaries in order of preference, unchecked and without duplicates."""
    candidates: list[Binary] = []
    if settings.ffmpeg is not None:
        candidates.append(Binary(shutil.which(settings.ffmpeg) or settings.ffmpeg, "settings"))
    if (bundled := _bundled()) is not None:
        candidates.append(Binary(bundled, "imageio-ffmpeg"))
    if (on_path := shutil.which("ffmpeg")) is not None:
        candidates.append(Binary(on_path, "PATH"))
    # A binary that is found under two names is listed once, at its highest preference.
    unique: dict[str, Binary] = {}
    for binary in candidates:
        unique.setdefault(os.path.realpath(binary.path), binary)
    return tuple(unique.values())


def check_binary(binary: Binary) -> FFmpeg:
    """Check `binary` and return its description.

    Raises:
        FFmpegNotFoundError: It does not exist, does not run, or is not an ffmpeg.
        FFmpegUnsupportedError: It is too old, or built without a required feature.
    """
    try:
        changed_ns = Path(binary.path).stat().st_mtime_ns
    except OSError as error:
        raise FFmpegNotFoundError(
            f"ffmpeg not found at {binary.path!r} (from {binary.origin}); {_cure(binary)}"
        ) from error
    return _check(binary, changed_ns)


def check_tone_mapping(ffmpeg: FFmpeg) -> None:
    """Check that `ffmpeg` has the filters that convert HDR to SDR.

    Raises:
        FFmpegUnsupportedError: It was built without one of them.
    """
    if missing := _missing_for_tone_mapping(ffmpeg):
        raise FFmpegUnsupportedError(
            f"ffmpeg {ffmpeg} ({ffmpeg.path}) cannot convert HDR to SDR: it lacks the filter {missing}; set"
            " REEL_MODAL_FFMPEG to an ffmpeg that was built with libzimg, unset it to use the one of imageio-ffmpeg,"
            ' or keep HDR with encode.hdr="keep"'
        )


@lru_cache(maxsize=8)
def _missing_for_tone_mapping(ffmpeg: FFmpeg) -> str:
    return ", ".join(sorted({"zscale", "tonemap"} - _listed(Binary(ffmpeg.path, ffmpeg.origin), "-filters")))


@lru_cache(maxsize=32)
def takes_ten_bits(ffmpeg: FFmpeg, encoder: str) -> bool:
    """Return whether `encoder` of `ffmpeg` accepts 10-bit samples; True if it lists no pixel formats."""
    help_text = _run(Binary(ffmpeg.path, ffmpeg.origin), ("-hide_banner", "-h", f"encoder={encoder}")).stdout
    formats = re.search(rb"Supported pixel formats: (.*)", help_text)
    return formats is None or re.search(rb"p010|p10le|p210|x2rgb10", formats[1]) is not None


def _listed(binary: Binary, listing: str) -> frozenset[str]:
    """Return the names in a listing of `binary`, such as `-filters`."""
    lines = _run(binary, ("-hide_banner", listing)).stdout.decode("utf-8", "replace").splitlines()
    return frozenset(words[1] for words in map(str.split, lines) if len(words) > 1)


def first_reason(stderr: str) -> str:
    """Return the first line of ffmpeg's error output, without the prefix that contains a memory address."""
    first = next(iter(stderr.splitlines()), "no reason given")
    with contextlib.suppress(ValueError):
        first = first[first.index("] ") + 2 :] if first.startswith("[") else first
    return first.strip()


@lru_cache(maxsize=8)
def _check(binary: Binary, changed_ns: int) -> FFmpeg:
    """Run the check; the modification time of the binary is part of the cache key."""
    del changed_ns
    result = _run(binary, ("-loglevel", "info", *_CHECK), input_bytes=bytes(_FRAME_SIZE[0] * _FRAME_SIZE[1] * 3 // 2))
    stderr = result.stderr.decode("utf-8", "replace")
    version = re.search(r"^ffmpeg version (\S+)", stderr, re.MULTILINE)
    if version is None:
        raise FFmpegNotFoundError(f"{binary.path!r} is not an ffmpeg; {_cure(binary)}", command=result.args)
    text = version[1]
    if result.returncode != 0:
        raise FFmpegUnsupportedError(
            f"ffmpeg {text} (from {binary.origin}: {binary.path}) is unsupported: it lacks {_lacks(binary)}."
            f" Version {_LEAST_VERSION} or newer with all required filters is supported; {_cure(binary)}",
            command=result.args,
            exit_status=result.returncode,
        )
    described = re.findall(r"^(?:ffmpeg version|  built with|  configuration:).*$", stderr, re.MULTILINE)
    build = hashlib.sha256("\n".join(described).encode()).hexdigest()[:_BUILD_DIGITS]
    numbers = re.match(r"n?(\d+(?:\.\d+)*)", text)
    number = tuple(map(int, numbers[1].split("."))) if numbers else _NEWEST
    return FFmpeg(binary.path, number, text, build, binary.origin)


def _run(
    binary: Binary, arguments: tuple[str, ...], *, input_bytes: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    command = (binary.path, "-nostdin", "-nostats", *arguments)
    try:
        return subprocess.run(command, input=input_bytes, capture_output=True, timeout=_CHECK_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise FFmpegNotFoundError(
            f"{binary.path!r} does not run as ffmpeg ({error}); {_cure(binary)}", command=command
        ) from error


def _lacks(binary: Binary) -> str:
    """Return the features that a binary lacks after it failed the check."""
    parts = []
    filters = {word.partition("=")[0] for word in (*_FILTERS, *_SOUND_FILTERS)}
    for kind, listing, names in (("filter", "-filters", filters), ("encoder", "-encoders", set(_ENCODERS))):
        missing = names - _listed(binary, listing)
        parts += [f"the {kind} {name}" for name in sorted(missing)]
    if not parts:
        stderr = _run(binary, ("-hide_banner", "-loglevel", "error", *_CHECK)).stderr.decode("utf-8", "replace")
        if option := re.search(r"Unrecognized option '(.+?)'", stderr):
            parts.append(f"the option -{option[1]}")
        elif option := re.search(r"option '(.+?)' to filter '(.+?)'", stderr):
            parts.append(f"the option {option[1]} of the filter {option[2]}")
        else:
            parts.append(f"a required feature ({first_reason(stderr)})")
    return ", ".join(parts)


def _cure(binary: Binary) -> str:
    """Return the advice for a binary that cannot be used."""
    if binary.origin == "settings":
        return (
            "correct REEL_MODAL_FFMPEG, or unset it to use the ffmpeg of the package imageio-ffmpeg, or the one on"
            " PATH"
        )
    if binary.origin == "imageio-ffmpeg":
        return "pip install --force-reinstall imageio-ffmpeg, or set REEL_MODAL_FFMPEG to another ffmpeg"
    return "pip install imageio-ffmpeg, or set REEL_MODAL_FFMPEG to a newer ffmpeg"


@lru_cache(maxsize=1)
def _warn_once(ffmpeg: FFmpeg) -> None:
    _log.warning(
        "ffmpeg %s (%s) is used, because imageio-ffmpeg has no binary for this machine: outputs may differ from"
        " those of other machines",
        ffmpeg,
        ffmpeg.path,
    )


def _bundled() -> str | None:
    """Return the binary in the package imageio-ffmpeg; its own function would fall back to any other ffmpeg."""
    spec = importlib.util.find_spec("imageio_ffmpeg")
    folders: Iterator[Path] = map(Path, (spec and spec.submodule_search_locations) or ())
    paths = (path for folder in folders for path in sorted(folder.glob("binaries/ffmpeg-*")))
    return next((str(path) for path in paths if path.is_file()), None)
