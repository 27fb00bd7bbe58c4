"""Table of each function's resources on Modal: GPU, CPU, memory, timeouts, image and secrets.

Pure: does not import modal; `functions.app` creates a `modal.App` from the table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, TypeVar

from reel_modal.errors import ConfigError
from reel_modal.schema.encoding import ENCODER_THREADS
from reel_modal.settings import Settings

__all__ = [
    "EVENTS_QUEUE",
    "SHIPPED_SUFFIXES",
    "SPECS",
    "SUBMITTED_AT",
    "FunctionSpec",
    "ImageSpec",
    "app_name",
    "chosen_functions",
    "load_specs",
]

T = TypeVar("T")

EVENTS_QUEUE: Final = "reel-modal-events"
"""Name of the `modal.Queue` for the events of all jobs, with one partition per call."""

SHIPPED_SUFFIXES: Final = (".py", ".onnx")
"""Suffixes of the package files that a deployment sends: code and networks."""

SUBMITTED_AT: Final = "submitted_at"
"""Key of the submission's Unix time, which is sent to a container together with the request's fields."""


def app_name(settings: Settings) -> str:
    """Return the name of the Modal app; each environment has a separate app.

    Example:
        >>> app_name(Settings(environment="staging"))
        'reel-modal-staging'
    """
    environment = settings.environment or "production"
    return settings.app if environment == "production" else f"{settings.app}-{environment}"


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """Installed packages of a container image, besides this package's own source.

    Attributes:
        python_version: Python version; pickled errors are exchanged with the host's Python.
        apt: Debian packages, installed without recommended packages.
        pip: Pinned Python packages.
        ffmpeg: Version of the imageio-ffmpeg binary, used for everything except hardware encoding and decoding.
    """

    python_version: str = "3.11"
    apt: tuple[str, ...] = ()
    pip: tuple[str, ...] = (
        "av==18.1.0",
        "imageio-ffmpeg==0.8.1",
        "numpy==2.4.6",
        "obstore==0.12.1",
        "opencv-python-headless==5.0.0.93",
        "stamina==26.1.0",
        "typing-extensions==4.16.0",
    )
    ffmpeg: str = "9.0.2"

    @property
    def pip_without_gpu(self) -> tuple[str, ...]:
        """The packages without CUDA's libraries, which take gigabytes, for tests of the image without a GPU."""
        return tuple(requirement.replace(_ON_GPU, "onnxruntime") for requirement in self.pip)


_ON_GPU: Final = "onnxruntime-gpu[cuda,cudnn]"

_GPU_IMAGE: Final = replace(
    ImageSpec(),
    # ONNX Runtime with CUDA 13; its extras install CUDA and cuDNN, so an NVIDIA base image is not needed.
    # onnx reads networks that the operator registered.
    pip=(*ImageSpec().pip, "onnx==1.23.2", f"{_ON_GPU}==1.31.1", "platformdirs==4.14.8"),
)


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """Resources of one function. CPU and memory are always set, because Modal's default is a fraction of a core.

    Attributes:
        name: Name of the function, in this package and on Modal.
        gpu: GPU types in order of preference; empty for none.
        cpu: Reserved cores.
        memory_mb: Reserved memory in MiB.
        timeout_seconds: Maximum duration of one job.
        startup_timeout_seconds: Maximum startup time of a container.
        retries: 0, because a retry of a refused input fails too. Modal itself restarts a job whose machine was
            preempted; a host retries if the error is `retryable`.
        max_containers: Maximum number of containers at the same time, which limits the cost.
        scaledown_window_seconds: Time that an idle container waits for the next job.
        image: Installed packages. With a GPU they include Debian's ffmpeg, whose NVENC and NVDEC work with older
            drivers than those of the pinned ffmpeg.
        secrets: Names of Modal secrets that contain the store's URL and its credentials.
    """

    name: str
    gpu: tuple[str, ...]
    cpu: float
    memory_mb: int
    timeout_seconds: int
    startup_timeout_seconds: int = 120
    retries: int = 0
    max_containers: int = 10
    scaledown_window_seconds: int = 60
    image: ImageSpec = ImageSpec()
    secrets: tuple[str, ...] = ("reel-modal-storage",)


_HARDWARE_APT: Final = ("ffmpeg",)


