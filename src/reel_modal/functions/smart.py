"""The first try of a render function: copy what does not change, and say why where that cannot be done.

It must not know what is drawn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal import smart_render
from reel_modal.config import Settings
from reel_modal.encoders import try_encoder
from reel_modal.errors import EncoderUnavailableError, MediaError
from reel_modal.ffmpeg_pipe import PipeResult
from reel_modal.functions.context import JobContext
from reel_modal.functions.publishing import verify_made
from reel_modal.media import MediaInfo, find_ffmpeg
from reel_modal.schema import EncodeOptions
from reel_modal.smart_render import Interval, Painter, RenderPlan, Trim

__all__ = ["render_smart"]

_GPU_ENCODER: Final = "h264_nvenc"
# Where the encoder costs nothing, a render makes about four times as many frames a second as with x264 on two cores.
_WORTH_SHARE: Final = Fraction(1, 4)

_log = logging.getLogger(__name__)


def render_smart(
    media: MediaInfo,
    changed: Iterable[Interval],
    output: Path,
    encode: EncodeOptions,
    *,
    painter: Painter | None,
    context: JobContext,
    function: str,
    trim: Trim | None = None,
) -> tuple[RenderPlan, PipeResult | None]:
    """Render what changes and copy the rest; return the plan and what was made, None where all must be rendered.

    Args:
        media: The source.
        changed: See `smart_render.plan`.
        output: The file to make.
        encode: What the request wants of the encoder.
        painter: Says who draws on each picture that is made anew.
        context: Reporter, settings and cancellation.
        function: Who asks, for the message of a cancellation.
        trim: See `smart_render.plan`.

    Raises:
        InvalidMediaError: The source cannot be read.
        FFmpegError: Encoding failed.

    Cancellation:
        Raises JobCancelledError between two frames; nothing is left.
    """
    plan = smart_render.plan(media, changed, output=output, encode=encode, trim=trim)
    if plan.kind == "smart" and (reason := _better_in_full(plan, encode, context.settings)):
        plan = RenderPlan.full(reason)
    if plan.kind == "full":
        return plan, None

    def looked(frames: int) -> None:
        context.raise_if_cancelled(function)
        advance(frames)

    try:
        with context.reporter.phase("render", plan.frames_rendered) as advance:
            made = smart_render.splice(
                plan,
                output,
                encode=encode,
                painter=painter,
                settings=context.settings,
                advance=looked,
                metadata=context.output_tags,
            )
            # Before it is published it is looked at again; here a whole render can still take its place.
            verify_made(made, context)
    except (MediaError, EncoderUnavailableError) as error:
        output.unlink(missing_ok=True)
        _log.warning("%s: rendering all of it, since its parts could not be copied: %s", function, error)
        return RenderPlan.full(f"copying was tried, but {error}"), None
    return plan, made


def _better_in_full(plan: RenderPlan, encode: EncodeOptions, settings: Settings) -> str:
    """Return why a GPU's encoder should make all of it, empty where it should not."""
    rendered = plan.frames_rendered
    if encode.encoder != "auto" or rendered <= _WORTH_SHARE * (rendered + plan.frames_copied):
        return ""
    try:
        try_encoder(find_ffmpeg(settings).path, _GPU_ENCODER, timeout_seconds=settings.stall_seconds)
    except EncoderUnavailableError:
        return ""
    return f"{_GPU_ENCODER} starts here, and makes all of it sooner than libx264 the {rendered} pictures that change"
