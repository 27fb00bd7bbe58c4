"""What x264 is told, so that new pictures can stand beside the source's own and lose no more than anybody sees.

Pure; it must not know files, nor what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Self

from reel_modal.schema import EncodeOptions
from reel_modal.smart_render.packets import Picture
from reel_modal.smart_render.planning import RenderPlan

__all__ = ["Matching"]

# No more may be lost than crf 18 would lose (benchmarks/smart_quality.py measures it). Below 0.4 bits a pixel that
# takes more bytes than the source did; above, there are some to spare: six steps of the quantizer for twice the bits.
_QUALITY: Final = 17
_BEST_QUALITY: Final = 8
_USUAL_BITS_PER_PIXEL: Final = 0.4
_MOST_B_FRAMES: Final = 3
_MOST_KEYINT: Final = 250
# What x264's presets take (x264 --fullhelp); fewer than the source has fit into every decoder that takes the source.
_REFERENCES: Final = {"ultrafast": 1, "superfast": 1, "veryfast": 1, "faster": 2, "fast": 2, "medium": 3, "slow": 5}
_MOST_REFERENCES: Final = 8
# It has no B-frames, which lose more than others. Where the source has some, new pictures want them as well: libav
# loses pictures behind a change from a stream without reordering to one with it.
_WITHOUT_B_FRAMES: Final = "ultrafast"
# Where few pictures are new, their bytes hardly count beside the others', but their time is most of the job's.
_FEW: Final = Fraction(1, 10)
_QUICK: Final = "superfast"
# It chooses the kind of each picture by a look at the next ones, for a sixth of its time. A fixed rhythm loses 0.3 dB
# more, and takes fewer bytes.
_QUICK_OPTIONS: Final = {"b-adapt": 0, "scenecut": 0}
# These lose no less than it does at the same crf. Slower ones do, and have a lower quantizer for chroma, too.
_AS_QUICK: Final = frozenset({"superfast", "veryfast"})
_FINER: Final = 2
_CHROMA_FINER: Final = 3


@dataclass(frozen=True, slots=True)
class Matching:
    """How new pictures are encoded: losing no more than they would at crf 18 with the preset that was asked for.

    Attributes:
        preset: x264's word for speed against size.
        quality: Its crf.
        more: Further parameters of x264's own.
    """

    preset: str
    quality: int
    more: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: RenderPlan, picture: Picture, encode: EncodeOptions) -> Self:
        """Take the preset that was asked for, or a quick one where few pictures are new."""
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

    def options(self, plan: RenderPlan, picture: Picture) -> dict[str, str]:
        """Return the options of the encoder, besides preset and crf."""
        sps = picture.sps
        # x264 declares at least two references beside B-frames, and four beside a pyramid of them.
        depth = 0 if sps.profile == "baseline" or sps.reference_frames < 2 else plan.reorder_depth
        wanted = _REFERENCES.get(self.preset, _MOST_REFERENCES)
        parameters = {
            "sps-id": picture.sets.free_id(),
            "open-gop": 0,
            "keyint": min(_MOST_KEYINT, picture.table.longest_run),
            "ref": min(wanted, max(1, sps.reference_frames)),
            "bframes": _MOST_B_FRAMES if depth else 0,
            "b-pyramid": "normal" if depth > 1 and sps.reference_frames >= 4 else "none",
            "level": sps.level_idc,
            # x264 declares the lowest profile that has what it uses.
            "cabac": int(sps.profile != "baseline"),
            "8x8dct": int(sps.profile not in {"baseline", "main"}),
        }
        if picture.field_order != "frame":
            parameters[picture.field_order] = 1
        elif not sps.frames_only:
            parameters["fake-interlaced"] = 1
        parameters |= self.more
        starts, written = [], 0
        for window in plan.windows:
            # A quarter of a frame early, so that the picture is the first at or after it, and the nearest one too:
            # ffmpeg rounds these times to frames.
            starts.append(f"{float(max(written - Fraction(1, 4), Fraction(0)) / picture.media.fps):.6f}")
            written += window.kept[1] - window.kept[0]
        return {
            "profile:v": sps.profile,
            "force_key_frames": ",".join(starts),
            "x264-params": ":".join(f"{name}={value}" for name, value in parameters.items()),
        }
