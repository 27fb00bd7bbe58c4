"""Plan a framing request for one clip: sizes, times and engine.

Uses only the request and the probed headers and packets; decodes no frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import Final, Literal, Self, TypeAlias

from reel_modal._ffmpeg.filtergraph import suits
from reel_modal._rendering.framing import CropTrack, Layout, color_for_height, output_size
from reel_modal._rendering.resampling import Rect
from reel_modal._smart_render import Trim
from reel_modal.errors import RequestError
from reel_modal.functions.rendered_format import RenderedFormat, rendered_format
from reel_modal.functions.rendered_rate import rendered_rate
from reel_modal.media import MediaInfo, picture_shown_at
from reel_modal.media.constant_rate import MOST_LATE_FRAMES
from reel_modal.media.frames import ColorTags
from reel_modal.media.orientation import Orientation
from reel_modal.media.probing import scanned
from reel_modal.schema import Degradation, FramingRequest, Timeline
from reel_modal.settings import Settings

__all__ = ["Engine", "FramingPlan", "is_trimmed"]

Engine: TypeAlias = Literal["opencv-yuv420p", "opencv-yuv420p10le", "ffmpeg-graph"]
"""Engine that makes the frames: this package's resampling, or one ffmpeg process from the source to the output."""

# Maximum difference, in pixels, between a window at whole pixels and the requested one.
_SAME_PX: Final = 0.25
_ENGINES: Final[dict[RenderedFormat, Engine]] = {
    "yuv420p": "opencv-yuv420p",
    "yuv420p10le": "opencv-yuv420p10le",
}
_MOST_GRAPH_PIECES: Final = 50
# With fewer frames, no source frame may match the time of an output frame, and ffmpeg then makes none.
_FEWEST_GRAPH_FRAMES: Final = 3
_MOST_FPS: Final = Fraction(240)
# If frames are evenly spaced, the frame shown at a time begins at most this long before: one frame, plus rounding.
_LATE_FRAMES: Final = 2


