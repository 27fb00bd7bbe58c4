"""Which encoder to use, in which ffmpeg and with what options: chosen by encoding one frame, not by lists of names.

It must not know files or jobs.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from reel_modal.config import Settings
from reel_modal.errors import ConfigError, EncoderUnavailableError, FFmpegError, FFmpegNotFoundError
from reel_modal.media.ffmpeg_binary import (
    Binary,
    FFmpeg,
    binaries,
    check_binary,
    find_binary,
    find_ffmpeg,
    first_reason,
    takes_ten_bits,
)
from reel_modal.media.ffmpeg_process import QUIET
from reel_modal.media.hdr import HdrMetadata
from reel_modal.schema.containers import auto_encoders
from reel_modal.schema.degradation import Degradation

__all__ = [
    "KNOWN_ENCODERS",
    "EncoderChoice",
    "choose_encoder",
    "encoder_arguments",
    "is_hardware",
    "try_encoder",
]

KNOWN_ENCODERS: Final = ("h264_nvenc", "hevc_nvenc", "libx264", "libx265", "libvpx-vp9", "libsvtav1", "ffv1")
"""Encoders whose quality and preset options are known here; any other takes `encoder_options` alone."""

T = TypeVar("T")

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
    "placebo": "p7",
}

# The others count from 0 (slow) on. VP9's fastest words need its other mode, which has no more than one pass.
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
_VPX_WORST: Final = 63  # of AV1 as well

# What an encoder needs besides `-threads`, so that equal frames make equal bytes. If x264's lookahead runs in a
# thread beside the encoder, up to a sixth of the encodes on a busy machine have other bytes. Without it the encoder
# waits for the lookahead, so two threads share the analysis of a picture. The other two encoders start a pool of
# threads by the cores of the machine.
_REPEATABLE: Final = {
    "libx264": ("x264-params", "sync-lookahead=0:lookahead-threads=2"),
    "libx265": ("x265-params", "pools={threads}"),
    "libsvtav1": ("svtav1-params", "lp={threads}"),
}

_TRIAL_SIZE = (320, 180)  # NVENC takes nothing narrower than 145 pixels

# The last part of ffmpeg's names of hardware encoders.
_HARDWARE: Final = frozenset({"nvenc", "qsv", "vaapi", "videotoolbox", "amf", "mf", "vulkan", "v4l2m2m", "d3d12va"})
_MOST_WORDS: Final = 4000
_CURE: Final = (
    "take another encoder (`python -m reel_modal doctor` lists those that start), or name an ffmpeg that was built"
    " with this one in REEL_MODAL_FFMPEG"
)

_lock = threading.Lock()
_started: set[tuple[str, ...]] = set()
_outdone: set[tuple[str, Binary]] = set()


@dataclass(frozen=True, slots=True)
class EncoderChoice:
    """The encoder that will be used, and what was not as asked.

    Attributes:
        name: ffmpeg's name of the encoder.
        arguments: Its options on the command line, with `-c:v`.
        ffmpeg: The ffmpeg that starts it.
        passed_over: Encoders that were tried before it and did not start, each with its reason.
    """

    name: str
    arguments: tuple[str, ...]
    ffmpeg: FFmpeg
    passed_over: tuple[Degradation, ...] = ()


def is_hardware(name: str) -> bool:
    """Return whether the encoder `name` needs hardware besides the CPU; its bytes are not promised to be equal."""
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

    Args:
        name: ffmpeg's name.
        quality: Constant quality, 0 (best) to 51: x264's and x265's `crf`, NVENC's `cq`; as a share of 63 the `crf`
            of VP9 and AV1.
        preset: x264's word for speed against size, `ultrafast` to `veryslow`.
        threads: Of the encoder, whatever the cores of this machine are.
        options: More options of the encoder, such as `{"g": "48"}`; they come last and win.
        hdr: What is written of the light of an HDR picture, if the encoder can.

    Raises:
        ConfigError: The encoder has no such preset.
    """
    arguments = ["-c:v", name, "-threads:v", str(threads)]
    options = dict(options or {})
    if hdr is not None and (said := hdr.parameters(name)) is not None:
        option, parameters = said
        words = [f"{key}={value}" for key, value in parameters.items()]
        options[option] = ":".join(filter(None, (*words, options.get(option))))
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
        deadline, speed = _meaning(_VP9_SPEEDS, preset, name)
        # Tiles and rows that are coded at once are a matter of the file, so their number does not follow the threads.
        arguments += ["-deadline", deadline, "-cpu-used", str(speed), "-row-mt", "1", "-tile-columns", "2"]
        arguments += ["-crf", str(_of_63(quality)), "-b:v", "0"]
    elif name == "libsvtav1":
        arguments += ["-preset", str(_meaning(_AV1_PRESETS, preset, name)), "-crf", str(_of_63(quality))]
    if name in {"libx265", "hevc_nvenc"}:
        arguments += ["-tag:v", "hvc1"]  # the sample entry that Apple's players accept
    for key, value in options.items():
        arguments += [f"-{key}", value]
    return tuple(arguments)


def _meaning(presets: Mapping[str, T], preset: str, name: str) -> T:
    """Return what `preset` is to the encoder `name`.

    Raises:
        ConfigError: It is nothing.
    """
    if preset not in presets:
        raise ConfigError(f"preset is {preset!r}, which {name} does not have; use one of {', '.join(presets)}")
    return presets[preset]


