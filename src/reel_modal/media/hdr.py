"""HDR metadata of a video, and the filters that convert HDR to SDR."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final, Self

from reel_modal.media.frames import GRAPHICS_WHITE_NITS, ColorTags
from reel_modal.media.pyav import frame_side_data

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["HdrMetadata", "tone_map_filters"]

# Peak of HLG's reference display and of most PQ masters; another declared peak is clamped to these bounds.
_USUAL_PEAK_NITS: Final = 1000
_LEAST_PEAK_NITS: Final = 400
_PQ_PEAK_NITS: Final = 10_000
# Luminance up to half of white is not changed; above it, the curve is compressed so that the peak becomes SDR's
# white.
_KNEE: Final = 0.5
# Layout of AVMasteringDisplayMetadata (libavutil/mastering_display_metadata.h): ten ratios and two flags, as
# integers.
_MASTERING: Final = struct.Struct("=22i")
_LIGHT: Final = struct.Struct("=2I")
# Units of chromaticity and luminance in SMPTE ST 2086.
_CHROMATICITY: Final = 50_000
_CANDELA: Final = 10_000
_ZSCALE_RANGES: Final[Mapping[str | None, str]] = {"pc": "full", "tv": "limited", None: "limited"}


@dataclass(frozen=True, slots=True)
class HdrMetadata:
    """The mastering display and light levels that a video declares; None means unspecified.

    Attributes:
        primaries: Chromaticities (x, y) of red, green, blue and white (SMPTE ST 2086).
        luminance: Minimum and maximum luminance of the display, in candelas per square metre.
        content_light: MaxCLL and MaxFALL (CTA-861.3), in candelas per square metre.
    """

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    content_light: tuple[int, int] | None = None

    @classmethod
    def of_frame(cls, frame: VideoFrame) -> Self | None:
        """Return the metadata of a decoded frame, or None if it has none with valid values."""
        primaries = luminance = light = None
        data = frame_side_data(frame, "MASTERING_DISPLAY_METADATA")
        if data is not None and len(data) >= _MASTERING.size:
            *numbers, has_primaries, has_luminance = _MASTERING.unpack_from(data)
            ratios = [Fraction(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True) if pair[1]]
            known = len(ratios) == len(numbers) // 2
            if known and has_primaries and all(0 <= ratio <= 1 for ratio in ratios[:8]):
                primaries = tuple(zip(ratios[:8:2], ratios[1:8:2], strict=True))
            if known and has_luminance and 0 <= ratios[8] < ratios[9] <= _PQ_PEAK_NITS:
                luminance = (ratios[8], ratios[9])
        data = frame_side_data(frame, "CONTENT_LIGHT_LEVEL")
        if data is not None and len(data) >= _LIGHT.size:
            most, mean = _LIGHT.unpack_from(data)
            light = (most, mean) if max(most, mean) <= _PQ_PEAK_NITS else None
        return cls(primaries, luminance, light) if primaries or luminance or light else None

    def parameters(self, encoder: str) -> tuple[str, Mapping[str, str]] | None:
        """Return the option of `encoder` for its parameters and the HDR parameters; None if it has no such option."""
        names = _PARAMETERS.get(encoder)
        if names is None:
            return None
        option, display, light = names
        parameters = {}
        if self.primaries is not None and self.luminance is not None:
            parameters[display] = _in_units(self.primaries, self.luminance, whole=encoder != _IN_DECIMALS)
        if self.content_light is not None:
            parameters[light] = ",".join(map(str, self.content_light))
        return option, parameters


_PARAMETERS: Final = {
    "libx264": ("x264-params", "mastering-display", "cll"),
    "libx265": ("x265-params", "master-display", "max-cll"),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light"),
}
_IN_DECIMALS: Final = "libsvtav1"


def _in_units(
    primaries: tuple[tuple[Fraction, Fraction], ...], luminance: tuple[Fraction, Fraction], *, whole: bool
) -> str:
    """Return a display in the syntax that the encoders share, in units of SMPTE ST 2086 or as decimals."""

    def number(value: Fraction, unit: int) -> str:
        return str(round(value * unit)) if whole else f"{float(value):.6f}"

    red, green, blue, white = (f"({number(x, _CHROMATICITY)},{number(y, _CHROMATICITY)})" for x, y in primaries)
    least, most = (number(light, _CANDELA) for light in luminance)
    return f"G{green}B{blue}R{red}WP{white}L({most},{least})"


def tone_map_filters(color: ColorTags, metadata: HdrMetadata | None) -> Iterator[str]:
    """Yield the filters from PQ or HLG to SDR: BT.709, 8 bits, limited range, chroma on the left.

    Light is made linear, with graphics white at 1. Values up to half of that are not changed; brighter ones are
    compressed so that the peak of the source becomes white. A source without a matrix or primaries is assumed to be
    BT.2020.

    Args:
        color: The color tags of the source.
        metadata: Its HDR metadata.
    """
    matrix, primaries = color.matrix or "bt2020nc", color.primaries or "bt2020"
    tags = f"min={matrix}:pin={primaries}:tin={color.transfer}:rin={_ZSCALE_RANGES[color.range]}"
    # zscale's default, approximate curves, differs between processors by up to 49 levels.
    yield f"zscale={tags}:t=linear:npl={GRAPHICS_WHITE_NITS}:agamma=0"
    yield "format=gbrpf32le"
    yield "zscale=p=bt709"
    yield f"tonemap=tonemap=mobius:param={_KNEE}:desat=0:peak={float(_peak(color, metadata) / GRAPHICS_WHITE_NITS)!r}"
    # Integers clip values that are brighter than the peak, and colors outside BT.709.
    yield "zscale=t=bt709:r=full:agamma=0"
    yield "format=gbrp16le"
    yield "zscale=m=bt709:r=limited:c=left"
    yield "format=yuv420p"


def _peak(color: ColorTags, metadata: HdrMetadata | None) -> Fraction:
    """Return the peak luminance for tone mapping, in candelas per square metre."""
    peak = Fraction(_USUAL_PEAK_NITS)
    if color.transfer == "smpte2084" and metadata is not None:
        if metadata.content_light is not None and metadata.content_light[0]:
            peak = Fraction(metadata.content_light[0])
        elif metadata.luminance is not None and metadata.luminance[1]:
            peak = metadata.luminance[1]
    return min(max(peak, Fraction(_LEAST_PEAK_NITS)), Fraction(_PQ_PEAK_NITS))
