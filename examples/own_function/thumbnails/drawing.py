"""Pictures of a clip at given moments, as JPEG files, and the index of a storyboard in WebVTT."""

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from math import ceil, isqrt
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np

from reel_modal import Frame, FrameReader, MediaInfo, RequestError, Settings

_QUALITY = 85


def read_frames(media: MediaInfo, settings: Settings) -> Iterator[Frame]:
    """Yield all frames of a clip, upright, progressive and in SDR; a frame and the one before it are valid."""
    with closing(
        FrameReader(media, decoder="in_process", deinterlace="frame", to_sdr=True, retain_frames=2, settings=settings)
    ) as frames:
        yield from frames


class Storyboard:
    """A poster and a grid of small pictures of a clip, taken from its frames while they are read.

    Args:
        media: The clip, probed with a scan.
        cells: Number of small pictures. Each one stands for an equal part of the clip, and shows the middle of it.
        cell_px: Longest side of a small picture.
        poster_at: Moment of the poster in seconds, counted from the first frame.

    Raises:
        RequestError: The clip has ended before `poster_at`.
    """

    def __init__(self, media: MediaInfo, cells: int, cell_px: int, poster_at: Fraction) -> None:
        if media.scan is None:
            raise ValueError("probe the clip with scan=True")
        self._seconds = media.scan.duration_seconds
        if poster_at >= self._seconds:
            raise RequestError(
                "at_seconds",
                f"is {float(poster_at):g}; it must be before the end of the clip, {float(self._seconds):g}",
            )
        self._start = media.start_seconds
        self._shape = media.display_size
        self._cells = max(1, min(cells, media.scan.frame_count))
        self.cell_size = _fitted(self._shape, cell_px / max(self._shape))
        self._columns = isqrt(self._cells - 1) + 1
        width, height = self.cell_size
        self._sprite = np.zeros((ceil(self._cells / self._columns) * height, self._columns * width, 3), np.uint8)
        self._poster: np.ndarray | None = None
        middles = [(self._seconds * (2 * cell + 1) / (2 * self._cells), cell) for cell in range(self._cells)]
        self._due = sorted([(poster_at, -1), *middles], reverse=True)
        self._shown: Frame | None = None

    def add(self, frame: Frame) -> None:
        """Take the next frame; the one before it was shown until now."""
        shown = self._shown or frame
        while self._due and self._due[-1][0] < frame.pts_seconds - self._start:
            self._take(shown, self._due.pop()[1])
        self._shown = frame

    def write(self, folder: Path, width_px: int, sprite_name: str) -> tuple[Path, Path, Path]:
        """Write the poster, at most `width_px` wide, the sprite and its index; return their paths.

        Args:
            folder: Folder of the files.
            width_px: Largest width of the poster.
            sprite_name: Name of the sprite, relative to the index.
        """
        while self._due and self._shown is not None:  # the last frame is shown until the end
            self._take(self._shown, self._due.pop()[1])
        if self._poster is None:
            raise ValueError("no frame was added")
        poster = cv2.resize(
            self._poster, _fitted(self._shape, width_px / self._shape[0]), interpolation=cv2.INTER_AREA
        )
        index = folder / "index.vtt"
        index.write_text(self._index(sprite_name), encoding="utf-8")
        return _write_jpeg(folder / "poster.jpg", poster), _write_jpeg(folder / "sprite.jpg", self._sprite), index

    def _take(self, frame: Frame, cell: int) -> None:
        if cell < 0:
            self._poster = frame.image.copy()
            return
        width, height = self.cell_size
        left, top = cell % self._columns * width, cell // self._columns * height
        picture = cv2.resize(frame.image, self.cell_size, interpolation=cv2.INTER_AREA)
        self._sprite[top : top + height, left : left + width] = picture

    def _index(self, sprite_name: str) -> str:
        width, height = self.cell_size
        # Each part begins exactly when the one before it ends, also after rounding.
        times = [_timestamp(self._seconds * cell / self._cells) for cell in range(self._cells + 1)]
        cues = ["WEBVTT"]
        for cell in range(self._cells):
            place = f"{cell % self._columns * width},{cell // self._columns * height},{width},{height}"
            cues.append(f"{times[cell]} --> {times[cell + 1]}\n{quote(sprite_name)}#xywh={place}")
        return "\n\n".join(cues) + "\n"


def _fitted(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return a size with the same shape, not enlarged."""
    width, height = (max(1, round(side * min(scale, 1))) for side in shape)
    return width, height


def _timestamp(seconds: Fraction) -> str:
    minutes, milliseconds = divmod(ceil(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"


def _write_jpeg(path: Path, image: np.ndarray) -> Path:
    encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    if not encoded:
        raise ValueError(f"OpenCV cannot encode an image of {image.shape[1]} x {image.shape[0]} pixels as JPEG")
    path.write_bytes(data.tobytes())
    return path
