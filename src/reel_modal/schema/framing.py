"""The request of `process_framing`: what part of the picture is kept, for how long, how fast, in what size."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Final, Literal, TypeAlias

from reel_modal.errors import RequestError
from reel_modal.interpolation import Interpolation
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
from reel_modal.schema.overlay import INTERPOLATION, LENGTH, POSITION, SPACE, SPACE_SIDES, check_order
from reel_modal.schema.requests import Request
from reel_modal.schema.timeline import Timeline

__all__ = ["CropKeyframe", "Fit", "FramingRequest", "Outside", "SlowMotion", "SpeedSegment"]

Fit: TypeAlias = Literal["cover", "contain"]
"""Where crop and output differ in shape: cut the crop further, or show all of it before a background."""

SlowMotion: TypeAlias = Literal["repeat", "blend"]
"""What fills the time between two pictures of a slowed stretch: the first of them, or a mixture."""

Outside: TypeAlias = Literal["clamp", "refuse"]
"""What to do with crops outside of the frame and trims outside of the clip."""

SLOWEST: Final = Fraction(1, 10)
FASTEST: Final = Fraction(10)
MOST_KEYFRAMES: Final = 10_000
MOST_SEGMENTS: Final = 1000
# Apps round what they send; a hundredth of a pixel is nobody's intention.
_ROUNDING_PX: Final = 0.01
_SIDES: Final = ("output_width", "output_height")
_FIT: Final[Kind[Fit, Fit]] = choice(Fit)
_SLOW_MOTION: Final[Kind[SlowMotion, SlowMotion]] = choice(SlowMotion)
_OUTSIDE: Final[Kind[Outside, Outside]] = choice(Outside)
_BACKGROUND: Final = matching("blur|#[0-9a-fA-F]{6}", "write blur or #rrggbb", "`blur` or `#rrggbb`")


def _convert_turn(value: object) -> int:
    degrees = integer(-_MOST_TURNS * 360, _MOST_TURNS * 360).convert(value)
    if degrees % 90:
        raise RequestError("", f"is {degrees}; whole quarter turns are possible: 0, 90, 180 or 270, clockwise")
    return degrees % 360


_MOST_TURNS: Final = 100
_TURN: Final[Kind[float | Fraction, int]] = Kind(
    _convert_turn, {"type": "integer", "multipleOf": 90}, "0, 90, 180 or 270; -90 is 270"
)


@record
class CropKeyframe(Record):
    """The part of the picture that is kept at one moment, in pixels of the upright source.

    Attributes:
        time_seconds: From the first picture of the source on; exact.
        x: Left edge.
        y: Upper edge.
        width: Above 0.
        height: Above 0.
    """

    time_seconds: Fraction = declared(converter=SECONDS, aliases=("time",))
    x: float = declared(converter=POSITION)
    y: float = declared(converter=POSITION)
    width: float = declared(converter=LENGTH)
    height: float = declared(converter=LENGTH)

    def check_within(self, size: tuple[int, int]) -> None:
        """Refuse a crop that reaches out of a frame of `size` (width, height).

        Raises:
            RequestError: It does; the path is that of the axis.
        """
        for name, start, length, side in (("x", self.x, self.width, size[0]), ("y", self.y, self.height, size[1])):
            if start < -_ROUNDING_PX or start + length > side + _ROUNDING_PX:
                what = "wide" if name == "x" else "high"
                raise RequestError(
                    name, f"reaches from {start:g} to {start + length:g}; the frame is {side} pixels {what}"
                )


@record
class SpeedSegment(Record):
    """A stretch of the source that plays slower or faster; what is in no segment plays at its own speed.

    Attributes:
        start_seconds: From the first picture of the source on.
        end_seconds: Exclusive.
        speed: 0.1 to 10: source seconds in one second of the output; 0.5 is slow motion.
    """

    start_seconds: Fraction = declared(converter=SECONDS, aliases=("start", "start_time"))
    end_seconds: Fraction = declared(converter=SECONDS, aliases=("end", "end_time"))
    speed: Fraction = declared(converter=decimal(SLOWEST, FASTEST, unit="number"), default=Fraction(1))

    def _check(self) -> None:
        if self.end_seconds <= self.start_seconds:
            raise RequestError(
                "end_seconds",
                f"is {shown(self.end_seconds)}; the start is {shown(self.start_seconds)}, and it must be later",
            )


@record
class FramingRequest(Request):
    """Cut a clip to a moving part of its picture, a part of its length, and other speeds.

    Attributes:
        job_id: The host's own name of the job; one job id is one request.
        user_id: Whom it is for.
        input_key: Where the clip is in the storage.
        output_key: Where the result goes; its suffix chooses the container.
        encode: How the output is encoded.
        store: Whose the two keys are, and what becomes of an output that is there.
        rate: `constant` renders a clip whose frame rate varies at the smallest standard rate that keeps its pictures;
            `source` keeps the time of each picture; a number of frames a second is that rate, by repeating and
            dropping. A clip of a constant rate keeps it unless a number is given.
        crop: What is kept of the picture, in order of the times; before the first and behind the last it
            stands still. Empty keeps all of it.
        interpolation: How the crop moves between its keyframes.
        video_size: (width, height) of the coordinate space of the crop; None is the upright frame itself.
        trim_start_seconds: First moment that is kept, from the first picture on.
        trim_end_seconds: Where it ends, exclusive; None is the end of the clip.
        segments: Stretches of other speeds, in order, in the time of the untrimmed source.
        output_size: (width, height) in pixels, even; None is 810 x 1440, or what `aspect` gives.
        aspect: Width / height of the output, at the source's own resolution; instead of `output_size`.
        fps: The same as a number in `rate`; None leaves it to `rate`.
        rotation_degrees: 0, 90, 180 or 270 clockwise, on top of what the file says; the crop is in pixels of
            the turned picture.
        audio: Whether the sound goes along.
        fit: What happens where crop and output differ in shape.
        background: What `contain` shows beside the picture: `blur` or `#rrggbb`.
        slow_motion: What fills the time between two pictures of a slowed stretch.
        outside: Whether crops outside of the frame and trims outside of the clip are moved inside and named
            in the result, or refused.

    Raises:
        RequestError: Something is wrong; its `path` says where.

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
        converter=optional(size(_SIDES, 16, 8192, even=True)),
        default=None,
        sides=_SIDES,
        aliases=("target_width", "target_height"),
    )
    aspect: Fraction | None = declared(converter=optional(RATIO), default=None, aliases=("aspect_ratio",))
    fps: Fraction | None = declared(converter=optional(RATE), default=None, aliases=("output_fps", "target_fps"))
    rotation_degrees: int = declared(converter=_TURN, default=0, aliases=("rotation",))
    audio: bool = declared(converter=boolean, default=True, aliases=("include_audio",))
    fit: Fit = declared(converter=_FIT, default="cover")
    background: str = declared(converter=_BACKGROUND, default="blur")
    slow_motion: SlowMotion = declared(converter=_SLOW_MOTION, default="repeat")
    outside: Outside = declared(converter=_OUTSIDE, default="clamp")

    def timeline(self, duration_seconds: Fraction | None = None) -> Timeline:
        """Return which moment of the source the output shows when.

        Args:
            duration_seconds: Of the source; None leaves the end open where no trim says it.

        Raises:
            RequestError: The trim leaves nothing of the clip, or `outside` is `refuse` and something reaches
                behind the clip's end.
        """
        start, end = self.trim_start_seconds, self.trim_end_seconds
        if duration_seconds is not None:
            self._check_length(duration_seconds)
            end = duration_seconds if end is None else min(end, duration_seconds)
        speeds = [(segment.start_seconds, segment.end_seconds, segment.speed) for segment in self.segments]
        return Timeline.of(start, end, speeds)

    def check_crops(self, frame_size: tuple[int, int]) -> None:
        """Refuse crops outside of a frame of `frame_size` (width, height), whatever `outside` says.

        Raises:
            RequestError: There is one; `path` leads to it.
        """
        for index, keyframe in enumerate(self.crop):
            try:
                keyframe.check_within(self.video_size or frame_size)
            except RequestError as error:
                raise RequestError(join(join("crop", index), error.path), error.problem) from error

    @property
    def output_rate(self) -> Rate:
        """The frame rate that is asked for, by `rate` or by `fps`."""
        return self.rate if self.fps is None else self.fps

    def _check_edit(self) -> None:
        if self.fps is not None and self.rate not in {"constant", self.fps}:
            raise RequestError("rate", f"is {self.rate}, but fps is {self.fps}; send one of them")
        if self.output_size is not None and self.aspect is not None:
            raise RequestError("aspect", f"is given beside the output size {self.output_size}; send one of them")
        check_order("crop", [keyframe.time_seconds for keyframe in self.crop])
        if self.outside == "refuse" and self.video_size is not None:
            self.check_crops(self.video_size)
        start, end = self.trim_start_seconds, self.trim_end_seconds
        if end is not None and end <= start:
            raise RequestError(
                "trim_end_seconds",
                f"is {shown(end)}; the trim's start is {shown(start)}, and it must be later",
            )
        for index, (before, after) in enumerate(pairwise(self.segments), start=1):
            if after.start_seconds < before.end_seconds:
                raise RequestError(
                    join(join("segments", index), "start_seconds"),
                    f"is {shown(after.start_seconds)}; segments[{index - 1}] ends at"
                    f" {shown(before.end_seconds)}: sort them and let none overlap",
                )

    def _check_length(self, duration: Fraction) -> None:
        """Check what concerns time against the length of the clip."""
        if self.trim_start_seconds >= duration:
            start = float(self.trim_start_seconds)
            raise RequestError("trim_start_seconds", f"is {start:g}; the clip has ended at {float(duration):g}")
        if self.outside == "clamp":
            return
        ends = [(join(join("segments", i), "end_seconds"), each.end_seconds) for i, each in enumerate(self.segments)]
        for path, end in [("trim_end_seconds", self.trim_end_seconds), *ends]:
            if end is not None and end > duration:
                raise RequestError(path, f"is {float(end):g}; the clip ends at {float(duration):g}")
