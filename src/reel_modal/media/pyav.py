"""Differences between PyAV 18 and 19: tags, exact ratios, side data of frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Protocol, cast

if TYPE_CHECKING:
    from av.container import InputContainer, OutputContainer
    from av.video.frame import VideoFrame

__all__ = [
    "display_matrix",
    "fraction",
    "frame_side_data",
    "has_closed_captions",
    "open_input",
    "open_output",
    "readable_tags",
    "seconds_per_tick",
]

_BYTE_EXACT_TAGS_SINCE: Final = 19
_NAMES_ANY_SIDE_DATA_SINCE: Final = 19


class _Ratio(Protocol):
    """A Fraction, or the `AVRational` of PyAV 19."""

    @property
    def numerator(self) -> int: ...
    @property
    def denominator(self) -> int: ...


class _Timed(Protocol):
    """A stream, a packet or a frame."""

    @property
    def time_base(self) -> _Ratio | None: ...


def open_input(
    source: str | BinaryIO, *, options: Mapping[str, str], container_options: Mapping[str, str]
) -> InputContainer:
    """Open a file, a URL or a binary stream for reading.

    Args:
        source: A source that `av.open` accepts.
        options: Options of the demuxer and the decoders.
        container_options: Options of the demuxer only.

    Raises:
        av.FFmpegError: libav cannot read it.
    """
    container = _open(source, "r", options=dict(options), container_options=dict(container_options))
    return cast("InputContainer", container)


def open_output(
    target: str | BinaryIO, *, container_format: str | None = None, options: Mapping[str, str]
) -> OutputContainer:
    """Open a file for writing.

    Args:
        target: A URL, whose suffix selects the container if `container_format` is None; or a binary stream.
        container_format: ffmpeg's name of the muxer.
        options: Options of the muxer.

    Raises:
        av.FFmpegError: libav cannot write it.
    """
    return cast("OutputContainer", _open(target, "w", format=container_format, options=dict(options)))


def readable_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return tags as strings that can be printed and encoded: bytes that are not UTF-8 become U+FFFD."""
    return {
        key: value.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for key, value in metadata.items()
    }


def fraction(ratio: _Ratio | None) -> Fraction | None:
    """Return a libav ratio as an exact fraction; None if it is unset, zero or infinite.

    PyAV 19 returns an `AVRational`, whose products are rounded to 32 bits and which is never None.
    """
    return Fraction(ratio.numerator, ratio.denominator) if ratio else None


def seconds_per_tick(timed: _Timed) -> Fraction:
    """Return the duration of one tick of a stream, a packet or a frame in seconds; 1 if its time base is unset."""
    return fraction(timed.time_base) or Fraction(1)


def display_matrix(frame: VideoFrame) -> bytes | None:
    """Return the display matrix of a decoded frame, nine 32-bit integers; None if it has none."""
    return frame_side_data(frame, "DISPLAYMATRIX")


def frame_side_data(frame: VideoFrame, name: str) -> bytes | None:
    """Return a decoded frame's side data of libav's type `AV_FRAME_DATA_` + `name`; None if it has none."""
    _accept_unknown_side_data()
    side_data = cast("Mapping[str, Any]", frame.side_data)
    data = side_data.get(name)
    return None if data is None else bytes(data)


def has_closed_captions(frame: VideoFrame) -> bool:
    """Return whether a decoded frame carries captions (ATSC A/53)."""
    return frame_side_data(frame, "A53_CC") is not None


def _open(file: str | BinaryIO, mode: str, **arguments: object) -> object:
    """Call `av.open` so that tags keep their bytes in any encoding, as PyAV 19 always does."""
    import av

    if _major() < _BYTE_EXACT_TAGS_SINCE:
        arguments["metadata_errors"] = "surrogateescape"
    return cast("Callable[..., object]", av.open)(file, mode, **arguments)


def _accept_unknown_side_data() -> None:
    """Make PyAV 18 accept frame side data of types that it has no name for.

    PyAV 18 reads all side data at once, so one unknown type (29, views of MV-HEVC; 31, EXIF) hides the display matrix
    with "29 is not a valid Type". PyAV 19 names unknown types with the same hook.
    """
    if _major() >= _NAMES_ANY_SIDE_DATA_SINCE:
        return
    from av.sidedata.sidedata import Type

    def unnamed(cls: type[Type], value: object) -> Type | None:
        if not isinstance(value, int):
            return None
        member = object.__new__(cls)
        vars(member).update(_name_=f"UNKNOWN_{value}", _value_=value)
        return member

    setattr(Type, "_missing_", classmethod(unnamed))  # noqa: B010 - type checkers treat it as final


def _major() -> int:
    import av

    return int(av.__version__.partition(".")[0])
