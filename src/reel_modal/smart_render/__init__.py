"""Renders the seconds of a clip that change and copies the rest, packet by packet, bit for bit.

It must know neither what is drawn nor where the file goes: a render function says which moments change and draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from reel_modal.config import Settings
from reel_modal.errors import SpliceError
from reel_modal.ffmpeg_pipe import PipeResult
from reel_modal.media import MediaInfo
from reel_modal.media.extras import Extras
from reel_modal.media.unindexed_sound import sound_formats
from reel_modal.schema import EncodeOptions
from reel_modal.smart_render.checking import check_splice
from reel_modal.smart_render.packets import read_picture
from reel_modal.smart_render.planning import Interval, RenderPlan, Trim, Window, plan_packets, refuse_most
from reel_modal.smart_render.splicing import SUFFIXES, splice_packets
from reel_modal.smart_render.windows import Draw, Painter, encode_windows
from reel_modal.storage import publish_file, staging_name

__all__ = ["Draw", "Interval", "Painter", "RenderPlan", "Trim", "Window", "plan", "splice"]

_ENCODERS = frozenset({"auto", "libx264"})


def plan(
    media: MediaInfo,
    changed_intervals: Iterable[Interval],
    *,
    output: Path,
    encode: EncodeOptions,
    trim: Trim | None = None,
    in_part: bool = False,
) -> RenderPlan:
    """Say which packets of `media` can be copied where only `changed_intervals` are drawn on.

    Args:
        media: The clip; all its packets are read, none is decoded.
        changed_intervals: First and last moment of each change, both inclusive, in seconds from the first picture on.
        output: The name of the output; its suffix chooses the container.
        encode: What the request wants of the encoder.
        trim: What is kept; None keeps all.
        in_part: Plan for an estimate alone, of a file of which no more than headers may be here.

    Returns:
        The plan; of the kind `full`, with a reason, where copying would not be right or not worth it.

    Raises:
        InvalidMediaError: The file cannot be read.

    Example:
        >>> media = probe("clip.mp4")
        >>> plan(media, [(Fraction(3), Fraction(5))], output=Path("out.mp4"), encode=EncodeOptions()).frames_copied
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
        made = plan_packets(picture.table, picture.times, changed, trim=trim)
        refuse_most(made.frames_rendered, made.frames)
        _refuse_new_hdr(media, made)
    except SpliceError as error:
        return RenderPlan.full(str(error))
    return made if in_part else replace(made, picture=picture)


def _refuse_changing_sound(media: MediaInfo) -> None:
    if sound_formats(media):
        raise SpliceError("its sound changes its sample rate or its channels")


def splice(
    made: RenderPlan,
    output: Path,
    *,
    encode: EncodeOptions,
    painter: Painter | None,
    settings: Settings,
    advance: Callable[[int], None],
    metadata: Mapping[str, str],
    extras: Extras,
    check: Callable[[], None],
) -> PipeResult:
    """Make `output` as planned: whole and looked at, or not at all.

    Args:
        made: A plan of the kind `smart`, from `plan`.
        output: The final name.
        encode: Quality and preset of what is made anew.
        painter: Says who draws on each picture that is made anew; None leaves them as they are.
        settings: Which ffmpeg, limits, and how long it may stall.
        advance: Called after each new frame with the frames done; may raise to stop.
        metadata: Tags of the file.
        extras: What goes along with picture and sound.
        check: Called while that is read; may raise to stop.

    Raises:
        SpliceError: The plan is none for a splice, or what came of it is not right; nothing is left.
        EncoderUnavailableError: libx264 does not start here.
        FFmpegError: Encoding failed.
    """
    picture = made.picture
    if picture is None:
        raise SpliceError(made.reason or "the plan is not of a file")
    windows, staged = None, staging_name(output)
    try:
        if made.windows:
            windows = encode_windows(
                made, picture, output.parent, encode=encode, painter=painter, settings=settings, advance=advance
            )
        with extras.tracks(settings, check) as tracks:
            spliced = splice_packets(made, picture, windows, staged, metadata=metadata, extras=extras, tracks=tracks)
        check_splice(made, picture, spliced, settings)
        size_bytes = publish_file(staged, output)
    finally:
        staged.unlink(missing_ok=True)
        if windows is not None:
            windows.path.unlink(missing_ok=True)
    first, end = made.kept[0] + made.hidden, made.kept[1]
    times, media = picture.times, picture.media
    return PipeResult(
        path=output,
        frames=end - first,
        size=media.size,
        fps=media.fps,
        duration_seconds=times.end_of(end, media.fps) - times.seconds[first],
        bytes=size_bytes,
        encoder="libx264" if windows is not None else "copy",
        ffmpeg="" if windows is None else windows.ffmpeg,
        command=() if windows is None else windows.command,
        constant_rate=times.constant,
    )


def _refuse_by_request(media: MediaInfo, output: Path, encode: EncodeOptions, *, drawn_on: bool) -> None:
    """Return if the request allows copies of packets.

    Raises:
        SpliceError: It does not; the message says why.
    """
    if not encode.smart:
        raise SpliceError("the request asks for it")
    if media.interlaced and encode.deinterlace == "field":
        raise SpliceError("the request asks for a picture of each field")
    if media.color.is_hdr and drawn_on and encode.hdr == "sdr":
        raise SpliceError("it is HDR, and the request asks for SDR of what is drawn on")
    if encode.encoder not in _ENCODERS:
        raise SpliceError(f"the request asks for the encoder {encode.encoder}; libx264 can be spliced")
    if output.suffix.lower() not in SUFFIXES:
        raise SpliceError(f"the output is {output.suffix}; only {', '.join(sorted(SUFFIXES))} are spliced")


def _refuse_new_hdr(media: MediaInfo, made: RenderPlan) -> None:
    """Return unless pictures of HDR would be made in 8 bits.

    Raises:
        SpliceError: They would.
    """
    if made.windows and media.color.is_hdr and media.bit_depth == 8:
        raise SpliceError("it is HDR in 8 bits, in which no picture is made anew")
