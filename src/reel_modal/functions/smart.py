"""The first try of a render function: copy what does not change, and say why where that cannot be done.

It must not know what is drawn.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from reel_modal import smart_render
from reel_modal.errors import EncoderUnavailableError, MediaError
from reel_modal.ffmpeg_pipe import PipeResult
from reel_modal.functions.context import JobContext
from reel_modal.media import MediaInfo
from reel_modal.schema import EncodeOptions
from reel_modal.smart_render import Draw, Interval, RenderPlan, Trim

__all__ = ["render_smart"]

_log = logging.getLogger(__name__)


def render_smart(
    media: MediaInfo,
    changed: Iterable[Interval],
    output: Path,
    encode: EncodeOptions,
    *,
    draw: Draw | None,
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
        draw: Draws on each picture that is made anew.
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
    if plan.kind == "full":
        return plan, None

    def looked(frames: int) -> None:
        context.raise_if_cancelled(function)
        advance(frames)

    try:
        with context.reporter.phase("render", plan.frames_rendered) as advance:
            made = smart_render.splice(
                plan, output, encode=encode, draw=draw, settings=context.settings, advance=looked
            )
    except (MediaError, EncoderUnavailableError) as error:
        _log.warning("%s: rendering all of it, since its parts could not be copied: %s", function, error)
        return RenderPlan.full(f"copying was tried, but {error}"), None
    return plan, made