def _of_63(quality: int) -> int:
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
    """Return an encoder that has just encoded one frame here, and the ffmpeg that did; success is remembered.

    Args:
        settings: Which ffmpeg, and how long one try may take.
        name: ffmpeg's name, or `auto` for the first of `auto_encoders` that starts. A hardware encoder is tried with
            each ffmpeg at hand, in the order of `binaries`; any other with the one that `find_ffmpeg` returns.
        suffix: Of the output, which names its container.
        before: The command line from the input to the filters, as it will be used.
        first_frame: The bytes of one frame.
        quality: See `encoder_arguments`.
        preset: See `encoder_arguments`.
        threads: See `encoder_arguments`.
        options: See `encoder_arguments`.
        hdr: See `encoder_arguments`.
        for_hdr: Whether the picture is HDR, for which `auto` has another order.
        ten_bits: Whether the encoder must take samples of 10 bits. ffmpeg would make 8 of them without a word.
        try_last: Whether the last candidate is tried as well, if it is not a hardware encoder. Nothing could take its
            place, so a caller that can start again may skip the trial, and ask again if that fails.

    Raises:
        EncoderUnavailableError: It does not start; with `auto`, none does.
        FFmpegNotFoundError: The ffmpeg does not run.
    """
    passed_over: list[Degradation] = []
    last: EncoderUnavailableError | None = None
    candidates = auto_encoders(suffix, hdr=for_hdr) if name == "auto" else (name,)
    if suffix.lower() == ".avi":  # it keeps no times: pictures that are stored out of order would be shown late
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
            message = f"{candidate} does not start here ({reason})"
            passed_over.append(Degradation("encoder_unavailable", message))
        else:
            return EncoderChoice(candidate, arguments, ffmpeg, tuple(passed_over))
    raise last or EncoderUnavailableError(f"encoder {name!r} does not start")


def _check_ten_bits(ffmpeg: FFmpeg, name: str) -> None:
    """Raise EncoderUnavailableError unless the encoder takes samples of 10 bits."""
    if not takes_ten_bits(ffmpeg, name):
        raise EncoderUnavailableError(
            f"encoder {name!r} of ffmpeg {ffmpeg} takes no samples of 10 bits, which the frames have;"
            " take libx265 or libx264"
        )


def try_encoder(settings: Settings, name: str) -> FFmpeg:
    """Encode one small frame with the encoder `name`, and return the ffmpeg that did.

    Raises:
        EncoderUnavailableError: It does not start here.
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
    """One frame, encoded into nothing."""

    encoder: str
    arguments: tuple[str, ...]
    frame: bytes
    timeout_seconds: float

    def run(self, path: str, described: str) -> None:
        """Encode it with the ffmpeg at `path`, unless that has been done.

        Args:
            path: Path of the binary.
            described: What it is, for the message.

        Raises:
            EncoderUnavailableError: The encoder does not start.
            FFmpegNotFoundError: The binary does not run.
        """
        command = (path, *QUIET, *self.arguments, "-frames:v", "1", "-f", "null", "-")
        with _lock:
            if command in _started:
                return
        try:
            done = subprocess.run(
                command, input=self.frame, capture_output=True, timeout=self.timeout_seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise EncoderUnavailableError(
                f"encoder {self.encoder!r} gave nothing for {self.timeout_seconds:g} s on its first frame",
                command=command,
            ) from error
        except OSError as error:
            raise FFmpegNotFoundError(f"ffmpeg does not start: {error}", command=command) from error
        if done.returncode != 0:
            words = done.stderr.decode("utf-8", "replace").strip()[-_MOST_WORDS:]
            raise EncoderUnavailableError(
                f"encoder {self.encoder!r} does not start with these settings in ffmpeg {described} ({path}):"
                f" {first_reason(words)}; {_CURE}",
                command=command,
                exit_status=done.returncode,
                stderr_tail=words,
            )
        with _lock:
            _started.add(command)


def _first_that_starts(trial: _Trial, settings: Settings) -> FFmpeg:
    """Return the first ffmpeg at hand that starts the hardware encoder of `trial`.

    Builds ask for different drivers, so one that cannot use the hardware does not decide for the next.

    Raises:
        EncoderUnavailableError: None of them starts it.
        FFmpegNotFoundError: No ffmpeg was found.
    """
    failures: dict[Binary, FFmpegError] = {}
    found = binaries(settings) or (find_binary(settings),)
    for binary in [each for each in found if (trial.encoder, each) not in _outdone] or found:
        try:
            trial.run(binary.path, f"from {binary.origin}")
            ffmpeg = check_binary(binary)
        except (EncoderUnavailableError, FFmpegNotFoundError) as error:
            failures[binary] = error
        else:
            # The hardware works, so the builds before this one cannot use it: they are not tried again.
            _outdone.update((trial.encoder, failed) for failed in failures)
            return ffmpeg
    raise _none_starts(trial.encoder, failures)


def _none_starts(encoder: str, failures: Mapping[Binary, FFmpegError]) -> EncoderUnavailableError:
    """Return one error for all binaries, whose last words begin with a line of all reasons."""
    reasons = {
        binary.origin: first_reason(error.stderr_tail) if error.stderr_tail else error.message
        for binary, error in failures.items()
    }
    same = set(reasons.values())
    listed = same.pop() if len(same) == 1 else "; ".join(f"{origin}: {reason}" for origin, reason in reasons.items())
    first = next(iter(failures.values()))
    return EncoderUnavailableError(
        f"encoder {encoder!r} does not start with these settings in any ffmpeg here: {listed}; {_CURE}",
        command=first.command,
        exit_status=first.exit_status,
        stderr_tail="\n".join([listed, *(error.stderr_tail for error in failures.values())])[:_MOST_WORDS],
    )
