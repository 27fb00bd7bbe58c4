"""How the pictures of a clip are read, drawn on and written, as a request asks: rate, light, bits."""

from __future__ import annotations

from typing import Literal, TypeAlias

from reel_modal.frames import AnyPlanes, Frame
from reel_modal.media import MediaInfo
from reel_modal.schema import EncodeOptions

__all__ = ["RenderedFormat", "as_rendered", "planes_of", "rendered_format"]

RenderedFormat: TypeAlias = Literal["yuv420p", "yuv420p10le"]
"""The layout of rendered pictures."""


def as_rendered(media: MediaInfo, encode: EncodeOptions) -> MediaInfo:
    """Return what of a clip is rendered: pictures made of fields, and SDR made of HDR unless that is kept."""
    made = media.deinterlaced(encode.deinterlace)
    return made.tone_mapped() if encode.hdr == "sdr" else made


def rendered_format(media: MediaInfo, encode: EncodeOptions) -> RenderedFormat:
    """Return the layout in which a clip is drawn on and written: 10 bits if it has more than 8 and they are kept."""
    deep = media.bit_depth > 8 or media.color.is_hdr
    return "yuv420p10le" if deep and encode.hdr == "keep" else "yuv420p"


def planes_of(frame: Frame) -> AnyPlanes:
    """Return the samples of a rendered frame."""
    return frame.planes if frame.pixel_format == "yuv420p" else frame.deep_planes
