"""Try smart rendering first; fall back to a full render with a reason. Also estimate the frames to render."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal import _smart_render
from reel_modal._ffmpeg.encoders import try_encoder
from reel_modal._ffmpeg.extra_streams import Extras
from reel_modal._smart_render import Interval, Painter, RenderPlan, SplicePlan, Trim
from reel_modal._smart_render.plan import estimate_rendered_frames
from reel_modal._support.scratch import scratch_dir
from reel_modal.errors import EncoderUnavailableError, InvalidMediaError, MediaError, SpliceError
from reel_modal.functions.context import JobContext
from reel_modal.functions.outputs import VerifiedFile, tags_for, verified
from reel_modal.functions.smart_windows import encode_changed
from reel_modal.media import MediaInfo
from reel_modal.schema import EncodeOptions
from reel_modal.schema.requests import VideoRequest
from reel_modal.settings import Settings

__all__ = ["better_in_full", "frames_expected", "render_smart", "worth_a_gpu"]

_GPU_ENCODER: Final = "h264_nvenc"
# With a hardware encoder, a render makes about four times as many frames per second as with x264 on two cores.
_WORTH_SHARE: Final = Fraction(1, 4)
# Headers may be spread throughout a clip and only partly fetched; use them if they cover this share of the frames.
_WHOLE_SHARE: Final = Fraction(9, 10)

_log = logging.getLogger(__name__)


def render_smart(
    media: MediaInfo,
    changed: Iterable[Interval],
    output: Path,
    request: VideoRequest,
    *,
    extras: Extras,
    painter: Painter | None,
    context: JobContext,
    trim: Trim | None = None,
    refused: str = "",
) -> tuple[RenderPlan, VerifiedFile | None]:
    """Re-encode the changed parts and copy the rest; return the plan and the file, None if all must be rendered.

    The file is verified here, so that the caller can fall back to a full render.

    Args:
        media: The source.
        changed: See `_smart_render.plan_render`.
        output: The file to write.
        request: The request.
        extras: Streams, chapters and timecode to keep besides video and audio.
        painter: Returns the function that draws on each re-encoded frame; None leaves the frames unchanged.
        context: Reporter, settings and cancellation.
        trim: See `_smart_render.plan_render`.
        refused: Reason why nothing can be copied, if it is already known.

    Raises:
        InvalidMediaError: The source cannot be read.
        FFmpegError: Encoding failed.

    Cancellation:
        Raises JobCancelledError between two frames, or between two packets while the file is verified.
    """
    if refused:
        return RenderPlan.full(refused), None
    encode = request.encode
    plan = _smart_render.plan_render(media, changed, output=output, encode=encode, trim=trim)
    if plan.kind == "smart" and (reason := better_in_full(plan, encode, context.settings)):
        plan = RenderPlan.full(reason)
    if not isinstance(plan, SplicePlan):
        return plan, None
    try:
        with (
            context.reporter.phase("render", plan.frames_rendered) as advance,
            scratch_dir(context.workdir) as folder,
        ):
            encoded = encode_changed(plan, folder, request, painter=painter, context=context, advance=advance)
            spliced = _smart_render.render_spliced(
                plan,
                output,
                encoded,
                settings=context.settings,
                metadata=tags_for(media, request, context),
                extras=extras,
                check=context.raise_if_cancelled,
            )
        return plan, verified(spliced, context)
    except (MediaError, EncoderUnavailableError) as error:
        output.unlink(missing_ok=True)
        _log.warning("%s: rendering the whole clip, since copying its packets failed: %s", context.function, error)
        return RenderPlan.full(f"copying its packets failed: {error}"), None


def frames_expected(
    media: MediaInfo,
    changed: Iterable[Interval],
    output: Path,
    encode: EncodeOptions,
    *,
    on_gpu: bool,
    trim: Trim | None = None,
) -> int | None:
    """Return the estimated number of frames that `render_smart` renders, None for all; fetches and decodes nothing.

    If the headers of the clip are available here, they give its keyframes. Otherwise, or if they cover only a part,
    keyframes are assumed to be two seconds apart.

    Args:
        media: The source.
        changed: See `_smart_render.plan_render`.
        output: The name of the output.
        encode: Encoder options of the request.
        on_gpu: Whether the job will have a GPU that encodes.
        trim: See `_smart_render.plan_render`.
    """
    changed = tuple(changed)
    shown = media.expected_frames or 1
    try:
        plan = _smart_render.plan_render(media, changed, output=output, encode=encode, trim=trim, in_part=True)
    except InvalidMediaError:  # the file is not on this machine
        plan = None
    if plan is not None and plan.kind == "full":
        return None
    if plan is not None and (trim is not None or plan.frames >= _WHOLE_SHARE * shown):
        rendered, frames = plan.frames_rendered, plan.frames
    else:
        try:
            rendered, frames = estimate_rendered_frames(media, changed), shown
        except SpliceError:
            return None
    return None if on_gpu and worth_a_gpu(encode, rendered, frames) else rendered


def worth_a_gpu(encode: EncodeOptions, rendered: int, frames: int) -> bool:
    """Return whether a GPU that encodes all `frames` takes less time than x264 with the `rendered` ones."""
    return encode.encoder == "auto" and rendered > _WORTH_SHARE * frames


def better_in_full(plan: RenderPlan, encode: EncodeOptions, settings: Settings) -> str:
    """Return why a GPU encoder should render the whole clip; empty if it should not."""
    rendered = plan.frames_rendered
    if not worth_a_gpu(encode, rendered, plan.frames):
        return ""
    try:
        try_encoder(settings, _GPU_ENCODER)
    except EncoderUnavailableError:
        return ""
    return f"{_GPU_ENCODER} is available, and encodes all of it faster than libx264 the {rendered} changed frames"
