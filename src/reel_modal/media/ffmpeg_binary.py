"""Find the ffmpeg binaries of this machine, and check what each of them can do."""

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

from reel_modal.config import Settings
from reel_modal.errors import FFmpegNotFoundError, FFmpegUnsupportedError

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
"""Where a binary was found."""

_log = logging.getLogger(__name__)

_LEAST_VERSION: Final = "5.1"
_NEWEST: Final = (999,)
_CHECK_SECONDS: Final = 30.0
_BUILD_DIGITS: Final = 8

# Everything that the library asks of the filters and options of an ffmpeg, in one command; `-fps_mode` came with 5.1.
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
    """An ffmpeg that runs and can do what is needed.

    Attributes:
        path: Path of the binary.
        version: Such as `(7, 0, 2)`; a build without a number, such as `N-118193-g5f38c82536`, is above all.
        version_text: The version as the binary prints it.
        build: Eight hexadecimal digits that stand for version, compiler and configuration.
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
    """Return the ffmpeg that does everything but hardware encoding and hardware decoding.

    It is the one that the settings name; else the one in the package imageio-ffmpeg, which is the same build on a
    host and in a container; else, if that package has no binary for this machine, the one on PATH. A binary is
    checked once in a process, by running it for some milliseconds.

    Args:
        settings: `settings.ffmpeg` names one; default: from the environment, `REEL_MODAL_FFMPEG`.

    Raises:
        FFmpegNotFoundError: No ffmpeg was found, or it does not run; the message names the cure.
        FFmpegUnsupportedError: It is too old, or built without something that is needed.
    """
    ffmpeg = check_binary(find_binary(settings or Settings.from_env()))
    if ffmpeg.origin == "PATH":
        _warn_once(ffmpeg)
    return ffmpeg


def find_binary(settings: Settings) -> Binary:
    """Return the preferred binary, unchecked.

    Raises:
        FFmpegNotFoundError: There is none.
    """
    found = binaries(settings)
    if not found:
        raise FFmpegNotFoundError(
            "ffmpeg not found: the package imageio-ffmpeg has no binary for this machine, and there is none on PATH;"
            " pip install imageio-ffmpeg, or install ffmpeg, or name one in REEL_MODAL_FFMPEG"
        )
    return found[0]


def binaries(settings: Settings) -> tuple[Binary, ...]:
    """Return the binaries at hand, in the order in which they are preferred, each once and unchecked."""
    found: list[Binary] = []
    if settings.ffmpeg is not None:
        found.append(Binary(shutil.which(settings.ffmpeg) or settings.ffmpeg, "settings"))
    if (bundled := _bundled()) is not None:
        found.append(Binary(bundled, "imageio-ffmpeg"))
    if (on_path := shutil.which("ffmpeg")) is not None:
        found.append(Binary(on_path, "PATH"))
    # One binary under two names is one, where it is preferred most.
    each: dict[str, Binary] = {}
    for binary in found:
        each.setdefault(os.path.realpath(binary.path), binary)
    return tuple(each.values())


def check_binary(binary: Binary) -> FFmpeg:
    """Return what `binary` is, after it has shown that it can do what is needed.

    Raises:
        FFmpegNotFoundError: It is not there, does not run, or is not an ffmpeg.
        FFmpegUnsupportedError: It is too old, or built without something that is needed.
    """
    try:
        changed_ns = Path(binary.path).stat().st_mtime_ns
    except OSError as error:
        raise FFmpegNotFoundError(f"no ffmpeg at {binary.path!r} (from {binary.origin}); {_cure(binary)}") from error
    return _check(binary, changed_ns)


def check_tone_mapping(ffmpeg: FFmpeg) -> None:
    """Check that `ffmpeg` has the filters that make SDR of HDR.

    Raises:
        FFmpegUnsupportedError: It was built without one of them.
    """
    if missing := _missing_for_tone_mapping(ffmpeg):
        raise FFmpegUnsupportedError(
            f"ffmpeg {ffmpeg} ({ffmpeg.path}) cannot make SDR of HDR: it lacks the filter {missing}; name"
            " one that was built with libzimg in REEL_MODAL_FFMPEG, unset it to use the one of imageio-ffmpeg, or"
            ' keep the HDR with encode.hdr="keep"'
        )


@lru_cache(maxsize=8)
def _missing_for_tone_mapping(ffmpeg: FFmpeg) -> str:
    return ", ".join(sorted({"zscale", "tonemap"} - _listed(Binary(ffmpeg.path, ffmpeg.origin), "-filters")))


def takes_ten_bits(ffmpeg: FFmpeg, encoder: str) -> bool:
    """Return whether `encoder` of `ffmpeg` takes samples of 10 bits; True if it does not say what it takes."""
    said = _run(Binary(ffmpeg.path, ffmpeg.origin), ("-hide_banner", "-h", f"encoder={encoder}")).stdout
    formats = re.search(rb"Supported pixel formats: (.*)", said)
    return formats is None or re.search(rb"p010|p10le|p210|x2rgb10", formats[1]) is not None


def _listed(binary: Binary, listing: str) -> frozenset[str]:
    """Return the names in a listing of `binary`, such as `-filters`."""
    lines = _run(binary, ("-hide_banner", listing)).stdout.decode("utf-8", "replace").splitlines()
    return frozenset(words[1] for words in map(str.split, lines) if len(words) > 1)


def first_reason(words: str) -> str:
    """Return the first line of ffmpeg's complaint, without the part that names addresses in memory."""
    first = next(iter(words.splitlines()), "no reason given")
    with contextlib.suppress(ValueError):
        first = first[first.index("] ") + 2 :] if first.startswith("[") else first
    return first.strip()


