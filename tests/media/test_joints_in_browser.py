"""Spliced and joined clips in a browser: seeking around every joint, and playing across it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import pytest
from playwright.async_api import Page
from tests.clips import Clips, made_clip
from tests.jobs import overlay
from tests.media.reels import assemble, reel_request
from tests.media.segmented_jobs import Jobs
from tests.media.splices import render

from reel_modal._segments import segment_grid
from reel_modal.media import probe
from reel_modal.media.frames import U8Array
from reel_modal.schema import OverlayRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

BLOCK = 12
SCRIPT = """async ([clip, block]) => {
  const bytes = Uint8Array.from(atob(clip), (letter) => letter.charCodeAt(0));
  const video = document.createElement("video");
  video.muted = true;
  video.src = URL.createObjectURL(new Blob([bytes], {type: "video/mp4"}));
  document.body.append(video);
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => reject(new Error(video.error.message));
  });
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  const context = canvas.getContext("2d", {willReadFrequently: true});
  const look = () => {  // the picture and its own time: while it plays, the next may be there already
    const frame = new VideoFrame(video);
    const time = frame.timestamp / 1e6;
    context.drawImage(frame, 0, 0, canvas.width, canvas.height);
    frame.close();
    const {data, width, height} = context.getImageData(0, 0, canvas.width, canvas.height);
    const rows = [];
    for (let top = 0; top + block <= height; top += block)
      for (let left = 0; left + block <= width; left += block) {
        let sum = 0;
        for (let y = top; y < top + block; y++)
          for (let x = left; x < left + block; x++) {
            const at = 4 * (y * width + x);
            sum += 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
          }
        rows.push(sum / (block * block));
      }
    return [time, rows];
  };
  window.seek = async (seconds) => {
    const shown = new Promise((resolve) => {
      const wait = (_, about) => {  // a picture of the time before may still be on its way
        if (Math.abs(about.mediaTime - seconds) < 0.1) resolve(look());
        else video.requestVideoFrameCallback(wait);
      };
      video.requestVideoFrameCallback(wait);
    });
    video.currentTime = seconds;
    return await shown;
  };
  window.play = async (from, to) => {
    await window.seek(from);
    const seen = [];
    const all = new Promise((resolve, reject) => {
      const next = (_, about) => {
        seen.push(look());
        if (about.mediaTime >= to) { video.pause(); resolve(); } else video.requestVideoFrameCallback(next);
      };
      video.requestVideoFrameCallback(next);
      video.onerror = () => reject(new Error(video.error.message));
      video.onended = resolve;
    });
    video.playbackRate = 0.5;
    await video.play();
    await all;
    return seen;
  };
  return [video.videoWidth, video.videoHeight, video.duration];
}"""


async def load(page: Page, path: Path) -> tuple[int, int, float]:
    data = base64.b64encode(await asyncio.to_thread(path.read_bytes)).decode()
    width, height, seconds = await page.evaluate(SCRIPT, [data, BLOCK])
    return width, height, seconds


def blocks(picture: U8Array) -> U8Array:
    """Return the mean brightness of the blocks of an upright RGB picture (H, W, 3)."""
    light = picture @ np.array([0.299, 0.587, 0.114])
    height, width = (side // BLOCK * BLOCK for side in light.shape)
    return light[:height, :width].reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).mean(axis=(1, 3)).ravel()


def expected(path: Path, rotation_degrees: int) -> list[tuple[float, U8Array]]:
    """Return the time and the blocks of every picture of the output, decoded by libav."""
    with av.open(str(path)) as container:
        return [
            (float(frame.time or 0), blocks(np.rot90(frame.to_ndarray(format="rgb24"), -(rotation_degrees // 90))))
            for frame in container.decode(video=0)
        ]


async def check_joints(page: Page, path: Path, joints: Sequence[int]) -> None:
    """Seek to both sides of each joint, a number of a frame, and play across it; the frames must be the right ones."""
    media = probe(path)
    pictures = expected(path, media.orientation.rotation_degrees)

    def check(time: float, shown: list[float]) -> int:
        rank = min(range(len(pictures)), key=lambda rank: abs(pictures[rank][0] - time))
        assert abs(pictures[rank][0] - time) < 0.002
        off = np.abs(np.array(shown) - pictures[rank][1])
        neighbors = [float(np.abs(np.array(shown) - pictures[other][1]).mean()) for other in (rank - 1, rank + 1)]
        assert off.mean() < 8
        assert off.mean() <= min(neighbors)
        return rank

    width, height, seconds = await load(page, path)
    assert (width, height) == media.size
    assert media.duration_seconds is not None
    assert seconds == pytest.approx(float(media.duration_seconds), abs=0.05)
    step = float(1 / media.fps)
    for joint in joints:
        for rank in (joint - 1, joint):
            time, shown = await page.evaluate("seconds => seek(seconds)", (rank + 0.5) * step)
            assert check(time, shown) == rank
    for joint in joints:
        played = await page.evaluate("([from, to]) => play(from, to)", [(joint - 5) * step, (joint + 4) * step])
        ranks = [check(time, shown) for time, shown in played]
        assert ranks == sorted(ranks)
        assert ranks[0] < joint <= ranks[-1]


@pytest.mark.parametrize("name", ["rotated_90.mp4", "ntsc.mkv", "high10.mp4", "high422_10.mp4", "top_first.mp4"])
async def test_browser_seeks_to_joints_of_a_splice_and_plays_across_them(
    page: Page, clips: Clips, tmp_path: Path, name: str
) -> None:
    rendering = render(clips.get(name), tmp_path, (1.3, 1.5), (2.5, 2.6))
    assert rendering.result.plan == "smart"
    await check_joints(page, rendering.path, [edge for window in rendering.plan.windows for edge in window.kept])


async def test_browser_seeks_to_joints_of_segments_and_plays_across_them(page: Page, tmp_path: Path) -> None:
    clip = made_clip(tmp_path / "clip.mp4", fps=12, seconds=26, audio_seconds=26)
    jobs = Jobs(tmp_path, clip, OverlayRequest, regions=overlay().regions)
    _, result = jobs.run()
    joints = [segment.first for segment in segment_grid(result.frames, result.fps)][1:]
    assert joints == [96, 192, 288]
    await check_joints(page, jobs.output, joints)


async def test_browser_seeks_to_joints_of_a_reel_and_plays_across_them(page: Page, tmp_path: Path) -> None:
    """A cut between copied clips, and both edges of a rendered crossfade."""
    encoder = ("-c:v", "libx264", "-preset", "veryfast", "-g", "12", "-threads", "1")
    for number, (name, seconds) in enumerate((("a", 2), ("b", 1.8), ("c", 1.6))):
        look = ("-vf", f"hue=h={80 * number}")
        made_clip(tmp_path / f"{name}.mp4", size=(128, 96), seconds=seconds, encoder=encoder, options=look)
    clips = [{"input_key": f"{name}.mp4"} for name in "abc"]
    smart = {"encoder": "libx264", "preset": "veryfast", "threads": 1}
    fade = {"kind": "crossfade", "duration": "0.2"}
    result = assemble(tmp_path, reel_request(clips, {"kind": "cut"}, fade, encode=smart))
    assert (result.plan, result.frames) == ("smart", 130)
    assert result.frames_copied > 110
    await check_joints(page, tmp_path / "reel.mp4", [50, 90, 102])
