"""Time of a rendering on a device, from the work of one frame. Pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reel_modal._costs.devices import Device

__all__ = ["Effort", "Expectation"]

_BUSY_SHARE: Final = 0.9
"""Share of the cores that a pipeline of decoder, renderer and encoder keeps busy: 0.85 to 0.92 of two cores, for x264
`ultrafast` to `fast` (2026-11-25, benchmarks/RESULTS.md)."""

_SPREAD_HERE: Final = 0.4
"""Uncertainty on this machine: frames that are hard or easy to encode, and faster or slower cores."""

_SPREAD_IN_CONTAINER: Final = 0.6
_SPREAD_MEASURED_GPU: Final = 0.8
_SPREAD_OTHER_GPU: Final = 1.2


@dataclass(frozen=True, slots=True)
class Expectation:
    """Time that a rendering is expected to take.

    Attributes:
        seconds: Expected duration.
        spread: Relative uncertainty: two of three take `seconds / (1 + spread)` to `seconds * (1 + spread)`.
        why: What determines it, as text.
    """

    seconds: float
    spread: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """Work of a rendering, measured in the time of one core and of a T4.

    Attributes:
        frames: Number of rendered frames.
        frame_seconds: CPU time to decode, draw and pass on one frame.
        encoder_seconds: CPU time to encode one frame.
        encoder: Encoder and preset, as text.
        threads: Threads of the encoder; more cores than one above it are of no use.
        hardware_encoder: Whether a GPU encodes instead, if it can.
        serial_seconds: Part of the time of one frame that a single thread takes, which more cores do not shorten.
        network_seconds: CPU time of a network for one frame; 0 without a network.
        gpu_seconds: Time of the network for one frame on a T4; 0 if it runs on the CPU.
        network: Name of the network, as text.
        fixed_seconds: Time that does not depend on the number of frames, such as to load a network.
    """

    frames: int
    frame_seconds: float
    encoder_seconds: float
    encoder: str
    threads: int
    hardware_encoder: bool = False
    serial_seconds: float = 0.0
    network_seconds: float = 0.0
    gpu_seconds: float = 0.0
    network: str = ""
    fixed_seconds: float = 0.0

    def on(self, device: Device, *, here: bool, at_once: float = 1.0) -> Expectation:
        """Return the expected time on `device`.

        Decoder, renderer, network and encoder work at the same time, so the slowest determines the time of a frame.

        Args:
            device: The machine.
            here: Whether it is this machine, and not a container.
            at_once: Mean number of segments that are rendered at once, each by its own decoder, renderer and encoder.
        """
        nvenc = self.hardware_encoder and device.encodes_h264
        on_gpu = self.gpu_seconds > 0 and device.gpu is not None
        cpu = self.frame_seconds + (0.0 if nvenc else self.encoder_seconds)
        cpu += 0.0 if on_gpu else self.network_seconds
        pipelines = at_once * (self.threads + 1)
        cores = min(device.cores, pipelines) if self.network_seconds == 0 or on_gpu else device.cores
        by_cpu = max(cpu / (_BUSY_SHARE * cores), self.serial_seconds / at_once)
        by_gpu = self.gpu_seconds / device.network_throughput if on_gpu else 0.0
        seconds = self.fixed_seconds + self.frames * max(by_cpu, by_gpu)
        encoder = "NVENC" if nvenc else self.encoder
        if by_gpu > by_cpu:
            spread = _SPREAD_MEASURED_GPU if device.is_measured_for_networks else _SPREAD_OTHER_GPU
            return Expectation(seconds, spread, f"network {self.network} on the GPU")
        spread = _SPREAD_HERE if here else _SPREAD_MEASURED_GPU if nvenc or on_gpu else _SPREAD_IN_CONTAINER
        network = f"network {self.network}, " if self.network_seconds and not on_gpu else ""
        return Expectation(seconds, spread, f"{network}{encoder} on {_cores(device.cores)}")


def _cores(cores: float) -> str:
    return "1 core" if cores == 1 else f"{cores:g} cores"
