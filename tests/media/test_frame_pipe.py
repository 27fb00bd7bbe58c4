"""FramePipe with real ffmpeg: its outputs."""

from __future__ import annotations

import sys
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
from tests.clips import Clips, made_clip
from tests.media.pipes import BLACK, SIZE, check_leftovers, shades

from reel_modal._ffmpeg import encoders
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.media import probe
from reel_modal.media.frames import PLANAR, ColorTags, PixelFormat, plane_shapes, sample_views

__all__ = ["check_leftovers"]


def test_pipe_default_use_writes_complete_file(tmp_path: Path) -> None:
    with FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264") as pipe:
        for frame in shades(50):
            pipe.write(frame)
    result = pipe.result
    assert (result.frames, result.size, result.fps, result.duration_seconds) == (50, SIZE, 25, 2)
    assert result.bytes == (tmp_path / "out.mp4").stat().st_size
    assert result.encoder == "libx264"
    assert result.degraded == ()
    assert "libx264" in result.command
    assert pipe.stderr_tail == ""
    info = probe(tmp_path / "out.mp4", scan=True)
    assert info.scan is not None
    assert (info.scan.frame_count, info.fps, info.size, info.codec) == (50, 25, SIZE, "h264")


def test_pipe_auto_encoder_without_gpu_is_as_requested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_NVIDIA_DRIVER", tmp_path / "not found")
    with FramePipe(tmp_path / "out.mp4", size=(160, 96), fps=25, encoder="auto") as pipe:
        pipe.write(np.zeros((96, 160, 3), np.uint8))
    assert pipe.result.degraded == ()


def test_pipe_auto_encoder_with_gpu_notes_unavailable_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoders, "_NVIDIA_DRIVER", tmp_path)
    with FramePipe(tmp_path / "out.mp4", size=(160, 96), fps=25, encoder="auto") as pipe:
        pipe.write(np.zeros((96, 160, 3), np.uint8))
    result = pipe.result
    if result.encoder == "libx264":
        (note,) = result.degraded
        assert note.code == "encoder_unavailable"
        assert str(note).startswith("h264_nvenc does not start on this machine (")
    else:
        assert (result.encoder, result.degraded) == ("h264_nvenc", ())


