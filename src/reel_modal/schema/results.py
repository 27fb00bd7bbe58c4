"""What a render function answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from fractions import Fraction
from typing import Final, Literal, TypeAlias

from reel_modal.errors import ConfigError
from reel_modal.schema._fields import Kind, Record, declared, record
from reel_modal.schema._kinds import (
    boolean,
    choice,
    decimal,
    integer,
    list_of,
    nested,
    numbers_by_name,
    optional,
    size,
    string,
)
from reel_modal.schema.degradation import Degradation
from reel_modal.schema.usage import Usage

__all__ = ["RenderPlanKind", "RenderResult"]

RenderPlanKind: TypeAlias = Literal["smart", "full"]
"""How much of a clip is rendered: what changes, or all of it."""

RenderStatus: TypeAlias = Literal["success"]

_MOST_NOTES: Final = 1000
_LARGEST: Final = 1 << 63
_SIDES: Final = ("width", "height")
_SIZE: Final = size(_SIDES, 0, _LARGEST)
_EXACT: Final = decimal(-_LARGEST, _LARGEST)
_NOTE: Final = string(lines=True)
_PLAN: Final[Kind[RenderPlanKind, RenderPlanKind]] = choice(RenderPlanKind)
_STATUS: Final[Kind[RenderStatus, RenderStatus]] = choice(RenderStatus)


@record
class RenderResult(Record):
    """What a render function has made.

    Attributes:
        status: Always `success`: a job that failed has no result, but an error.
        job_id: Of the request.
        function: Such as `render_overlay`.
        output_key: Where the result is in the storage.
        frames: Frames in it, counted in the file.
        size: (width, height) in pixels.
        fps: Exact frame rate.
        duration_seconds: frames / fps.
        bytes: Size of the object.
        engine: What did the per-frame work.
        encoder: ffmpeg's name of the encoder.
        plan: `smart` where packets of the source were copied beside new ones, `full` where every frame was rendered.
        reason: Why the plan is `full`; empty where it is `smart`.
        frames_copied: Frames that are the source's own, bit for bit; the others were rendered.
        seconds_by_phase: Wall seconds of `fetch`, `render`, `verify`, `publish`.
        degraded: What is not as asked or not as the source has it; empty if all is.
        cold_start: Whether a container was started for the job; None where that is not known.
        usage: The receipt: what the job used. None in results of versions that measured nothing.
        reused_from: The `job_id` that rendered the output, where this job found it there already and used nothing
            but a look; `unknown` where the output itself says that it is this request's, and its record is gone; None
            where this job rendered it.
        stored_key: The key of the output as the store knows it, with the user's prefix; None in results of versions
            that did not say it.
        sign_url: Makes a URL of a stored key for some seconds; the registry sets it if it knows the store. It is not
            part of `to_dict`.
    """

    _noun = "result"

    status: RenderStatus = declared(converter=_STATUS, default="success")
    job_id: str = declared(converter=_NOTE)
    function: str = declared(converter=_NOTE)
    output_key: str = declared(converter=_NOTE)
    frames: int = declared(converter=integer())
    size: tuple[int, int] = declared(converter=_SIZE, sides=_SIDES)
    fps: Fraction = declared(converter=_EXACT)
    duration_seconds: Fraction = declared(converter=_EXACT)
    bytes: int = declared(converter=integer())
    engine: str = declared(converter=_NOTE)
    encoder: str = declared(converter=_NOTE)
    plan: RenderPlanKind = declared(converter=_PLAN, default="full")
    reason: str = declared(converter=string(empty=True, lines=True), default="")
    frames_copied: int = declared(converter=integer(), default=0)
    seconds_by_phase: Mapping[str, float] = declared(converter=numbers_by_name())
    degraded: tuple[Degradation, ...] = declared(converter=list_of(nested(Degradation), _MOST_NOTES), default=())
    cold_start: bool | None = declared(converter=optional(boolean), default=None)
    usage: Usage | None = declared(converter=optional(nested(Usage)), default=None)
    reused_from: str | None = declared(converter=optional(_NOTE), default=None)
    stored_key: str | None = declared(converter=optional(_NOTE), default=None)
    sign_url: Callable[[str, float], str] | None = field(default=None, repr=False, compare=False)

    def url(self, *, expires_seconds: float = 3600.0) -> str:
        """Return a URL with which anybody may read the output for some time; it is a secret while it lasts.

        It blocks if the store's credentials have to be fetched; on an event loop use `asyncio.to_thread`.

        Args:
            expires_seconds: How long, at most seven days; after that the store answers 403.

        Raises:
            ConfigError: The store has no URLs that others can use, such as a folder, or this host does not know it.
            StorageError: The store's credentials could not be used.

        Example:
            `return RedirectResponse(result.url(expires_seconds=600))`
        """
        if self.sign_url is None or self.stored_key is None:
            raise ConfigError(
                "this result does not know its store: get it from a registry whose settings have a store_url, such as"
                " s3://bucket/prefix"
            )
        return self.sign_url(self.stored_key, expires_seconds)
