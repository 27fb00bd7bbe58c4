"""Options of every request: how a video is encoded, where keys are, and what happens to an existing output."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.schema._fields import Kind, Record, declared, record
from reel_modal.schema._kinds import boolean, choice, integer, matching
from reel_modal.schema.keys import Scope, store_key

__all__ = [
    "ENCODER_THREADS",
    "MOST_THREADS",
    "Deinterlace",
    "EncodeOptions",
    "Existing",
    "Hdr",
    "MetadataPolicy",
    "Scope",
    "StoreOptions",
    "store_key",
]

Deinterlace: TypeAlias = Literal["frame", "field"]
"""Deinterlacing of a frame: to one frame, or to one frame per field at twice the rate."""

ENCODER_THREADS: Final = 4
"""Default number of encoder threads: the number of cores that each function reserves."""

MOST_THREADS: Final = 64
"""Maximum number of encoder threads: Modal reserves at most this many cores for a container."""

Hdr: TypeAlias = Literal["sdr", "keep"]
"""Rendering of an HDR source: SDR, which plays everywhere, or HDR in 10 bits."""

MetadataPolicy: TypeAlias = Literal["keep", "strip"]
"""Handling of the metadata tags of a source."""

_METADATA: Final[Kind[MetadataPolicy, MetadataPolicy]] = choice(MetadataPolicy)
_PRESETS: Final = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"),
)
_ENCODER: Final = matching(
    r"(?!copy\b)[a-z0-9][a-z0-9_\-]*", "use auto or ffmpeg's name of an encoder", "`auto` or ffmpeg's name of one"
)
_DEINTERLACE: Final[Kind[Deinterlace, Deinterlace]] = choice(Deinterlace)
_HDR: Final[Kind[Hdr, Hdr]] = choice(Hdr)
_PRESET: Final = matching(
    f"{'|'.join(_PRESETS)}|p[1-7]",
    f"use one of {', '.join(_PRESETS)}, or p1 to p7 with an NVENC encoder",
    "`ultrafast` to `placebo`; `p1` to `p7` of NVENC",
)


@record
class EncodeOptions(Record):
    """Encoding options of an output.

    Attributes:
        encoder: `auto` (NVENC if available, else libx264; VP9 for WebM), or ffmpeg's name of an encoder.
        quality: Constant quality, 0 (best) to 51: x264's and x265's CRF, NVENC's CQ; for VP9 and AV1 it is scaled to
            their CRF, 0 to 63.
        preset: x264 preset, `ultrafast` to `placebo`; for NVENC, VP9 and AV1 it is mapped to their presets. `p1` to
            `p7` are for NVENC only.
        smart: Whether unchanged parts of the source are copied bit for bit if possible.
        threads: Number of encoder threads, 1 to 64. The output bytes of x264 depend on it, so it is part of the
            request and does not depend on the machine.
        deinterlace: Rendering of an interlaced clip: `frame` makes one frame of each source frame, `field` makes one
            frame of each field, at twice the rate. Copied parts stay interlaced.
        hdr: Rendering of an HDR clip: `sdr` converts it to SDR, BT.709 in 8 bits; `keep` keeps it HDR and renders
            sources of more than 8 bits in 10 bits. Copied parts do not change.
        metadata: `strip` keeps the title and the creation time of the source and removes all other tags, such as
            location and device, and data streams; `keep` keeps everything that the container supports.
    """

    encoder: str = declared(converter=_ENCODER, default="auto")
    quality: int = declared(converter=integer(0, 51), default=23, aliases=("crf",))
    preset: str = declared(converter=_PRESET, default="fast")
    smart: bool = declared(converter=boolean, default=True)
    threads: int = declared(converter=integer(1, MOST_THREADS), default=ENCODER_THREADS)
    deinterlace: Deinterlace = declared(converter=_DEINTERLACE, default="frame", added_later=True)
    hdr: Hdr = declared(converter=_HDR, default="sdr", added_later=True)
    metadata: MetadataPolicy = declared(converter=_METADATA, default="strip", added_later=True)

    def _check(self) -> None:
        if self.preset not in _PRESETS and not self.encoder.endswith("_nvenc"):
            raise RequestError(
                "preset", f"is {self.preset!r}, which only NVENC supports; use one of {', '.join(_PRESETS)}"
            )


Existing: TypeAlias = Literal["replace", "reuse", "refuse"]
"""Handling of an existing output."""

_SCOPE: Final[Kind[Scope, Scope]] = choice(Scope)
_EXISTING: Final[Kind[Existing, Existing]] = choice(Existing)


@record
class StoreOptions(Record):
    """Scopes of the keys of a request, and handling of an existing output.

    Attributes:
        input_scope: Scope of the input key: `user` adds the prefix `users/<user_id>/`, `global` adds no prefix.
        output_scope: Scope of the output key, with the same values.
        existing: Handling of an existing output. `replace` renders again and replaces it, except if the same job made
            it. `reuse` returns it if it was rendered by the same request from the same input, else replaces it.
            `refuse` also returns it in that case, else fails before rendering.
    """

    input_scope: Scope = declared(converter=_SCOPE, default="user")
    output_scope: Scope = declared(converter=_SCOPE, default="user")
    existing: Existing = declared(converter=_EXISTING, default="replace")
