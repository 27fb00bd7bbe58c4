"""The function `make_thumbnail`: a poster of a clip, and a storyboard that players show above their seek bar."""

from fractions import Fraction
from pathlib import PurePosixPath

from reel_modal import JobContext, Request, Result, probe, render_function
from reel_modal.schema.fields import SECONDS, declared, integer, record, size, string

_SIDES = ("cell_width_px", "cell_height_px")


@record
class ThumbnailResult(Result):
    """The size of a cell of the storyboard, and the keys of the sprite and of its index."""

    cell_size: tuple[int, int] = declared(converter=size(_SIDES, 1, 320), sides=_SIDES)
    sprite_key: str = declared(converter=string())
    index_key: str = declared(converter=string())


@record
class ThumbnailRequest(Request[ThumbnailResult]):
    """A JPEG under `output_key`; next to it a storyboard: a sprite of small pictures, and its index in WebVTT.

    Attributes:
        at_seconds: Moment of the poster, counted from the first frame.
        width_px: Largest width of the poster; it is never enlarged.
        cells: Number of small pictures; at most one for each frame.
        cell_px: Longest side of a small picture.
    """

    at_seconds: Fraction = declared(converter=SECONDS, default=Fraction(0), aliases=("time",))
    width_px: int = declared(converter=integer(16, 4096), default=1280, aliases=("width",))
    cells: int = declared(converter=integer(1, 400), default=100, aliases=("frames",))
    cell_px: int = declared(converter=integer(16, 320), default=160)


@render_function(
    name="make_thumbnail", request=ThumbnailRequest, result=ThumbnailResult, cpu=2, memory_mb=768, timeout_seconds=600
)
def make_thumbnail(request: ThumbnailRequest, context: JobContext) -> ThumbnailResult:
    """Make a poster and a storyboard of a clip."""
    from thumbnails.drawing import Storyboard, read_frames  # a host does not need OpenCV

    with context.reporter.phase("fetch"):
        media = probe(context.fetch(request.input_key), settings=context.settings, scan=True)
    board = Storyboard(media, request.cells, request.cell_px, request.at_seconds)
    with context.reporter.phase("render", media.frame_count) as advance:
        for count, frame in enumerate(read_frames(media, context.settings), 1):
            context.raise_if_cancelled()
            board.add(frame)
            advance(count)
    poster_key = PurePosixPath(request.output_key)
    sprite_key = poster_key.with_name(f"{poster_key.stem}-sprite.jpg")
    index_key = sprite_key.with_suffix(".vtt")
    files = board.write(context.workdir, request.width_px, sprite_key.name)
    for path, key in zip(files, (poster_key, sprite_key, index_key), strict=True):
        context.publish(path, str(key))
    return ThumbnailResult(cell_size=board.cell_size, sprite_key=str(sprite_key), index_key=str(index_key))