@dataclass(frozen=True, slots=True)
class FramingPlan:
    """Everything that is known before the first frame is decoded.

    Attributes:
        media: The source, rotated as requested.
        timeline: Maps source time to output time.
        first_seconds: Timestamp of the first visible frame, on the source's own clock.
        fps: Frame rate of the output.
        frame_count: Number of frames in the output.
        layout: Placement of the crop in the output.
        track: Position of the crop in the source over time.
        color: Colour tags of the output.
        engine: Engine that makes the frames.
        still: (left, top, width, height) of the source area that fills the output throughout, in whole pixels; None
            if no single area does.
        notes: Deviations from the request.
        in_part: Whether packets outside the shown part were not fetched, of a file without a packet index.
        fps_requested: Whether the request names the frame rate.
        pixel_format: Pixel format of rendered frames.
        keeps_times: Whether each frame keeps its own time: the rate varies, and the request asks to keep it.
    """

    media: MediaInfo
    timeline: Timeline
    first_seconds: Fraction
    fps: Fraction
    frame_count: int
    layout: Layout
    track: CropTrack
    color: ColorTags
    engine: Engine
    still: tuple[int, int, int, int] | None
    notes: tuple[Degradation, ...]
    in_part: bool = False
    fps_requested: bool = False
    pixel_format: RenderedFormat = "yuv420p"
    keeps_times: bool = False

    @classmethod
    def of(
        cls, request: FramingRequest, media: MediaInfo, settings: Settings, *, fetched_in_part: bool = False
    ) -> Self:
        """Return the plan for `request` and the clip `media`.

        Args:
            request: The parts to keep.
            media: The clip.
            settings: Limits of the clip.
            fetched_in_part: Whether only the kept part was fetched; the first frames then determine the rate.

        Raises:
            RequestError: The request does not fit the clip.
            InvalidMediaError: The clip cannot be read, or is longer than the settings allow.
        """
        media = _turned(media, request.rotation_degrees)
        if request.outside == "refuse":
            request.check_crops(media.size)
        media, length = _measured(request, media, settings, fetched_in_part=fetched_in_part)
        timeline = request.timeline(length)
        rate = rendered_rate(request, media)
        fps = rate or media.fps
        track = CropTrack(request, media.size)
        size = output_size(request, track, media.sample_aspect_ratio)
        layout = Layout(media.sample_aspect_ratio, size, request.fit)
        still = _still(track, layout, timeline)
        repeats = request.slow_motion == "repeat" or all(piece.speed >= 1 for piece in timeline.pieces)
        frame_count = timeline.frame_count(fps)
        simple = repeats and len(timeline.pieces) <= _MOST_GRAPH_PIECES and frame_count >= _FEWEST_GRAPH_FRAMES
        samples = rendered_format(media, request.encode)
        shallow = samples == "yuv420p" and media.hdr_color is None
        graph = still is not None and simple and shallow and suits(media, scaled=still[2:] != size)
        return cls(
            media=media,
            timeline=timeline,
            first_seconds=_first_seconds(media, timeline),
            fps=fps,
            frame_count=frame_count,
            layout=layout,
            track=track,
            color=color_for_height(media.color, media.size[1], size[1]),
            engine="ffmpeg-graph" if graph else _ENGINES[samples],
            pixel_format=samples,
            still=still,
            notes=tuple(_moved_inside(request, media, length)),
            fps_requested=isinstance(request.output_rate, Fraction),
            keeps_times=rate is None,
        )

    @property
    def length_seconds(self) -> Fraction:
        """Duration of the output in seconds."""
        return self.timeline.duration_seconds if self.keeps_times else self.frame_count / self.fps

    @property
    def encoded_fps(self) -> Fraction:
        """Nominal frame rate for the encoder: frames that keep their times are as dense as in the fastest piece.

        With a lower rate, a player or tool that uses it would find two frames at the same time.
        """
        fastest = max(piece.speed for piece in self.timeline.pieces)
        if not self.keeps_times or fastest <= 1:
            return self.fps
        return max(self.fps, min(self.fps * fastest, _MOST_FPS))

    @property
    def most_late_frames(self) -> float:
        """Maximum delay of a source frame, in output frames; see `FrameGrid`."""
        return 0 if self.media.constant_rate or self.fps != self.media.fps else MOST_LATE_FRAMES

    @property
    def trim(self) -> Trim:
        """The part to keep; at a constant rate, its start is rounded to the nearest frame."""
        if not self.media.constant_rate:
            start = self.timeline.source_start
            end = self.timeline.source_end or start + self.frame_count / self.fps
            return Trim(start, end, evenly_spaced=False)
        first = floor(self.timeline.source_start * self.fps + Fraction(1, 2))
        return Trim(first / self.fps, (first + self.frame_count) / self.fps)

    def part(self, first: int, end: int) -> Self:
        """Return the plan for the output frames `first` to `end`, exclusive, of a clip at its own speed."""
        start = self.timeline.source_start + first / self.fps
        line = Timeline.of(start, start + (end - first) / self.fps)
        return replace(
            self,
            timeline=line,
            first_seconds=_first_seconds(self.media, line),
            frame_count=line.frame_count(self.fps),
        )

    @property
    def remakes(self) -> str:
        """Reason why every frame must be re-encoded; empty if the clip is only trimmed."""
        whole = self.still == (0, 0, *self.media.size) and self.media.sample_aspect_ratio == 1
        reasons = {
            "the request crops or resizes the clip": not whole or self.layout.size != self.media.size,
            "its frames are rotated": self.media.orientation != Orientation(),
            "the request changes its speed": any(piece.speed != 1 for piece in self.timeline.pieces),
            "the request asks for one frame per field": self.media.deinterlace == "field",
            "the request changes its frame rate": self.fps != self.media.fps,
            "its frame rate varies, and the request asks for a constant one": (
                self.fps_requested and not self.media.constant_rate
            ),
            "it is large, so only a part of it was fetched, and copying needs the list of all packets": (
                self.in_part
            ),
        }
        return next((reason for reason, holds in reasons.items() if holds), "")


def is_trimmed(request: FramingRequest) -> bool:
    """Return whether the request asks for a part of the clip."""
    return request.trim_start_seconds > 0 or request.trim_end_seconds is not None