@pytest.mark.parametrize(
    ("given", "exact"),
    [
        (25, Fraction(25)),
        (29.97, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
        (12.5, Fraction(25, 2)),
        (60, Fraction(60)),
    ],
)
def test_pipe_frame_rate_in_file_is_exact(tmp_path: Path, given: Fraction | float, exact: Fraction) -> None:
    with FramePipe(tmp_path / "out.mp4", size=SIZE, fps=given, encoder="libx264") as pipe:
        for frame in shades(8):
            pipe.write(frame)
    info = probe(tmp_path / "out.mp4")
    assert (pipe.result.fps, info.fps, info.constant_rate) == (exact, exact, True)


@pytest.mark.parametrize("pixel_format", ["bgr24", "rgb24", "yuv420p", "gray8"])
def test_pipe_every_pixel_format_and_frame_form_round_trips(tmp_path: Path, pixel_format: PixelFormat) -> None:
    rng = np.random.default_rng(7)
    planes = tuple(rng.integers(60, 180, shape, np.uint8) for shape in plane_shapes(pixel_format, SIZE))
    flat = np.concatenate([plane.ravel() for plane in planes])
    forms: list[object] = [flat, flat.tobytes(), bytearray(flat), memoryview(flat)]
    forms.append(planes if pixel_format == "yuv420p" else planes[0])
    if pixel_format == "yuv420p":
        forms.append(flat.reshape(72, 64))
    with FramePipe(tmp_path / "out.mkv", size=SIZE, fps=25, pixel_format=pixel_format, encoder="ffv1") as pipe:
        for form in forms:
            pipe.write(form)  # type: ignore[arg-type]
    with FrameReader(tmp_path / "out.mkv", pixel_format=pixel_format) as reader:
        read = [frame.data.copy() for frame in reader]
    assert len(read) == len(forms)
    for frame in read:
        assert np.array_equal(frame, read[0])
    if pixel_format in {"yuv420p", "gray8"}:
        assert np.array_equal(read[0], flat)  # ffv1 is lossless, and neither is converted


@pytest.mark.parametrize("decoder", ["process", "in_process"])
@pytest.mark.parametrize("size", [(320, 180), (37, 21)])
@pytest.mark.parametrize("pixel_format", PLANAR)
def test_pipe_planar_frames_round_trip(
    pixel_format: PixelFormat, size: tuple[int, int], decoder: Literal["process", "in_process"], tmp_path: Path
) -> None:
    draw, bits = np.random.default_rng(0), PLANAR[pixel_format].bits
    kind = np.dtype(np.uint8 if bits == 8 else np.uint16)
    planes = tuple(
        draw.integers(16 << (bits - 8), 235 << (bits - 8), shape).astype(kind)
        for shape in plane_shapes(pixel_format, size)
    )
    path = tmp_path / "out.mkv"
    with FramePipe(path, size=size, fps=25, pixel_format=pixel_format, encoder="ffv1") as pipe:
        pipe.write(planes)
        pipe.write(np.concatenate([plane.ravel() for plane in planes]))
    output = probe(path)
    assert (output.bit_depth, output.pixel_format) == (bits, pixel_format)
    assert output.size == tuple(
        -(-side // step) * step for side, step in zip(size, PLANAR[pixel_format].step, strict=True)
    )
    with FrameReader(path, pixel_format=pixel_format, decoder=decoder) as reader:
        frames = [frame.copy() for frame in reader]
    assert len(frames) == 2
    for frame in frames:
        for plane, again in zip(planes, sample_views(frame.data, pixel_format, frame.size), strict=True):
            np.testing.assert_array_equal(again[: plane.shape[0], : plane.shape[1]], plane)


def test_pipe_non_contiguous_array_written_correctly(tmp_path: Path) -> None:
    wide = np.random.default_rng(3).integers(0, 256, (48, 128), np.uint8)
    with FramePipe(tmp_path / "out.mkv", size=SIZE, fps=25, pixel_format="gray8", encoder="ffv1") as pipe:
        pipe.write(wide[:, ::2])
    with FrameReader(tmp_path / "out.mkv", pixel_format="gray8") as reader:
        frames = [frame.image.copy() for frame in reader]
    assert np.array_equal(frames[0], wide[:, ::2])


@pytest.mark.parametrize(
    "tags",
    [
        ColorTags(matrix="bt709", range="tv", primaries="bt709", transfer="bt709"),
        ColorTags(matrix="smpte170m", range="pc", primaries="smpte170m", transfer="smpte170m"),
        ColorTags(matrix="bt2020nc", range="tv", primaries="bt2020", transfer="arib-std-b67"),
        ColorTags(),
    ],
)
def test_pipe_yuv_keeps_samples_and_color_tags(tmp_path: Path, tags: ColorTags) -> None:
    layout: PixelFormat = "yuv420p10le" if tags.is_hdr else "yuv420p"
    flat = np.random.default_rng(5).integers(16, 236, 64 * 48 * 3 // 2, np.uint16 if tags.is_hdr else np.uint8)
    with FramePipe(tmp_path / "out.mkv", size=SIZE, fps=25, pixel_format=layout, encoder="ffv1", color=tags) as pipe:
        pipe.write(flat)
    output = probe(tmp_path / "out.mkv").color
    assert (output.matrix, output.primaries, output.transfer) == (tags.matrix, tags.primaries, tags.transfer)
    assert output.range in {tags.range, "tv"} if tags.range is None else output.range == tags.range
    with FrameReader(tmp_path / "out.mkv", pixel_format=layout) as reader:
        assert np.array_equal(next(iter(reader)).data, flat.view(np.uint8))


def test_pipe_bgr_encoded_and_tagged_as_bt709(tmp_path: Path) -> None:
    red = np.zeros((48, 64, 3), np.uint8)
    red[:, :, 2] = 255
    with FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", quality=1) as pipe:
        pipe.write(red)
    assert probe(tmp_path / "out.mp4").color.matrix == "bt709"
    with FrameReader(tmp_path / "out.mp4", pixel_format="yuv420p") as reader:
        luma, blue, red_chroma = (float(plane.mean()) for plane in next(iter(reader)).planes)
    # ITU-R BT.709, limited range: Y = 16 + 219 x 0.2126, Cb = 128 - 224 x 0.2126 / 1.8556, Cr = 240
    assert (luma, blue, red_chroma) == pytest.approx((62.6, 102.3, 240.0), abs=1.5)


def test_pipe_sample_aspect_ratio_is_written(tmp_path: Path) -> None:
    with FramePipe(
        tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", sample_aspect_ratio=Fraction(128, 117)
    ) as pipe:
        pipe.write(BLACK)
    assert probe(tmp_path / "out.mp4").sample_aspect_ratio == Fraction(128, 117)


def test_pipe_mp4_index_comes_first_with_metadata(tmp_path: Path) -> None:
    with FramePipe(
        tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", metadata={"title": "Reel", "request": "abc"}
    ) as pipe:
        for frame in shades(30):
            pipe.write(frame)
    whole = (tmp_path / "out.mp4").read_bytes()
    assert whole.index(b"moov") < whole.index(b"mdat")
    assert b"Reel" in whole
    assert b"abc" in whole


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("sound", [False, True])
def test_pipe_frame_times_are_kept(sound: bool, suffix: str, tmp_path: Path) -> None:
    audio = made_clip(tmp_path / "sound.mp4", seconds=2, audio_seconds=2) if sound else None
    times = [Fraction(0), *accumulate(Fraction(1 + number * 7 % 5, 50) for number in range(29))]
    path = tmp_path / f"out{suffix}"
    # With B-frames, so that decoding order differs from display order.
    options = {"bf": "3", "b_strategy": "0"}
    pipe = FramePipe(
        path, size=SIZE, fps=25, pixel_format="gray8", encoder="libx264", encoder_options=options, audio_from=audio,
        metadata={"title": "Uneven"},
    )  # fmt: skip
    with pipe:
        for number, seconds in enumerate(times):
            pipe.write(np.full((48, 64), 20 + 7 * number, np.uint8), seconds=seconds)
    assert pipe.result.duration_seconds == times[-1] + Fraction(1, 25)
    assert not pipe.result.constant_rate
    with FrameReader(path, pixel_format="gray8") as reader:
        frames = [(frame.pts_seconds - reader.media.start_seconds, int(frame.image.mean())) for frame in reader]
    assert len(frames) == len(times)
    for number, (seconds, (shown, level)) in enumerate(zip(times, frames, strict=True)):
        assert abs(shown - seconds) <= (0 if suffix == ".mp4" else Fraction(1, 1000))
        assert abs(level - (20 + 7 * number)) <= 2
    assert bool(probe(path).audio) == sound
    with av.open(str(path)) as container:
        assert container.metadata["title"] == "Uneven"
    assert sorted(tmp_path.iterdir()) == sorted([path, *([audio] if audio else [])])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pipe_audio_as_long_as_video_for_any_expected_count(suffix: str, tmp_path: Path) -> None:
    audio = made_clip(tmp_path / "sound.mp4", seconds=4, audio_seconds=4)

    def sound(expected: int | None) -> list[bytes]:
        path = tmp_path / f"out{suffix}"
        with FramePipe(
            path, size=SIZE, fps=25, encoder="libx264", audio_from=audio, expected_frames=expected,
        ) as pipe:  # fmt: skip
            for _ in range(50):
                pipe.write(BLACK)
        assert pipe.result.frames == 50
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0)]

    reference = sound(None)
    with av.open(str(audio)) as container:
        whole = [bytes(packet) for packet in container.demux(audio=0)]
    assert reference[:80] == whole[:80]
    assert abs(len(reference) - 2 * probe(audio).audio[0].sample_rate_hz / 1024) < 3  # samples per AAC packet
    assert sound(50) == sound(90) == sound(10) == reference
    assert {path.name for path in tmp_path.iterdir()} == {"sound.mp4", f"out{suffix}"}


def test_pipe_zero_copy_frames_equal_copied_frames(clips: Clips, tmp_path: Path) -> None:
    def encoded(zero_copy: bool) -> list[bytes]:
        reader = FrameReader(clips.get("bikes.mp4"), pixel_format="yuv420p", zero_copy=zero_copy, end=2)
        path = tmp_path / "out.mkv"
        with reader, FramePipe(path, size=reader.size, fps=25, pixel_format="yuv420p", encoder="ffv1") as pipe:
            for frame in reader:
                assert (frame.shared is not None) == (zero_copy and sys.platform == "linux")
                frame.data[:1000] = frame.index % 256
                if frame.index % 7:
                    pipe.write(frame)
        with FrameReader(path, pixel_format="yuv420p") as reader:
            return [frame.data.tobytes() for frame in reader]

    assert encoded(zero_copy=True) == encoded(zero_copy=False)
