"""Format in which a clip is rendered, as requested: deinterlacing, tone mapping, bit depth."""

from __future__ import annotations

from typing import Literal, TypeAlias

from reel_modal.media import MediaInfo
from reel_modal.media.frames import AnyPlanes, Frame
from reel_modal.schema import EncodeOptions

__all__ = ["RenderedFormat", "as_rendered", "planes_of", "rendered_format"]

RenderedFormat: TypeAlias = Literal["yuv420p", "yuv420p10le"]
"""Pixel format of rendered frames."""


def as_rendered(media: MediaInfo, encode: EncodeOptions) -> MediaInfo:
    """Return the clip to render: deinterlaced, and tone-mapped to SDR if the request asks for SDR."""
    rendered = media.deinterlaced(encode.deinterlace)
    return rendered.tone_mapped() if encode.hdr == "sdr" else rendered


def rendered_format(media: MediaInfo, encode: EncodeOptions) -> RenderedFormat:
    """Return the pixel format for rendering: 10 bits if the clip has more than 8 bits and the request keeps them."""
    deep = media.bit_depth > 8 or media.color.is_hdr
    return "yuv420p10le" if deep and encode.hdr == "keep" else "yuv420p"


def planes_of(frame: Frame) -> AnyPlanes:
    """Return the planes of a rendered frame."""
    return frame.planes if frame.pixel_format == "yuv420p" else frame.deep_planes
