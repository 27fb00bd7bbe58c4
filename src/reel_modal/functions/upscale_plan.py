"""Plan an upscaling request for one clip: size, network, device, bit depth, tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, Self

from reel_modal._ffmpeg.binary import FFmpeg
from reel_modal._ffmpeg.hardware_decoding import nvdec_ffmpeg
from reel_modal._ffmpeg.reader import Decoder
from reel_modal._rendering.opencv import load_cv2
from reel_modal._rendering.upscale import UpscaleRenderer
from reel_modal._segments import Engine
from reel_modal._upscaling.model import UpscaleModel, check_registered
from reel_modal._upscaling.session import Provider, UpscaleSession
from reel_modal.errors import ProviderUnavailableError
from reel_modal.media import MediaInfo
from reel_modal.media.frames import ColorTags, matrix_or_assumed
from reel_modal.schema import Degradation, UpscaleRequest
from reel_modal.settings import BUNDLED_MODELS, MODEL_FAMILIES, Settings

__all__ = ["MOST_AT_ONCE", "UpscaleNetwork", "UpscalePlan", "registered_model"]

# Memory limit of a network's feature maps, in bytes; larger batches use a GPU better. On a CPU, longer calls hide the
# wait between calls for the interpreter lock, which other stages hold.
_WORKING_BYTES: Final[dict[Provider, int]] = {"cpu": 100_000_000, "cuda": 2_000_000_000}
_MOST_AT_ONCE: Final[dict[Provider, int]] = {"cpu": 4, "cuda": 8}
MOST_AT_ONCE: Final = max(_MOST_AT_ONCE.values())
"""Maximum number of frames per call of the renderer, on any device."""

# Feature maps in memory at once: one layer's input, its output, and a sum of two that some networks keep.
_MAPS_ALIVE: Final = 3
_DEFAULT_FAMILY: Final[dict[Provider, str]] = {"cpu": "small", "cuda": "large"}
_DEEP_BITS: Final = 10


@dataclass(frozen=True, slots=True)
class UpscaleNetwork:
    """The network of an upscaling job, loaded on its device.

    Attributes:
        session: The network on its device.
        renderer: Scales frames of the clip to the target size.
        nvdec: The ffmpeg that decodes the clip on the GPU of the network; None decodes it in this process.
        at_once: Number of frames per call of the renderer.
        notes: Deviations from the request.
    """

    session: UpscaleSession
    renderer: UpscaleRenderer
    nvdec: FFmpeg | None
    at_once: int
    notes: tuple[Degradation, ...]

    @property
    def engine(self) -> Engine:
        """What makes the frames: its exact description has the device and the versions."""
        import onnxruntime

        name = self.session.engine + (" nvdec" if self.nvdec else "")
        device = _gpu_models() if self.session.provider == "cuda" else load_cv2().getCPUFeaturesLine()
        exact = f"{name} {self.at_once} {onnxruntime.__version__} {device}"
        return Engine(name=name, exact=exact, model=self.session.model.manifest.name, degraded=self.notes)

    @property
    def decoder(self) -> Decoder:
        """Decoder of the clip."""
        return "nvdec" if self.nvdec else "in_process"


@dataclass(frozen=True, slots=True)
class UpscalePlan:
    """Everything that is known before the first frame of a clip is upscaled.

    Attributes:
        media: The clip.
        target: (width, height) of the output in pixels.
        bits: 8, or 10 for deeper clips that are not converted to SDR.
        color: Colour tags of the output: those of the clip. Players choose the matrix of untagged video by its
            height; if the new height would change that choice, the output gets a matrix tag.
        network: The network; None if other processes render the frames.
    """

    media: MediaInfo
    target: tuple[int, int]
    bits: int
    color: ColorTags
    network: UpscaleNetwork | None

    @classmethod
    def of(
        cls,
        request: UpscaleRequest,
        media: MediaInfo,
        settings: Settings,
        registered: UpscaleModel | None = None,
        *,
        load: bool = True,
        hardware_decoding: bool = True,
    ) -> Self:
        """Return the plan.

        Args:
            request: Size, network and device.
            media: The clip.
            settings: Number of cores, and the device if the request does not name one.
            registered: Result of `registered_model` for the request.
            load: Whether to load the network and start its device.
            hardware_decoding: Whether a GPU may decode the clip.

        Raises:
            RequestError: The clip would not become larger, or too large.
            InvalidModelError: The network cannot be used.
            ProviderUnavailableError: The device cannot be used, and the request does not allow the CPU instead.
        """
        target = request.target_size(media.size)
        deep = (media.bit_depth > 8 or media.color.is_hdr) and media.hdr_color is None
        plan = cls(media, target, _DEEP_BITS if deep else 8, _output_color(media, target), None)
        if not load:
            return plan
        return replace(plan, network=_loaded(plan, request, settings, registered, hardware_decoding))

    @property
    def pixel_format(self) -> Literal["yuv420p", "yuv420p10le"]:
        """Pixel format in which frames are read and written."""
        return "yuv420p" if self.bits == 8 else "yuv420p10le"

    @property
    def sample_aspect_ratio(self) -> Fraction:
        """Sample aspect ratio of the output; it keeps the display aspect ratio of the clip."""
        (width, height), (wide, high) = self.media.size, self.target
        return self.media.sample_aspect_ratio * Fraction(width * high, height * wide)


def _loaded(
    plan: UpscalePlan,
    request: UpscaleRequest,
    settings: Settings,
    registered: UpscaleModel | None,
    hardware_decoding: bool,
) -> UpscaleNetwork:
    """Return the network of the request, on its device."""
    media, bits = plan.media, plan.bits
    provider = request.provider or settings.upscale_provider
    notes: tuple[Degradation, ...] = ()
    try:
        model = registered or _bundled(request, media, provider)
        session = UpscaleSession(model, provider=provider, bits=bits, threads=settings.cores)
    except ProviderUnavailableError as error:
        if not request.allow_cpu:
            raise
        notes = (Degradation("gpu_unavailable", f"the CPU was used instead of the GPU: {error}"),)
        model = registered or _bundled(request, media, "cpu")
        session = UpscaleSession(model, provider="cpu", bits=bits, threads=settings.cores)
    manifest = session.model.manifest
    budget = _budget(session)
    pixels = (media.size[0] + 2 * manifest.halo) * (media.size[1] + 2 * manifest.halo)
    at_once = max(1, min(_MOST_AT_ONCE[session.provider], budget // pixels))
    renderer = UpscaleRenderer(
        session.run,
        kind=manifest.kind,
        scale=manifest.scale,
        halo=manifest.halo,
        size=media.size,
        target=plan.target,
        color=media.color,
        origin=media.chroma_origin,
        bits=bits,
        budget_pixels=budget,
        batch=at_once,
    )
    on_gpu = hardware_decoding and session.provider == "cuda" and media.hdr_color is None
    return UpscaleNetwork(session, renderer, nvdec_ffmpeg(media, settings) if on_gpu else None, at_once, notes)


def _gpu_models() -> str:
    """Return the models of the GPUs of this machine; empty if the driver does not state them."""
    described = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    return " ".join(path.read_text(encoding="utf-8").partition("\n")[0] for path in described)


def _output_color(media: MediaInfo, target: tuple[int, int]) -> ColorTags:
    matrix = matrix_or_assumed(media.color, media.size[1])
    same_matrix = matrix_or_assumed(media.color, target[1]) == matrix
    return media.color if same_matrix else replace(media.color, matrix=matrix)


def registered_model(request: UpscaleRequest, settings: Settings) -> UpscaleModel | None:
    """Return the registered network that the request names; None if it names one of this package, or none.

    Raises:
        RequestError: The network is neither registered nor part of this package.
        InvalidModelError: Its file cannot be loaded or used.
    """
    check_registered(request.model, request.model_sha256, settings.models)
    name = request.model
    if name is None or name in {*MODEL_FAMILIES, *BUNDLED_MODELS}:
        return None
    return UpscaleModel.load_registered(name, settings.models[name])


def _bundled(request: UpscaleRequest, media: MediaInfo, provider: Provider) -> UpscaleModel:
    name = request.model or _DEFAULT_FAMILY[provider]
    if name in MODEL_FAMILIES:
        name = f"{name}-x{request.needed_scale(media.size)}"
    return UpscaleModel.load(name, sha256=request.model_sha256)


def _budget(session: UpscaleSession) -> int:
    """Return the maximum number of source pixels per call of the network."""
    bytes_a_value = 2 if session.precision == "fp16" else 4
    return _WORKING_BYTES[session.provider] // (_MAPS_ALIVE * session.model.network.widest * bytes_a_value)
