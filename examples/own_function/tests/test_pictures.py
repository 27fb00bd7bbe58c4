"""The pictures and the index of `make_thumbnail`; its body runs in the process of the tests."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
import pytest

from reel_modal import FramePipe, JobContext, RequestError, Storage
from reel_modal.testing import make_clip
from thumbnails import ThumbnailRequest, ThumbnailResult, make_thumbnail

SIZE = (320, 180)
FRAMES = 40
BAR_PX = SIZE[0] // FRAMES
KEYS = {"job_id": "7", "user_id": "u", "input_key": "in.mp4", "output_key": "posters/a b.jpg"}
CUE = re.compile(r"(\d+):(\d\d):(\d\d\.\d{3}) --> (\d+):(\d\d):(\d\d\.\d{3})\n(\S+)#xywh=(\d+),(\d+),(\d+),(\d+)")


def make(folder: Path, **fields: object) -> tuple[ThumbnailResult, dict[str, Path]]:
    """Run the body for `in.mp4` in `folder`; return its result, and the files that it publishes by their keys."""
    work = folder / "work"
    work.mkdir()
    context = JobContext(storage=Storage.from_url(folder.as_uri()), workdir=work)
    result = make_thumbnail(ThumbnailRequest.parse({**KEYS, **fields}), context)
    return result, context.outputs


def picture(path: Path) -> np.ndarray:
    """Return the picture in a file."""
    read = cv2.imread(str(path))
    assert read is not None
    return read


def write_marked_clip(path: Path, *, fps: int, shown: tuple[int, ...] = (1,)) -> list[Fraction]:
    """Write a clip whose frames have a white bar: the more to the right, the later the frame.

    Args:
        path: The clip.
        fps: Frames per second.
        shown: For how many frames each frame is shown, repeated.

    Returns:
        The time at which each frame begins, and that of the end.
    """
    times = [Fraction(0)]
    with FramePipe(path, size=SIZE, fps=fps, pixel_format="bgr24", encoder="libx264", quality=10) as pipe:
        for number in range(FRAMES):
            frame = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
            frame[:, number * BAR_PX : (number + 1) * BAR_PX] = 255
            for _ in range(shown[number % len(shown)]):
                pipe.write(frame)
            times.append(times[-1] + Fraction(shown[number % len(shown)], fps))
    return times


def frame_of(image: np.ndarray) -> int:
    """Return the number of the frame that a picture shows, by the place of its bar."""
    columns = image.mean(axis=(0, 2))
    return int((columns * np.arange(len(columns))).sum() / columns.sum() / len(columns) * FRAMES)


def cues(result: ThumbnailResult, outputs: dict[str, Path]) -> list[tuple[Fraction, Fraction, tuple[int, ...]]]:
    """Return start, end and place of each cue, and check that each one names the sprite."""
    head, *blocks = outputs[result.index_key].read_text(encoding="utf-8").rstrip("\n").split("\n\n")
    assert head == "WEBVTT"
    found = []
    for block in blocks:
        match = CUE.fullmatch(block)
        assert match is not None, block
        assert str(Path(result.index_key).with_name(unquote(match[7]))) == result.sprite_key
        start, end = (int(match[at]) * 3600 + int(match[at + 1]) * 60 + Fraction(match[at + 2]) for at in (1, 4))
        found.append((start, end, tuple(int(match[at]) for at in range(8, 12))))
    return found


@pytest.mark.parametrize("shown", [(1,), (1, 4, 2)], ids=["even", "held"])
def test_each_cell_shows_the_frame_of_its_time(tmp_path: Path, shown: tuple[int, ...]) -> None:
    times = write_marked_clip(tmp_path / "in.mp4", fps=30, shown=shown)
    result, outputs = make(tmp_path, cells=13)
    sprite = picture(outputs[result.sprite_key])
    assert sprite.shape == (4 * 90, 4 * 160, 3)
    found = cues(result, outputs)
    assert len(found) == 13
    for number, (start, end, (x, y, width, height)) in enumerate(found):
        assert (width, height) == result.cell_size == (160, 90)
        middle = times[-1] * (2 * number + 1) / 26
        assert start <= middle < end
        expected = max(frame for frame in range(FRAMES) if times[frame] <= middle)
        assert frame_of(sprite[y : y + height, x : x + width]) == expected


def test_index_covers_the_clip_without_gaps(tmp_path: Path) -> None:
    end = write_marked_clip(tmp_path / "in.mp4", fps=24)[-1]
    found = cues(*make(tmp_path, cells=7))
    assert found[0][0] == 0
    assert all(one[1] == other[0] for one, other in pairwise(found))
    assert 0 <= found[-1][1] - end < Fraction(1, 1000)
    assert all(start < stop for start, stop, _ in found)


def test_sprite_has_no_more_cells_than_the_clip_has_frames(tmp_path: Path) -> None:
    write_marked_clip(tmp_path / "in.mp4", fps=30)
    assert len(cues(*make(tmp_path, cells=100))) == FRAMES


@pytest.mark.parametrize(("moment", "number"), [("0", 0), ("0.5", 15), ("1.32", 39), ("16/30", 16)])
def test_poster_shows_the_frame_of_its_moment(tmp_path: Path, moment: str, number: int) -> None:
    write_marked_clip(tmp_path / "in.mp4", fps=30)
    _, outputs = make(tmp_path, time=moment, width=160)
    poster = picture(outputs["posters/a b.jpg"])
    assert poster.shape == (90, 160, 3)
    assert frame_of(poster) == number


def test_portrait_clip_has_portrait_pictures(tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", size=(180, 320), seconds=0.4)
    result, outputs = make(tmp_path, cells=2, cell_px=80)
    assert result.cell_size == (45, 80)
    assert picture(outputs["posters/a b.jpg"]).shape == (320, 180, 3)


def test_moment_after_the_end_is_refused(tmp_path: Path) -> None:
    make_clip(tmp_path / "in.mp4", seconds=1)
    with pytest.raises(RequestError, match=r"end of the clip, 1") as caught:
        make(tmp_path, at_seconds=1)
    assert caught.value.path == "at_seconds"


@pytest.mark.parametrize(
    ("field", "value"), [("cells", 0), ("cells", 401), ("width", "wide"), ("at_seconds", -1), ("cell_px", 321)]
)
def test_request_out_of_bounds_is_refused(tmp_path: Path, field: str, value: object) -> None:
    with pytest.raises(RequestError):
        make(tmp_path, **{field: value})
