"""Examine the container that runs this code: system, ffmpeg, encoders, GPU, cores, memory, store and start."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Final

from reel_modal._ffmpeg.binary import binaries, check_binary, first_reason
from reel_modal._ffmpeg.encoders import KNOWN_ENCODERS, try_encoder
from reel_modal._version import VERSION
from reel_modal.errors import FFmpegError, ReelModalError
from reel_modal.settings import Settings, usable_cores
from reel_modal.storage import Storage

__all__ = ["CLOCK", "EVERYTHING", "examine_container"]

EVERYTHING: Final = "everything"
CLOCK: Final = "clock"
"""Only the time, for a second call, which finds a container that has started."""

_SAMPLE_BYTES: Final = 8 << 20
_FOLDER: Final = "reel-modal-doctor"
_GPU_SECONDS: Final = 20.0
_GPU_QUERY: Final = ("--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
_MEMORY_LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def examine_container(what: str, settings: Settings, *, startup_seconds: float) -> dict[str, object]:
    """Return facts about this container in JSON types; what fails is named and does not stop the rest.

    An object of 8 MiB is written to the store, read and deleted, under `reel-modal-doctor/`.

    Args:
        what: `EVERYTHING` or `CLOCK`.
        settings: Settings of the container.
        startup_seconds: Seconds from the start of its process to the function; 0 if it has run a call before.
    """
    began = time.time()
    if what == CLOCK:
        return {"unix_time": began}
    encoders, first_encode_seconds = _encoders(settings)
    return {
        "unix_time_at_start": began,
        "package_version": VERSION,
        "system": _system(),
        "cores": {"seen": os.cpu_count(), "usable": usable_cores(), "reserved": settings.cpu},
        "memory": _memory(),
        "gpu": _gpu(),
        "ffmpeg": _builds(settings),
        "encoders": encoders,
        "store": _store(settings),
        "cold_start": {"process_to_function_seconds": startup_seconds, "first_encode_seconds": first_encode_seconds},
        "unix_time_at_end": time.time(),
    }


def _system() -> dict[str, object]:
    """Return the base image, the Python and the kernel."""
    try:
        image = platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        image = "unknown"
    # gVisor answers with a fixed version of Linux, and its processes have no peak of memory.
    status = _text("/proc/self/status")
    return {
        "image": image,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "kernel": _text("/proc/version") or platform.release(),
        "gvisor": bool(status) and "VmHWM" not in status,
    }


def _memory() -> dict[str, object]:
    """Return the memory of the machine and the limit of the container, in bytes; None if unknown or unlimited."""
    total = next((line.split()[1] for line in _text("/proc/meminfo").splitlines() if line.startswith("MemTotal")), "")
    limit = next((text for path in _MEMORY_LIMITS if (text := _text(path))), "")
    total_bytes = int(total) * 1024 if total.isdigit() else None
    limit_bytes = int(limit) if limit.isdigit() else None
    if limit_bytes is not None and total_bytes is not None and limit_bytes > total_bytes:
        limit_bytes = None  # a very large number stands for no limit
    return {"total_bytes": total_bytes, "limit_bytes": limit_bytes}


def _gpu() -> dict[str, object]:
    """Return the GPUs and their driver, as nvidia-smi reports them."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {"found": False, "reason": "nvidia-smi not found"}
    try:
        ran = subprocess.run(
            [program, *_GPU_QUERY], capture_output=True, text=True, timeout=_GPU_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"found": False, "reason": str(error)}
    if ran.returncode != 0:
        return {"found": False, "reason": (ran.stderr or ran.stdout).strip()[-300:]}
    names = ("name", "driver", "memory")
    rows = [dict(zip(names, line.split(", "), strict=False)) for line in ran.stdout.strip().splitlines()]
    return {"found": bool(rows), "gpus": rows}


def _builds(settings: Settings) -> list[str]:
    """Return each ffmpeg with its build, or why it does not run."""
    found = []
    for binary in binaries(settings):
        try:
            found.append(str(check_binary(binary)))
        except FFmpegError as error:
            found.append(f"{binary.origin}: {error.message}")
    return found


def _encoders(settings: Settings) -> tuple[dict[str, dict[str, object]], float]:
    """Encode a frame with each encoder; return the outcomes, and the seconds of the first one that worked."""
    outcomes: dict[str, dict[str, object]] = {}
    first_seconds = 0.0
    for name in KNOWN_ENCODERS:
        began = time.monotonic()
        try:
            outcomes[name] = {"encodes": True, "ffmpeg": str(try_encoder(settings, name))}
        except FFmpegError as error:
            reason = first_reason(error.stderr_tail) if error.stderr_tail else error.message
            outcomes[name] = {"encodes": False, "reason": reason}
        else:
            first_seconds = first_seconds or time.monotonic() - began
    return outcomes, first_seconds


def _store(settings: Settings) -> dict[str, object]:
    """Write, read and delete an object; return the throughput in bytes per second."""
    if settings.store_url is None:
        return {"works": False, "reason": "REEL_MODAL_STORE_URL is not set"}
    key, sample = f"{_FOLDER}/{uuid.uuid4().hex}", os.urandom(_SAMPLE_BYTES)
    moments = [time.monotonic()]
    try:
        storage = Storage.from_url(settings.store_url)
        moments.append(time.monotonic())
        try:
            storage.write_bytes(key, sample)
            moments.append(time.monotonic())
            same = storage.read_bytes(key) == sample
            moments.append(time.monotonic())
        finally:
            storage.delete(key)
    except ReelModalError as error:
        return {"works": False, "reason": str(error)}
    opened, written, read = (max(after - before, 1e-9) for before, after in pairwise(moments))
    return {
        "works": same,
        "kind": settings.store_url.partition(":")[0],
        "open_seconds": opened,
        "write_bytes_per_second": _SAMPLE_BYTES / written,
        "read_bytes_per_second": _SAMPLE_BYTES / read,
    }


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
