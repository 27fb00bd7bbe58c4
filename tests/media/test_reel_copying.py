"""Copied packets of reels: identical frames, rendered transitions and edges, joints that play, and full renders."""

from __future__ import annotations

import hashlib
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from tests.clips import made_clip
from tests.media.reels import LOSSLESS, assemble, reel_request, samples_of

from reel_modal import FrameReader, probe
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal._smart_render.render import packet_of
from reel_modal.schema import RenderResult

F = Fraction
SIZE = (128, 96)
SMART = {"encoder": "libx264", "preset": "veryfast", "threads": 1}
CAMERA = ("-c:v", "libx264", "-preset", "veryfast", "-g", "12", "-threads", "1")
FADE = {"kind": "crossfade", "duration": "0.2"}
BLACK = {"kind": "fade_black", "duration": "0.24"}


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips of one camera, with B-frames and a keyframe every 12 frames; c has no audio."""
    folder = tmp_path_factory.mktemp("camera")
    for number, (name, seconds, sound) in enumerate((("a", 2, 2), ("b", 1.8, 1.8), ("c", 1.6, None))):
        options = ("-vf", f"hue=h={80 * number}")
        made_clip(
            folder / f"{name}.mp4", size=SIZE, seconds=seconds, encoder=CAMERA, audio_seconds=sound, options=options
        )
    return folder


def hashes(path: Path) -> list[str]:
    """Return the SHA-256 of each decoded frame."""
    with FrameReader(path, pixel_format="yuv420p") as reader:
        return [hashlib.sha256(frame.data).hexdigest() for frame in reader]


def loss(path: Path, reference: Path) -> list[float]:
    """Return the root mean square difference of each frame."""
    with FrameReader(path, pixel_format="yuv420p") as one, FrameReader(reference, pixel_format="yuv420p") as other:
        pairs = zip(one, other, strict=True)
        return [float(np.sqrt(np.mean((a.data.astype(float) - b.data) ** 2))) for a, b in pairs]


def made(folder: Path, clips: list[dict[str, object]], *fades: dict[str, object], **fields: object) -> RenderResult:
    """Assemble a reel of the camera's clips below `folder`."""
    return assemble(folder, reel_request(clips, *fades, **{"encode": SMART, **fields}))


def both(
    folder: Path, clips: list[dict[str, object]], *fades: dict[str, object], **fields: object
) -> tuple[RenderResult, list[int]]:
    """Assemble a reel with and without copying; return the first result, and the frames that are the sources'.

    Frames and audio of the two are compared: they differ by no more than a good encoding.
    """
    made(folder, clips, *fades, **{"encode": LOSSLESS, "output_key": "full.mp4", **fields})
    result = made(folder, clips, *fades, **fields)
    assert max(loss(folder / "reel.mp4", folder / "full.mp4")) < 4
    assert np.array_equal(samples_of(folder / "reel.mp4"), samples_of(folder / "full.mp4"))
    full, reel = hashes(folder / "full.mp4"), hashes(folder / "reel.mp4")
    return result, [number for number, (one, other) in enumerate(zip(full, reel, strict=True)) if one == other]


WHOLE: list[dict[str, object]] = [{"input_key": f"{name}.mp4"} for name in "abc"]


def test_whole_clips_are_copied_and_bit_identical(camera: Path) -> None:
    result = made(camera, WHOLE)
    sources = [frame for name in "abc" for frame in hashes(camera / f"{name}.mp4")]
    assert hashes(camera / "reel.mp4") == sources
    assert (result.plan, result.reason, result.engine, result.encoder) == ("smart", "", "packet-copy", "copy")
    assert (result.frames, result.frames_copied, result.duration_seconds) == (135, 135, F(135, 25))
    assert probe(camera / "reel.mp4", scan=True).duration_seconds == F(135, 25)


def test_transitions_alone_are_rendered(camera: Path) -> None:
    result, same = both(camera, WHOLE, FADE, BLACK)
    # The crossfade begins at frame 45, the fade at 86; b and c are copied from their second keyframe on.
    assert (result.frames, result.plan, result.engine) == (130, "smart", "opencv-yuv420p")
    assert result.frames_copied == len(same) > 75
    assert {*range(42), *range(57, 84), *range(102, 130)} <= set(same)
    assert not {*range(45, 50), *range(87, 93)} & set(same)


@pytest.mark.parametrize(("start", "end"), [("0.48", "1.44"), ("0.53", "1.57"), ("0.2", "1.97")])
def test_trim_renders_only_its_edges(camera: Path, start: str, end: str) -> None:
    clips = [{"input_key": "a.mp4", "trim_start": start, "trim_end": end}, {"input_key": "b.mp4"}]
    result, same = both(camera, clips)
    assert result.plan == "smart"
    assert result.frames_copied == len(same)
    assert result.frames - len(same) < 14


