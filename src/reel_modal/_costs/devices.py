"""Throughput of the devices that run jobs, relative to those on which the costs of functions were measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from reel_modal._costs.rates import canonical_gpu

__all__ = ["Device", "gpu_names"]

_REFERENCE_GPU: Final = "T4"


@dataclass(frozen=True, slots=True)
class _Gpu:
    """Figures of a GPU.

    Attributes:
        tflops: Matrix products in half precision, without sparsity, in TFLOP/s.
        gigabytes_per_second: Bandwidth of its memory.
        encodes_h264: Whether it has NVENC.
    """

    tflops: float
    gigabytes_per_second: float
    encodes_h264: bool = True


# Data sheets of NVIDIA, and of AWS for the A10G of its G5 machines, as of 2026-11-30; variants with SXM. A100, H100,
# H200, B200 and B300 have no NVENC.
_GPUS: Final[Mapping[str, _Gpu]] = MappingProxyType(
    {
        "T4": _Gpu(65, 320),
        "L4": _Gpu(121, 300),
        "A10G": _Gpu(70, 600),
        "L40S": _Gpu(362, 864),
        "A100-40GB": _Gpu(312, 1555, encodes_h264=False),
        "A100-80GB": _Gpu(312, 2039, encodes_h264=False),
        "RTX-PRO-6000": _Gpu(503, 1597),
        "H100": _Gpu(989, 3350, encodes_h264=False),
        "H200": _Gpu(989, 4800, encodes_h264=False),
        "B200": _Gpu(2250, 8000, encodes_h264=False),
        "B300": _Gpu(2250, 8000, encodes_h264=False),
    }
)


@dataclass(frozen=True, slots=True)
class Device:
    """The machine of one job.

    Attributes:
        cores: Cores that the job may use: those that its container reserves, or those of this machine.
        gpu: GPU type such as `T4`; None without a GPU.
    """

    cores: float
    gpu: str | None = None

    @property
    def network_throughput(self) -> float:
        """Throughput for networks in half precision, relative to a T4; 1 for an unknown GPU, 0 without a GPU.

        The networks of this package have few channels, so that the memory limits them as much as the arithmetic: it
        is the geometric mean of the ratios of both.
        """
        if self.gpu is None:
            return 0.0
        gpu, reference = self._figures or _GPUS[_REFERENCE_GPU], _GPUS[_REFERENCE_GPU]
        return math.sqrt(gpu.tflops / reference.tflops * gpu.gigabytes_per_second / reference.gigabytes_per_second)

    @property
    def encodes_h264(self) -> bool:
        """Whether its GPU encodes H.264."""
        return self._figures is not None and self._figures.encodes_h264

    @property
    def is_measured_for_networks(self) -> bool:
        """Whether the time of a network was measured on its GPU."""
        return self.gpu is not None and _kind(self.gpu) == _REFERENCE_GPU

    @property
    def _figures(self) -> _Gpu | None:
        return None if self.gpu is None else _GPUS.get(_kind(self.gpu))


def gpu_names() -> tuple[str, ...]:
    """Return the names of the GPUs whose throughput is known."""
    return tuple(_GPUS)


def _kind(gpu: str) -> str:
    return canonical_gpu(gpu).partition(":")[0]
