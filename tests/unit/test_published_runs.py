"""The cost model against runs that were published: an editor ran three functions on Modal in 2026.

The runs are of other code than this package's, and each test says what differs: a network of 1.21 M multiplications for
each pixel, which a host may register, or an overlay whose drawing is slow. The published prices show that the times of
overlay and upscale are those of the function, without the wait for a container ($0.0078 are 47.6 s of a T4); the framing
has no price. The editor counted two cores of each container in its prices.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from tests.clips import Clips
from tests.jobs import GLOBAL, overlay

from reel_modal import FramingRequest, MediaInfo, Settings, UpscaleRequest, probe
from reel_modal._costs.devices import Device
from reel_modal._jobs.estimates import Estimate, estimate, work_of
from reel_modal._progress.timing_model import published_startup
from reel_modal.functions.builtin import render_overlay
from reel_modal.progress import TimingHistory
from reel_modal.schema import CropKeyframe, EncodeOptions
from reel_modal.schema.model_source import ModelSource

MOST = 1.6
NETWORK = "realesr-general-x4v3"
SETTINGS = Settings(
    modal_enabled=True,
    store_url="s3://media",
    models={NETWORK: ModelSource("/models/general.onnx", "8" * 64)},
)
KEYS = {"job_id": "j", "user_id": "u", "input_key": "in.mp4", "output_key": "out.mp4", "store": GLOBAL}
X264 = EncodeOptions(encoder="libx264", smart=False)


@pytest.fixture(autouse=True)
def containers(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in ("RENDER_OVERLAY", "PROCESS_FRAMING", "APPLY_UPSCALE"):
        monkeypatch.setenv(f"REEL_MODAL_{function}_GPU", "T4")
        monkeypatch.setenv(f"REEL_MODAL_{function}_CPU", "2")


def clip(clips: Clips, size: tuple[int, int], frames: int) -> MediaInfo:
    media = replace(probe(clips.get("25.mp4")), size=size, fps=Fraction(30), path=Path("elsewhere.mp4"))
    return replace(media, duration_seconds=Fraction(frames, 30))


def expected(request: object, media: MediaInfo, tmp_path: Path) -> Estimate:
    return estimate(request, media, settings=SETTINGS, history=TimingHistory(tmp_path / "timings.sqlite3"))


def within(seconds: float, shortest: float, longest: float | None = None) -> bool:
    return shortest / MOST <= seconds <= MOST * (longest or shortest)


def test_published_overlay_with_few_highlights(clips: Clips, tmp_path: Path) -> None:
    """90 s of 1080p30, 3 of 90 s highlighted: 47.6 s. Its drawing hardly counts, so this package's work is the same."""
    request = replace(overlay(), encode=X264)
    assert within(expected(request, clip(clips, (1920, 1080), 2700), tmp_path).work_seconds, 47.6)


def test_published_overlay_with_highlights_throughout(clips: Clips) -> None:
    """The same with 90 of 90 s: 278 s. Its drawing took 88 ms of one thread, by the difference of the two runs."""
    media = clip(clips, (1920, 1080), 2700)
    work = work_of(render_overlay, replace(overlay(), encode=X264), media, SETTINGS, on_gpu=True)
    assert work.effort is not None
    drawing = replace(work.effort, serial_seconds=(278 - 47.6) / (2700 - 90))
    assert within(drawing.on(Device(2, "T4"), here=False).seconds, 278)


def test_published_framing(clips: Clips, tmp_path: Path) -> None:
    """180 frames of 810 x 1440: 16.6 s on a T4, 10.9 s without a GPU, which this function does not use.

    Its work alone is expected to take 6 s; the shortest published wait is added.
    """
    crops = tuple(
        CropKeyframe(time_seconds=Fraction(time), x=x, y=0, width=608, height=1080) for time, x in ((0, 0), (6, 900))
    )
    request = FramingRequest(**KEYS, crop=crops, output_size=(810, 1440), encode=X264)  # type: ignore[arg-type]
    work_seconds = expected(request, clip(clips, (1920, 1080), 180), tmp_path).work_seconds
    seconds = published_startup("T4", cold=False).seconds + work_seconds
    assert within(seconds, 16.6)
    assert within(seconds, 10.9)


@pytest.mark.parametrize(
    ("frames", "machines", "shortest", "longest"),
    [(180, 1, 122.7, 192.2), (449, 1, 310, 310), (449, 2, 161, 161), (449, 4, 87, 87), (449, 8, 103, 103)],
)
def test_published_upscale(
    clips: Clips, tmp_path: Path, frames: int, machines: int, shortest: float, longest: float
) -> None:
    """540 x 960, four times as large, at most 1440 x 2560; several machines start cold here."""
    request = UpscaleRequest(**KEYS, output_size=(1440, 2560), model=NETWORK, encode=X264)  # type: ignore[arg-type]
    found = expected(request, clip(clips, (540, 960), frames), tmp_path)
    if machines == 1:
        assert within(found.work_seconds, shortest, longest)
    else:
        rows = {row.workers: row.seconds for row in found.rows}
        assert within(rows[min(machines, max(rows))], shortest, longest)
