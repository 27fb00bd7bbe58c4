"""The request to assemble a reel from several clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from fractions import Fraction
from typing import Final

from reel_modal.errors import RequestError
from reel_modal.schema._fields import Kind, Record, declared, join, record
from reel_modal.schema._kinds import (
    KEY,
    RATIO,
    SECONDS,
    Rate,
    boolean,
    choice,
    decimal,
    list_of,
    nested,
    optional,
)
from reel_modal.schema._numbers import shown
from reel_modal.schema.framing import (
    BACKGROUND,
    FIT,
    MOST_KEYFRAMES,
    MOST_SEGMENTS,
    OUTPUT_SIDES,
    OUTPUT_SIZE,
    SLOW_MOTION,
    TURN,
    CropKeyframe,
    Fit,
    FramingRequest,
    SlowMotion,
    SpeedSegment,
    check_one_size,
    check_segments,
)
from reel_modal.schema.interpolation import Interpolation
from reel_modal.schema.overlay import EFFECT, Effect, OverlayRequest, OverlayStyle, check_region_ids
from reel_modal.schema.reel_layers import MOST_LAYERS, ReelLayer
from reel_modal.schema.reel_music import LOUDNESS, STANDARD_LUFS, Loudness, ReelMusic
from reel_modal.schema.reel_timeline import ReelTimeline, TransitionKind, check_transitions
from reel_modal.schema.regions import INTERPOLATION, REGIONS, SPACE, SPACE_SIDES, HighlightRegion, check_order
from reel_modal.schema.requests import VideoRequest
from reel_modal.schema.timeline import Timeline

__all__ = ["ReelClip", "ReelRequest", "ReelTransition"]

MOST_CLIPS: Final = 100
LONGEST_REEL_SECONDS: Final = 4 * 3600
"""Maximum length of a reel in seconds."""

_LONGEST_TRANSITION_SECONDS: Final = 10
_LOUDEST: Final = 4
_USUAL_SECONDS: Final = Fraction(1, 2)
_KIND: Final[Kind[TransitionKind, TransitionKind]] = choice(TransitionKind)


@record
class ReelClip(Record):
    """One clip of a reel.

    Attributes:
        input_key: Storage key of the clip.
        trim_start_seconds: Start of the kept part, in seconds from the first frame of the source.
        trim_end_seconds: End of the kept part, exclusive, in seconds from the first frame of the source; None means
            the end of the clip.
        segments: Segments with another speed, in order, in the time of the untrimmed source.
        slow_motion: How output frames between two source frames of a slowed segment are made: `repeat` repeats the
            first frame, `blend` blends both.
        crop: Keyframes of the crop, in order of their times in the source. Empty keeps the whole frame.
        interpolation: Movement of the crop between its keyframes: `linear`, or `catmull_rom`, a spline that may
            overshoot.
        video_size: (width, height) of the coordinate space of the crop; None means the upright frame.
        rotation_degrees: Clockwise rotation: 0, 90, 180 or 270 degrees, in addition to the rotation in the file's
            metadata. The crop is in pixels of the rotated frame.
        regions: Regions to highlight, in times and coordinates of the source. Their ids must differ.
        effect: Effect of the regions: `dark_overlay` darkens the frame outside them, `brightness_boost` brightens the
            frame inside them, `original` draws nothing.
        style: Style of the regions.
        volume: Factor of the clip's audio, 0 to 4. Samples above full scale are clipped.
        mute: Whether the clip is silent.
    """

    input_key: str = declared(converter=KEY)
    trim_start_seconds: Fraction = declared(converter=SECONDS, default=Fraction(0), aliases=("trim_start",))
    trim_end_seconds: Fraction | None = declared(converter=optional(SECONDS), default=None, aliases=("trim_end",))
    segments: tuple[SpeedSegment, ...] = declared(converter=list_of(nested(SpeedSegment), MOST_SEGMENTS), default=())
    slow_motion: SlowMotion = declared(converter=SLOW_MOTION, default="repeat")
    crop: tuple[CropKeyframe, ...] = declared(
        converter=list_of(nested(CropKeyframe), MOST_KEYFRAMES), default=(), aliases=("crop_keyframes",)
    )
    interpolation: Interpolation = declared(converter=INTERPOLATION, default="linear")
    video_size: tuple[int, int] | None = declared(converter=optional(SPACE), default=None, sides=SPACE_SIDES)
    rotation_degrees: int = declared(converter=TURN, default=0, aliases=("rotation",))
    regions: tuple[HighlightRegion, ...] = declared(converter=REGIONS, default=(), aliases=("highlight_regions",))
    effect: Effect = declared(converter=EFFECT, default="dark_overlay", aliases=("effect_type",))
    style: OverlayStyle = declared(
        converter=nested(OverlayStyle), default=OverlayStyle(), aliases=("overlay_settings",)
    )
    volume: Fraction = declared(converter=decimal(0, _LOUDEST), default=Fraction(1))
    mute: bool = declared(converter=boolean, default=False, aliases=("muted",))

    def _check(self) -> None:
        start, end = self.trim_start_seconds, self.trim_end_seconds
        if end is not None and end <= start:
            raise RequestError(
                "trim_end_seconds", f"is {shown(end)}; it must be after the start of the trim, {shown(start)}"
            )
        check_order("crop", [keyframe.time_seconds for keyframe in self.crop])
        check_segments(self.segments)
        check_region_ids(self.regions)


@record
class ReelTransition(Record):
    """Transition from one clip of a reel to the next.

    Attributes:
        kind: `cut` changes at once; `crossfade` mixes both clips, which overlap and make the reel shorter;
            `fade_black` fades the first clip out to black during half of the duration, then the second one in.
        duration_seconds: Duration in seconds, above 0 and at most 10; None is half a second. A `cut` has none.
    """

    kind: TransitionKind = declared(converter=_KIND, default="cut", aliases=("type",))
    duration_seconds: Fraction | None = declared(
        converter=optional(decimal(0, _LONGEST_TRANSITION_SECONDS, unit="seconds")),
        default=None,
        aliases=("duration",),
    )

    @property
    def seconds(self) -> Fraction:
        """Duration in seconds; 0 for a `cut`."""
        if self.kind == "cut":
            return Fraction(0)
        return _USUAL_SECONDS if self.duration_seconds is None else self.duration_seconds

    def _check(self) -> None:
        given = self.duration_seconds
        if self.kind == "cut" and given:
            raise RequestError("duration_seconds", f"is {shown(given)}, but a cut has no duration; leave it out")
        if self.kind != "cut" and given is not None and given <= 0:
            raise RequestError("duration_seconds", f"is {shown(given)}; a {self.kind} takes more than 0 seconds")


@record
class ReelRequest(VideoRequest):
    """Request to assemble one video from several clips, with transitions.

    `input_key` is the key of the first clip; it is not a field of the JSON.

    Attributes:
        job_id: Job id, chosen by the host. One job id identifies one request.
        user_id: Id of the user that the job is for.
        output_key: Storage key of the output. Its suffix selects the container.
        encode: Encoding options.
        store: Scopes of all keys, and handling of an existing output.
        rate: `constant` is the rate of the first clip, as `process_framing` would render it; a number is a rate in
            frames per second. `source` is refused, because clips have different times.
        clips: The clips in order, 1 to 100. A key may appear several times.
        transitions: The transition after each clip except the last one, in order; empty means cuts.
        output_size: (width, height) of the output in pixels, even; None means the size of the first clip or of its
            crop, or the size that `aspect` gives.
        aspect: Width / height of the output at the resolution of the first clip; excludes `output_size`.
        fit: How a clip with another aspect ratio than the output is fitted: `cover` crops it, `contain` shows all of
            it on a background.
        background: Background of `contain`: `blur` or `#rrggbb`.
        layers: Images drawn over the frames, the first one below the others.
        music: Music under the clips.
        loudness: Loudness of the audio (EBU R128): `off` leaves it, `on` is -14 LUFS, a number is a target in LUFS.

    Raises:
        RequestError: A field is not valid; `path` names it.

    Example:
        >>> clips = [ReelClip(input_key="a.mp4"), ReelClip(input_key="b.mp4", trim_end_seconds=5)]
        >>> request = ReelRequest(job_id="j", user_id="u", output_key="reel.mp4", clips=clips)
        >>> request.input_keys()
        {'clips[0].input_key': 'a.mp4', 'clips[1].input_key': 'b.mp4'}
    """

    input_key: str = field(init=False, default="", repr=False)
    clips: tuple[ReelClip, ...] = declared(converter=list_of(nested(ReelClip), MOST_CLIPS))
    transitions: tuple[ReelTransition, ...] = declared(
        converter=list_of(nested(ReelTransition), MOST_CLIPS - 1), default=()
    )
    output_size: tuple[int, int] | None = declared(
        converter=optional(OUTPUT_SIZE),
        default=None,
        sides=OUTPUT_SIDES,
        aliases=("target_width", "target_height"),
    )
    aspect: Fraction | None = declared(converter=optional(RATIO), default=None, aliases=("aspect_ratio",))
    fit: Fit = declared(converter=FIT, default="cover")
    background: str = declared(converter=BACKGROUND, default="blur")
    layers: tuple[ReelLayer, ...] = declared(
        converter=list_of(nested(ReelLayer), MOST_LAYERS), default=(), added_later=True
    )
    music: ReelMusic | None = declared(converter=optional(nested(ReelMusic)), default=None, added_later=True)
    loudness: Loudness = declared(converter=LOUDNESS, default="off", added_later=True)

    @property
    def target_lufs(self) -> Fraction | None:
        """Loudness to reach in LUFS; None leaves the audio."""
        if isinstance(self.loudness, Fraction):
            return self.loudness
        return STANDARD_LUFS if self.loudness == "on" else None

    def clip_keys(self) -> dict[str, str]:
        """Return the key of each clip, by the path of its field."""
        return {join(join("clips", index), "input_key"): clip.input_key for index, clip in enumerate(self.clips)}

    def input_keys(self) -> dict[str, str]:
        """Return the key of each clip, of the image of each layer, and of the music, by the path of its field."""
        images = {join(join("layers", at), "input_key"): layer.input_key for at, layer in enumerate(self.layers)}
        music = {} if self.music is None else {"music.input_key": self.music.input_key}
        return self.clip_keys() | images | music

    def framing(self, index: int, *, output_size: tuple[int, int] | None, rate: Rate) -> FramingRequest:
        """Return the request of `process_framing` that makes the frames of one clip.

        Args:
            index: Index of the clip.
            output_size: (width, height) of the reel in pixels; None if it is not known yet.
            rate: Frame rate of the reel.
        """
        clip = self.clips[index]
        return FramingRequest(
            job_id=self.job_id,
            user_id=self.user_id,
            input_key=clip.input_key,
            output_key=self.output_key,
            store=self.store,
            encode=self.encode,
            rate=rate,
            trim_start_seconds=clip.trim_start_seconds,
            trim_end_seconds=clip.trim_end_seconds,
            segments=clip.segments,
            slow_motion=clip.slow_motion,
            crop=clip.crop,
            interpolation=clip.interpolation,
            video_size=clip.video_size,
            rotation_degrees=clip.rotation_degrees,
            output_size=output_size,
            aspect=self.aspect if output_size is None else None,
            fit=self.fit,
            background=self.background,
            audio=not clip.mute,
        )

    def overlay(self, index: int) -> OverlayRequest | None:
        """Return the request of `render_overlay` that draws on one clip; None if nothing is drawn."""
        clip = self.clips[index]
        if not clip.regions or clip.effect == "original":
            return None
        return OverlayRequest(
            job_id=self.job_id,
            user_id=self.user_id,
            input_key=clip.input_key,
            output_key=self.output_key,
            store=self.store,
            encode=self.encode,
            regions=clip.regions,
            effect=clip.effect,
            style=clip.style,
        )

    def timeline(self, lines: Sequence[Timeline], fps: Fraction) -> ReelTimeline:
        """Return the mapping from output time to clips.

        Args:
            lines: The mapping of each clip, with a known end: `FramingRequest.timeline` of its length.
            fps: Frame rate of the output.

        Raises:
            RequestError: The transitions of a clip are longer than it is, or the reel is too long.
        """
        reel = ReelTimeline.of(lines, self._changes(), fps)
        if reel.duration_seconds > LONGEST_REEL_SECONDS:
            seconds = float(reel.duration_seconds)
            raise RequestError("clips", f"last {seconds:g} s together; a reel has at most {LONGEST_REEL_SECONDS}")
        return reel

    def _changes(self) -> list[tuple[TransitionKind, Fraction]]:
        if not self.transitions:
            return [("cut", Fraction(0))] * (len(self.clips) - 1)
        return [(each.kind, each.seconds) for each in self.transitions]

    def _check_edit(self) -> None:
        if not self.clips:
            raise RequestError("clips", "is empty; a reel needs a clip")
        object.__setattr__(self, "input_key", self.clips[0].input_key)
        if self.rate == "source":
            raise RequestError("rate", "is source; the clips of a reel get one rate: use constant or a number")
        check_one_size(self.output_size, self.aspect)
        if self.transitions and len(self.transitions) != len(self.clips) - 1:
            raise RequestError(
                "transitions",
                f"has {len(self.transitions)} items for {len(self.clips)} clips; send one fewer than clips, or none",
            )
        check_transitions([_known_length(clip) for clip in self.clips], self._changes())


def _known_length(clip: ReelClip) -> Fraction | None:
    """Return the most seconds that a clip can last; None if that depends on its file."""
    if clip.trim_end_seconds is None:
        return None
    speeds = [(each.start_seconds, each.end_seconds, each.speed) for each in clip.segments]
    return Timeline.of(clip.trim_start_seconds, clip.trim_end_seconds, speeds).duration_seconds
