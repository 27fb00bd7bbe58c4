"""ffmpeg's names for the color codes in a stream.

Source: ITU-T H.273 (07/2021), tables 2 to 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from reel_modal.media.frames import ColorTags

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

__all__ = ["color_tags"]

# RGB (0) and "unspecified" (2) are omitted: neither specifies a YUV matrix.
_MATRICES: Final = {1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc", 10: "bt2020c"}
_PRIMARIES: Final = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "film",
    9: "bt2020",
    10: "smpte428",
    11: "smpte431",
    12: "smpte432",
    22: "ebu3213",
}
_TRANSFERS: Final = {
    1: "bt709",
    4: "bt470m",
    5: "bt470bg",
    6: "smpte170m",
    7: "smpte240m",
    8: "linear",
    9: "log100",
    10: "log316",
    11: "iec61966-2-4",
    12: "bt1361e",
    13: "iec61966-2-1",
    14: "bt2020-10",
    15: "bt2020-12",
    16: "smpte2084",
    17: "smpte428",
    18: "arib-std-b67",
}
# JFIF centers chroma between its four pixels. PyAV does not expose the chroma location of other codecs.
_JPEG: Final = frozenset({"mjpeg", "mjpegb"})
_RANGES: Final[dict[int, Literal["tv", "pc"]]] = {1: "tv", 2: "pc"}


def color_tags(context: VideoCodecContext, pixel_format: str) -> ColorTags:
    """Return the color tags of a stream.

    Args:
        context: The stream's codec context.
        pixel_format: ffmpeg's name; JPEG formats (`yuvj420p`) are full range by definition.
    """
    return ColorTags(
        matrix=_MATRICES.get(int(context.colorspace)),
        range="pc" if pixel_format.startswith("yuvj") else _RANGES.get(int(context.color_range)),
        primaries=_PRIMARIES.get(int(context.color_primaries)),
        transfer=_TRANSFERS.get(int(context.color_trc)),
        chroma_location="center" if context.name in _JPEG else None,
    )
