"""What an upscaling request means for one clip: size, network, device, depth, tiles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final, Literal, Self

from reel_modal.config import BUNDLED_MODELS, MODEL_FAMILIES, Settings
from reel_modal.errors import ProviderUnavailableError
from reel_modal.frames import ColorTags, matrix_or_assumed
from reel_modal.media import FFmpeg, MediaInfo
from reel_modal.media.frame_reader import Decoder
from reel_modal.media.hardware_decoding import nvdec_ffmpeg
from reel_modal.rendering.upscale import UpscaleRenderer
from reel_modal.schema import Degradation, UpscaleRequest
from reel_modal.upscaling.inference import Provider, UpscaleSession
from reel_modal.upscaling.model import UpscaleModel, check_registered

__all__ = ["UpscalePlan", "registered_model"]

# What the feature maps of a network may take, in bytes; a GPU is filled better by more at once. On a CPU a call that
# takes longer hides what its thread waits for between calls: the interpreter, which other stages hold.
_WORKING_BYTES: Final[dict[Provider, int]] = {"cpu": 100_000_000, "cuda": 2_000_000_000}
_MOST_AT_ONCE: Final[dict[Provider, int]] = {"cpu": 4, "cuda": 8}
# One layer's input, its output, and the sum of two that some networks keep.
_MAPS_ALIVE: Final = 3
_DEFAULT_FAMILY: Final[dict[Provider, str]] = {"cpu": "small", "cuda": "large"}
_DEEP_BITS: Final = 10


@dataclass(frozen=True, slots=True)
class UpscalePlan:
    """How one clip is made larger.

    Attributes:
        media: The clip.
        session: The network on its device.
        renderer: Takes frames of the clip to the target's size.
        target: (width, height) of the output in pixels.
        bits: 8, or 10 for deeper clips of which no SDR is made.
        nvdec: The ffmpeg that decodes the clip on the GPU of the network; None decodes it in this process.
        color: Tags of the output: those of the clip. An untagged one is read by its height, so where that changes how
            it is read, the output says the matrix.
        at_once: Frames that are given to the renderer together.
        notes: What is not as asked.
    """

    media: MediaInfo
    session: UpscaleSession
    renderer: UpscaleRenderer
    target: tuple[int, int]
    bits: int
    nvdec: FFmpeg | None
    color: ColorTags
    at_once: int
    notes: tuple[Degradation, ...]

    @classmethod
    def of(
        cls, request: UpscaleRequest, media: MediaInfo, settings: Settings, registered: UpscaleModel | None = None
    ) -> Self:
        """Return the plan, with the network loaded and its device started.

        Args:
            request: How large.
            media: The clip.
            settings: The device, if the request does not say.
            registered: What `registered_model` returns for the request.

        Raises:
            RequestError: The clip does not become larger, or too large.
            InvalidModelError: The network cannot be used.
            ProviderUnavailableError: The device cannot be used, and the request does not allow the CPU instead.
        """
        target = request.target_size(media.size)
        provider = request.provider or settings.upscale_provider
        deep = (media.bit_depth > 8 or media.color.is_hdr) and media.hdr_color is None
        bits = _DEEP_BITS if deep else 8
        notes: tuple[Degradation, ...] = ()
        try:
            model = registered or _bundled(request, media, provider)
            session = UpscaleSession(model, provider=provider, bits=bits, threads=settings.cores)
        except ProviderUnavailableError as error:
            if not request.allow_cpu:
                raise
            notes = (Degradation("gpu_unavailable", f"the CPU did the work of the GPU: {error}"),)
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
            target=target,
            color=media.color,
            origin=media.chroma_origin,
            bits=bits,
            budget_pixels=budget,
            batch=at_once,
        )
        on_gpu = session.provider == "cuda" and media.hdr_color is None
        decoding = nvdec_ffmpeg(media, settings) if on_gpu else None
        color = _output_color(media, target)
        return cls(media, session, renderer, target, bits, decoding, color, at_once, notes)

    @property
    def engine(self) -> str:
        """What does the work, for the result of the job."""
        return self.session.engine + (" nvdec" if self.nvdec else "")

    @property
    def decoder(self) -> Decoder:
        """Where the clip is decoded."""
        return "nvdec" if self.nvdec else "in_process"

    @property
    def pixel_format(self) -> Literal["yuv420p", "yuv420p10le"]:
        """In which frames are read and written."""
        return "yuv420p" if self.bits == 8 else "yuv420p10le"

    @property
    def sample_aspect_ratio(self) -> Fraction:
        """Of the output: a player shows it in the shape of the clip."""
        (width, height), (wide, high) = self.media.size, self.target
        return self.media.sample_aspect_ratio * Fraction(width * high, height * wide)


def _output_color(media: MediaInfo, target: tuple[int, int]) -> ColorTags:
    matrix = matrix_or_assumed(media.color, media.size[1])
    read_the_same = matrix_or_assumed(media.color, target[1]) == matrix
    return media.color if read_the_same else replace(media.color, matrix=matrix)


def registered_model(request: UpscaleRequest, settings: Settings) -> UpscaleModel | None:
    """Return the network that the request names and the operator registered; None if it is one of this package.

    Raises:
        RequestError: It is neither.
        InvalidModelError: Its file cannot be had or used.
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
    """Return how many pixels of the source the network may get at once."""
    bytes_a_value = 2 if session.precision == "fp16" else 4
    return _WORKING_BYTES[session.provider] // (_MAPS_ALIVE * session.model.widest * bytes_a_value)