def test_highlight_and_speed_render_their_frames(camera: Path) -> None:
    keyframe = {"time": "0.6", "x": 60, "y": 40, "radius_x": 20, "radius_y": 20}
    region = {"id": "a", "start_time": "0.6", "end_time": "0.7", "keyframes": [keyframe]}
    slow = {"input_key": "b.mp4", "segments": [{"start": "0.4", "end": "0.8", "speed": "0.5"}]}
    clips = [{"input_key": "a.mp4", "regions": [region]}, slow, {"input_key": "c.mp4"}]
    result, same = both(camera, clips)
    assert result.plan == "smart"
    assert {*range(12), *range(24, 50), *range(106, 145)} <= set(same)
    assert not {15, 16, 17, 70, 90} & set(same)
    assert result.frames_copied == len(same)


def test_other_clip_in_the_middle_is_rendered(camera: Path) -> None:
    encoder = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error")
    made_clip(camera / "other.mp4", size=(160, 120), fps=30, seconds=1, encoder=encoder, audio_seconds=1)
    result, same = both(camera, [WHOLE[0], {"input_key": "other.mp4"}, WHOLE[1]], FADE, {"kind": "cut"})
    assert (result.plan, result.frames) == ("smart", 115)
    assert {*range(42), *range(70, 115)} <= set(same)


def test_clips_of_a_rate_of_film_are_copied(tmp_path: Path) -> None:
    for name in "ab":
        made_clip(tmp_path / f"{name}.mkv", size=SIZE, fps=F(24000, 1001), seconds=2, encoder=CAMERA)
    clips = [{"input_key": "a.mkv", "trim_start": "0.33", "trim_end": "1.7"}, {"input_key": "b.mkv"}]
    result = made(tmp_path, clips, FADE)
    assert (result.plan, result.fps, result.frames) == ("smart", F(24000, 1001), 76)
    assert probe(tmp_path / "reel.mp4", scan=True).duration_seconds == 76 / result.fps
    assert result.frames_copied > 40


def test_full_render_names_the_reason(camera: Path) -> None:
    full = made(camera, WHOLE, encode=SMART | {"smart": False})
    assert (full.plan, full.reason, full.frames_copied) == ("full", "the request disables smart rendering", 0)
    sized = made(camera, WHOLE, output_size=(64, 48))
    assert sized.plan == "full"
    assert "clips[0] ('a.mp4'): the request crops or resizes the clip" in sized.reason
    hevc = made(camera, WHOLE, encode={"encoder": "libx265", "preset": "ultrafast", "quality": 40})
    assert "only libx264 can be spliced" in hevc.reason
    mostly = made(camera, [WHOLE[0], WHOLE[1]], {"kind": "crossfade", "duration": "1.7"})
    assert "would have to be rendered anyway" in mostly.reason


def test_damaged_splice_is_not_published(camera: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet that differs from the plan is found, and the reel is rendered instead."""
    from reel_modal._smart_render import joining

    original, reads = joining._packets_of, 0

    def damaged(run: joining.CopiedRun) -> object:
        nonlocal reads
        reads += 1
        for number, (packet, *rest) in enumerate(original(run)):
            wrong = number == 5 and reads == 1
            yield (packet_of(bytes(packet)[:-1] + b"x") if wrong else packet, *rest)

    monkeypatch.setattr(joining, "_packets_of", damaged)
    result = made(camera, WHOLE)
    assert result.plan == "full"
    assert result.reason == "copying its packets failed: packet 5 is not the planned one"
    assert result.frames == 135


def test_joints_decode_with_other_programs(camera: Path) -> None:
    """ffmpeg decodes each frame, in order and without a warning."""
    made(camera, [*WHOLE, WHOLE[0]], FADE, {"kind": "cut"}, BLACK)
    command = [find_ffmpeg().path, "-v", "warning", "-err_detect", "explode", "-i", str(camera / "reel.mp4")]
    done = subprocess.run([*command, "-f", "null", "-"], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    with av.open(str(camera / "reel.mp4")) as container:
        stream = container.streams.video[0]
        step = 1 / F(25) / stream.time_base
        assert [frame.pts for frame in container.decode(stream)] == [number * step for number in range(180)]


def test_layer_renders_the_frames_that_show_it(camera: Path) -> None:
    """The layer is shown in frames 20 to 29 of the first clip, and in frame 60 of the second."""
    cv2.imwrite(str(camera / "logo.png"), np.full((16, 16, 3), 255, np.uint8))
    shown = ({"start": "0.8", "end": "1.2"}, {"start": "2.4", "end": "2.44"})
    layers = [{"input_key": "logo.png", "width": 0.25, **times} for times in shown]
    result, same = both(camera, WHOLE, layers=layers)
    assert result.plan == "smart"
    assert result.frames_copied == len(same) > 80
    assert not {*range(20, 30), 60} & set(same)
    assert {*range(12), *range(36, 50), *range(90, 135)} <= set(same)
