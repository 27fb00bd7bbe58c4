"""How a framing request is carried out on one clip: sizes, times, and by whom the frames are made.

It looks at the request and at what the probe says, and must not touch a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import Final, Literal, Self, TypeAlias

from reel_modal.config import Settings
from reel_modal.errors import RequestError
from reel_modal.ffmpeg_graph import suits
from reel_modal.frames import ColorTags
from reel_modal.functions.output_rate import rendered_rate
from reel_modal.functions.pictures import RenderedFormat, rendered_format
from reel_modal.media import MediaInfo, picture_shown_at
from reel_modal.media.orientation import Orientation
from reel_modal.media.output_rate import MOST_LATE_FRAMES
from reel_modal.media.probing import scanned
from reel_modal.rendering.framing import CropTrack, Layout, color_for_height, output_size
from reel_modal.rendering.resampling import Window
from reel_modal.schema import Degradation, FramingRequest, Timeline
from reel_modal.smart_render import Trim

__all__ = ["Engine", "FramingPlan"]

Engine: TypeAlias = Literal["opencv-yuv420p", "opencv-yuv420p10le", "ffmpeg-graph"]
"""Who makes the frames: our own resampling, or one ffmpeg from the source to the output."""

# A window that is cut at whole pixels may be off by this and is still the one that was asked for.
_SAME_PX: Final = 0.25
_ENGINES: Final[dict[RenderedFormat, Engine]] = {
    "yuv420p": "opencv-yuv420p",
    "yuv420p10le": "opencv-yuv420p10le",
}
_MOST_GRAPH_PIECES: Final = 50
# In fewer there may be no picture whose time is one of a frame, and ffmpeg makes none then.
_FEWEST_GRAPH_FRAMES: Final = 3
_MOST_FPS: Final = Fraction(240)
# The picture at a moment began at most this long before it if pictures come evenly: one frame, and rounded times.
_LATE_FRAMES: Final = 2


@dataclass(frozen=True, slots=True)
class FramingPlan:
    """Everything that is known before the first frame.

    Attributes:
        media: The source, turned as the request asks.
        timeline: Its moments in the output.
        first_seconds: Time of the first picture that is seen, on the source's own clock.
        fps: Of the output.
        frame_count: Of the output.
        layout: Where the crop goes.
        track: Where the crop is.
        color: Tags of the output.
        engine: Who makes the frames.
        still: The part of the source that fills the output all the time, in whole pixels; None where it moves.
        notes: What is not as asked.
        in_part: Whether packets around the part that is shown are not here, of a file without an index of them.
        fps_asked: Whether the request says at which rate.
        pixel_format: Of rendered frames.
        keeps_times: Whether each picture keeps its own time, since the rate varies and the request asks for that.
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
    fps_asked: bool = False
    pixel_format: RenderedFormat = "yuv420p"
    keeps_times: bool = False

    @classmethod
    def of(
        cls, request: FramingRequest, media: MediaInfo, settings: Settings, *, fetched_in_part: bool = False
    ) -> Self:
        """Plan `request` for the clip `media`.

        Args:
            request: What is kept.
            media: The clip.
            settings: How long it may be.
            fetched_in_part: Whether only the part that is kept is here: then the first pictures name the rate.

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
            fps_asked=isinstance(request.output_rate, Fraction),
            keeps_times=rate is None,
        )

    @property
    def length_seconds(self) -> Fraction:
        """Seconds of the output."""
        return self.timeline.duration_seconds if self.keeps_times else self.frame_count / self.fps

    @property
    def encoded_fps(self) -> Fraction:
        """The rate that the encoder is told: pictures that keep their times come as much faster as the fastest piece.

        A player or tool that goes by a lower rate would find two pictures at one time.
        """
        fastest = max(piece.speed for piece in self.timeline.pieces)
        if not self.keeps_times or fastest <= 1:
            return self.fps
        return max(self.fps, min(self.fps * fastest, _MOST_FPS))

    @property
    def most_late_frames(self) -> float:
        """How late a picture may be shown; see `FrameGrid`."""
        return 0 if self.media.constant_rate or self.fps != self.media.fps else MOST_LATE_FRAMES

    @property
    def trim(self) -> Trim:
        """What is kept: of a constant rate, from the picture that is nearest to another one."""
        if not self.media.constant_rate:
            start = self.timeline.source_start
            end = self.timeline.source_end or start + self.frame_count / self.fps
            return Trim(start, end, evenly_spaced=False)
        first = floor(self.timeline.source_start * self.fps + Fraction(1, 2))
        return Trim(first / self.fps, (first + self.frame_count) / self.fps)

    @property
    def remakes(self) -> str:
        """Why every picture has to be made anew; empty where the clip is only trimmed."""
        whole = self.still == (0, 0, *self.media.size) and self.media.sample_aspect_ratio == 1
        reasons = {
            "the request crops or resizes it": not whole or self.layout.size != self.media.size,
            "its pictures are turned": self.media.orientation != Orientation(),
            "the request changes its speed": any(piece.speed != 1 for piece in self.timeline.pieces),
            "the request asks for a picture of each field": self.media.deinterlace == "field",
            "the request changes its frame rate": self.fps != self.media.fps,
            "its frame rate varies, and the request asks for a constant one": (
                self.fps_asked and not self.media.constant_rate
            ),
            "it is large, so that only a part of it was fetched, and copying wants to know all its packets": (
                self.in_part
            ),
        }
        return next((reason for reason, holds in reasons.items() if holds), "")


def _turned(media: MediaInfo, degrees: int) -> MediaInfo:
    """Return the clip as it is after a further clockwise turn."""
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
    """Return the clip and how long its picture lasts, as exactly as the request needs it.

    A trim that ends well within what the headers say makes it needless to read the whole file.
    """
    said, end = media.duration_seconds, request.trim_end_seconds
    known = media.constant_rate or media.rate_by_all or fetched_in_part
    within = known and said is not None and end is not None and end <= said - 1 / media.fps
    if said is not None and within and (fetched_in_part or _reaches(media, end or said)):
        return media, said
    media = scanned(media, settings.limits)
    return media, media.scan.duration_seconds if media.scan else Fraction(0)


def _reaches(media: MediaInfo, end: Fraction) -> bool:
    """Return whether there are pictures up to `end`: a file that breaks off has the headers of the whole one."""
    if not media.has_index:
        return True
    shown = picture_shown_at(media, media.start_seconds + end)
    return shown is not None and shown - media.start_seconds > end - _LATE_FRAMES / media.fps


def _first_seconds(media: MediaInfo, timeline: Timeline) -> Fraction:
    """Return when the picture comes that is on the screen at the first moment that is kept."""
    if timeline.source_start == 0:
        return media.start_seconds
    moment = media.start_seconds + timeline.source_start
    return max(media.start_seconds, picture_shown_at(media, moment) or media.start_seconds)


def _still(track: CropTrack, layout: Layout, timeline: Timeline) -> tuple[int, int, int, int] | None:
    """Return (left, top, width, height) in whole pixels where one window fills the output all the time."""
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
    # Chroma begins at every second pixel.
    return whole if all(number % 2 == 0 for number in whole) else None


def _whole_pixels(window: Window) -> tuple[int, int, int, int] | None:
    """Return the window with its edges at whole pixels, None where they are not near enough."""
    edges = (window.left, window.top, window.left + window.width, window.top + window.height)
    left, top, right, bottom = (round(edge) for edge in edges)
    off = max(abs(edge - whole) for edge, whole in zip(edges, (left, top, right, bottom), strict=True))
    return None if off > _SAME_PX + 1e-6 else (left, top, right - left, bottom - top)


def _moved_inside(request: FramingRequest, media: MediaInfo, length: Fraction) -> list[Degradation]:
    """Say what of the request lay outside of the clip and was moved inside."""
    notes: list[Degradation] = []
    end = request.trim_end_seconds
    if end is not None and end - length > 1 / (2 * media.fps):
        message = f"the trim ends at {float(end):g} s, the clip at {float(length):g}"
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
            f"{outside} of {len(request.crop)} crops reached out of the {width}x{height} frame and were moved inside"
        )
        notes.append(Degradation("crop_moved", message))
    return notes
