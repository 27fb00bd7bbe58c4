"""Clips with a flash and a beep each second, to measure whether audio stays in sync with video."""

from __future__ import annotations

import subprocess
import wave
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
from tests.clip_cache import cached
from tests.clips import ffmpeg

from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.media import probe
from reel_modal.settings import Settings

SIZE = (64, 48)
LENGTH_SECONDS = Fraction(1, 5)
PITCH_HZ = 1000
DARK, BRIGHT = 30, 220


def beat_times(fps: Fraction, seconds: int) -> list[Fraction]:
    """Return the time of each beat: the nearest frame to half past every second."""
    return [round((second + Fraction(1, 2)) * fps) / fps for second in range(seconds)]


def make_beats(path: Path, fps: Fraction, *, seconds: int = 5, rate: int = 48000, channels: int = 1) -> Path:
    """Make a dark clip that flashes and beeps for a fifth of a second at each of `beat_times`."""
    beats = beat_times(fps, seconds)
    sound = path.with_suffix(".wav")
    moments = np.arange(seconds * rate) / rate
    on = np.zeros(len(moments), bool)
    for beat in beats:
        on |= (moments >= float(beat)) & (moments < float(beat + LENGTH_SECONDS))
    samples = np.where(on, 0.5 * np.sin(2 * np.pi * PITCH_HZ * moments), 0)
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat((samples * 32767).astype("<i2"), channels).tobytes())
    silent = path.with_name(f"silent_{path.name}")
    key = f"beats {SIZE} {DARK} {BRIGHT} {LENGTH_SECONDS} {fps} {seconds} {path.suffix} {find_ffmpeg()}"
    cached(key, silent, lambda silent: _write_flashes(silent, fps, seconds))
    ffmpeg("-i", silent, "-i", sound, "-map", "0:v", "-map", "1:a", "-c:v", "copy", "-c:a", "aac", path)
    return path


def _write_flashes(silent: Path, fps: Fraction, seconds: int) -> None:
    beats = beat_times(fps, seconds)
    with FramePipe(silent, size=SIZE, fps=fps, pixel_format="yuv420p", encoder="libx264", preset="ultrafast") as pipe:
        planes = [np.full(shape, 128, np.uint8) for shape in ((48, 64), (24, 32), (24, 32))]
        for number in range(round(seconds * fps)):
            lit = any(beat <= number / fps < beat + LENGTH_SECONDS for beat in beats)
            planes[0][:] = BRIGHT if lit else DARK
            pipe.write(tuple(planes))


def flashes(path: Path) -> list[Fraction]:
    """Return when each flash begins, in seconds from the first picture."""
    return list(_flashes(path, path.stat().st_mtime_ns))


@lru_cache
def _flashes(path: Path, _changed_ns: int) -> tuple[Fraction, ...]:
    starts: list[Fraction] = []
    lit = False
    with FrameReader(path, pixel_format="gray8") as reader:
        for frame in reader:
            now = float(frame.image.mean()) > (DARK + BRIGHT) / 2
            if now and not lit:
                starts.append(frame.pts_seconds - reader.media.start_seconds)
            lit = now
    return tuple(starts)


def samples_of(path: Path, rate: int = 48000, channels: int = 1, stream: int = 0) -> np.ndarray:
    """Return the audio from the first picture on, as a player plays it: float32, (samples, channels)."""
    # On the file's own clock, because versions of ffmpeg differ in a file's start time.
    zero = f"asetpts=PTS-({float(probe(path).start_seconds)!r})/TB"
    command = [find_ffmpeg(Settings.from_env()).path, "-v", "error", "-copyts", "-i", path, "-map", f"a:{stream}"]
    command += ["-ac", str(channels), "-af", f"{zero},aresample={rate}:async=1:first_pts=0", "-f", "f32le", "-"]
    done = subprocess.run(command, check=True, capture_output=True, timeout=60)
    return np.frombuffer(done.stdout, np.float32).reshape(-1, channels)


def beeps(path: Path, *, rate: int = 48000, stream: int = 0) -> list[float]:
    """Return when each beep of an audio stream begins, in seconds."""
    return beeps_in(samples_of(path, rate, stream=stream)[:, 0], rate)


def beeps_in(sound: np.ndarray, rate: int = 48000) -> list[float]:
    """Return when each beep in the samples reaches half of its strength; gaps under 60 ms are ignored."""
    width = rate // 200
    strength = np.sqrt(np.convolve(sound * sound, np.ones(width) / width, "same"))
    on = np.flatnonzero(strength > 0.5 * np.percentile(strength[strength > 0.02], 90))
    first = np.flatnonzero(np.diff(on, prepend=-rate) > 0.06 * rate)
    return [float(on[index]) / rate for index in first]


def audio_packets(path: Path) -> list[tuple[float, bytes]]:
    """Return the time in seconds and the bytes of each packet of the first audio stream."""
    with av.open(str(path)) as container:
        return [
            (float(p.pts * p.time_base), bytes(p))
            for p in container.demux(audio=0)
            if p.size and p.pts is not None and p.time_base
        ]
