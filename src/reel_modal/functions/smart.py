"""The first try of a render function: copy what does not change, and say why where that cannot be done; or expect it.

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
from reel_modal.errors import EncoderUnavailableError, InvalidMediaError, MediaError, SpliceError
from reel_modal.functions.context import JobContext
from reel_modal.functions.publishing import VerifiedFile, tags_for, verified
from reel_modal.media import MediaInfo
from reel_modal.media.encoders import try_encoder
from reel_modal.media.extras import Extras
from reel_modal.schema import EncodeOptions
from reel_modal.schema.requests import Request
from reel_modal.smart_render import Interval, Painter, RenderPlan, Trim
from reel_modal.smart_render.expecting import frames_guessed

__all__ = ["frames_expected", "render_smart"]

_GPU_ENCODER: Final = "h264_nvenc"
# Where the encoder costs nothing, a render makes about four times as many frames a second as with x264 on two cores.
_WORTH_SHARE: Final = Fraction(1, 4)
# Of a clip whose headers lie about, all through it, less may be here than they say.
_WHOLE_SHARE: Final = Fraction(9, 10)

_log = logging.getLogger(__name__)


def render_smart(
    media: MediaInfo,
    changed: Iterable[Interval],
    output: Path,
    request: Request,
    *,
    extras: Extras,
    painter: Painter | None,
    context: JobContext,
    function: str,
    trim: Trim | None = None,
    refused: str = "",
) -> tuple[RenderPlan, VerifiedFile | None]:
    """Render what changes and copy the rest; return the plan and what was made, None where all must be rendered.

    What was made has been looked at, here where a whole render can still take its place.

    Args:
        media: The source.
        changed: See `smart_render.plan`.
        output: The file to make.
        request: What is asked for.
        extras: What goes along with picture and sound.
        painter: Says who draws on each picture that is made anew.
        context: Reporter, settings and cancellation.
        function: Who asks, for the message of a cancellation.
        trim: See `smart_render.plan`.
        refused: Why nothing can be copied, if that is known already.

    Raises:
        InvalidMediaError: The source cannot be read.
        FFmpegError: Encoding failed.

    Cancellation:
        Raises JobCancelledError between two frames, or two packets of what was made; nothing is left.
    """
    if refused:
        return RenderPlan.full(refused), None
    encode = request.encode
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
                metadata=tags_for(media, request, context),
                extras=extras,
                check=lambda: context.raise_if_cancelled(function),
            )
        return plan, verified(made, context, function)
    except (MediaError, EncoderUnavailableError) as error:
        output.unlink(missing_ok=True)
        _log.warning("%s: rendering all of it, since its parts could not be copied: %s", function, error)
        return RenderPlan.full(f"copying was tried, but {error}"), None


def frames_expected(
    media: MediaInfo,
    changed: Iterable[Interval],
    output: Path,
    encode: EncodeOptions,
    *,
    on_gpu: bool,
    trim: Trim | None = None,
) -> int | None:
    """Return how many pictures `render_smart` is likely to render, None for all; nothing is fetched or decoded.

    Where the headers of the clip are here, they say where its keyframes are. Where they are not, or are of a part of
    it, keyframes are taken to be two seconds apart.

    Args:
        media: The source.
        changed: See `smart_render.plan`.
        output: The name of the output.
        encode: What the request wants of the encoder.
        on_gpu: Whether a GPU will be there, which encodes.
        trim: See `smart_render.plan`.
    """
    changed = tuple(changed)
    shown = media.expected_frames or 1
    try:
        plan = smart_render.plan(media, changed, output=output, encode=encode, trim=trim, in_part=True)
    except InvalidMediaError:  # it is not here
        plan = None
    if plan is not None and plan.kind == "full":
        return None
    if plan is not None and (trim is not None or plan.frames >= _WHOLE_SHARE * shown):
        rendered, frames = plan.frames_rendered, plan.frames
    else:
        try:
            rendered, frames = frames_guessed(media, changed), shown
        except SpliceError:
            return None
    return None if on_gpu and _worth_a_gpu(encode, rendered, frames) else rendered


def _worth_a_gpu(encode: EncodeOptions, rendered: int, frames: int) -> bool:
    return encode.encoder == "auto" and rendered > _WORTH_SHARE * frames


def _better_in_full(plan: RenderPlan, encode: EncodeOptions, settings: Settings) -> str:
    """Return why a GPU's encoder should make all of it, empty where it should not."""
    rendered = plan.frames_rendered
    if not _worth_a_gpu(encode, rendered, plan.frames):
        return ""
    try:
        try_encoder(settings, _GPU_ENCODER)
    except EncoderUnavailableError:
        return ""
    return f"{_GPU_ENCODER} starts here, and makes all of it sooner than libx264 the {rendered} pictures that change"