def _turned(media: MediaInfo, degrees: int) -> MediaInfo:
    """Return the clip after a further clockwise rotation."""
    if degrees == 0:
        return media
    orientation = Orientation((media.orientation.rotation_degrees + degrees) % 360, media.orientation.mirrored)
    if degrees == 180:
        return replace(media, orientation=orientation)
    return replace(
        media,
        orientation=orientation,
        size=media.size[::-1],
        display_size=media.display_size[::-1],
        sample_aspect_ratio=1 / media.sample_aspect_ratio,
    )


def _measured(
    request: FramingRequest, media: MediaInfo, settings: Settings, *, fetched_in_part: bool
) -> tuple[MediaInfo, Fraction]:
    """Return the clip and its video duration, as exactly as the request needs it.

    If a trim ends well before the end that the headers give, the whole file need not be read.
    """
    stated, end = media.duration_seconds, request.trim_end_seconds
    rate_known = media.constant_rate or media.rate_by_all or fetched_in_part
    within = rate_known and stated is not None and end is not None and end <= stated - 1 / media.fps
    if stated is not None and within and (fetched_in_part or _reaches(media, end or stated)):
        return media, stated
    media = scanned(media, settings.limits)
    return media, media.scan.duration_seconds if media.scan else Fraction(0)


def _reaches(media: MediaInfo, end: Fraction) -> bool:
    """Return whether the file has frames up to `end`; a truncated file has the headers of the complete one."""
    if not media.has_index:
        return True
    shown = picture_shown_at(media, media.start_seconds + end)
    return shown is not None and shown - media.start_seconds > end - _LATE_FRAMES / media.fps


def _first_seconds(media: MediaInfo, timeline: Timeline) -> Fraction:
    """Return the timestamp of the source frame that is shown at the start of the kept part."""
    if timeline.source_start == 0:
        return media.start_seconds
    moment = media.start_seconds + timeline.source_start
    return max(media.start_seconds, picture_shown_at(media, moment) or media.start_seconds)


def _still(track: CropTrack, layout: Layout, timeline: Timeline) -> tuple[int, int, int, int] | None:
    """Return (left, top, width, height) in whole pixels if one window fills the output throughout, else None."""
    if timeline.source_end is None:
        return None
    crop = track.still(timeline.source_start, timeline.source_end)
    if crop is None:
        return None
    placement = layout.place(crop)
    target = placement.target
    if (target.left, target.top, target.right, target.bottom) != (0, 0, *layout.size):
        return None
    whole = _whole_pixels(placement.source)
    if whole is None or whole == (0, 0, *track.frame_size):
        return whole
    # A chroma sample of 4:2:0 covers two pixels in each direction.
    return whole if all(number % 2 == 0 for number in whole) else None


def _whole_pixels(window: Rect) -> tuple[int, int, int, int] | None:
    """Return the window with its edges at whole pixels; None if they are not near enough."""
    edges = (window.left, window.top, window.left + window.width, window.top + window.height)
    left, top, right, bottom = (round(edge) for edge in edges)
    off = max(abs(edge - whole) for edge, whole in zip(edges, (left, top, right, bottom), strict=True))
    return None if off > _SAME_PX + 1e-6 else (left, top, right - left, bottom - top)


def _moved_inside(request: FramingRequest, media: MediaInfo, length: Fraction) -> list[Degradation]:
    """Return notes on trims and crops that were outside of the clip and were moved inside."""
    notes: list[Degradation] = []
    end = request.trim_end_seconds
    if end is not None and end - length > 1 / (2 * media.fps):
        message = f"the trim ends at {float(end):g} s; the clip ends at {float(length):g} s"
        notes.append(Degradation("trim_shortened", message))
    outside = 0
    for keyframe in request.crop:
        try:
            keyframe.check_within(request.video_size or media.size)
        except RequestError:
            outside += 1
    if outside:
        width, height = request.video_size or media.size
        message = (
            f"{outside} of {len(request.crop)} crops extended beyond the {width}x{height} frame and were moved inside"
        )
        notes.append(Degradation("crop_moved", message))
    return notes
