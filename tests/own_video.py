"""A function of a host that draws on each frame, as tests declare it."""

from __future__ import annotations

from fractions import Fraction

from reel_modal._segments import SEGMENT_SECONDS
from reel_modal.functions.context import JobContext
from reel_modal.functions.declaration import render_function
from reel_modal.functions.frame_function import render_frames
from reel_modal.functions.specs import SegmentSpec
from reel_modal.media.frames import Frame
from reel_modal.schema import RenderResult
from reel_modal.schema._fields import declared, record
from reel_modal.schema._kinds import integer
from reel_modal.schema.requests import VideoRequest


@record
class TintRequest(VideoRequest):
    """Request of `tint`.

    Attributes:
        level: Added to the samples of U.
    """

    level: int = declared(converter=integer(0, 255), default=40)


def drawn(request: TintRequest, frame: Frame, seconds: Fraction) -> None:
    """Change the colour, and the brightness by the time; drawn on twice, a frame would differ."""
    frame.planes[0][:8] += int(seconds * 10) % 100
    frame.planes[1][:] += request.level


@render_function(
    name="tint",
    request=TintRequest,
    result=RenderResult,
    cpu=1,
    memory_mb=512,
    timeout_seconds=60,
    segments=SegmentSpec(seconds=SEGMENT_SECONDS),
)
def tint(request: TintRequest, context: JobContext) -> RenderResult:
    """Tint each frame."""

    def draw(frame: Frame, seconds: Fraction) -> None:
        drawn(request, frame, seconds)

    return render_frames(request, context, draw, engine="tint 1")
