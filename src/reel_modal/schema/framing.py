"""The request to frame a clip: crop, trim, speed and output size."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Final, Literal, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.schema._fields import Kind, Record, declared, join, record
from reel_modal.schema._kinds import (
    RATE,
    RATIO,
    SECONDS,
    Rate,
    boolean,
    choice,
    decimal,
    integer,
    list_of,
    matching,
    nested,
    optional,
    size,
)
from reel_modal.schema._numbers import shown
from reel_modal.schema.interpolation import Interpolation
from reel_modal.schema.regions import INTERPOLATION, LENGTH, POSITION, SPACE, SPACE_SIDES, check_order
from reel_modal.schema.requests import VideoRequest
from reel_modal.schema.timeline import Timeline

__all__ = ["CropKeyframe", "Fit", "FramingRequest", "Outside", "SlowMotion", "SpeedSegment"]

Fit: TypeAlias = Literal["cover", "contain"]
"""Fit of a crop with another aspect ratio than the output: `cover` crops it further, `contain` adds a background."""

SlowMotion: TypeAlias = Literal["repeat", "blend"]
"""How output frames between two source frames of a slowed segment are made: repeat the first, or blend both."""

Outside: TypeAlias = Literal["clamp", "refuse"]
"""Handling of crops outside the frame and trims outside the clip: move them inside, or raise an error."""

SLOWEST: Final = Fraction(1, 10)
FASTEST: Final = Fraction(10)
MOST_KEYFRAMES: Final = 10_000
MOST_SEGMENTS: Final = 1000
# Apps round coordinates, so a crop may exceed the frame by a hundredth of a pixel.
_ROUNDING_PX: Final = 0.01
OUTPUT_SIDES: Final = ("output_width", "output_height")
OUTPUT_SIZE: Final = size(OUTPUT_SIDES, 16, 8192, even=True)
FIT: Final[Kind[Fit, Fit]] = choice(Fit)
SLOW_MOTION: Final[Kind[SlowMotion, SlowMotion]] = choice(SlowMotion)
_OUTSIDE: Final[Kind[Outside, Outside]] = choice(Outside)
BACKGROUND: Final = matching("blur|#[0-9a-fA-F]{6}", "use blur or #rrggbb", "`blur` or `#rrggbb`")


def _convert_turn(value: object) -> int:
    degrees = integer(-_MOST_TURNS * 360, _MOST_TURNS * 360).convert(value)
    if degrees % 90:
        raise RequestError("", f"is {degrees}; it must be 0, 90, 180 or 270, clockwise")
    return degrees % 360


_MOST_TURNS: Final = 100
TURN: Final[Kind[float | Fraction, int]] = Kind(
    _convert_turn, {"type": "integer", "multipleOf": 90}, "0, 90, 180 or 270; -90 is 270"
)


@record
class CropKeyframe(Record):
    """Crop rectangle at one moment, in pixels of the upright frame or of the request's `video_size`.

    Attributes:
        time_seconds: Seconds from the first frame of the source; exact.
        x: Left edge.
        y: Top edge.
        width: Width, above 0.
        height: Height, above 0.
    """

    time_seconds: Fraction = declared(converter=SECONDS, aliases=("time",))
    x: float = declared(converter=POSITION)
    y: float = declared(converter=POSITION)
    width: float = declared(converter=LENGTH)
    height: float = declared(converter=LENGTH)

    def check_within(self, size: tuple[int, int]) -> None:
        """Check that the crop is inside a frame of `size` (width, height).

        Raises:
            RequestError: The crop extends beyond the frame; `path` is `x` or `y`.
        """
        for name, start, length, side in (("x", self.x, self.width, size[0]), ("y", self.y, self.height, size[1])):
            if start < -_ROUNDING_PX or start + length > side + _ROUNDING_PX:
                direction = "wide" if name == "x" else "high"
                raise RequestError(
                    name, f"extends from {start:g} to {start + length:g}; the frame is {side} pixels {direction}"
                )


@record
class SpeedSegment(Record):
    """Segment of the source that plays slower or faster. Outside of all segments the speed is 1.

    Attributes:
        start_seconds: Start of the segment, in seconds from the first frame of the source.
        end_seconds: End of the segment, exclusive, in seconds from the first frame of the source.
        speed: Source seconds per output second, 0.1 to 10; 0.5 is slow motion.
    """

    start_seconds: Fraction = declared(converter=SECONDS, aliases=("start", "start_time"))
    end_seconds: Fraction = declared(converter=SECONDS, aliases=("end", "end_time"))
    speed: Fraction = declared(converter=decimal(SLOWEST, FASTEST, unit="number"), default=Fraction(1))

    def _check(self) -> None:
        if self.end_seconds <= self.start_seconds:
            raise RequestError(
                "end_seconds",
                f"is {shown(self.end_seconds)}; it must be after the start, {shown(self.start_seconds)}",
            )


def check_one_size(output_size: tuple[int, int] | None, aspect: Fraction | None) -> None:
    """Raise RequestError if a request has both an output size and an aspect ratio."""
    if output_size is not None and aspect is not None:
        raise RequestError("aspect", f"is given together with the output size {output_size}; send one of them")


def check_segments(segments: Sequence[SpeedSegment]) -> None:
    """Raise RequestError unless `segments` are in order and do not overlap."""
    for index, (before, after) in enumerate(pairwise(segments), start=1):
        if after.start_seconds < before.end_seconds:
            raise RequestError(
                join(join("segments", index), "start_seconds"),
                f"is {shown(after.start_seconds)}; segments[{index - 1}] ends at"
                f" {shown(before.end_seconds)}: sort the segments and remove overlaps",
            )


@record
class FramingRequest(VideoRequest):
    """Request to crop, trim, rotate and change the speed of a clip. The crop may move.

    Attributes:
        job_id: Job id, chosen by the host. One job id identifies one request.
        user_id: Id of the user that the job is for.
        input_key: Storage key of the clip.
        output_key: Storage key of the output. Its suffix selects the container.
        encode: Encoding options.
        store: Scopes of the two keys, and handling of an existing output.
        rate: `constant` renders a clip with a variable frame rate at the lowest standard rate that drops at most 1 %
            of its frames; `source` keeps the timestamp of each frame; a number is a constant rate in frames per
            second, reached by repeating and dropping frames. A clip with a constant rate keeps it unless a number is
            given.
        crop: Keyframes of the crop, in order of their times. Before the first and after the last one the crop does
            not move. Empty keeps the whole frame.
        interpolation: Movement of the crop between its keyframes: `linear`, or `catmull_rom`, a spline that may
            overshoot.
        video_size: (width, height) of the coordinate space of the crop; None means the upright frame.
        trim_start_seconds: Start of the kept part, in seconds from the first frame of the source.
        trim_end_seconds: End of the kept part, exclusive, in seconds from the first frame of the source; None means
            the end of the clip.
        segments: Segments with another speed, in order, in the time of the untrimmed source.
        output_size: (width, height) of the output in pixels, even; None means 810 x 1440, or the size that `aspect`
            gives.
        aspect: Width / height of the output at the resolution of the source; excludes `output_size`.
        fps: Constant frame rate in frames per second, the same as a number in `rate`; None means that `rate` applies.
        rotation_degrees: Clockwise rotation: 0, 90, 180 or 270 degrees, in addition to the rotation in the file's
            metadata. The crop is in pixels of the rotated frame.
        audio: Whether the output has audio.
        fit: How a crop with another aspect ratio than the output is fitted: `cover` crops it further, `contain` shows
            all of it on a background.
        background: Background of `contain`: `blur` or `#rrggbb`.
        slow_motion: How output frames between two source frames of a slowed segment are made: `repeat` repeats the
            first frame, `blend` blends both.
        outside: Handling of crops outside the frame and trims outside the clip: `clamp` moves them inside and reports
            that in the result, `refuse` raises an error.

    Raises:
        RequestError: A field is not valid; `path` names it.

    Example:
        >>> request = FramingRequest(job_id="j", user_id="u", input_key="in.mp4", output_key="out.mp4")
        >>> FramingRequest.parse(request.to_dict()) == request
        True
    """

    crop: tuple[CropKeyframe, ...] = declared(
        converter=list_of(nested(CropKeyframe), MOST_KEYFRAMES), default=(), aliases=("crop_keyframes",)
    )
    interpolation: Interpolation = declared(converter=INTERPOLATION, default="linear")
    video_size: tuple[int, int] | None = declared(converter=optional(SPACE), default=None, sides=SPACE_SIDES)
    trim_start_seconds: Fraction = declared(
        converter=SECONDS,
        default=Fraction(0),
        aliases=(
            *("trim_start", "segment_data.trim_start_seconds", "segment_data.trim_start"),
            *("trim_range.start_seconds", "trim_range.start"),
        ),
    )
    trim_end_seconds: Fraction | None = declared(
        converter=optional(SECONDS),
        default=None,
        aliases=(
            *("trim_end", "segment_data.trim_end_seconds", "segment_data.trim_end"),
            *("trim_range.end_seconds", "trim_range.end"),
        ),
    )
    segments: tuple[SpeedSegment, ...] = declared(
        converter=list_of(nested(SpeedSegment), MOST_SEGMENTS), default=(), aliases=("segment_data.segments",)
    )
    output_size: tuple[int, int] | None = declared(
        converter=optional(OUTPUT_SIZE),
        default=None,
        sides=OUTPUT_SIDES,
        aliases=("target_width", "target_height"),
    )
    aspect: Fraction | None = declared(converter=optional(RATIO), default=None, aliases=("aspect_ratio",))
    fps: Fraction | None = declared(converter=optional(RATE), default=None, aliases=("output_fps", "target_fps"))
    rotation_degrees: int = declared(converter=TURN, default=0, aliases=("rotation",))
    audio: bool = declared(converter=boolean, default=True, aliases=("include_audio",))
    fit: Fit = declared(converter=FIT, default="cover")
    background: str = declared(converter=BACKGROUND, default="blur")
    slow_motion: SlowMotion = declared(converter=SLOW_MOTION, default="repeat")
    outside: Outside = declared(converter=_OUTSIDE, default="clamp")

    def timeline(self, duration_seconds: Fraction | None = None) -> Timeline:
        """Return the mapping between source time and output time.

        Args:
            duration_seconds: Duration of the source in seconds; None leaves the end open unless the request trims it.

        Raises:
            RequestError: The trim starts after the end of the clip, or `outside` is `refuse` and the trim or a
                segment ends after the end of the clip.
        """
        start, end = self.trim_start_seconds, self.trim_end_seconds
        if duration_seconds is not None:
            self._check_length(duration_seconds)
            end = duration_seconds if end is None else min(end, duration_seconds)
        speeds = [(segment.start_seconds, segment.end_seconds, segment.speed) for segment in self.segments]
        return Timeline.of(start, end, speeds)

    def check_crops(self, frame_size: tuple[int, int]) -> None:
        """Check that all crops are inside a frame of `frame_size` (width, height), also if `outside` is `clamp`.

        Raises:
            RequestError: A crop is outside the frame; `path` names it.
        """
        for index, keyframe in enumerate(self.crop):
            try:
                keyframe.check_within(self.video_size or frame_size)
            except RequestError as error:
                raise RequestError(join(join("crop", index), error.path), error.problem) from error

    @property
    def output_rate(self) -> Rate:
        """Requested frame rate: `fps` if given, else `rate`."""
        return self.rate if self.fps is None else self.fps

    def _check_edit(self) -> None:
        if self.fps is not None and self.rate not in {"constant", self.fps}:
            raise RequestError("rate", f"is {self.rate}, but fps is {self.fps}; send one of them")
        check_one_size(self.output_size, self.aspect)
        check_order("crop", [keyframe.time_seconds for keyframe in self.crop])
        if self.outside == "refuse" and self.video_size is not None:
            self.check_crops(self.video_size)
        start, end = self.trim_start_seconds, self.trim_end_seconds
        if end is not None and end <= start:
            raise RequestError(
                "trim_end_seconds",
                f"is {shown(end)}; it must be after the start of the trim, {shown(start)}",
            )
        check_segments(self.segments)

    def _check_length(self, duration: Fraction) -> None:
        """Check the trim and the segments against the duration of the clip in seconds."""
        if self.trim_start_seconds >= duration:
            start = float(self.trim_start_seconds)
            raise RequestError("trim_start_seconds", f"is {start:g}; the clip ends at {float(duration):g}")
        if self.outside == "clamp":
            return
        ends = [(join(join("segments", i), "end_seconds"), each.end_seconds) for i, each in enumerate(self.segments)]
        for path, end in [("trim_end_seconds", self.trim_end_seconds), *ends]:
            if end is not None and end > duration:
                raise RequestError(path, f"is {float(end):g}; the clip ends at {float(duration):g}")
