"""The results of functions, of those that render a video, and the resources that a job used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from fractions import Fraction
from types import MappingProxyType
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
    number,
    numbers_by_name,
    optional,
    size,
    string,
)
from reel_modal.schema.degradation import Degradation

__all__ = ["RenderPlanKind", "RenderResult", "Result", "Usage"]


@record
class Usage(Record):
    """Resource usage of a job. Phases, frames, engine and encoder are in the result itself.

    Attributes:
        queue_seconds: Seconds from the submission until a process was available, by the clocks of both machines; None
            if the time of submission is unknown.
        startup_seconds: Seconds from the start of the process to the function; 0 if the process ran a job before.
        seconds: Seconds inside the function.
        bytes_in: Bytes read from the store. A file that is read in place counts in full.
        bytes_out: Bytes written to the store.
        peak_memory_bytes: Peak memory of this process plus that of its largest child process: an upper bound of their
            joint peak. If processes of one machine render several segments at once, that of the largest one times
            their number. An earlier job of the same process may have caused the peak. In gVisor, the highest of four
            samples a second of all processes together. 0 if the system does not report it.
        gpu: GPU type, such as `T4`; None without a GPU.
        gpu_seconds: Seconds for which the GPU was held: `startup_seconds` + `seconds`; 0 without a GPU.
        dollars: Cost of the container in US dollars for `startup_seconds` and `seconds`, by the rate table. The
            container's start before that and its idle time afterwards are not included. 0 for local jobs.
        rates_dated: Date of the rate table; empty for local jobs.
        resources: Resources that the host selected in place of the deployed ones, such as `gpu=L4, cpu=8`; empty if
            the job ran with those.
        model: Name of the neural network that computed pixels; None if there was none.
        package_version: Version of this package.
        ffmpeg: Version, build and origin of the ffmpeg that encoded, such as `n9.0.2-17-g2a571b6068 (build d4b9bbd1)
            from imageio-ffmpeg`. A hardware encoder may need another ffmpeg than usual. Empty if packets were only
            copied.
        decoder_ffmpeg: The same for the ffmpeg that decoded on a GPU; empty if none did.
    """

    _noun = "result"

    queue_seconds: float | None = declared(converter=optional(number()), default=None)
    startup_seconds: float = declared(converter=number(), default=0.0)
    seconds: float = declared(converter=number(), default=0.0)
    bytes_in: int = declared(converter=integer(), default=0)
    bytes_out: int = declared(converter=integer(), default=0)
    peak_memory_bytes: int = declared(converter=integer(), default=0)
    gpu: str | None = declared(converter=optional(string()), default=None)
    gpu_seconds: float = declared(converter=number(), default=0.0)
    dollars: float = declared(converter=number(), default=0.0)
    rates_dated: str = declared(converter=string(empty=True), default="")
    resources: str = declared(converter=string(empty=True), default="")
    model: str | None = declared(converter=optional(string()), default=None)
    package_version: str = declared(converter=string(empty=True), default="")
    ffmpeg: str = declared(converter=string(empty=True), default="")
    decoder_ffmpeg: str = declared(converter=string(empty=True), default="")

    @classmethod
    def sum(cls, parts: Iterable[Usage]) -> Usage:
        """Return the usage of several processes: sums, the highest peak of memory, and all GPUs and models."""
        used = list(parts)

        def names(attribute: str) -> str:
            return ", ".join(dict.fromkeys(filter(None, (getattr(usage, attribute) for usage in used))))

        return cls(
            queue_seconds=sum(each.queue_seconds or 0.0 for each in used),
            startup_seconds=sum(each.startup_seconds for each in used),
            seconds=sum(each.seconds for each in used),
            bytes_in=sum(each.bytes_in for each in used),
            bytes_out=sum(each.bytes_out for each in used),
            peak_memory_bytes=max((each.peak_memory_bytes for each in used), default=0),
            gpu=names("gpu") or None,
            gpu_seconds=sum(each.gpu_seconds for each in used),
            dollars=sum(each.dollars for each in used),
            rates_dated=names("rates_dated"),
            resources=names("resources"),
            model=names("model") or None,
            package_version=names("package_version"),
            ffmpeg=names("ffmpeg"),
            decoder_ffmpeg=names("decoder_ffmpeg"),
        )


RenderPlanKind: TypeAlias = Literal["smart", "full"]
"""Rendered part of a clip: `smart` renders only the changed parts, `full` renders all of it."""

RenderStatus: TypeAlias = Literal["success"]

_MOST_NOTES: Final = 1000
_LARGEST: Final = 1 << 63
_SIDES: Final = ("width", "height")
_SIZE: Final = size(_SIDES, 0, _LARGEST)
_EXACT: Final = decimal(-_LARGEST, _LARGEST)
_NOTE: Final = string(lines=True)
_TEXT: Final = string(empty=True, lines=True)
_PLAN: Final[Kind[RenderPlanKind, RenderPlanKind]] = choice(RenderPlanKind)
_STATUS: Final[Kind[RenderStatus, RenderStatus]] = choice(RenderStatus)


@record
class Result(Record):
    """Base class of the results of functions. The process that runs a function sets these fields after its end.

    Attributes:
        status: Always `success`; a failed job raises an error and has no result.
        job_id: Job id of the request.
        function: Name of the function.
        output_key: Storage key of the output, as in the request.
        bytes: Size of the output in bytes; 0 if the function has published none.
        seconds_by_phase: Wall-clock seconds of the phases, such as `fetch`, `render` and `publish`.
        degraded: Differences from the request or from the source; empty if there are none.
        cold_start: Whether a container was started for the job; None if this is unknown.
        usage: Resource usage of the job; None in results of older versions.
        reused_from: `job_id` of the job that made the output, if this job reused an existing output (`usage` is then
            that of the lookup); `unknown` if the tags of the output match this request, but its receipt is missing;
            None if this job made the output.
        stored_key: Key of the output in the store, with the user's prefix; None in results of older versions.
        sign_url: Function that returns a signed URL for a stored key and a lifetime in seconds; set by the registry
            if it knows the store. Not part of `to_dict`.
    """

    _noun = "result"

    status: RenderStatus = declared(converter=_STATUS, default="success")
    job_id: str = declared(converter=_TEXT, default="")
    function: str = declared(converter=_TEXT, default="")
    output_key: str = declared(converter=_TEXT, default="")
    bytes: int = declared(converter=integer(), default=0)
    seconds_by_phase: Mapping[str, float] = declared(converter=numbers_by_name(), default=MappingProxyType({}))
    degraded: tuple[Degradation, ...] = declared(converter=list_of(nested(Degradation), _MOST_NOTES), default=())
    cold_start: bool | None = declared(converter=optional(boolean), default=None)
    usage: Usage | None = declared(converter=optional(nested(Usage)), default=None)
    reused_from: str | None = declared(converter=optional(_NOTE), default=None)
    stored_key: str | None = declared(converter=optional(_NOTE), default=None)
    sign_url: Callable[[str, float], str] | None = field(default=None, repr=False, compare=False)

    def url(self, *, expires_seconds: float = 3600.0) -> str:
        """Return a URL that gives read access to the output until it expires. Treat the URL as a secret.

        The call blocks if the store's credentials have to be fetched; in an event loop, use `asyncio.to_thread`.

        Args:
            expires_seconds: Lifetime of the URL in seconds, at most 604,800 (seven days). An expired URL gets HTTP
                status 403.

        Raises:
            ConfigError: The store has no shareable URLs (such as a folder), this host does not know the store, or the
                lifetime is out of range.
            StorageError: The store's credentials could not be used.

        Example:
            `return RedirectResponse(result.url(expires_seconds=600))`
        """
        if self.sign_url is None or self.stored_key is None:
            raise ConfigError(
                "the store of this result is unknown: get it from a registry whose settings have a store_url, such as"
                " s3://bucket/prefix"
            )
        return self.sign_url(self.stored_key, expires_seconds)


@record
class RenderResult(Result):
    """Result of a function that renders a video.

    Attributes:
        frames: Number of frames, counted in the file.
        size: (width, height) in pixels.
        fps: Exact frame rate, in frames per second.
        duration_seconds: frames / fps; for an output that keeps the timestamps of the source, the time from the first
            frame to the end of the last one.
        engine: Name of the engine that processed the frames, such as `opencv-yuv420p`.
        encoder: ffmpeg's name of the encoder.
        plan: `smart` if packets of the source were copied, `full` if every frame was rendered.
        reason: Why the plan is `full`; empty if it is `smart`.
        frames_copied: Number of frames that were copied from the source bit for bit; the others were rendered.
    """

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
