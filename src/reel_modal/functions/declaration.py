"""Declare a function: its body, its request and result, and its resources on Modal.

Pure: imports neither modal nor OpenCV, so that a host can declare functions beside its web application.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from reel_modal._costs.effort import Effort
from reel_modal._progress.timing_model import PublishedTimings
from reel_modal.errors import ConfigError, RequestError
from reel_modal.functions.adapters import PlainRequest, PlainResult, adapter_of
from reel_modal.functions.specs import FunctionSpec, ImageSpec, SegmentSpec, specs_from_env
from reel_modal.schema.requests import Request
from reel_modal.schema.results import Result
from reel_modal.settings import Settings

if TYPE_CHECKING:
    from reel_modal.functions.context import JobContext

__all__ = ["Command", "Effort", "RenderFunction", "Work", "render_function"]

Q = TypeVar("Q")
R = TypeVar("R")

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,59}")


@dataclass(frozen=True, slots=True)
class Work:
    """Amount of work of one job, on which its duration and its cost depend.

    Attributes:
        size: (width, height) of the output's frames in pixels.
        frames: Number of frames of the output.
        fps: Frames per second of the output.
        frames_rendered: Number of frames that are rendered; the others are copied. None is all.
        in_segments: Whether several machines can render segments of the output at once, as far as the request and the
            headers show.
        effort: Time of the frames on a core and on a GPU; None uses the `published` timings of the function.
    """

    size: tuple[int, int]
    frames: int
    fps: Fraction
    frames_rendered: int | None = None
    in_segments: bool = False
    effort: Effort | None = None

    @property
    def rendered(self) -> int:
        """Number of frames that are rendered, at most all."""
        return self.frames if self.frames_rendered is None else min(self.frames_rendered, self.frames)


class Estimating(Protocol):
    """Return the amount of work of a job, from its request and the headers of its input.

    A request with several clips, whose `clip_keys` is not only `input_key`, gets a tuple with the headers of each.
    """

    def __call__(self, request: Any, media: Any, /, *, settings: Settings, on_gpu: bool) -> Work:
        """Return the work of `request`; raise RequestError if the request does not fit the clip."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """Command line of a function: `reel-modal make-thumbnail IN OUT`, with options that make fields of its request.

    Attributes:
        help: One line about the command.
        file_option: Option that names a JSON file with the fields of the request; empty for none.
        file_list: Name of the field that the file may contain alone, as a list; the file is then required. Empty if
            the file has all fields.
        inputs_in_file: Whether the first argument is that JSON file, not the input: `reel-modal assemble-reel
            SPEC.json OUT`. The keys of the inputs in it are paths relative to its folder.
        add_arguments: Adds further options to a parser.
        fields: Returns the fields from the further options, and the settings to use.
    """

    help: str
    file_option: str = "--spec"
    file_list: str = ""
    inputs_in_file: bool = False
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None
    fields: Callable[[argparse.Namespace, Settings], tuple[Mapping[str, object], Settings]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RenderFunction(Generic[Q, R]):
    """A declared function; `render_function` makes it. A call runs the body in this process, as a test may do.

    Attributes:
        name: Name of the function, here and on Modal.
        request: Type of the request.
        result: Type of the result.
        body: The body, `run(request, context) -> result`.
        module: Module that contains the declaration; worker processes and containers import it.
        spec: Resources on Modal.
        estimate: Returns the work of a job; None estimates a job that makes one frame from each frame of its input.
        check: Checks a request before its submission; raises RequestError.
        trial: Returns a small request for the trial before a deployment.
        published: Timings to plan with before any job has finished.
        input_version: Returns the version of inputs that the request names besides its input, such as a network.
        files: Returns local files that the deployment sends, with their paths in the container.
        command: Command line; None takes the fields of the request from a JSON file.
        segments: How several containers render the segments of one output; None if it renders in one piece.
    """

    name: str
    request: type[Q]
    result: type[R]
    body: Callable[[Q, JobContext], R] = field(repr=False)
    module: str
    spec: FunctionSpec = field(repr=False)
    estimate: Estimating | None = field(default=None, repr=False)
    check: Callable[[Q, Settings], None] | None = field(default=None, repr=False)
    trial: Callable[[Mapping[str, str]], Q] | None = field(default=None, repr=False)
    published: PublishedTimings | None = field(default=None, repr=False)
    input_version: Callable[[Q, Settings], str] | None = field(default=None, repr=False)
    files: Callable[[Settings], Mapping[str, str]] | None = field(default=None, repr=False)
    command: Command | None = field(default=None, repr=False)
    segments: SegmentSpec | None = field(default=None, repr=False)

    def __call__(self, request: Q, context: JobContext) -> R:
        """Run the body in this process, and return its result; nothing is published."""
        return self.body(request, context)

    @property
    def package(self) -> str:
        """Name of the top-level package that contains the declaration; a deployment sends its files."""
        return self.module.partition(".")[0]

    def deployed_specs(self, env: Mapping[str, str] | None = None) -> dict[str, FunctionSpec]:
        """Return the resources of its functions on Modal by name; see `specs_from_env`."""
        return specs_from_env(self.spec, self.segments, env)

    def to_request(self, request: Q) -> Request[Any]:
        """Return the request in the form in which it is submitted.

        Raises:
            RequestError: It is of another type, or an adapted type has no `job_id`, `input_key` or `output_key`.
        """
        if not isinstance(request, self.request):
            raise RequestError("", f"{self.name} takes {self.request.__name__}, not {type(request).__name__}")
        return request if isinstance(request, Request) else PlainRequest.of(request)

    def trial_request(self, keys: Mapping[str, str]) -> Q:
        """Return the small request of the trial; if none is declared, the request with only the keys.

        Args:
            keys: `job_id`, `user_id`, `input_key` and `output_key`.

        Raises:
            RequestError: No trial is declared, and the request needs more than the keys.
        """
        if self.trial is not None:
            return self.trial(keys)
        if dataclasses.is_dataclass(self.request):
            known = {each.name for each in dataclasses.fields(self.request)}
            keys = {name: key for name, key in keys.items() if name in known}
        return adapter_of(self.request).load(keys)

    def from_request(self, request: Request[Any]) -> Q:
        """Return the request that the body takes."""
        return (
            adapter_of(self.request).load(request.value) if isinstance(request, PlainRequest) else cast("Q", request)
        )

    def parse_request(self, payload: Mapping[str, object]) -> Request[Any]:
        """Return the request that was sent as `payload`, its `to_dict()`.

        Raises:
            RequestError: It is not valid.
        """
        kind = cast("type[Request[Any]]", self.request) if issubclass(self.request, Request) else PlainRequest
        return kind.parse(payload)

    def to_result(self, result: R) -> Result:
        """Return the result of the body in the form in which it is sent.

        Raises:
            ConfigError: The body has returned another type.
        """
        if not isinstance(result, self.result):
            raise ConfigError(f"{self.name} must return {self.result.__name__}, not {type(result).__name__}")
        return result if isinstance(result, Result) else PlainResult(value=adapter_of(self.result).dump(result))

    def from_result(self, result: Result) -> R:
        """Return the result for the host."""
        return adapter_of(self.result).load(result.value) if isinstance(result, PlainResult) else cast("R", result)

    def parse_result(self, payload: object) -> Result:
        """Return the result that was sent as `payload`, its `to_dict()`.

        Raises:
            RequestError: It is not valid.
        """
        kind = cast("type[Result]", self.result) if issubclass(self.result, Result) else PlainResult
        return kind.parse(payload)  # type: ignore[arg-type]


def render_function(
    *,
    name: str,
    request: type[Q],
    result: type[R],
    cpu: float,
    memory_mb: int,
    timeout_seconds: int,
    gpu: tuple[str, ...] = (),
    startup_timeout_seconds: int = 120,
    retries: int = 0,
    max_containers: int = 10,
    scaledown_window_seconds: int = 60,
    image: ImageSpec | None = None,
    secrets: tuple[str, ...] = ("reel-modal-storage",),
    estimate: Estimating | None = None,
    check: Callable[[Q, Settings], None] | None = None,
    trial: Callable[[Mapping[str, str]], Q] | None = None,
    published: PublishedTimings | None = None,
    input_version: Callable[[Q, Settings], str] | None = None,
    files: Callable[[Settings], Mapping[str, str]] | None = None,
    command: Command | None = None,
    segments: SegmentSpec | None = None,
) -> Callable[[Callable[[Q, JobContext], R]], RenderFunction[Q, R]]:
    """Return a decorator that declares its body as a function.

    The declaration must be at the top level of a module that worker processes and containers can import. Packages
    that only the body needs are imported inside it, so that a host does not need them.

    Args:
        name: Name of the function: a lower-case identifier of at most 60 characters.
        request: Type of the request: a subclass of `Request`, or a frozen dataclass or pydantic model that has the
            fields `job_id`, `input_key` and `output_key`, and may have `user_id` and `store`.
        result: Type of the result: a subclass of `Result`, a dataclass or a pydantic model.
        cpu: Reserved cores, 0.125 to 64.
        memory_mb: Reserved memory in MiB, 128 to 344,064.
        timeout_seconds: Longest duration of one job in seconds, 1 to 86,400.
        gpu: GPU types in order of preference; empty for none.
        startup_timeout_seconds: See `FunctionSpec`.
        retries: See `FunctionSpec`.
        max_containers: See `FunctionSpec`.
        scaledown_window_seconds: See `FunctionSpec`.
        image: Packages besides those of this library; default none.
        secrets: Names of the Modal secrets.
        estimate: See `RenderFunction`.
        check: See `RenderFunction`.
        trial: See `RenderFunction`. Default: the request with only the keys, if that is valid.
        published: See `RenderFunction`.
        input_version: See `RenderFunction`.
        files: See `RenderFunction`.
        command: See `RenderFunction`.
        segments: See `RenderFunction`.

    Raises:
        ConfigError: The name or a resource is not valid, or a type cannot be used; the message says which.

    Example:
        >>> @render_function(name="make_thumbnail", request=ThumbnailRequest, result=ThumbnailResult,
        ...                  cpu=1, memory_mb=1024, timeout_seconds=120, image=ImageSpec(pip=("pillow==12.0.0",)))
        ... def make_thumbnail(request: ThumbnailRequest, context: JobContext) -> ThumbnailResult: ...
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not a valid name of a function: use a to z, 0 to 9 and _, at most 60 characters"
        )
    adapter_of(request)
    adapter_of(result)
    spec = FunctionSpec(
        name,
        gpu=gpu,
        cpu=cpu,
        memory_mb=memory_mb,
        timeout_seconds=timeout_seconds,
        startup_timeout_seconds=startup_timeout_seconds,
        retries=retries,
        max_containers=max_containers,
        scaledown_window_seconds=scaledown_window_seconds,
        image=image or ImageSpec(),
        secrets=secrets,
    )

    def declare(body: Callable[[Q, JobContext], R]) -> RenderFunction[Q, R]:
        return RenderFunction(
            name=name,
            request=request,
            result=result,
            body=body,
            module=body.__module__,
            spec=spec,
            estimate=estimate,
            check=check,
            trial=trial,
            published=published,
            input_version=input_version,
            files=files,
            command=command,
            segments=segments,
        )

    return declare