@lru_cache(maxsize=8)
def _check(binary: Binary, changed_ns: int) -> FFmpeg:
    """Run the check; the time of the binary's last change is part of the cache's key."""
    del changed_ns
    done = _run(binary, ("-loglevel", "info", *_CHECK), input_bytes=bytes(_FRAME_SIZE[0] * _FRAME_SIZE[1] * 3 // 2))
    said = done.stderr.decode("utf-8", "replace")
    version = re.search(r"^ffmpeg version (\S+)", said, re.MULTILINE)
    if version is None:
        raise FFmpegNotFoundError(f"{binary.path!r} is not an ffmpeg; {_cure(binary)}", command=done.args)
    text = version[1]
    if done.returncode != 0:
        raise FFmpegUnsupportedError(
            f"ffmpeg {text} (from {binary.origin}: {binary.path}) cannot be used: it lacks {_lacks(binary)}."
            f" {_LEAST_VERSION} and newer are supported if they have all filters; {_cure(binary)}",
            command=done.args,
            exit_status=done.returncode,
        )
    described = re.findall(r"^(?:ffmpeg version|  built with|  configuration:).*$", said, re.MULTILINE)
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
    """Return what a binary that failed the check does not have."""
    parts = []
    wanted = {word.partition("=")[0] for word in (*_FILTERS, *_SOUND_FILTERS)}
    for kind, listing, names in (("filter", "-filters", wanted), ("encoder", "-encoders", set(_ENCODERS))):
        missing = names - _listed(binary, listing)
        parts += [f"the {kind} {name}" for name in sorted(missing)]
    if not parts:
        words = _run(binary, ("-hide_banner", "-loglevel", "error", *_CHECK)).stderr.decode("utf-8", "replace")
        if option := re.search(r"Unrecognized option '(.+?)'", words):
            parts.append(f"the option -{option[1]}")
        elif option := re.search(r"option '(.+?)' to filter '(.+?)'", words):
            parts.append(f"the option {option[1]} of the filter {option[2]}")
        else:
            parts.append(f"something ({first_reason(words)})")
    return ", ".join(parts)


def _cure(binary: Binary) -> str:
    """Return what to do about a binary that cannot be used."""
    if binary.origin == "settings":
        return (
            "correct REEL_MODAL_FFMPEG, or unset it to use the ffmpeg of the package imageio-ffmpeg, or else the one"
            " on PATH"
        )
    if binary.origin == "imageio-ffmpeg":
        return "pip install --force-reinstall imageio-ffmpeg, or name another ffmpeg in REEL_MODAL_FFMPEG"
    return "pip install imageio-ffmpeg, or name a newer ffmpeg in REEL_MODAL_FFMPEG"


@lru_cache(maxsize=1)
def _warn_once(ffmpeg: FFmpeg) -> None:
    _log.warning(
        "ffmpeg %s (%s) is used, since imageio-ffmpeg has no binary for this machine: outputs may differ from those"
        " of other machines",
        ffmpeg,
        ffmpeg.path,
    )


def _bundled() -> str | None:
    """Return the binary in the package imageio-ffmpeg; its own look-up would fall back to any other ffmpeg."""
    spec = importlib.util.find_spec("imageio_ffmpeg")
    folders: Iterator[Path] = map(Path, (spec and spec.submodule_search_locations) or ())
    found = (path for folder in folders for path in sorted(folder.glob("binaries/ffmpeg-*")))
    return next((str(path) for path in found if path.is_file()), None)
