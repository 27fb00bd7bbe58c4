"""What a render function answers.

Pure; it must not know how anything was rendered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal, Self, TypeAlias, get_args

from reel_modal.errors import ConfigError
from reel_modal.parsing import (
    Raw,
    Record,
    any_text,
    anything,
    decode,
    integer,
    items,
    one_of,
    seconds,
    seconds_json,
    text,
    truth,
)
from reel_modal.schema.reading import build
from reel_modal.schema.usage import Usage

__all__ = ["RenderPlanKind", "RenderResult"]

RenderPlanKind: TypeAlias = Literal["smart", "full"]
"""How much of a clip is rendered: what changes, or all of it."""

_MOST_NOTES: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderResult:
    """What a render function has made.

    Attributes:
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
        degraded: What is not as asked, a sentence each; empty when all is.
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

    job_id: str
    function: str
    output_key: str
    frames: int
    size: tuple[int, int]
    fps: Fraction
    duration_seconds: Fraction
    bytes: int
    engine: str
    encoder: str
    seconds_by_phase: Mapping[str, float]
    degraded: tuple[str, ...] = ()
    plan: RenderPlanKind = "full"
    reason: str = ""
    frames_copied: int = 0
    cold_start: bool | None = None
    usage: Usage | None = None
    reused_from: str | None = None
    stored_key: str | None = None
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

    def to_dict(self) -> dict[str, object]:
        """Return the result for JSON, in the form that hosts know: `status`, `output_key` and the rest."""
        return {
            "status": "success",
            "job_id": self.job_id,
            "function": self.function,
            "output_key": self.output_key,
            "frames": self.frames,
            "width": self.size[0],
            "height": self.size[1],
            "fps": seconds_json(self.fps),
            "duration_seconds": seconds_json(self.duration_seconds),
            "bytes": self.bytes,
            "engine": self.engine,
            "encoder": self.encoder,
            "plan": self.plan,
            "reason": self.reason,
            "frames_copied": self.frames_copied,
            "seconds_by_phase": dict(self.seconds_by_phase),
            "degraded": list(self.degraded),
            "cold_start": self.cold_start,
            "usage": None if self.usage is None else self.usage.to_dict(),
            "reused_from": self.reused_from,
            "stored_key": self.stored_key,
        }

    @classmethod
    def parse(cls, raw: Raw) -> Self:
        """Read a result back from `to_dict`.

        Raises:
            RequestError: It is none.
        """
        record = Record(decode(raw))
        record.take(one_of("success"), "status")
        phases = Record(record.take(anything, "seconds_by_phase"), "seconds_by_phase")
        result = {
            **{name: record.take(text, name) for name in ("job_id", "function", "output_key", "engine", "encoder")},
            **{name: record.take(integer, name) for name in ("frames", "bytes")},
            "size": (record.take(integer, "width"), record.take(integer, "height")),
            "fps": record.take(seconds, "fps"),
            "duration_seconds": record.take(seconds, "duration_seconds"),
            "seconds_by_phase": phases.numbers(),
            "degraded": record.take(items(text, _MOST_NOTES), "degraded"),
            "plan": record.take_or("full", one_of(*get_args(RenderPlanKind)), "plan"),
            "reason": record.take_or("", any_text, "reason"),
            "frames_copied": record.take_or(0, integer, "frames_copied"),
            "cold_start": record.take_or(None, truth, "cold_start"),
            "usage": record.take_or(None, Usage.read, "usage"),
            "reused_from": record.take_or(None, text, "reused_from"),
            "stored_key": record.take_or(None, text, "stored_key"),
        }
        record.finish()
        return build(cls, "", result)
