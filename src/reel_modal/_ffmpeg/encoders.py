"""Choose an encoder, the ffmpeg that runs it, and its options, by encoding one frame instead of using name lists."""

from __future__ import annotations

import logging
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from reel_modal._ffmpeg.binary import (
    Binary,
    FFmpeg,
    binaries,
    check_binary,
    find_binary,
    find_ffmpeg,
    first_reason,
    takes_ten_bits,
)
from reel_modal._ffmpeg.process import QUIET
from reel_modal.errors import ConfigError, EncoderUnavailableError, FFmpegError, FFmpegNotFoundError
from reel_modal.media.hdr import HdrMetadata
from reel_modal.schema.containers import auto_encoders
from reel_modal.schema.degradation import Degradation
from reel_modal.settings import Settings

__all__ = [
    "KNOWN_ENCODERS",
    "EncoderChoice",
    "choose_encoder",
    "encoder_arguments",
    "is_hardware",
    "try_encoder",
]

_log = logging.getLogger(__name__)

KNOWN_ENCODERS: Final = ("h264_nvenc", "hevc_nvenc", "libx264", "libx265", "libvpx-vp9", "libsvtav1", "ffv1")
"""Encoders with known quality and preset options; any other encoder takes only `encoder_options`."""

T = TypeVar("T")

# NVENC's presets are p1 (fast) to p7 (slow); users know x264's names.
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
    "placebo": "p7",
}

# VP9 and AV1 count from 0 (slow). VP9's fastest presets need its realtime mode, which has only one pass.
_VP9_SPEEDS: Final = {
    "ultrafast": ("realtime", 8),
    "superfast": ("realtime", 6),
    "veryfast": ("good", 5),
    "faster": ("good", 4),
    "fast": ("good", 3),
    "medium": ("good", 2),
    "slow": ("good", 1),
    "slower": ("good", 1),
    "veryslow": ("good", 0),
    "placebo": ("good", 0),
}
_AV1_PRESETS: Final = {
    "ultrafast": 12,
    "superfast": 11,
    "veryfast": 10,
    "faster": 9,
    "fast": 8,
    "medium": 7,
    "slow": 6,
    "slower": 5,
    "veryslow": 4,
    "placebo": 2,
}
_X264_WORST: Final = 51
_VPX_WORST: Final = 63  # also the worst of AV1

# Options besides `-threads` that make an encoder's output bytes reproducible. If x264's lookahead runs in a thread
# parallel to the encoder, up to a sixth of the encodes on a busy machine have different bytes. Without that thread
# the encoder waits for the lookahead, so two threads share the analysis of a frame. The other two encoders start a
# thread pool that depends on the machine's cores.
_REPEATABLE: Final = {
    "libx264": ("x264-params", "sync-lookahead=0:lookahead-threads=2"),
    "libx265": ("x265-params", "pools={threads}"),
    "libsvtav1": ("svtav1-params", "lp={threads}"),
}

_TRIAL_SIZE = (320, 180)  # NVENC's minimum width is 145 pixels

# The last part of ffmpeg's names of hardware encoders.
_HARDWARE: Final = frozenset({"nvenc", "qsv", "vaapi", "videotoolbox", "amf", "mf", "vulkan", "v4l2m2m", "d3d12va"})
_MOST_STDERR_CHARS: Final = 4000
_CURE: Final = (
    "use another encoder (`python -m reel_modal doctor` lists those that start), or set REEL_MODAL_FFMPEG to an"
    " ffmpeg that was built with this one"
)

_lock = threading.Lock()
_started: set[tuple[str, ...]] = set()
_NVIDIA_DRIVER: Final = Path("/proc/driver/nvidia/version")
"""Exists on Linux if the driver is loaded, also in containers with a GPU."""

_ruled_out: set[tuple[str, Binary]] = set()


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """The selected encoder, and how it differs from the request.

    Attributes:
        name: ffmpeg's name of the encoder.
        arguments: Its command-line options, including `-c:v`.
        ffmpeg: The ffmpeg that runs it.
        passed_over: Encoders that were tried first and did not start, each with the reason. A hardware encoder is not
            listed on a machine without an NVIDIA driver: `auto` does not request one there.
    """

    name: str
    arguments: tuple[str, ...]
    ffmpeg: FFmpeg
    passed_over: tuple[Degradation, ...] = ()


def is_hardware(name: str) -> bool:
    """Return whether the encoder `name` needs hardware besides the CPU; its output bytes may differ between runs."""
    return name.rpartition("_")[2] in _HARDWARE


