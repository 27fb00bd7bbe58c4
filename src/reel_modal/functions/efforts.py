"""Work of the functions of this package: the time of one frame by pixels, codec, encoder and network.

The figures are of one core of an AMD EPYC that two cores of nothing else used, with H.264 of 1080p30 (2026-11-25,
benchmarks/RESULTS.md), unless a comment names another source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self

from reel_modal._costs.effort import Effort
from reel_modal.schema import FramingRequest, OverlayRequest, PlacedClip, ReelRequest, UpscaleRequest
from reel_modal.schema.options import EncodeOptions
from reel_modal.schema.requests import VideoRequest

if TYPE_CHECKING:
    from reel_modal.media import MediaInfo
    from reel_modal.settings import Settings

__all__ = ["ClipFrames", "framing_effort", "overlay_effort", "reel_effort", "upscale_effort"]

_MEGA: Final = 1e6

# Seconds of CPU for each megapixel: 6.9 ms for a 1080p frame of `render_overlay` without an encoder, less `_FRAME`.
_READ: Final = 0.0031
_RESAMPLE: Final = 0.0026
"""3.0 ms for a frame of 810 x 1440 (2026-11-29)."""

_ENLARGE: Final = 0.016
"""Chroma and the passing on of an upscaled frame: 83.7 ms for 1280 x 720, less its network, decoder and encoder."""

_FRAME: Final = 0.0005
"""CPU seconds of a frame of any size."""

_SERIAL: Final = 0.002
"""Least seconds of a megapixel without an encoder: 1080p in 4.1 ms. More cores than two were not measured."""

_JOB_SECONDS: Final = 0.15
"""Start of the encoder and of the decoder, and the trial of the encoder."""

# Relative cost of decoding, compared with H.264; assumed, not measured.
_DECODERS: Final = MappingProxyType({"hevc": 1.6, "vp9": 1.4, "av1": 1.6, "prores": 2.0})
_DEEP: Final = 1.4
"""Relative cost of samples of more than 8 bits; assumed."""

# Seconds of CPU for each megapixel by preset of x264: `fast` 43.9, `veryfast` 21.9 and `ultrafast` 11.6 ms for 1080p,
# with 6.9 ms of other work; `slow` by its ratio to `fast` (2026-11-30). The others are assumed.
_X264: Final = MappingProxyType(
    {
        "ultrafast": 0.0023,
        "superfast": 0.0045,
        "veryfast": 0.0072,
        "faster": 0.0135,
        "fast": 0.0178,
        "medium": 0.0205,
        "slow": 0.0275,
        "slower": 0.055,
        "veryslow": 0.095,
        "placebo": 0.2,
    }
)
# Relative cost, compared with x264; assumed.
_ENCODERS: Final = MappingProxyType({"libx265": 4.0, "libvpx-vp9": 4.0, "libsvtav1": 2.0, "libaom-av1": 10.0})
_REFERENCE_QUALITY: Final = 23
_QUALITY_STEP: Final = 6.0
_BETTER: Final = 1.3
"""A frame of quality 17 costs 1.3 times one of 23 (benchmarks/RESULTS.md, smart rendering)."""

_FEW_SHARE: Final = 0.1
_COPIED_SECONDS: Final = 0.0004
"""A copied frame: 2,700 packets are written, compared and checked in about a second."""

# CPU seconds of a network for each source pixel: `small-x2` and `large-x2` by process time on one core. Those for
# four times are scaled by their multiplications: 17 k and 316 k of each pixel, instead of 15 k and 1 M.
_CPU_NETWORKS: Final = MappingProxyType(
    {"small-x2": 0.24e-6, "small-x4": 0.27e-6, "large-x2": 9.5e-6, "large-x4": 3.0e-6}
)
_GENERAL_GPU_SECONDS: Final = 0.863e-6
"""Seconds of a T4 for each source pixel of realesr-general-x4v3, with 1.21 M multiplications of each pixel: the line
that an editor fitted to its runs on Modal in 2026."""

_GENERAL_MULTIPLICATIONS: Final = 1.21
_MULTIPLICATIONS: Final = MappingProxyType({"small-x2": 0.015, "small-x4": 0.017, "large-x2": 1.0, "large-x4": 0.316})
_GENERAL_CPU_SECONDS: Final = 19.6e-6
"""1,131 ms of one thread for 320 x 180 by ONNX Runtime (2026-11-22)."""

_LOAD_ON_GPU_SECONDS: Final = 4.3
"""Loading of a network on a GPU: 3.9 to 4.6 s on Modal in 2026, as the same editor measured."""

_LOAD_ON_CPU_SECONDS: Final = 0.2


def overlay_effort(request: OverlayRequest, media: MediaInfo, frames: int, rendered: int | None) -> Effort:
    """Return the work of `render_overlay`.

    Args:
        request: The highlights.
        media: The clip.
        frames: Number of frames of the output.
        rendered: Number of frames that are rendered; None is all.
    """
    return _effort(request, media, media.size, frames, rendered)


def framing_effort(
    request: FramingRequest, media: MediaInfo, size: tuple[int, int], frames: int, rendered: int | None
) -> Effort:
    """Return the work of `process_framing`.

    Args:
        request: The parts to keep.
        media: The clip.
        size: (width, height) of the output in pixels.
        frames: Number of frames of the output.
        rendered: Number of frames that are rendered; None is all.
    """
    extra = _RESAMPLE * _megapixels(size)
    return _effort(request, media, size, frames, rendered, extra_seconds=extra)


@dataclass(frozen=True, slots=True)
class ClipFrames:
    """Frames of one clip of a reel that are rendered.

    Attributes:
        media: The clip.
        frames: Number of rendered frames of the output that show it.
        source_frames: Number of its frames that are decoded for them.
    """

    media: MediaInfo
    frames: int
    source_frames: float

    @classmethod
    def of(cls, placed: PlacedClip, media: MediaInfo, spans: Sequence[tuple[int, int]] | None) -> Self:
        """Return the frames of a clip.

        Args:
            placed: The clip on the timeline.
            media: The clip.
            spans: (first, end) of the rendered frames of the output; None is all.
        """
        frames = placed.frames
        if spans is not None:
            frames = sum(max(0, min(end, placed.end) - max(first, placed.first)) for first, end in spans)
        line = placed.line
        shown = (line.source_end or line.source_start + line.duration_seconds) - line.source_start
        return cls(media, frames, float(frames * shown * media.fps / placed.frames))


def reel_effort(
    request: ReelRequest, clips: Sequence[ClipFrames], size: tuple[int, int], frames: int, rendered: int | None
) -> Effort:
    """Return the work of `assemble_reel`: the mean of its clips, by their frames.

    Args:
        request: The clips and transitions.
        clips: The frames of each clip.
        size: (width, height) of the output in pixels.
        frames: Number of frames of the output.
        rendered: Number of frames that are rendered; None is all.
    """
    count = max(1, frames if rendered is None else rendered)
    read = sum(clip.source_frames * (_FRAME + _read_seconds(clip.media)) for clip in clips)
    resample = _RESAMPLE * _megapixels(size) * sum(clip.frames for clip in clips)
    alone = [(clip.frames, _effort(request, clip.media, size, frames, rendered)) for clip in clips]
    encoding = sum(number * effort.encoder_seconds for number, effort in alone)
    serial = sum(number * effort.serial_seconds for number, effort in alone)
    shown = max(1, sum(number for number, _ in alone))
    return replace(
        alone[0][1],
        frame_seconds=(read + resample) / count,
        encoder_seconds=encoding / shown,
        serial_seconds=serial / shown,
    )


def upscale_effort(
    request: UpscaleRequest, media: MediaInfo, frames: int, settings: Settings, *, on_gpu: bool
) -> Effort:
    """Return the work of `apply_upscale`.

    Args:
        request: Size, network and device.
        media: The clip.
        frames: Number of frames of the output.
        settings: Settings of the process that runs it.
        on_gpu: Whether its container has a GPU.
    """
    size = request.target_size(media.size)
    provider = request.provider or ("cuda" if on_gpu else settings.upscale_provider)
    name = request.model or ("large" if provider == "cuda" else "small")
    if f"{name}-x2" in _CPU_NETWORKS:
        name = f"{name}-x{request.needed_scale(media.size)}"
    share = _MULTIPLICATIONS.get(name, _GENERAL_MULTIPLICATIONS) / _GENERAL_MULTIPLICATIONS
    pixels = media.size[0] * media.size[1]
    on_cuda = provider == "cuda"
    return _effort(
        request,
        media,
        size,
        frames,
        None,
        extra_seconds=_ENLARGE * _megapixels(size),
        network=name,
        network_seconds=pixels * _CPU_NETWORKS.get(name, _GENERAL_CPU_SECONDS),
        gpu_seconds=pixels * share * _GENERAL_GPU_SECONDS if on_cuda else 0.0,
        load_seconds=_LOAD_ON_GPU_SECONDS if on_cuda else _LOAD_ON_CPU_SECONDS,
    )


def _effort(
    request: VideoRequest,
    media: MediaInfo,
    size: tuple[int, int],
    frames: int,
    rendered: int | None,
    *,
    extra_seconds: float = 0.0,
    network: str = "",
    network_seconds: float = 0.0,
    gpu_seconds: float = 0.0,
    load_seconds: float = 0.0,
) -> Effort:
    """Return the work of frames that are read from `media` and encoded in `size`.

    Args:
        request: The request, with its encoder options.
        media: The clip.
        size: (width, height) of the output in pixels.
        frames: Number of frames of the output.
        rendered: Number of frames that are rendered, beside copied ones; None is all.
        extra_seconds: CPU seconds of one frame besides decoding and encoding.
        network: Name of the network; empty without one.
        network_seconds: CPU seconds of the network for one frame.
        gpu_seconds: Seconds of the network for one frame on a T4; 0 on a CPU.
        load_seconds: Seconds to load the network.
    """
    encode = request.encode
    deep = _DEEP if media.bit_depth > 8 else 1.0
    encoder, preset, quality = _encoder(encode, request.output_key), encode.preset, encode.quality
    copied = 0
    if rendered is not None:
        # Joined parts are encoded by x264, better than the rest; a few frames by a faster preset.
        encoder, quality, copied = "libx264", min(quality, 17), frames - rendered
        if rendered <= _FEW_SHARE * frames and preset in _X264:
            preset = min(preset, "superfast", key=_X264.__getitem__)
    better = _BETTER ** ((_REFERENCE_QUALITY - quality) / _QUALITY_STEP)
    encoding = _X264.get(preset, _X264["fast"]) * _ENCODERS.get(encoder, 1.0) * better * deep
    return Effort(
        frames=frames if rendered is None else rendered,
        frame_seconds=_FRAME + _read_seconds(media) + extra_seconds,
        encoder_seconds=encoding * _megapixels(size),
        encoder=f"x264 {preset}" if encoder == "libx264" else encoder,
        threads=encode.threads,
        hardware_encoder=rendered is None and _may_use_nvenc(encode, encoder),
        serial_seconds=_SERIAL * max(_megapixels(media.size), _megapixels(size)),
        network_seconds=network_seconds,
        gpu_seconds=gpu_seconds,
        network=network,
        fixed_seconds=_JOB_SECONDS + load_seconds + copied * _COPIED_SECONDS,
    )


def _read_seconds(media: MediaInfo) -> float:
    """Return the CPU seconds to decode one frame and pass it on."""
    deep = _DEEP if media.bit_depth > 8 else 1.0
    return _READ * _megapixels(media.size) * _DECODERS.get(media.codec, 1.0) * deep


def _encoder(encode: EncodeOptions, output_key: str) -> str:
    """Return the encoder that is used without a GPU."""
    if encode.encoder != "auto":
        return encode.encoder
    return "libvpx-vp9" if PurePath(output_key).suffix == ".webm" else "libx264"


def _may_use_nvenc(encode: EncodeOptions, encoder: str) -> bool:
    """Return whether a GPU encodes, if it can; `encoder` is used without a GPU."""
    return encoder.endswith("_nvenc") or (encode.encoder == "auto" and encoder == "libx264")


def _megapixels(size: tuple[int, int]) -> float:
    return size[0] * size[1] / _MEGA
