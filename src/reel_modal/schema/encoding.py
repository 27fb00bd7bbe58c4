"""How an output is encoded: the part that every request has."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.schema._fields import Kind, Record, declared, record
from reel_modal.schema._kinds import boolean, choice, integer, matching

__all__ = ["ENCODER_THREADS", "MOST_THREADS", "Deinterlace", "EncodeOptions", "Hdr", "MetadataPolicy"]

Deinterlace: TypeAlias = Literal["frame", "field"]
"""What becomes of an interlaced picture: one picture, or one of each of its two fields at twice the rate."""

ENCODER_THREADS: Final = 4
"""How many threads encode unless a request gives another number: as many as the cores that each function reserves."""

MOST_THREADS: Final = 64
"""Modal reserves at most this many cores for a container."""

Hdr: TypeAlias = Literal["sdr", "keep"]
"""What becomes of an HDR picture: SDR, which plays everywhere, or HDR in 10 bits."""

MetadataPolicy: TypeAlias = Literal["keep", "strip"]
"""Which tags of a source an output has."""

_METADATA: Final[Kind[MetadataPolicy, MetadataPolicy]] = choice(MetadataPolicy)
_PRESETS: Final = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo"),
)
_ENCODER: Final = matching(
    r"(?!copy\b)[a-z0-9][a-z0-9_\-]*", "write auto or ffmpeg's name of an encoder", "`auto` or ffmpeg's name of one"
)
_DEINTERLACE: Final[Kind[Deinterlace, Deinterlace]] = choice(Deinterlace)
_HDR: Final[Kind[Hdr, Hdr]] = choice(Hdr)
_PRESET: Final = matching(
    f"{'|'.join(_PRESETS)}|p[1-7]",
    f"use one of {', '.join(_PRESETS)}, or p1 to p7 of an encoder of NVENC",
    "`ultrafast` to `placebo`; `p1` to `p7` of NVENC",
)


@record
class EncodeOptions(Record):
    """How the output is encoded.

    Attributes:
        encoder: `auto` (NVENC where it starts, else libx264; VP9 for WebM) or ffmpeg's name of one.
        quality: 0 (best) to 51; x264's crf or NVENC's cq, and the same share of VP9's and AV1's 63.
        preset: x264's word for speed against size, `ultrafast` to `veryslow`.
        smart: Whether what does not change is copied from the source, bit for bit, where that is possible.
        threads: Threads of the encoder, 1 to 64. x264 writes other bytes for another number, so it is part of the
            request and never depends on the machine.
        deinterlace: What is rendered of an interlaced clip: `frame` keeps its rate, `field` has a picture of each
            field at twice the rate. What is copied keeps its fields.
        hdr: What is rendered of an HDR clip: `sdr` makes SDR of it, BT.709 in 8 bits; `keep` renders in 10 bits what
            has more than 8, with its light. What is copied stays as it is.
        metadata: `strip` keeps the title and the creation time of the source and removes all other tags, such as the
            place and the device, and streams of data; `keep` keeps what the container takes.
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
                "preset", f"is {self.preset!r}, which NVENC alone has; use one of {', '.join(_PRESETS)}"
            )
