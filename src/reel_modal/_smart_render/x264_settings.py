"""Settings of x264 for the re-encoded frames of a smart render, from those of the request and of the source."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Self

from reel_modal._smart_render.h264.parameter_sets import x264_profile
from reel_modal._smart_render.plan import RenderPlan
from reel_modal._smart_render.source import SpliceSource
from reel_modal.schema import EncodeOptions

__all__ = ["X264Settings", "keyframe_options"]

# The loss must not exceed that of crf 18 (benchmarks/smart_quality.py measures it). Below 0.4 bits per pixel this
# takes more bytes than the source. Above, bytes are available: the quantizer drops by 6 each time the bits double.
_QUALITY: Final = 17
_BEST_QUALITY: Final = 8
_USUAL_BITS_PER_PIXEL: Final = 0.4
_MOST_B_FRAMES: Final = 3
_MOST_KEYINT: Final = 250
# Reference frames of x264's presets (x264 --fullhelp). A decoder that can decode the source can decode fewer, too.
_REFERENCES: Final = {"ultrafast": 1, "superfast": 1, "veryfast": 1, "faster": 2, "fast": 2, "medium": 3, "slow": 5}
_MOST_REFERENCES: Final = 8
# This preset has no B-frames, and B-frames lose more than other frames. If the source has B-frames, the new frames
# need them as well: libav drops frames at a change from a stream without reordering to one with it.
_WITHOUT_B_FRAMES: Final = "ultrafast"
# If few frames are re-encoded, their size hardly matters, but encoding them takes most of the job's time.
_FEW: Final = Fraction(1, 10)
_QUICK: Final = "superfast"
# By default this preset spends a sixth of its time on choosing frame types by lookahead. A fixed pattern loses 0.3 dB
# more, and takes fewer bytes.
_QUICK_OPTIONS: Final = {"b-adapt": 0, "scenecut": 0}
# At the same crf these presets lose at least as much as superfast. Slower presets lose less, and use a lower
# quantizer for chroma.
_AS_QUICK: Final = frozenset({"superfast", "veryfast"})
_FINER: Final = 2
_CHROMA_FINER: Final = 3


@dataclass(frozen=True, slots=True)
class X264Settings:
    """Encoder settings that lose no more than crf 18 with the requested preset.

    Attributes:
        preset: x264 preset.
        quality: x264 crf.
        more: Further x264 parameters.
    """

    preset: str
    quality: int
    more: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: RenderPlan, picture: SpliceSource, encode: EncodeOptions) -> Self:
        """Return settings with the requested preset, or with a fast one if few frames are re-encoded."""
        preset, finer, more = encode.preset, 0, dict[str, int]()
        if preset == _WITHOUT_B_FRAMES:
            finer = _FINER
            more = {"pbratio": 1}
        elif plan.frames_rendered <= _FEW * plan.frames:
            preset, more = _QUICK, dict(_QUICK_OPTIONS)
            if encode.preset not in _AS_QUICK:
                finer = _FINER
                more["chroma-qp-offset"] = -_CHROMA_FINER
        richer = math.log2(max(picture.bits_per_pixel / _USUAL_BITS_PER_PIXEL, 1))
        matching = max(_BEST_QUALITY, round(_QUALITY - finer - 6 * richer))
        return cls(preset, min(encode.quality, matching), more)

    def options(self, plan: RenderPlan, picture: SpliceSource) -> dict[str, str]:
        """Return the encoder options besides preset and crf."""
        sps, profile = picture.sps, x264_profile(picture.sps)
        # x264 declares at least two reference frames if it uses B-frames, and four if it uses a B-pyramid.
        depth = 0 if profile == "baseline" or sps.reference_frames < 2 else plan.reorder_depth
        references = _REFERENCES.get(self.preset, _MOST_REFERENCES)
        parameters = {
            "sps-id": picture.sets.free_id(),
            "open-gop": 0,
            "keyint": min(_MOST_KEYINT, picture.table.longest_run),
            "ref": min(references, max(1, sps.reference_frames)),
            "bframes": _MOST_B_FRAMES if depth else 0,
            "b-pyramid": "normal" if depth > 1 and sps.reference_frames >= 4 else "none",
            "level": sps.level_idc,
            # x264 declares the lowest profile that has all the tools it uses.
            "cabac": int(profile != "baseline"),
            "8x8dct": int(profile not in {"baseline", "main"}),
        }
        if picture.field_order != "frame":
            parameters[picture.field_order] = 1
        elif not sps.frames_only:
            parameters["fake-interlaced"] = 1
        parameters |= self.more
        return {
            "profile:v": profile,
            "x264-params": ":".join(f"{name}={value}" for name, value in parameters.items()),
        }


def keyframe_options(plan: RenderPlan, fps: Fraction) -> dict[str, str]:
    """Return the encoder options that begin each span with a keyframe, if one file contains all spans.

    Args:
        plan: The spans.
        fps: Frames per second of the file.
    """
    starts, written = [], 0
    for window in plan.windows:
        # A quarter of a frame early: ffmpeg rounds these times, and the frame must be both the first one at or
        # after the time and the nearest one.
        starts.append(f"{float(max(written - Fraction(1, 4), Fraction(0)) / fps):.6f}")
        written += window.kept[1] - window.kept[0]
    return {"force_key_frames": ",".join(starts)}