def _fitted(spec: FunctionSpec) -> FunctionSpec:
    """Return `spec` with the Debian packages that its GPU needs."""
    return replace(spec, image=replace(spec.image, apt=_HARDWARE_APT if spec.gpu else ()))


SPECS: Final[Mapping[str, FunctionSpec]] = MappingProxyType(
    {
        spec.name: _fitted(spec)
        for spec in (
            # The T4 is only for NVENC: drawing is CPU work, and x264 takes four fifths of the time.
            FunctionSpec("render_overlay", gpu=("T4",), cpu=ENCODER_THREADS, memory_mb=4096, timeout_seconds=600),
            # No GPU: 180 frames took 16.6 s on a T4 and 10.9 s on a CPU container, at a sixth of the price.
            FunctionSpec("process_framing", gpu=(), cpu=ENCODER_THREADS, memory_mb=4096, timeout_seconds=600),
            # Besides the GPU, four cores for x264; if ffmpeg supports it, the A10G's NVENC encodes instead.
            FunctionSpec(
                "apply_upscale",
                gpu=("A10G",),
                cpu=ENCODER_THREADS,
                memory_mb=8192,
                timeout_seconds=900,
                image=_GPU_IMAGE,
            ),
        )
    }
)


def load_specs(env: Mapping[str, str] | None = None) -> dict[str, FunctionSpec]:
    """Return the table with the changes that environment variables make, for example to the GPU.

    For `render_overlay` the variables are REEL_MODAL_RENDER_OVERLAY_GPU (such as `L4`, a list `L4,T4` in order of
    preference, or `none`), _CPU, _MEMORY_MB, _TIMEOUT_SECONDS, _MAX_CONTAINERS; REEL_MODAL_SECRETS names the
    secrets of all functions, separated by commas, or `none`.

    Args:
        env: Default: this process's environment.

    Raises:
        ConfigError: A value is not valid or out of range; the message names the variable.

    Example:
        >>> load_specs({"REEL_MODAL_APPLY_UPSCALE_GPU": "L40S,A10G"})["apply_upscale"].gpu
        ('L40S', 'A10G')
    """
    source = os.environ if env is None else env
    specs = {}
    for name, spec in SPECS.items():
        prefix = f"REEL_MODAL_{name.upper()}"
        chosen = replace(
            spec,
            gpu=_read(source, f"{prefix}_GPU", _names, spec.gpu),
            cpu=_read(source, f"{prefix}_CPU", _cores, spec.cpu),
            memory_mb=_read(source, f"{prefix}_MEMORY_MB", _whole(128, 344_064), spec.memory_mb),
            timeout_seconds=_read(source, f"{prefix}_TIMEOUT_SECONDS", _whole(1, 86_400), spec.timeout_seconds),
            max_containers=_read(source, f"{prefix}_MAX_CONTAINERS", _whole(1, 1000), spec.max_containers),
            secrets=_read(source, "REEL_MODAL_SECRETS", _names, spec.secrets),
        )
        specs[name] = _fitted(chosen)
    return specs


def chosen_functions(env: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the functions of a deployment: those that REEL_MODAL_FUNCTIONS names, or all.

    Raises:
        ConfigError: A function is unknown.
    """
    names = _read(os.environ if env is None else env, "REEL_MODAL_FUNCTIONS", _names, tuple(SPECS))
    if unknown := [name for name in names if name not in SPECS]:
        raise ConfigError(f"REEL_MODAL_FUNCTIONS: unknown: {', '.join(unknown)}; known are {', '.join(SPECS)}")
    return names


def _read(source: Mapping[str, str], variable: str, read: Callable[[str], T], default: T) -> T:
    text = source.get(variable, "").strip()
    if not text:
        return default
    try:
        return read(text)
    except ValueError as error:
        raise ConfigError(f"{variable}={text!r}: {error}") from error


def _names(text: str) -> tuple[str, ...]:
    if text.lower() == "none":
        return ()
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise ValueError("write a name, names separated by commas, or none")
    return names


def _cores(text: str) -> float:
    cores = float(text)
    if not 0.125 <= cores <= 64:
        raise ValueError("must be 0.125 to 64 cores")
    return cores


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(f"must be {least} to {most}")
        return value

    return read
