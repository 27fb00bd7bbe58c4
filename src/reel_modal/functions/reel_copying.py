"""Copy the packets of a reel where nothing changes, and render the rest: transitions, edits, and edges of trims.

Clips whose parameter sets are those of most frames are copied; all others are rendered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

from reel_modal._rendering.overlay import OverlayRenderer
from reel_modal._smart_render import EncodedFrames, Interval, RenderPlan, RenderSpan, SplicePlan, window_pipe
from reel_modal._smart_render.joining import CopiedRun, join_runs
from reel_modal._smart_render.plan import plan_packets, refuse_most
from reel_modal._smart_render.source import read_picture
from reel_modal._smart_render.splice import SUFFIXES
from reel_modal._smart_render.x264_settings import keyframe_options
from reel_modal._support.scratch import scratch_dir
from reel_modal.errors import EncoderUnavailableError, InvalidMediaError, MediaError, SpliceError
from reel_modal.functions.context import JobContext
from reel_modal.functions.framing_plan import FramingPlan
from reel_modal.functions.outputs import VerifiedFile, output_path, tags_for, verified
from reel_modal.functions.reel_audio import ReelAudio
from reel_modal.functions.reel_frames import ReelFrames
from reel_modal.functions.reel_layers import ReelLayers, layer_frames
from reel_modal.functions.reel_plan import PlannedClip, ReelPlan
from reel_modal.functions.try_smart import better_in_full, worth_a_gpu
from reel_modal.schema import Degradation, PlacedClip, ReelRequest

__all__ = ["ReelCopy", "frames_expected", "part_of", "plan_copy", "render_copied"]

_ENCODERS: Final = frozenset({"auto", "libx264"})
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReelCopy:
    """Which frames of a reel are copied and which are rendered.

    Attributes:
        plan: The rendered spans, in frames of the output; its source is that of the first run.
        runs: The copied packets.
    """

    plan: SplicePlan
    runs: tuple[CopiedRun, ...]


def plan_copy(request: ReelRequest, reel: ReelPlan, *, in_part: bool = False) -> ReelCopy:
    """Return the plan to copy what does not change.

    Args:
        request: The request.
        reel: Its plan.
        in_part: See `_smart_render.plan_render`.

    Raises:
        SpliceError: Copying is not possible or not worth it; the message names the reason.
        InvalidMediaError: A clip cannot be read.
    """
    _refuse_by_request(request)
    runs, reasons = list[CopiedRun](), list[str]()
    for clip in reel.clips:
        try:
            runs += _runs_of(clip, request, reel, in_part=in_part)
        except SpliceError as error:
            reasons.append(f"{clip.name}: {error}")
    if not runs:
        raise SpliceError("; ".join(dict.fromkeys(reasons)))
    chosen = _with_common_sets(runs)
    frames, picture = reel.timeline.frame_count, chosen[0].picture
    windows = tuple(
        RenderSpan(first=start, end=end, kept=(start, end), decode_from=start)
        for start, end in _gaps([(run.at, run.at + run.end - run.first) for run in chosen], frames)
    )
    depth = min(2, *(run.picture.table.reorder_depth for run in chosen), 2)
    plan = SplicePlan("smart", windows=windows, kept=(0, frames), reorder_depth=depth, picture=picture)
    refuse_most(plan.frames_rendered, frames)
    if windows and picture.pixel_format != reel.pixel_format:
        raise SpliceError(f"its frames are {picture.pixel_format}, and new ones would be {reel.pixel_format}")
    return ReelCopy(plan, tuple(chosen))


def frames_expected(request: ReelRequest, reel: ReelPlan, *, on_gpu: bool) -> list[tuple[int, int]] | None:
    """Return the runs of frames that `render_copied` will render; None is all. Fetches and decodes nothing.

    Args:
        request: The request.
        reel: The plan for the headers of the clips.
        on_gpu: Whether the job will have a GPU that encodes.
    """
    try:
        plan = plan_copy(request, reel, in_part=True).plan
    except (InvalidMediaError, SpliceError):
        return None
    if on_gpu and worth_a_gpu(request.encode, plan.frames_rendered, plan.frames):
        return None
    return [window.kept for window in plan.windows]


def render_copied(
    request: ReelRequest, context: JobContext, reel: ReelPlan, layers: ReelLayers, audio: ReelAudio
) -> tuple[RenderPlan, VerifiedFile | None, list[list[Degradation]]]:
    """Copy what does not change and render the rest; return the plan, the file, and notes on each clip.

    The file is None if all must be rendered; the plan then has the reason.

    Args:
        request: The request.
        context: Reporter, settings and cancellation.
        reel: The plan of the reel.
        layers: The layers of the reel.
        audio: The audio of the reel.

    Raises:
        InvalidMediaError: A clip cannot be read.
        FFmpegError: Decoding or encoding failed.

    Cancellation:
        Raises JobCancelledError between two frames or packets.
    """
    output = output_path(request, context)
    try:
        copy = plan_copy(request, reel)
    except SpliceError as error:
        return RenderPlan.full(str(error)), None, []
    if reason := better_in_full(copy.plan, request.encode, context.settings):
        return RenderPlan.full(reason), None, []
    try:
        with (
            context.reporter.phase("render", copy.plan.frames_rendered) as advance,
            scratch_dir(context.workdir) as folder,
            audio.encoded() as sound,
        ):
            encoded, notes = _encoded(request, context, reel, layers, copy.plan, folder=folder, advance=advance)
            written = join_runs(
                copy.plan,
                copy.runs,
                output,
                encoded,
                sound=None if sound is None else sound.files[0],
                settings=context.settings,
                metadata=tags_for(reel.clips[0].plan.media, request, context),
                check=context.raise_if_cancelled,
            )
        return copy.plan, verified(written, context), notes
    except (MediaError, EncoderUnavailableError) as error:
        output.unlink(missing_ok=True)
        _log.warning("%s: rendering the whole reel, since copying packets failed: %s", context.function, error)
        return RenderPlan.full(f"copying its packets failed: {error}"), None, []


def _encoded(
    request: ReelRequest,
    context: JobContext,
    reel: ReelPlan,
    layers: ReelLayers,
    plan: SplicePlan,
    *,
    folder: Path,
    advance: Callable[[int], None],
) -> tuple[EncodedFrames | None, list[list[Degradation]]]:
    """Render and encode the frames that are not copied into one file, if there are any; add notes on each clip."""
    notes: list[list[Degradation]] = [[] for _ in request.clips]
    if not plan.windows:
        return None, notes
    options = keyframe_options(plan, plan.picture.media.fps)
    pipe = window_pipe(plan, folder, request.encode, context.settings, options)
    with pipe:
        pipe.count_with(advance)
        for window in plan.windows:
            frames = ReelFrames(request, part_of(reel, *window.kept), context)
            frames.write_to(pipe, layers, window.kept[0])
            for index, found in enumerate(frames.notes):
                notes[index] += found
    return EncodedFrames((pipe.path,), [window.kept[0] for window in plan.windows], pipe), notes


def part_of(reel: ReelPlan, start: int, end: int) -> ReelPlan:
    """Return the plan of the output frames `start` to `end`, exclusive, which begins and ends with cuts.

    Args:
        reel: The whole reel.
        start: The first frame. No transition is cut by `start` or `end`, and no clip whose speed changes.
        end: The frame after the last one.
    """
    clips = []
    for clip in reel.clips:
        placed, first, stop = clip.placed, max(start, clip.placed.first), min(end, clip.placed.end)
        if first >= stop:
            continue
        whole = (first, stop) == (placed.first, placed.end)
        plan = clip.plan if whole else clip.plan.part(first - placed.first, stop - placed.first)
        entered, left = first == placed.first, stop == placed.end
        part = replace(
            placed,
            line=plan.timeline,
            first=first,
            frames=stop - first,
            entry=placed.entry if entered else "cut",
            entry_frames=placed.entry_frames if entered else 0,
            exit=placed.exit if left else "cut",
            exit_frames=placed.exit_frames if left else 0,
        )
        clips.append(replace(clip, plan=plan, placed=part))
    return replace(reel, clips=tuple(clips))


def _refuse_by_request(request: ReelRequest) -> None:
    encode, suffix = request.encode, Path(request.output_key).suffix.lower()
    if not encode.smart:
        raise SpliceError("the request disables smart rendering")
    if encode.encoder not in _ENCODERS:
        raise SpliceError(f"the request asks for the encoder {encode.encoder}; only libx264 can be spliced")
    if suffix not in SUFFIXES:
        raise SpliceError(f"the output is {suffix}; only {', '.join(sorted(SUFFIXES))} can be spliced")


def _runs_of(clip: PlannedClip, request: ReelRequest, reel: ReelPlan, *, in_part: bool) -> list[CopiedRun]:
    """Return the runs of packets of one clip that can be copied.

    Raises:
        SpliceError: None can be; the message names the reason.
    """
    plan, placed, fps = clip.plan, clip.placed, reel.timeline.fps
    if plan.remakes:
        raise SpliceError(plan.remakes)
    if plan.media.interlaced:
        raise SpliceError("it is interlaced")
    media = plan.media.as_stored()
    if media.color != reel.color:
        raise SpliceError("its color is converted")
    kept = plan.trim
    picture = read_picture(media, (kept.start, kept.end), in_part=in_part)
    seconds = picture.times.seconds
    if not picture.times.constant or (len(seconds) > 1 and seconds[1] - seconds[0] != 1 / fps):
        raise SpliceError("its frames are not evenly spaced at the rate of the reel")
    changed = [
        *_transitions(placed, kept.start),
        *_drawn(request, placed.index, plan),
        *_layered(request, reel, placed, kept.start),
    ]
    found = plan_packets(picture.table, picture.times, changed, trim=kept)
    shift = placed.first - found.kept[0]
    return [CopiedRun(picture, first, end, first + shift) for first, end in found.copied]


def _transitions(placed: PlacedClip, start: Fraction) -> Iterator[Interval]:
    """Yield the source times of the frames that transitions change, of a clip whose kept part begins at `start`."""
    last = placed.frames - 1
    if placed.entry_frames:
        yield start, start + (placed.entry_frames - 1) / placed.fps
    if placed.exit_frames:
        yield start + (placed.frames - placed.exit_frames) / placed.fps, start + last / placed.fps


def _layered(request: ReelRequest, reel: ReelPlan, placed: PlacedClip, start: Fraction) -> Iterator[Interval]:
    """Yield the source times of the frames that have a layer, of a clip whose kept part begins at `start`."""
    for layer in request.layers:
        first, end, _ = layer_frames(layer, reel)
        first, end = max(first, placed.first), min(end, placed.end)
        if first < end:
            yield start + (first - placed.first) / placed.fps, start + (end - 1 - placed.first) / placed.fps


def _drawn(request: ReelRequest, index: int, plan: FramingPlan) -> Sequence[Interval]:
    """Return the source times at which highlights are drawn on a clip."""
    overlay = request.overlay(index)
    if overlay is None:
        return ()
    return OverlayRenderer(overlay, plan.media.size, plan.media.color, plan.pixel_format).changed_intervals


def _with_common_sets(runs: Iterable[CopiedRun]) -> list[CopiedRun]:
    """Return the runs that have the parameter sets of most frames."""
    by_sets: dict[tuple[frozenset[bytes], frozenset[bytes], int], list[CopiedRun]] = {}
    for run in runs:
        sets = run.picture.sets
        by_sets.setdefault((frozenset(sets.sps), frozenset(sets.pps), sets.length_size), []).append(run)
    return max(by_sets.values(), key=lambda alike: sum(run.end - run.first for run in alike))


def _gaps(copied: Sequence[tuple[int, int]], frames: int) -> Iterator[tuple[int, int]]:
    """Yield the runs of frames between those that are copied."""
    edges = [0, *(edge for run in copied for edge in run), frames]
    yield from ((start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end)