def encoder_arguments(
    name: str,
    *,
    quality: int,
    preset: str,
    threads: int,
    options: Mapping[str, str] | None = None,
    hdr: HdrMetadata | None = None,
) -> tuple[str, ...]:
    """Return the command-line options of the encoder `name`.

    A smart render passes the preset, quality and options of `X264Settings` instead of those of the request.

    Args:
        name: ffmpeg's name of the encoder.
        quality: Constant quality, 0 (best) to 51: x264's and x265's `crf`, NVENC's `cq`; for VP9 and AV1 it is scaled
            to `crf` 0 to 63.
        preset: x264's name for the speed and size trade-off, `ultrafast` to `veryslow`.
        threads: Number of encoder threads, independent of the cores of this machine.
        options: More options of the encoder, such as `{"g": "48"}`; they come last and take precedence.
        hdr: The HDR metadata to write, if the encoder supports it.

    Raises:
        ConfigError: The encoder does not have this preset.
    """
    arguments = ["-c:v", name, "-threads:v", str(threads)]
    options = dict(options or {})
    if hdr is not None and (hdr_option := hdr.parameters(name)) is not None:
        option, parameters = hdr_option
        entries = [f"{key}={value}" for key, value in parameters.items()]
        options[option] = ":".join(filter(None, (*entries, options.get(option))))
    if name in _REPEATABLE:
        option, parameter = _REPEATABLE[name]
        options[option] = ":".join(filter(None, (parameter.format(threads=threads), options.get(option))))
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
    elif name == "libvpx-vp9":
        deadline, speed = _preset_value(_VP9_SPEEDS, preset, name)
        # Parallel tiles and rows are properties of the file, so their number does not depend on `threads`.
        arguments += ["-deadline", deadline, "-cpu-used", str(speed), "-row-mt", "1", "-tile-columns", "2"]
        arguments += ["-crf", str(_scaled_to_63(quality)), "-b:v", "0"]
    elif name == "libsvtav1":
        arguments += ["-preset", str(_preset_value(_AV1_PRESETS, preset, name)), "-crf", str(_scaled_to_63(quality))]
    if name in {"libx265", "hevc_nvenc"}:
        arguments += ["-tag:v", "hvc1"]  # the sample entry that Apple's players accept
    for key, value in options.items():
        arguments += [f"-{key}", value]
    return tuple(arguments)


def _preset_value(presets: Mapping[str, T], preset: str, name: str) -> T:
    """Return the value for `preset` of the encoder `name`.

    Raises:
        ConfigError: The encoder does not have this preset.
    """
    if preset not in presets:
        raise ConfigError(f"preset is {preset!r}, which {name} does not support; use one of {', '.join(presets)}")
    return presets[preset]


def _scaled_to_63(quality: int) -> int:
    return round(quality * _VPX_WORST / _X264_WORST)


def choose_encoder(
    settings: Settings,
    name: str,
    *,
    suffix: str,
    before: Sequence[str],
    first_frame: bytes,
    quality: int,
    preset: str,
    threads: int,
    options: Mapping[str, str] | None,
    hdr: HdrMetadata | None = None,
    for_hdr: bool = False,
    ten_bits: bool = False,
    try_last: bool = True,
) -> EncoderChoice:
    """Return an encoder that has encoded one frame on this machine, and the ffmpeg that ran it; successes are cached.

    Args:
        settings: Which ffmpeg to use, and the timeout of one trial.
        name: ffmpeg's name, or `auto` for the first of `auto_encoders` that starts. A hardware encoder is tried with
            each available ffmpeg, in the order of `binaries`; any other encoder with the one from `find_ffmpeg`.
        suffix: File suffix of the output, which selects its container.
        before: The final command line from the input to the filters.
        first_frame: The bytes of one frame.
        quality: See `encoder_arguments`.
        preset: See `encoder_arguments`.
        threads: See `encoder_arguments`.
        options: See `encoder_arguments`.
        hdr: See `encoder_arguments`.
        for_hdr: Whether the video is HDR, for which `auto` uses another order.
        ten_bits: Whether the encoder must accept 10-bit samples. ffmpeg would convert them to 8 bits silently.
        try_last: Whether the last candidate is tried too, if it is not a hardware encoder. It has no
            fallback, so a caller that can restart may skip the trial and call again if encoding fails.

    Raises:
        EncoderUnavailableError: The encoder does not start; with `auto`, none does.
        FFmpegNotFoundError: The ffmpeg does not run.
    """
    passed_over: list[Degradation] = []
    last: EncoderUnavailableError | None = None
    candidates = auto_encoders(suffix, hdr=for_hdr) if name == "auto" else (name,)
    if suffix.lower() == ".avi":  # it stores no timestamps: reordered frames would be shown late
        options = {"bf": "0", **(options or {})}
    for candidate in candidates:
        arguments = encoder_arguments(
            candidate, quality=quality, preset=preset, threads=threads, options=options, hdr=hdr
        )
        trial = _Trial(candidate, (*before, *arguments), first_frame, settings.stall_seconds)
        try:
            if is_hardware(candidate):
                ffmpeg = _first_that_starts(trial, settings)
            else:
                ffmpeg = find_ffmpeg(settings)
                if try_last or candidate != candidates[-1]:
                    trial.run(ffmpeg.path, str(ffmpeg))
            if ten_bits:
                _check_ten_bits(ffmpeg, candidate)
        except EncoderUnavailableError as error:
            last = error
            reason = first_reason(error.stderr_tail) if error.stderr_tail else error.message
            message = f"{candidate} does not start on this machine ({reason})"
            if is_hardware(candidate) and not _NVIDIA_DRIVER.exists():
                _log.info("%s; there is no NVIDIA driver, so another encoder is used as requested", message)
            else:
                passed_over.append(Degradation("encoder_unavailable", message))
        else:
            return EncoderChoice(candidate, arguments, ffmpeg, tuple(passed_over))
    raise last or EncoderUnavailableError(f"encoder {name!r} does not start")


