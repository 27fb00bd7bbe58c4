"""The request to upscale a clip: scale or output size, neural network and device."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.schema._fields import Kind, declared, record
from reel_modal.schema._kinds import OUTPUT_RATE, Rate, boolean, choice, matching, optional, size
from reel_modal.schema.requests import VideoRequest

__all__ = ["Device", "UpscaleRequest"]

Device: TypeAlias = Literal["cpu", "cuda"]
"""Device that runs the network: a CPU, or an NVIDIA GPU."""

Scale: TypeAlias = Literal[2, 4]

_LARGEST_SIDE_PX: Final = 8192
_SIDES: Final = ("output_width", "output_height")
_SCALE: Final[Kind[int, int]] = choice(Scale)
_DEVICE: Final[Kind[Device, Device]] = choice(Device)
_MODEL: Final = matching(
    r"[A-Za-z0-9][A-Za-z0-9._\-]*",
    "use small, large or the name of a network that the operator registered, not a path or URL",
    "`small`, `large` or the name of a registered network",
)
_SHA256: Final = matching(
    r"[0-9a-fA-F]{64}", "it must be a SHA-256 (64 hexadecimal digits)", "64 hexadecimal digits", most=256
)


@record
class UpscaleRequest(VideoRequest):
    """Request to upscale a clip with a neural network.

    Attributes:
        job_id: Job id, chosen by the host. One job id identifies one request.
        user_id: Id of the user that the job is for.
        input_key: Storage key of the clip.
        output_key: Storage key of the output. Its suffix selects the container.
        encode: Encoding options.
        store: Scopes of the two keys, and handling of an existing output.
        rate: `source` keeps the timestamp of each frame; `constant` renders a clip with a variable frame rate at the
            lowest standard rate that drops at most 1 % of its frames; a number is a constant rate in frames per
            second, reached by repeating and dropping frames. A clip with a constant rate keeps it unless a number is
            given.
        scale: Factor of width and height, 2 or 4; None if `output_size` is given.
        output_size: (width, height) of the output in pixels, even, at least the size of the clip; excludes `scale`.
            If its aspect ratio differs from that of the clip, the pixels of the output are not square, so that a
            player shows no distortion.
        model: `small` (made for CPUs), `large` (better, five times the work), or the name of a network that the
            operator registered; None means `small` on a CPU and `large` on a GPU.
        model_sha256: SHA-256 of the network's file, in hexadecimal. A file with another hash is refused.
        provider: Device that runs the network; None means the device that the backend is configured for. An
            unavailable GPU is an error unless `allow_cpu` is true.
        allow_cpu: Whether the CPU is used if the GPU is not available; the result then reports `gpu_unavailable`.

    Raises:
        RequestError: A field is not valid; `path` names it.

    Example:
        >>> request = UpscaleRequest(job_id="j", user_id="u", input_key="in.mp4", output_key="out.mp4", scale=2)
        >>> UpscaleRequest.parse(request.to_dict()) == request
        True
    """

    rate: Rate = declared(converter=OUTPUT_RATE, default="source", added_later=True)
    scale: int | None = declared(converter=optional(_SCALE), default=None, aliases=("scale_factor",))
    output_size: tuple[int, int] | None = declared(
        converter=optional(size(_SIDES, 16, _LARGEST_SIDE_PX, even=True)),
        default=None,
        sides=_SIDES,
        aliases=("target_width", "target_height"),
    )
    model: str | None = declared(converter=optional(_MODEL), default=None)
    model_sha256: str | None = declared(converter=optional(_SHA256), default=None)
    provider: Device | None = declared(converter=optional(_DEVICE), default=None, aliases=("device",))
    allow_cpu: bool = declared(converter=boolean, default=False)

    def target_size(self, source: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) of the output for a clip whose upright frames have the size `source`.

        Raises:
            RequestError: The clip is larger than `output_size`, or `scale` makes a side longer than 8192 pixels.
        """
        if self.scale is not None:
            target = (self.scale * source[0], self.scale * source[1])
            if max(target) > _LARGEST_SIDE_PX:
                raise RequestError(
                    "scale", f"gives {target[0]}x{target[1]}; a side must be at most {_LARGEST_SIDE_PX} pixels"
                )
            return target
        target = self.output_size or source
        for name, side, source_side in zip(_SIDES, target, source, strict=True):
            if side < source_side:
                raise RequestError(
                    name, f"is {side}, but the clip has {source_side}; use a FramingRequest to make it smaller"
                )
        return target

    def needed_scale(self, source: tuple[int, int]) -> int:
        """Return the scale, 2 or 4, of the bundled network that reaches the target size with the least work."""
        target = self.target_size(source)
        needed = max(math.ceil(side / source_side) for side, source_side in zip(target, source, strict=True))
        return 2 if needed <= 2 else 4

    def _check_edit(self) -> None:
        if (self.scale is None) == (self.output_size is None):
            problem = (
                "and an output size are both given" if self.scale is not None else "or an output size is missing"
            )
            raise RequestError("scale", f"{problem}; send one of them")
