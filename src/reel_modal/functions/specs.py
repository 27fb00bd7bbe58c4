"""Resources of a function on Modal: GPU, CPU, memory, timeouts, image and secrets.

Pure: does not import modal; `functions.app` creates a `modal.App` from the resources.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Final, TypeVar

from reel_modal.errors import ConfigError
from reel_modal.settings import Settings

__all__ = [
    "COORDINATOR_SUFFIX",
    "EVENTS_QUEUE",
    "LONGEST_TIMEOUT_SECONDS",
    "SEGMENTS_SUFFIX",
    "SHIPPED_SUFFIXES",
    "SUBMITTED_AT",
    "FunctionSpec",
    "ImageSpec",
    "SegmentSpec",
    "app_name",
    "chosen_functions",
    "resource_problem",
    "spec_from_env",
    "specs_from_env",
]

T = TypeVar("T")
N = TypeVar("N", int, float)

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


_BASE_PACKAGES: Final = (
    "av==18.1.0",
    "imageio-ffmpeg==0.8.1",
    "numpy==2.4.6",
    "obstore==0.12.1",
    "opencv-python-headless==5.0.0.93",
    "stamina==26.1.0",
    "typing-extensions==4.16.0",
)
"""Packages of every image: those that this library needs in a container."""

# Modal's own base has compilers, and its Debian depends on the age of the workspace.
_BASES: Final[Mapping[str, str]] = MappingProxyType({"3.11": "python:3.11.14-slim-trixie"})
_HARDWARE_APT: Final = ("ffmpeg",)
_ON_GPU: Final = "onnxruntime-gpu[cuda,cudnn]"


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """Installed packages of a container image, besides the source of the functions.

    Attributes:
        python_version: Python version; pickled errors are exchanged with the host's Python.
        apt: Debian packages, installed without recommended packages. The image has no compiler: a Python package
            without a wheel may need `build-essential`.
        pip: Pinned Python packages, besides those that this library needs.
        ffmpeg: Version of the imageio-ffmpeg binary, used for everything except hardware encoding and decoding.

    Raises:
        ConfigError: A Python package is not pinned, such as `pillow==12.0.0`.
    """

    python_version: str = "3.11"
    apt: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    ffmpeg: str = "9.0.2"

    def __post_init__(self) -> None:
        if unpinned := [package for package in self.pip if "==" not in package and " @ " not in package]:
            raise ConfigError(f"image: {unpinned[0]!r} is not pinned; write the version, such as pillow==12.0.0")

    @property
    def base(self) -> str:
        """The image from Docker Hub on which it is built: Debian 13 with Python, without compilers."""
        return _BASES.get(self.python_version, f"python:{self.python_version}-slim-trixie")

    @property
    def packages(self) -> tuple[str, ...]:
        """All Python packages of the image."""
        own = {_package_name(requirement) for requirement in self.pip}
        base = (requirement for requirement in _BASE_PACKAGES if _package_name(requirement) not in own)
        return (*base, *self.pip)

    @property
    def packages_without_gpu(self) -> tuple[str, ...]:
        """The packages without CUDA's libraries, which take gigabytes, for tests of the image without a GPU."""
        return tuple(requirement.replace(_ON_GPU, "onnxruntime") for requirement in self.packages)


def _package_name(requirement: str) -> str:
    """Return the normalized name of a package in a requirement."""
    return re.split(r"[\s=<>~!@;\[]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """Resources of one function. CPU and memory are always set, because Modal's default is a fraction of a core.

    Attributes:
        name: Name of the function, in its declaration and on Modal.
        gpu: GPU types in order of preference; empty for none.
        cpu: Reserved cores, 0.125 to 64.
        memory_mb: Reserved memory in MiB, 128 to 344,064.
        timeout_seconds: Maximum duration of one job, 1 to 86,400.
        startup_timeout_seconds: Maximum startup time of a container, 1 to 3,600.
        retries: 0, because a retry of a refused input fails too. Modal itself restarts a job whose machine was
            preempted; a host retries if the error is `retryable`.
        max_containers: Maximum number of containers at the same time, which limits the cost; 1 to 1,000.
        scaledown_window_seconds: Time that an idle container waits for the next job, 2 to 3,600.
        image: Installed packages. With a GPU they include Debian's ffmpeg, whose NVENC and NVDEC work with older
            drivers than those of the pinned ffmpeg.
        secrets: Names of Modal secrets that contain the store's URL and its credentials.

    Raises:
        ConfigError: A value is out of range; the message names it.
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

    def __post_init__(self) -> None:
        for name in _BOUNDS:
            value = getattr(self, name)
            if (problem := resource_problem(name, value)) is not None:
                raise ConfigError(f"{self.name}: {name}={value!r} {problem}")

    def with_gpu_packages(self) -> FunctionSpec:
        """Return the resources with the Debian packages that the GPU needs."""
        apt = (*self.image.apt, *_HARDWARE_APT) if self.gpu else self.image.apt
        return replace(self, image=replace(self.image, apt=tuple(dict.fromkeys(apt))))


LONGEST_TIMEOUT_SECONDS: Final = 86_400
"""Longest timeout of a function on Modal: a day."""

# It probes, waits, encodes the sound and copies packets: one core and little memory.
_COORDINATOR_CORES: Final = 1.0
_COORDINATOR_MEMORY_MB: Final = 2048

_BOUNDS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "cpu": (0.125, 64),
        "memory_mb": (128, 344_064),
        "timeout_seconds": (1, LONGEST_TIMEOUT_SECONDS),
        "startup_timeout_seconds": (1, 3_600),
        "retries": (0, 10),
        "max_containers": (1, 1_000),
        "scaledown_window_seconds": (2, 3_600),
    }
)


