"""Bring audio to a loudness (EBU R128) in two passes: measure it, then apply one gain and limit its true peaks.

ffmpeg's `ebur128` filter measures. The limiter finds peaks between samples as ITU-R BS.1770 describes, at four times
the sample rate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from reel_modal._ffmpeg.audio_tempo import ChannelLayout, Samples
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._ffmpeg.process import QUIET, FFmpegProcess
from reel_modal.media.open import file_url
from reel_modal.schema import Degradation
from reel_modal.settings import Settings

__all__ = ["HIGHEST_PEAK_DB", "MOST_GAIN_DB", "Measured", "encode_at_loudness", "limited", "measure"]

HIGHEST_PEAK_DB: Final = -1.0
"""Highest true peak of an output, in dBTP."""

MOST_GAIN_DB: Final = 30.0
"""Highest gain in decibels; more would only make noise audible."""

_SILENCE_LUFS: Final = -70.0  # the absolute gate of BS.1770
_TOLERANCE_LU: Final = 0.5
_CLOSE_LU: Final = 0.25
# Lossy codecs raise peaks, and ebur128 rounds them to 0.1 dB.
_MARGIN_DB: Final = 0.3
_ROUNDING_DB: Final = 0.1
_MOST_ENCODES: Final = 6
_MOST_LOWERED: Final = 3
_READ_BYTES: Final = 1 << 18
_BLOCK: Final = 48000
_HALF_WINDOW: Final = 240
"""Samples before and after a peak in which the limiter changes its gain: 5 ms."""

_TAPS: Final = 24
_OVERSAMPLING: Final = 4
_REACH: Final = 2 * _HALF_WINDOW + _TAPS
_NUMBER: Final = r"(-?(?:[0-9.]+|inf|nan))"
_INTEGRATED: Final = re.compile(rf"^\s*I:\s*{_NUMBER}\s*LUFS")
_PEAK: Final = re.compile(rf"^\s*Peak:\s*{_NUMBER}\s*dBFS")


@dataclass(frozen=True, slots=True)
class Measured:
    """Loudness of a file.

    Attributes:
        lufs: Integrated loudness; None if it is silent or shorter than 0.4 s.
        peak_db: True peak in dBTP; -inf if it is silent.
    """

    lufs: float | None
    peak_db: float

    @property
    def over_db(self) -> float:
        """How far the true peak may be above its limit in decibels; it is within it if this is 0 or less."""
        return self.peak_db + _ROUNDING_DB - HIGHEST_PEAK_DB

    def missing(self, target_lufs: float) -> float:
        """Return how many LU louder it should be; silence counts as the gate of the measurement."""
        return target_lufs - (_SILENCE_LUFS if self.lufs is None else self.lufs)


class _Summary:
    """Reads the summary that `ebur128` writes to stderr."""

    def __init__(self) -> None:
        self.lufs: float | None = None
        self.peak_db: float | None = None

    def take(self, line: str) -> str:
        """Read one line; the measurement is not a message."""
        if found := _INTEGRATED.match(line):
            self.lufs = float(found[1])
        elif found := _PEAK.match(line):
            self.peak_db = float(found[1])
        else:
            return line
        return ""

    def end(self) -> None:
        """Nothing is left to read."""


def measure(source: Sequence[str], *, settings: Settings, check: Callable[[], None]) -> Measured:
    """Return the integrated loudness and the true peak of the first audio stream of an input.

    Args:
        source: The options that open the input.
        settings: Which ffmpeg to use, and the stall timeout.
        check: Called regularly; it may raise an exception to stop.

    Raises:
        FFmpegError: The audio could not be decoded.
    """
    summary = _Summary()
    command = (
        *(find_ffmpeg(settings).path, *QUIET, "-loglevel", "info", *source, "-map", "0:a:0"),
        *("-filter:a", "ebur128=peak=true:framelog=verbose", "-f", "f32le", "pipe:1"),
    )
    process = FFmpegProcess(command, stdout=True, stall_seconds=settings.stall_seconds, sink=summary)
    try:
        buffer = memoryview(bytearray(_READ_BYTES))
        while process.read_into(buffer) == len(buffer):
            check()
        if process.stalled or process.finish() != 0 or summary.lufs is None or summary.peak_db is None:
            raise process.error("the loudness could not be measured")
    finally:
        process.kill()
    return Measured(summary.lufs if summary.lufs > _SILENCE_LUFS else None, summary.peak_db)


def encode_at_loudness(
    samples: npt.NDArray[np.float32],
    raw: Path,
    encoded: Path,
    *,
    target_lufs: float,
    rate_hz: int,
    layout: ChannelLayout,
    encode: Callable[[Generator[Samples]], None],
    settings: Settings,
    check: Callable[[], None],
) -> tuple[Degradation, ...]:
    """Encode audio with the gain that reaches a loudness, and verify the encoded file.

    A file that misses the target or has too high peaks, because its peaks were limited or the codec changed them, is
    encoded again with another gain and a lower limit.

    Args:
        samples: All samples, which `raw` contains as float32; they may exceed full scale.
        raw: The file of the samples.
        encoded: The file that `encode` writes.
        target_lufs: Integrated loudness to reach.
        rate_hz: Sample rate.
        layout: Channel layout.
        encode: Encodes samples into `encoded`.
        settings: Which ffmpeg to use, and the stall timeout.
        check: Called regularly; it may raise an exception to stop.

    Returns:
        A note if the target was not reached.

    Raises:
        FFmpegError: The audio could not be measured or encoded.
    """
    pcm = ("-f", "f32le", "-ar", str(rate_hz), "-channel_layout", layout.name, "-i", file_url(raw))
    source = measure(pcm, settings=settings, check=check)
    if source.lufs is None:
        encode(limited(samples, 0, HIGHEST_PEAK_DB - _MARGIN_DB))
        return (_missed("the audio is silent or shorter than 0.4 s, so it has no loudness"),)
    gain_db, limit_db = min(MOST_GAIN_DB, target_lufs - source.lufs), HIGHEST_PEAK_DB - _MARGIN_DB
    missed_before = float("inf")

    def made(gain_db: float, limit_db: float) -> Measured:
        encode(limited(samples, gain_db, limit_db))
        return measure(("-i", file_url(encoded)), settings=settings, check=check)

    for _ in range(_MOST_ENCODES):
        last = gain_db, limit_db
        result = made(*last)
        missing, over_db = result.missing(target_lufs), result.over_db
        wanted_db = min(MOST_GAIN_DB, gain_db + missing)
        # More gain is of no use if the limiter takes it away again.
        stuck = wanted_db == gain_db or abs(missing) > missed_before - _ROUNDING_DB
        if over_db <= 0 and (abs(missing) <= _CLOSE_LU or stuck):
            break
        missed_before = abs(missing)
        if over_db > 0:
            # A codec also raises peaks that are far below the limit.
            limit_db, missed_before = min(limit_db, source.peak_db + gain_db) - over_db, float("inf")
        gain_db = wanted_db
    for _ in range(_MOST_LOWERED):
        if result.over_db <= 0:
            break
        # The peaks come first. With both lower, the samples are the same, but softer, and so are their peaks.
        last = last[0] - result.over_db, last[1] - result.over_db
        result = made(*last)
    return tuple(_notes(result, target_lufs))


def _notes(result: Measured, target_lufs: float) -> Iterator[Degradation]:
    """Yield a note if a file misses the loudness or the limit of its peaks."""
    missing = result.missing(target_lufs)
    if abs(missing) > _TOLERANCE_LU:
        yield _missed(
            f"the loudness is {target_lufs - missing:.1f} LUFS in place of {target_lufs:g}, with a gain of at most"
            f" {MOST_GAIN_DB:g} dB and true peaks of at most {HIGHEST_PEAK_DB:g} dBTP"
        )
    if result.peak_db > HIGHEST_PEAK_DB:
        yield _missed(f"the true peak is {result.peak_db:.1f} dBTP in place of {HIGHEST_PEAK_DB:g}")


def _missed(message: str) -> Degradation:
    return Degradation("loudness_missed", message)


def limited(samples: npt.NDArray[np.float32], gain_db: float, limit_db: float) -> Generator[Samples]:
    """Yield samples with a gain; near true peaks above a limit, the gain is lower.

    Args:
        samples: float32, (samples, channels).
        gain_db: Gain in decibels.
        limit_db: Limit of the true peaks in dBTP. The gain changes within 5 ms before and after a peak, in all
            channels alike.
    """
    gain, limit = 10 ** (gain_db / 20), 10 ** (limit_db / 20)
    for start in range(0, len(samples), _BLOCK):
        end = min(len(samples), start + _BLOCK)
        first, last = max(0, start - _REACH), min(len(samples), end + _REACH)
        missing = (_REACH - (start - first), _REACH - (last - end))
        block = np.pad(samples[first:last].astype(np.float64) * gain, (missing, (0, 0)))
        peaks = _true_peaks(block)
        if peaks.max() > limit:
            block *= _gains(peaks, limit)[:, None]
        yield block[_REACH:-_REACH].astype(np.float32)


def _gains(peaks: npt.NDArray[np.float64], limit: float) -> npt.NDArray[np.float64]:
    """Return smooth gains, at each sample low enough for its peak."""
    width = 2 * _HALF_WINDOW + 1
    needed = np.minimum(1, limit / np.maximum(peaks, limit))
    around = np.pad(needed, _HALF_WINDOW, constant_values=1)
    lowest: npt.NDArray[np.float64] = np.lib.stride_tricks.sliding_window_view(around, width).min(axis=1)
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(lowest, _HALF_WINDOW, mode="edge")
    return np.convolve(padded, window / window.sum(), "valid")


def _true_peaks(samples: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return for each sample the highest absolute value at it and up to the next one, of all channels."""
    peaks: npt.NDArray[np.float64] = np.abs(samples).max(axis=1)
    for taps in _PHASES:
        between = [np.abs(np.convolve(channel, taps, "same")) for channel in samples.T]
        peaks = np.maximum(peaks, np.max(between, axis=0))
    return peaks


def _phases() -> tuple[npt.NDArray[np.float64], ...]:
    """Return the filters that interpolate a quarter, a half and three quarters after each sample."""
    places = np.arange(_TAPS + 1) - _TAPS // 2
    filters = []
    for phase in range(1, _OVERSAMPLING):
        shifted = places + phase / _OVERSAMPLING
        taps = np.sinc(shifted) * np.cos(np.pi * shifted / (_TAPS + 2)) ** 2
        filters.append(taps / taps.sum())
    return tuple(filters)


_PHASES: Final = _phases()