def _check_ten_bits(ffmpeg: FFmpeg, name: str) -> None:
    """Raise EncoderUnavailableError unless the encoder accepts 10-bit samples."""
    if not takes_ten_bits(ffmpeg, name):
        raise EncoderUnavailableError(
            f"encoder {name!r} of ffmpeg {ffmpeg} does not support the 10-bit samples of the frames;"
            " use libx265 or libx264"
        )


def try_encoder(settings: Settings, name: str) -> FFmpeg:
    """Encode one small frame with the encoder `name` and return the ffmpeg that ran it.

    Raises:
        EncoderUnavailableError: The encoder does not start on this machine.
        FFmpegNotFoundError: The ffmpeg does not run.
    """
    width, height = _TRIAL_SIZE
    source = ("-f", "rawvideo", "-pixel_format", "yuv420p", "-video_size", f"{width}x{height}", "-i", "pipe:0")
    choice = choose_encoder(
        settings,
        name,
        suffix="",
        before=source,
        first_frame=bytes(width * height * 3 // 2),
        quality=23,
        preset="fast",
        threads=1,
        options=None,
    )
    return choice.ffmpeg


@dataclass(frozen=True, slots=True)
class _Trial:
    """One trial encode of a single frame; its output is discarded."""

    encoder: str
    arguments: tuple[str, ...]
    frame: bytes
    timeout_seconds: float

    def run(self, path: str, described: str) -> None:
        """Encode the frame with the ffmpeg at `path`, unless this trial has already succeeded.

        Args:
            path: Path of the binary.
            described: Description of the binary, for the message.

        Raises:
            EncoderUnavailableError: The encoder does not start.
            FFmpegNotFoundError: The binary does not run.
        """
        command = (path, *QUIET, *self.arguments, "-frames:v", "1", "-f", "null", "-")
        with _lock:
            if command in _started:
                return
        try:
            result = subprocess.run(
                command, input=self.frame, capture_output=True, timeout=self.timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise EncoderUnavailableError(
                f"encoder {self.encoder!r} did not encode its first frame within {self.timeout_seconds:g} s",
                command=command,
            ) from error
        except OSError as error:
            raise FFmpegNotFoundError(f"ffmpeg does not start: {error}", command=command) from error
        if result.returncode != 0:
            stderr = result.stderr.decode("utf-8", "replace").strip()[-_MOST_STDERR_CHARS:]
            raise EncoderUnavailableError(
                f"encoder {self.encoder!r} does not start with these settings in ffmpeg {described} ({path}):"
                f" {first_reason(stderr)}; {_CURE}",
                command=command,
                exit_status=result.returncode,
                stderr_tail=stderr,
            )
        with _lock:
            _started.add(command)


def _first_that_starts(trial: _Trial, settings: Settings) -> FFmpeg:
    """Return the first available ffmpeg that starts the hardware encoder of `trial`.

    Builds require different drivers, so a failure of one does not rule out the next.

    Raises:
        EncoderUnavailableError: None of them starts it.
        FFmpegNotFoundError: No ffmpeg was found.
    """
    failures: dict[Binary, FFmpegError] = {}
    available = binaries(settings) or (find_binary(settings),)
    for binary in [each for each in available if (trial.encoder, each) not in _ruled_out] or available:
        try:
            trial.run(binary.path, f"from {binary.origin}")
            ffmpeg = check_binary(binary)
        except (EncoderUnavailableError, FFmpegNotFoundError) as error:
            failures[binary] = error
        else:
            # The hardware works, so the earlier builds cannot use it; they are not tried again.
            _ruled_out.update((trial.encoder, failed) for failed in failures)
            return ffmpeg
    raise _none_starts(trial.encoder, failures)


def _none_starts(encoder: str, failures: Mapping[Binary, FFmpegError]) -> EncoderUnavailableError:
    """Return one error for all binaries; its stderr tail begins with a line of all reasons."""
    reasons = {
        binary.origin: first_reason(error.stderr_tail) if error.stderr_tail else error.message
        for binary, error in failures.items()
    }
    same = set(reasons.values())
    listed = same.pop() if len(same) == 1 else "; ".join(f"{origin}: {reason}" for origin, reason in reasons.items())
    first = next(iter(failures.values()))
    return EncoderUnavailableError(
        f"encoder {encoder!r} does not start with these settings in any available ffmpeg: {listed}; {_CURE}",
        command=first.command,
        exit_status=first.exit_status,
        stderr_tail="\n".join([listed, *(error.stderr_tail for error in failures.values())])[:_MOST_STDERR_CHARS],
    )
