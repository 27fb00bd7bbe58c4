"""Smart rendering: re-encode only the changed parts of a clip and copy all other packets bit for bit.

The render function passes in the changed intervals and draws the frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path

from reel_modal._ffmpeg.audio_unindexed import sound_formats
from reel_modal._ffmpeg.extra_streams import Extras
from reel_modal._smart_render.plan import (
    Interval,
    RenderPlan,
    RenderSpan,
    SplicePlan,
    Trim,
    plan_packets,
    refuse_most,
)
from reel_modal._smart_render.render import (
    Draw,
    EncodedFrames,
    Painter,
    encode_windows,
    opened_frames,
    window_pipe,
)
from reel_modal._smart_render.source import read_picture
from reel_modal._smart_render.splice import SUFFIXES, splice_packets
from reel_modal._smart_render.verify import verify_splice
from reel_modal.errors import SpliceError
from reel_modal.ffmpeg_pipe import PipeResult
from reel_modal.media import MediaInfo
from reel_modal.schema import EncodeOptions
from reel_modal.settings import Settings
from reel_modal.storage import publish_file, staging_name

__all__ = [
    "Draw",
    "EncodedFrames",
    "Interval",
    "Painter",
    "RenderPlan",
    "RenderSpan",
    "SplicePlan",
    "Trim",
    "encode_windows",
    "opened_frames",
    "plan_render",
    "render_spliced",
    "window_pipe",
]

_ENCODERS = frozenset({"auto", "libx264"})


def plan_render(
    media: MediaInfo,
    changed_intervals: Iterable[Interval],
    *,
    output: Path,
    encode: EncodeOptions,
    trim: Trim | None = None,
    in_part: bool = False,
) -> RenderPlan:
    """Return the plan of which packets of `media` to copy and which frames to re-encode.

    Args:
        media: The clip; all its packets are read, none is decoded.
        changed_intervals: Start and end of each change, both inclusive, in seconds from the first shown frame.
        output: The path of the output; its suffix selects the container.
        encode: The encoder options of the request.
        trim: The part to keep; None keeps all.
        in_part: Plan only for an estimate: the file may be fetched in part, down to its headers.

    Returns:
        The plan. Its kind is `full`, with a reason, if copying is not possible or not worth it.

    Raises:
        InvalidMediaError: The file cannot be read.

    Example:
        >>> media = probe("clip.mp4")
        >>> changed = [(Fraction(3), Fraction(5))]
        >>> plan_render(media, changed, output=Path("out.mp4"), encode=EncodeOptions()).frames_copied
        2580
    """
    media, changed = media.as_stored(), tuple(changed_intervals)
    try:
        _refuse_by_request(media, output, encode, drawn_on=bool(changed))
        picture = read_picture(media, None if trim is None else (trim.start, trim.end), in_part=in_part)
        if trim is not None and not trim.evenly_spaced:
            picture = replace(picture, times=picture.times.cut(picture.table, trim.start, trim.end))
        if not in_part and (trim is None or trim.sound):
            _refuse_changing_sound(media)
        plan = plan_packets(picture.table, picture.times, changed, trim=trim)
        refuse_most(plan.frames_rendered, plan.frames)
        _refuse_new_hdr(media, plan)
    except SpliceError as error:
        return RenderPlan.full(str(error))
    if in_part:
        return plan
    return SplicePlan(**{each.name: getattr(plan, each.name) for each in fields(plan)}, picture=picture)


def _refuse_changing_sound(media: MediaInfo) -> None:
    if sound_formats(media):
        raise SpliceError("its audio changes its sample rate or its channels")


def render_spliced(
    plan: SplicePlan,
    output: Path,
    encoded: EncodedFrames | None,
    *,
    settings: Settings,
    metadata: Mapping[str, str],
    extras: Extras,
    check: Callable[[], None],
) -> PipeResult:
    """Write `output` as planned, verify it, and publish it only if it is complete and correct.

    Args:
        plan: The plan.
        output: The final path.
        encoded: The re-encoded frames; None if the plan has none.
        settings: Limits of the decoder.
        metadata: Metadata tags of the file.
        extras: Streams, chapters and timecode besides video and audio.
        check: Called while the extra streams are read; may raise to stop.

    Raises:
        SpliceError: The packets cannot be spliced, or the result failed verification. No file is left.
    """
    picture, staged = plan.picture, staging_name(output)
    try:
        with extras.tracks(settings, check) as tracks:
            spliced = splice_packets(plan, picture, encoded, staged, metadata=metadata, extras=extras, tracks=tracks)
        verify_splice(plan, picture, spliced, settings)
        size_bytes = publish_file(staged, output)
    finally:
        staged.unlink(missing_ok=True)
    first, end = plan.kept[0] + plan.hidden, plan.kept[1]
    times, media = picture.times, picture.media
    return PipeResult(
        path=output,
        frames=end - first,
        size=media.size,
        fps=media.fps,
        duration_seconds=times.end_of(end, media.fps) - times.seconds[first],
        bytes=size_bytes,
        encoder="libx264" if encoded is not None else "copy",
        ffmpeg="" if encoded is None else str(encoded.pipe.choice().ffmpeg),
        command=() if encoded is None else (encoded.pipe.choice().ffmpeg.path, *encoded.pipe.encoding_arguments()),
        constant_rate=times.constant,
    )


def _refuse_by_request(media: MediaInfo, output: Path, encode: EncodeOptions, *, drawn_on: bool) -> None:
    """Raise SpliceError, with the reason, if the request does not allow copying packets."""
    if not encode.smart:
        raise SpliceError("the request disables smart rendering")
    if media.interlaced and encode.deinterlace == "field":
        raise SpliceError("the request asks for one frame per field")
    if media.color.is_hdr and drawn_on and encode.hdr == "sdr":
        raise SpliceError("it is HDR, and the request asks for SDR in rendered frames")
    if encode.encoder not in _ENCODERS:
        raise SpliceError(f"the request asks for the encoder {encode.encoder}; only libx264 can be spliced")
    if output.suffix.lower() not in SUFFIXES:
        raise SpliceError(f"the output is {output.suffix}; only {', '.join(sorted(SUFFIXES))} can be spliced")


def _refuse_new_hdr(media: MediaInfo, plan: RenderPlan) -> None:
    """Raise SpliceError if HDR frames would have to be encoded with 8 bits."""
    if plan.windows and media.color.is_hdr and media.bit_depth == 8:
        raise SpliceError("it is HDR with 8 bits, in which no frames are re-encoded")
