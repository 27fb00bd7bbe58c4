"""A function whose frames take a stated time, so that its speed does not depend on the machine."""

from __future__ import annotations

import time
from fractions import Fraction

from reel_modal import Frame, JobContext, RenderResult, SegmentSpec, render_function
from reel_modal.functions.frame_function import render_frames
from reel_modal.schema.fields import declared, integer, record
from reel_modal.schema.requests import VideoRequest


@record
class PacedRequest(VideoRequest):
    """Request of `paced`.

    Attributes:
        frame_ms: Milliseconds that each frame takes.
    """

    frame_ms: int = declared(converter=integer(0, 1000), default=40)


@render_function(
    name="paced",
    request=PacedRequest,
    result=RenderResult,
    cpu=1,
    memory_mb=1024,
    timeout_seconds=3600,
    segments=SegmentSpec(seconds=Fraction(8)),
)
def paced(request: PacedRequest, context: JobContext) -> RenderResult:
    """Wait for the stated time at each frame."""

    def draw(_: Frame, __: Fraction) -> None:
        time.sleep(request.frame_ms / 1000)

    return render_frames(request, context, draw, engine="paced 1")
