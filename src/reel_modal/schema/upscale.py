"""The request of `apply_upscale`: how much larger, by which network, on which device.

Pure; it must not know how pictures are enlarged.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Final, Literal, Self, TypeAlias

from reel_modal.bounds import not_empty, within
from reel_modal.errors import RequestError
from reel_modal.parsing import Raw, Record, decode, integer, one_of, text, truth
from reel_modal.schema.encoding import EncodeOptions
from reel_modal.schema.framing_parts import size_fields
from reel_modal.schema.reading import build, hash_without_job, identifier
from reel_modal.schema.storing import StoreOptions

__all__ = ["Device", "UpscaleRequest"]

Device: TypeAlias = Literal["cpu", "cuda"]
"""What runs the network: a CPU, or an NVIDIA GPU."""

_SCALES: Final = (2, 4)
_SMALLEST_SIDE_PX: Final = 16
_LARGEST_SIDE_PX: Final = 8192
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleRequest:
    """Make a clip larger.

    Attributes:
        job_id: The host's own name of the job; one job id is one request.
        user_id: Whom it is for.
        input_key: Where the clip is in the storage.
        output_key: Where the result goes; its suffix chooses the container.
        scale: 2 or 4; None where `output_size` says it.
        output_size: (width, height) in pixels, even, at least the clip's own; instead of `scale`. A shape that is
            not the clip's is reached by pixels that are not square: a player shows no distortion.
        model: `small` (made for a CPU), `large` (better, five times the work), or the path or URL of an ONNX file;
            None is `small` on a CPU and `large` on a GPU.
        model_sha256: Of that file; a URL needs it.
        provider: The device; None is the one that the place where the job runs is set up for. A GPU that is asked
            for and not there is an error.
        allow_cpu: Whether the CPU may do it where the GPU is not there; the result says so.
        encode: How the output is encoded.
        store: Whose the two keys are, and what becomes of an output that is there.

    Raises:
        RequestError: Something is wrong; its `path` says where.

    Example:
        >>> request = UpscaleRequest(job_id="j", user_id="u", input_key="in.mp4", output_key="out.mp4", scale=2)
        >>> UpscaleRequest.parse(request.to_dict()) == request
        True
    """

    job_id: str
    user_id: str
    input_key: str
    output_key: str
    scale: int | None = None
    output_size: tuple[int, int] | None = None
    model: str | None = None
    model_sha256: str | None = None
    provider: Device | None = None
    allow_cpu: bool = False
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    store: StoreOptions = field(default_factory=StoreOptions)

    def __post_init__(self) -> None:
        for name in ("job_id", "user_id", "input_key", "output_key"):
            not_empty(name, getattr(self, name))
        self._check_size()
        if self.model is not None:
            not_empty("model", self.model)
        if self.model_sha256 is not None and not _SHA256.fullmatch(self.model_sha256):
            raise RequestError("model_sha256", f"is {self.model_sha256!r}; a sha256 has 64 hexadecimal digits")
        if (self.model or "").startswith(("http://", "https://")) and self.model_sha256 is None:
            raise RequestError("model_sha256", "is missing; a model from a URL needs the sha256 of its file")
        if self.provider is not None:
            one_of("cpu", "cuda")(self.provider, "provider")

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """Read a request as hosts send it: snake_case or camelCase.

        Raises:
            RequestError: Something is wrong, unknown, or said twice with different values; `path` says where.
        """
        record = Record(decode(raw))
        request = {
            **{name: record.take(identifier, name) for name in ("job_id", "user_id")},
            **{name: record.take(text, name) for name in ("input_key", "output_key")},
            "scale": record.take_or(None, integer, "scale", "scale_factor"),
            "output_size": size_fields(record),
            **{name: record.take_or(None, text, name) for name in ("model", "model_sha256")},
            "provider": record.take_or(None, one_of("cpu", "cuda"), "provider", "device"),
            "allow_cpu": record.take_or(False, truth, "allow_cpu"),  # noqa: FBT003
            "encode": record.take_or(EncodeOptions(), EncodeOptions.read, "encode"),
            "store": record.take_or(StoreOptions(), StoreOptions.read, "store"),
        }
        record.finish()
        return build(cls, "", request)

    def to_dict(self) -> dict[str, object]:
        """Return the request for JSON; `parse` takes it back."""
        size = self.output_size or (None, None)
        return {
            "job_id": self.job_id,
            "user_id": self.user_id,
            "input_key": self.input_key,
            "output_key": self.output_key,
            "scale": self.scale,
            "output_width": size[0],
            "output_height": size[1],
            "model": self.model,
            "model_sha256": self.model_sha256,
            "provider": self.provider,
            "allow_cpu": self.allow_cpu,
            "encode": self.encode.to_dict(),
            "store": self.store.to_dict(),
        }

    def request_hash(self) -> str:
        """Return a hash of what is asked for, whatever the `job_id` and `store.existing`."""
        return hash_without_job(self.to_dict())

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
        for name, side, have in zip(("output_width", "output_height"), target, source, strict=True):
            if side < have:
                raise RequestError(name, f"is {side}, but the clip has {have}; process_framing makes clips smaller")
        return target

    def needed_scale(self, source: tuple[int, int]) -> int:
        """Return 2 or 4: the network of this package that reaches the target with the least work."""
        target = self.target_size(source)
        needed = max(math.ceil(side / have) for side, have in zip(target, source, strict=True))
        return next((scale for scale in _SCALES if scale >= needed), _SCALES[-1])

    def _check_size(self) -> None:
        if (self.scale is None) == (self.output_size is None):
            both = "both are given" if self.scale is not None else "none is"
            raise RequestError("scale", f"or an output size says how large: {both}; send one of them")
        if self.scale is not None:
            one_of(*_SCALES)(self.scale, "scale")
        for name, side in zip(("output_width", "output_height"), self.output_size or (), strict=False):
            within(name, side, _SMALLEST_SIDE_PX, _LARGEST_SIDE_PX)
            if side % 2:
                raise RequestError(name, f"is {side}; video with 4:2:0 chroma has even sides")
