"""At which rate a clip is rendered: its own, one that keeps its pictures, one that was asked for, or none."""

from __future__ import annotations

from fractions import Fraction

from reel_modal.config import Settings
from reel_modal.frames import Frame
from reel_modal.media import MediaInfo
from reel_modal.media.picture_end import picture_end
from reel_modal.schema.requests import Request

__all__ = ["PictureTimes", "refuses_copying", "rendered_rate"]

_TICK_SECONDS = Fraction(1, 90_000)


def rendered_rate(request: Request, media: MediaInfo) -> Fraction | None:
    """Return the constant rate at which `media` is rendered; None keeps the time of each picture.

    Args:
        request: Says which.
        media: The source, with the rate of the whole clip; see `rated`.
    """
    asked = request.output_rate
    if isinstance(asked, Fraction):
        return asked
    return media.fps if asked == "constant" or media.constant_rate else None


def refuses_copying(request: Request, media: MediaInfo) -> str:
    """Return why no picture can be copied at the rate that `request` asks for; empty if they can."""
    asked = request.output_rate
    if not isinstance(asked, Fraction):
        return ""
    if asked != media.fps:
        return "the request changes its frame rate"
    return "" if media.constant_rate else "its frame rate varies, and the request asks for a constant one"


class PictureTimes:
    """When each picture of a clip is shown in an output that keeps their times.

    Args:
        media: The clip.
        settings: Limits of what is decoded.
    """

    def __init__(self, media: MediaInfo, settings: Settings) -> None:
        self._start = media.start_seconds
        self._times = None if media.scan is None else media.scan.times
        self._end = picture_end(media, settings.limits) - self._start
        self._frame = 1 / media.fps
        self._latest: Fraction | None = None

    def of(self, frame: Frame) -> tuple[Fraction, Fraction, Fraction]:
        """Return when a picture is shown, until when, and how much later all ends: in seconds from the first on.

        Args:
            frame: The picture, each in its turn.
        """
        if self._latest is None:  # containers that keep no times may have another one for it than the probe
            self._start = frame.pts_seconds
        seconds = frame.pts_seconds - self._start
        if self._latest is not None:  # a careless muxer may write two pictures at one time
            seconds = max(seconds, self._latest + _TICK_SECONDS)
        self._latest = seconds
        following = None if self._times is None else self._times.after(frame.pts_seconds)
        end = self._end if following is None else following - self._start
        left = self._end - seconds
        return seconds, max(seconds, end), left if left > 0 else self._frame
