"""The request of `apply_upscale`: how much larger, by which network, on which device."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.schema._fields import Kind, declared, record
from reel_modal.schema._kinds import OUTPUT_RATE, Rate, boolean, choice, matching, optional, size
from reel_modal.schema.requests import Request

__all__ = ["Device", "UpscaleRequest"]

Device: TypeAlias = Literal["cpu", "cuda"]
"""What runs the network: a CPU, or an NVIDIA GPU."""

Scale: TypeAlias = Literal[2, 4]

_LARGEST_SIDE_PX: Final = 8192
_SIDES: Final = ("output_width", "output_height")
_SCALE: Final[Kind[int, int]] = choice(Scale)
_DEVICE: Final[Kind[Device, Device]] = choice(Device)
_MODEL: Final = matching(
    r"[A-Za-z0-9][A-Za-z0-9._\-]*",
    "write small, large or the name of a network that the operator registered, not a path or URL",
    "`small`, `large` or the name of a registered network",
)
_SHA256: Final = matching(
    r"[0-9a-fA-F]{64}", "a SHA-256 has 64 hexadecimal digits", "64 hexadecimal digits", most=256
)


@record
class UpscaleRequest(Request):
    """Make a clip larger.

    Attributes:
        job_id: The host's own name of the job; one job id is one request.
        user_id: Whom it is for.
        input_key: Where the clip is in the storage.
        output_key: Where the result goes; its suffix chooses the container.
        encode: How the output is encoded.
        store: Whose the two keys are, and what becomes of an output that is there.
        rate: `source` keeps the time of each picture; `constant` makes a varying frame rate constant, at the smallest
            standard rate that keeps the pictures; a number of frames a second is that rate, by repeating and
            dropping. A clip of a constant rate keeps it unless a number is given.
        scale: 2 or 4; None where `output_size` says it.
        output_size: (width, height) in pixels, even, at least the clip's own; instead of `scale`. A shape that is
            not the clip's is reached by pixels that are not square: a player shows no distortion.
        model: `small` (made for a CPU), `large` (better, five times the work), or the name of a network that the
            operator registered; None is `small` on a CPU and `large` on a GPU.
        model_sha256: Of the network's file; another file is refused.
        provider: The device; None is the one that the place where the job runs is set up for. A GPU that is asked
            for and not there is an error.
        allow_cpu: Whether the CPU may do it where the GPU is not there; the result says so.

    Raises:
        RequestError: Something is wrong; its `path` says where.

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
        """Return the size of the output for a clip whose upright frames have the size `source` (width, height).

        Raises:
            RequestError: The clip is larger than that already, or would become larger than 8192 pixels.
        """
        if self.scale is not None:
            target = (self.scale * source[0], self.scale * source[1])
            if max(target) > _LARGEST_SIDE_PX:
                raise RequestError(
                    "scale", f"makes {target[0]}x{target[1]}; at most {_LARGEST_SIDE_PX} pixels to a side are made"
                )
            return target
        target = self.output_size or source
        for name, side, have in zip(_SIDES, target, source, strict=True):
            if side < have:
                raise RequestError(name, f"is {side}, but the clip has {have}; process_framing makes clips smaller")
        return target

    def needed_scale(self, source: tuple[int, int]) -> int:
        """Return 2 or 4: the network of this package that reaches the target with the least work."""
        target = self.target_size(source)
        needed = max(math.ceil(side / have) for side, have in zip(target, source, strict=True))
        return 2 if needed <= 2 else 4

    def _check_edit(self) -> None:
        if (self.scale is None) == (self.output_size is None):
            both = "both are given" if self.scale is not None else "none is"
            raise RequestError("scale", f"or an output size says how large: {both}; send one of them")
