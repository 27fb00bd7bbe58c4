"""The request of `process_framing`: what part of the picture is kept, for how long, how fast, in what size.

Pure; it must not know how frames are cut or sound is stretched.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Final, Literal, Self, TypeAlias, get_args

from reel_modal.bounds import at_least_zero, finite, in_order, not_empty, positive, within
from reel_modal.errors import RequestError
from reel_modal.interpolation import Interpolation
from reel_modal.parsing import (
    Raw,
    Record,
    decode,
    items,
    join,
    number,
    one_of,
    rooted,
    seconds,
    seconds_json,
    text,
    truth,
)
from reel_modal.schema.encoding import EncodeOptions
from reel_modal.schema.framing_parts import edit_fields, quarter_turn, rate, ratio, size_fields
from reel_modal.schema.reading import build, hash_without_job, identifier, video_size
from reel_modal.schema.storing import StoreOptions
from reel_modal.schema.timeline import Timeline

__all__ = ["CropKeyframe", "Fit", "FramingRequest", "Outside", "SlowMotion", "SpeedSegment"]

Fit: TypeAlias = Literal["cover", "contain"]
"""Where crop and output differ in shape: cut the crop further, or show all of it before a background."""

SlowMotion: TypeAlias = Literal["repeat", "blend"]
"""What fills the time between two pictures of a slowed stretch: the first of them, or a mixture."""

Outside: TypeAlias = Literal["clamp", "refuse"]
"""What to do with crops outside of the frame and trims outside of the clip."""

DEFAULT_SIZE: Final = (810, 1440)
SLOWEST: Final = Fraction(1, 10)
FASTEST: Final = Fraction(10)
MOST_KEYFRAMES: Final = 100_000
MOST_SEGMENTS: Final = 1000
_SMALLEST_SIDE_PX: Final = 16
_LARGEST_SIDE_PX: Final = 8192
_FASTEST_FPS: Final = 240
_WIDEST: Final = Fraction(10)
# Apps round what they send; a hundredth of a pixel is nobody's intention.
_ROUNDING_PX: Final = 0.01
_BACKGROUND: Final = re.compile(r"blur|#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CropKeyframe:
    """The part of the picture that is kept at one moment, in pixels of the upright source.

    Attributes:
        time_seconds: From the first picture of the source on; exact.
        x: Left edge.
        y: Upper edge.
        width: Above 0.
        height: Above 0.
    """

    time_seconds: Fraction
    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        at_least_zero("time_seconds", self.time_seconds)
        for name in ("x", "y"):
            finite(name, getattr(self, name))
        for name in ("width", "height"):
            positive(name, getattr(self, name))

    @classmethod
    def read(cls, raw: object, path: str) -> Self:
        """Read one from the JSON of a request; `path` is where it stands there."""
        record = Record(raw, path)
        keyframe = {
            "time_seconds": record.take(seconds, "time_seconds", "time"),
            **{name: record.take(number, name) for name in ("x", "y", "width", "height")},
        }
        record.finish()
        return build(cls, path, keyframe)

    def to_dict(self) -> dict[str, object]:
        """Return the keyframe for JSON."""
        return {
            "time_seconds": seconds_json(self.time_seconds),
            "x": self.x,
            "y": self.y,
            "width": self.width,
            "height": self.height,
        }

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeedSegment:
    """A stretch of the source that plays slower or faster; what is in no segment plays at its own speed.

    Attributes:
        start_seconds: From the first picture of the source on.
        end_seconds: Exclusive.
        speed: 0.1 to 10: source seconds in one second of the output; 0.5 is slow motion.
    """

    start_seconds: Fraction
    end_seconds: Fraction
    speed: Fraction

    def __post_init__(self) -> None:
        at_least_zero("start_seconds", self.start_seconds)
        in_order("end_seconds", self.end_seconds, "the start", self.start_seconds)
        within("speed", self.speed, SLOWEST, FASTEST)

    @classmethod
    def read(cls, raw: object, path: str) -> Self:
        """Read one from the JSON of a request; `path` is where it stands there."""
        record = Record(raw, path)
        segment = {
            "start_seconds": record.take(seconds, "start_seconds", "start", "start_time"),
            "end_seconds": record.take(seconds, "end_seconds", "end", "end_time"),
            "speed": record.take_or(Fraction(1), seconds, "speed"),
        }
        record.finish()
        return build(cls, path, segment)

    def to_dict(self) -> dict[str, object]:
        """Return the segment for JSON."""
        return {
            "start_seconds": seconds_json(self.start_seconds),
            "end_seconds": seconds_json(self.end_seconds),
            "speed": seconds_json(self.speed),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FramingRequest:
    """Cut a clip to a moving part of its picture, a part of its length, and other speeds.

    Attributes:
        job_id: The host's own name of the job; one job id is one request.
        user_id: Whom it is for.
        input_key: Where the clip is in the storage.
        output_key: Where the result goes; its suffix chooses the container.
        crop: What is kept of the picture, in order of the times; before the first and behind the last it
            stands still. Empty keeps all of it.
        interpolation: How the crop moves between its keyframes.
        video_size: (width, height) of the coordinate space of the crop; None is the upright frame itself.
        trim_start_seconds: First moment that is kept, from the first picture on.
        trim_end_seconds: Where it ends, exclusive; None is the end of the clip.
        segments: Stretches of other speeds, in order, in the time of the untrimmed source.
        output_size: (width, height) in pixels, even; None is 810 x 1440, or what `aspect` gives.
        aspect: Width / height of the output, at the source's own resolution; instead of `output_size`.
        fps: Frames a second of the output; None is the source's rate.
        rotation_degrees: 0, 90, 180 or 270 clockwise, on top of what the file says; the crop is in pixels of
            the turned picture.
        audio: Whether the sound goes along.
        fit: What happens where crop and output differ in shape.
        background: What `contain` shows beside the picture: `blur` or `#rrggbb`.
        slow_motion: What fills the time between two pictures of a slowed stretch.
        outside: Whether crops outside of the frame and trims outside of the clip are moved inside and named
            in the result, or refused.
        encode: How the output is encoded.
        store: Whose the two keys are, and what becomes of an output that is there.

    Raises:
        RequestError: Something is wrong; its `path` says where.

    Example:
        >>> request = FramingRequest(job_id="j", user_id="u", input_key="in.mp4", output_key="out.mp4")
        >>> FramingRequest.parse(request.to_dict()) == request
        True
    """

    job_id: str
    user_id: str
    input_key: str
    output_key: str
    crop: tuple[CropKeyframe, ...] = ()
    interpolation: Interpolation = "linear"
    video_size: tuple[int, int] | None = None
    trim_start_seconds: Fraction = Fraction(0)
    trim_end_seconds: Fraction | None = None
    segments: tuple[SpeedSegment, ...] = ()
    output_size: tuple[int, int] | None = None
    aspect: Fraction | None = None
    fps: Fraction | None = None
    rotation_degrees: int = 0
    audio: bool = True
    fit: Fit = "cover"
    background: str = "blur"
    slow_motion: SlowMotion = "repeat"
    outside: Outside = "clamp"
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    store: StoreOptions = field(default_factory=StoreOptions)

    def __post_init__(self) -> None:
        for name in ("job_id", "user_id", "input_key", "output_key"):
            not_empty(name, getattr(self, name))
        for name, words in _WORDS.items():
            one_of(*words)(getattr(self, name), name)
        self._check_picture()
        self._check_times()

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """Read a request as hosts send it: snake_case, camelCase, legacy names, both forms of the trim.

        Raises:
            RequestError: Something is wrong, unknown, or said twice with different values; `path` says where.
        """
        record = Record(decode(raw))
        whole: tuple[CropKeyframe, ...] = ()
        request = {
            **{name: record.take(identifier, name) for name in ("job_id", "user_id")},
            **{name: record.take(text, name) for name in ("input_key", "output_key")},
            "crop": record.take_or(whole, items(CropKeyframe.read, MOST_KEYFRAMES), "crop", "crop_keyframes"),
            "video_size": video_size(record),
            **edit_fields(record, items(SpeedSegment.read, MOST_SEGMENTS)),
            "output_size": size_fields(record),
            "aspect": record.take_or(None, ratio, "aspect", "aspect_ratio"),
            "fps": record.take_or(None, rate, "fps", "output_fps", "target_fps"),
            "rotation_degrees": record.take_or(0, quarter_turn, "rotation_degrees", "rotation"),
            "audio": record.take_or(True, truth, "audio", "include_audio"),  # noqa: FBT003
            "background": record.take_or("blur", text, "background"),
            **{name: record.take_or(words[0], one_of(*words), name) for name, words in _WORDS.items()},
            "encode": record.take_or(EncodeOptions(), EncodeOptions.read, "encode"),
            "store": record.take_or(StoreOptions(), StoreOptions.read, "store"),
        }
        record.finish()
        return build(cls, "", request)

    def to_dict(self) -> dict[str, object]:
        """Return the request for JSON; `parse` takes it back."""
        space, size = self.video_size or (None, None), self.output_size or (None, None)
        end = self.trim_end_seconds
        return {
            "job_id": self.job_id,
            "user_id": self.user_id,
            "input_key": self.input_key,
            "output_key": self.output_key,
            "crop": [keyframe.to_dict() for keyframe in self.crop],
            "interpolation": self.interpolation,
            "video_width": space[0],
            "video_height": space[1],
            "trim_start_seconds": seconds_json(self.trim_start_seconds),
            "trim_end_seconds": None if end is None else seconds_json(end),
            "segments": [segment.to_dict() for segment in self.segments],
            "output_width": size[0],
            "output_height": size[1],
            "aspect": None if self.aspect is None else str(self.aspect),
            "fps": None if self.fps is None else str(self.fps),
            "rotation_degrees": self.rotation_degrees,
            "audio": self.audio,
            "fit": self.fit,
            "background": self.background,
            "slow_motion": self.slow_motion,
            "outside": self.outside,
            "encode": self.encode.to_dict(),
            "store": self.store.to_dict(),
        }

    def request_hash(self) -> str:
        """Return a hash of what is asked for, whatever the `job_id` and `store.existing`."""
        return hash_without_job(self.to_dict())

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
            with rooted(join("crop", index)):
                keyframe.check_within(self.video_size or frame_size)

    def _check_picture(self) -> None:
        """Check what concerns space."""
        if self.video_size is not None and min(self.video_size) < 1:
            raise RequestError("video_size", f"is {self.video_size}; both sides must be at least 1 pixel")
        if self.output_size is not None:
            if self.aspect is not None:
                raise RequestError("aspect", f"is given beside the output size {self.output_size}; send one of them")
            for name, side in zip(("output_width", "output_height"), self.output_size, strict=True):
                within(name, side, _SMALLEST_SIDE_PX, _LARGEST_SIDE_PX)
                if side % 2:
                    raise RequestError(name, f"is {side}; video with 4:2:0 chroma has even sides")
        if self.aspect is not None:
            within("aspect", self.aspect, 1 / _WIDEST, _WIDEST)
        if self.fps is not None:
            within("fps", self.fps, 1, _FASTEST_FPS)
        one_of(0, 90, 180, 270)(self.rotation_degrees, "rotation_degrees")
        if not _BACKGROUND.fullmatch(self.background):
            raise RequestError("background", f"is {self.background!r}; write blur or #rrggbb")
        for index, (before, after) in enumerate(pairwise(self.crop), start=1):
            if after.time_seconds <= before.time_seconds:
                how = "the same as" if after.time_seconds == before.time_seconds else "before"
                raise RequestError(
                    join(join("crop", index), "time_seconds"),
                    f"is {float(after.time_seconds):g}, {how} the one in front of it; sort them and keep one each",
                )
        if self.outside == "refuse" and self.video_size is not None:
            self.check_crops(self.video_size)

    def _check_times(self) -> None:
        """Check what concerns time, as far as that goes without the clip."""
        at_least_zero("trim_start_seconds", self.trim_start_seconds)
        if self.trim_end_seconds is not None:
            in_order("trim_end_seconds", self.trim_end_seconds, "the trim's start", self.trim_start_seconds)
        for index, (before, after) in enumerate(pairwise(self.segments), start=1):
            if after.start_seconds < before.end_seconds:
                raise RequestError(
                    join(join("segments", index), "start_seconds"),
                    f"is {float(after.start_seconds):g}; segments[{index - 1}] ends at"
                    f" {float(before.end_seconds):g}: sort them and let none overlap",
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


# The first word of each is the default.
_WORDS: Final = {
    "interpolation": get_args(Interpolation),
    "fit": get_args(Fit),
    "slow_motion": get_args(SlowMotion),
    "outside": get_args(Outside),
}