def resource_problem(name: str, value: object) -> str | None:
    """Return why `value` is no valid value of the numeric field `name` of `FunctionSpec`; None if it is one."""
    least, most = _BOUNDS[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        return f"must be {least:g} to {most:g}"
    return None


SEGMENTS_SUFFIX: Final = "_segments"
COORDINATOR_SUFFIX: Final = "_coordinator"


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentSpec:
    """How the segments of one output are rendered by several containers at the same time.

    Attributes:
        seconds: Duration of a segment in seconds, from which the number of segments is estimated: 8 for
            `render_frames`.
        gpu: GPU types; empty for none, None for those of the function.
        max_containers: Maximum number of these containers at the same time; 1 to 1,000.
        scaledown_window_seconds: Time that an idle container waits for the next segments, 2 to 3,600.
        uses_all_cores: Whether one segment uses all cores of a machine, as a neural network does. Otherwise a machine
            renders one segment for each `encode.threads` of its reserved cores at once.
    """

    seconds: Fraction
    gpu: tuple[str, ...] | None = None
    max_containers: int = 64
    scaledown_window_seconds: int = 2
    uses_all_cores: bool = False


def specs_from_env(
    spec: FunctionSpec, segments: SegmentSpec | None, env: Mapping[str, str] | None = None
) -> dict[str, FunctionSpec]:
    """Return the resources of all functions on Modal that one declared function needs, by their name.

    Besides the function itself, these are one that renders some segments of an output, and one that coordinates
    these and joins what they have made. Their variables are those of `spec_from_env`, such as
    REEL_MODAL_RENDER_OVERLAY_SEGMENTS_GPU.

    Args:
        spec: The declared resources.
        segments: How its segments are rendered; None if it renders an output in one piece.
        env: Default: this process's environment.

    Raises:
        ConfigError: See `spec_from_env`.
    """
    whole = spec_from_env(spec, env)
    if segments is None:
        return {whole.name: whole}
    image = spec.image
    part = replace(
        whole,
        name=whole.name + SEGMENTS_SUFFIX,
        gpu=whole.gpu if segments.gpu is None else segments.gpu,
        image=image,
        max_containers=segments.max_containers,
        scaledown_window_seconds=segments.scaledown_window_seconds,
    )
    coordinator = replace(
        whole,
        name=whole.name + COORDINATOR_SUFFIX,
        gpu=(),
        cpu=_COORDINATOR_CORES,
        memory_mb=_COORDINATOR_MEMORY_MB,
        timeout_seconds=LONGEST_TIMEOUT_SECONDS,
        image=image,
        scaledown_window_seconds=segments.scaledown_window_seconds,
    )
    return {whole.name: whole} | {each.name: spec_from_env(each, env) for each in (part, coordinator)}


def spec_from_env(spec: FunctionSpec, env: Mapping[str, str] | None = None) -> FunctionSpec:
    """Return the resources of a function with the changes that environment variables make, for example to the GPU.

    For a function `make_thumbnail` the variables are REEL_MODAL_MAKE_THUMBNAIL_GPU (such as `L4`, a list `L4,T4` in
    order of preference, or `none`), _CPU, _MEMORY_MB, _TIMEOUT_SECONDS, _MAX_CONTAINERS; REEL_MODAL_SECRETS names the
    secrets of all functions, separated by commas, or `none`. Set the variables for the deployment and on every host:
    a host compares the deployed resources with its own, and estimates with them.

    Args:
        spec: The declared resources.
        env: Default: this process's environment.

    Raises:
        ConfigError: A value is not valid or out of range; the message names the variable.
    """
    source = os.environ if env is None else env
    prefix = f"REEL_MODAL_{spec.name.upper()}"
    return replace(
        spec,
        gpu=_read(source, f"{prefix}_GPU", _names, spec.gpu),
        cpu=_read(source, f"{prefix}_CPU", _cores, spec.cpu),
        memory_mb=_read(source, f"{prefix}_MEMORY_MB", _whole("memory_mb"), spec.memory_mb),
        timeout_seconds=_read(source, f"{prefix}_TIMEOUT_SECONDS", _whole("timeout_seconds"), spec.timeout_seconds),
        max_containers=_read(source, f"{prefix}_MAX_CONTAINERS", _whole("max_containers"), spec.max_containers),
        secrets=_read(source, "REEL_MODAL_SECRETS", _names, spec.secrets),
    ).with_gpu_packages()


def chosen_functions(known: Iterable[str], env: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the functions of a deployment: those that REEL_MODAL_FUNCTIONS names, or all.

    Args:
        known: Names of all functions.
        env: Default: this process's environment.

    Raises:
        ConfigError: A function is unknown.
    """
    known = tuple(known)
    names = _read(os.environ if env is None else env, "REEL_MODAL_FUNCTIONS", _names, known)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"REEL_MODAL_FUNCTIONS: unknown: {', '.join(unknown)}; known are {', '.join(known)}")
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
    return _bounded("cpu", float(text), " cores")


def _whole(name: str) -> Callable[[str], int]:
    return lambda text: _bounded(name, int(text))


def _bounded(name: str, value: N, unit: str = "") -> N:
    least, most = _BOUNDS[name]
    if not least <= value <= most:
        raise ValueError(f"must be {least:g} to {most:.10g}{unit}")
    return value
