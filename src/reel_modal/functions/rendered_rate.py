"""Frame rate of a rendered clip: its own, a constant one that keeps its frames, a requested one, or variable."""

from __future__ import annotations

from fractions import Fraction

from reel_modal.media import MediaInfo
from reel_modal.media.frames import Frame
from reel_modal.media.picture_end import picture_end
from reel_modal.schema.requests import VideoRequest
from reel_modal.settings import Settings

__all__ = ["PictureTimes", "refuses_copying", "rendered_rate"]

_TICK_SECONDS = Fraction(1, 90_000)


def rendered_rate(request: VideoRequest, media: MediaInfo) -> Fraction | None:
    """Return the constant rate at which `media` is rendered; None keeps the time of each frame.

    Args:
        request: The request, with its frame rate option.
        media: The source, whose rate `media.rated` has computed from the whole clip; see `constant_rate_for`.
    """
    requested = request.output_rate
    if isinstance(requested, Fraction):
        return requested
    return media.fps if requested == "constant" or media.constant_rate else None


def refuses_copying(request: VideoRequest, media: MediaInfo) -> str:
    """Return why frames cannot be copied at the requested rate; empty if they can."""
    requested = request.output_rate
    if not isinstance(requested, Fraction):
        return ""
    if requested != media.fps:
        return "the request changes its frame rate"
    return "" if media.constant_rate else "its frame rate varies, and the request asks for a constant one"


class PictureTimes:
    """Display times of a clip's frames in an output that keeps these times.

    Args:
        media: The clip.
        settings: Decoding limits.
    """

    def __init__(self, media: MediaInfo, settings: Settings) -> None:
        self._start = media.start_seconds
        self._times = None if media.scan is None else media.scan.times
        self._end = picture_end(media, settings.limits) - self._start
        self._frame = 1 / media.fps
        self._latest: Fraction | None = None

    def of(self, frame: Frame) -> tuple[Fraction, Fraction, Fraction]:
        """Return start and end of a frame in seconds from the first frame, and the seconds from its start to the end.

        Args:
            frame: The frame; call this for each frame in order.
        """
        if self._latest is None:  # in containers without timestamps, it may differ from the probe's
            self._start = frame.pts_seconds
        seconds = frame.pts_seconds - self._start
        if self._latest is not None:  # some muxers write two frames with the same timestamp
            seconds = max(seconds, self._latest + _TICK_SECONDS)
        self._latest = seconds
        following = None if self._times is None else self._times.after(frame.pts_seconds)
        end = self._end if following is None else following - self._start
        left = self._end - seconds
        return seconds, max(seconds, end), left if left > 0 else self._frame
