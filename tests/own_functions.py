"""Functions of a host, as tests declare them."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, Field

from reel_modal._progress.timing_model import Line, PublishedTimings
from reel_modal.functions.context import JobContext
from reel_modal.functions.declaration import render_function
from reel_modal.schema._fields import declared, record
from reel_modal.schema._kinds import integer, string
from reel_modal.schema.requests import Request
from reel_modal.schema.results import Result


@record
class CopyResult(Result):
    """Result of `copy_file`.

    Attributes:
        read_bytes: Size of the input.
    """

    read_bytes: int = declared(converter=integer(), default=0)


@record
class CopyRequest(Request[CopyResult]):
    """Request of `copy_file`.

    Attributes:
        ending: How the body ends: `return`, `raise`, `cancel`, or `nothing` to publish nothing.
    """

    ending: str = declared(converter=string(), default="return")


@render_function(
    name="copy_file",
    request=CopyRequest,
    result=CopyResult,
    cpu=1,
    memory_mb=1024,
    timeout_seconds=60,
    published=PublishedTimings(on_cpu=Line(7.0, 0.0)),
)
def copy_file(request: CopyRequest, context: JobContext) -> CopyResult:
    """Copy the input to the output, and publish a note and a list before it."""
    source = context.fetch(request.input_key)
    with context.reporter.phase("copy", 1) as advance:
        output = context.workdir / "output"
        output.write_bytes(source.read_bytes())
        advance(1)
    if request.ending != "nothing":
        context.publish(output, request.output_key)
        for name in ("note", "list"):
            (context.workdir / name).write_text(name)
            context.publish(context.workdir / name, f"{request.output_key}.{name}")
    if request.ending == "raise":
        raise OSError("disk full")
    if request.ending == "cancel":
        context.cancellation.cancel()
    return CopyResult(read_bytes=source.stat().st_size)


@dataclass(frozen=True)
class Tile:
    """A picture of a sprite."""

    at_seconds: float
    size: tuple[int, int] = (160, 90)


@dataclass(frozen=True)
class SpriteRequest:
    """Request of `make_sprite`."""

    job_id: str
    input_key: str
    output_key: str
    tiles: tuple[Tile, ...] = ()
    cover: Tile | None = None
    named: dict[str, Tile] | None = None


@dataclass(frozen=True)
class SpriteResult:
    """Result of `make_sprite`."""

    tiles: tuple[Tile, ...]


@render_function(
    name="make_sprite", request=SpriteRequest, result=SpriteResult, cpu=1, memory_mb=1024, timeout_seconds=60
)
def make_sprite(request: SpriteRequest, context: JobContext) -> SpriteResult:
    """Publish the names of the tiles."""
    output = context.workdir / "sprite"
    output.write_text(repr(request.tiles))
    context.publish(output, request.output_key)
    return SpriteResult(request.tiles)


class PosterRequest(BaseModel):
    """Request of `make_poster`."""

    job_id: str
    user_id: str
    input_key: str
    output_key: str
    width_px: int = Field(default=320, ge=16)


class PosterResult(BaseModel):
    """Result of `make_poster`."""

    width_px: int


@render_function(
    name="make_poster", request=PosterRequest, result=PosterResult, cpu=1, memory_mb=1024, timeout_seconds=60
)
def make_poster(request: PosterRequest, context: JobContext) -> PosterResult:
    """Return the width."""
    return PosterResult(width_px=request.width_px)
