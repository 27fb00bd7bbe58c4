"""FramePipe with real ffmpeg: outputs, errors and cleanup."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
from tests.clips import Clips, made_clip
from tests.ffmpegs import faulty
from tests.processes import children, ffmpegs

from reel_modal._ffmpeg import encoders
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.errors import (
    ConfigError,
    EncoderUnavailableError,
    FFmpegError,
    FFmpegNotFoundError,
    FFmpegStalledError,
    FrameError,
    FrameTypeError,
    StorageError,
)
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.media import probe
from reel_modal.media.frames import PLANAR, ColorTags, PixelFormat, plane_shapes, sample_views
from reel_modal.settings import Settings

SIZE = (64, 48)
BLACK = np.zeros((48, 64, 3), np.uint8)


@pytest.fixture(autouse=True)
def check_leftovers(tmp_path: Path) -> Iterator[None]:
    """Fail a test that leaves a process, a thread or a temporary file."""
    before, threads = children(), set(threading.enumerate())
    yield
    assert children() == before
    assert set(threading.enumerate()) == threads
    assert [path.name for path in tmp_path.rglob("*.part.*")] == []


def shades(count: int) -> Iterator[np.ndarray]:
    for index in range(count):
        yield np.full((48, 64, 3), index * 4 % 256, np.uint8)


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


@pytest.mark.parametrize("name", ["h264_nonsense", "libx264rgb_typo"])
def test_pipe_unavailable_encoder_raises_before_first_frame(tmp_path: Path, name: str) -> None:
    with (
        pytest.raises(EncoderUnavailableError, match=f"'{name}' does not start") as caught,
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder=name),
    ):
        pytest.fail("the block was entered")
    assert caught.value.exit_status not in {0, None}
    assert name in caught.value.stderr_tail
    assert list(tmp_path.iterdir()) == []


def test_pipe_wrong_preset_raises_before_first_frame(tmp_path: Path) -> None:
    with (
        pytest.raises(EncoderUnavailableError, match="does not start"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", preset="warp"),
    ):
        pytest.fail("the block was entered")


def test_pipe_ffmpeg_killed_names_signal_and_leaves_no_file(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(FFmpegError, match="SIGKILL") as caught,
        FramePipe(tmp_path / "out.mp4", size=(640, 480), fps=25, encoder="libx264") as pipe,
    ):
        for index in range(10_000):
            if index == 5:
                os.kill(next(iter(ffmpegs())), signal.SIGKILL)
            pipe.write(np.zeros((480, 640, 3), np.uint8))
    assert caught.value.exit_status == -signal.SIGKILL
    assert caught.value.frame_index is not None
    assert caught.value.frame_index < 100
    assert list(tmp_path.iterdir()) == []


def test_pipe_error_swallowed_in_block_raised_at_exit(tmp_path: Path) -> None:
    with (  # noqa: PT012
        pytest.raises(FFmpegError, match="SIGKILL"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264") as pipe,
    ):
        os.kill(next(iter(ffmpegs())), signal.SIGKILL)
        with contextlib.suppress(FFmpegError):
            for _ in range(10_000):
                pipe.write(BLACK)
    assert list(tmp_path.iterdir()) == []


def test_pipe_disk_full_is_named(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=False).returncode == 0
    )
    # Without the right to mount, a limit on the file size causes the same failing write.
    try:
        settings = (
            Settings.from_env()
            if mounted
            else faulty(tmp_path, _LIMITED.format(real=find_ffmpeg(Settings.from_env()).path))
        )
        noise = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
        with (  # noqa: PT012
            pytest.raises(FFmpegError, match=r"No space left on device|File too large") as caught,
            FramePipe(
                disk / "out.mp4", size=(640, 480), fps=25, encoder="libx264", preset="ultrafast", settings=settings
            ) as pipe,
        ):
            for _ in range(50):
                pipe.write(noise)
        if mounted:
            assert "ENOSPC" in str(caught.value)
        assert [path.name for path in disk.iterdir()] == []
    finally:
        if mounted:
            subprocess.run(["/bin/umount", disk], check=True)


_LIMITED = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (262144, 262144))
os.execv({real!r}, [{real!r}, *sys.argv[1:]])
"""


def test_pipe_megabytes_of_stderr_do_not_block(tmp_path: Path) -> None:
    settings = faulty(
        tmp_path,
        """
for number in range(40_000):
    print(f"complaint {number}: " + "x" * 80, file=sys.stderr)
sys.stderr.flush()
os.execv(real, [real, *sys.argv[1:]])
""",
    )
    with FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe:
        for frame in shades(20):
            pipe.write(frame)
    assert pipe.result.frames == 20
    assert "complaint 39999" in pipe.stderr_tail
    assert "complaint 30000" not in pipe.stderr_tail


def test_pipe_early_exit_with_status_0_raises(tmp_path: Path) -> None:
    settings = faulty(tmp_path, "sys.stdin.buffer.read(9216 * 3); sys.exit(0)")
    with (  # noqa: PT012
        pytest.raises(FFmpegError, match="ended before all frames were written") as caught,
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe,
    ):
        for frame in shades(10_000):
            pipe.write(frame)
    assert caught.value.exit_status == 0
    assert not (tmp_path / "out.mp4").exists()


def test_pipe_frames_dropped_by_ffmpeg_raise(tmp_path: Path) -> None:
    # A filter that drops every other frame simulates any loss of frames.
    settings = faulty(
        tmp_path,
        """
arguments = [a.replace("format=yuv420p", "select=mod(n\\\\,2),format=yuv420p") for a in sys.argv[1:]]
os.execv(real, [real, *arguments[:-1], "-vsync" if False else "-fps_mode", "passthrough", arguments[-1]])
""",
    )
    with (  # noqa: PT012
        pytest.raises(Exception, match="10 frames were written to ffmpeg but the file has 5"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe,
    ):
        for frame in shades(10):
            pipe.write(frame)
    assert not (tmp_path / "out.mp4").exists()


def test_pipe_ffmpeg_not_reading_ended_at_timeout(tmp_path: Path) -> None:
    settings = faulty(tmp_path, "import time; sys.stdin.buffer.read(9216); time.sleep(600)")
    settings = Settings(ffmpeg=settings.ffmpeg, stall_seconds=1.0)
    started = time.monotonic()
    with (  # noqa: PT012
        pytest.raises(FFmpegStalledError, match="no data moved for 1 s"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe,
    ):
        for frame in shades(10_000):
            pipe.write(frame)
    assert time.monotonic() - started < 20


def test_pipe_ffmpeg_not_exiting_ended_at_timeout(tmp_path: Path) -> None:
    settings = faulty(tmp_path, "import time; sys.stdin.buffer.read(); time.sleep(600)")
    settings = Settings(ffmpeg=settings.ffmpeg, stall_seconds=1.0)
    with (
        pytest.raises(FFmpegStalledError, match="ffmpeg did not end"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe,
    ):
        pipe.write(BLACK)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_pipe_exception_in_block_propagates_and_cleans_up(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "out.mp4").write_bytes(b"the former file")
    with (  # noqa: PT012
        pytest.raises(type(error)) as caught,
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264") as pipe,
    ):
        pipe.write(BLACK)
        raise error
    assert caught.value is error
    assert (tmp_path / "out.mp4").read_bytes() == b"the former file"
    with pytest.raises(ConfigError, match="after its `with` block"):
        _ = pipe.result


def test_pipe_partly_written_frame_closes_pipe(tmp_path: Path) -> None:
    """The stand-in reads only one frame; the alarm signal arrives when the pipe is full."""
    settings = faulty(tmp_path, "import time; os.read(0, 9216); time.sleep(600)")
    last_count = -1

    def ring(number: int, stack: object) -> None:
        nonlocal last_count
        if last_count == pipe.frames_written:
            raise InterruptedByAlarmError
        last_count = pipe.frames_written

    def fill() -> None:
        for frame in shades(10_000):
            pipe.write(frame)

    former = signal.signal(signal.SIGALRM, ring)
    try:
        with (  # noqa: PT012
            pytest.raises(FFmpegError, match="a frame was written only partly") as caught,
            FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264", settings=settings) as pipe,
        ):
            signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
            with pytest.raises(InterruptedByAlarmError):
                fill()
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.write(BLACK)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    assert caught.value.frame_index == pipe.frames_written > 1
    assert not (tmp_path / "out.mp4").exists()


class InterruptedByAlarmError(Exception):
    """An exception that a signal handler raises."""


@pytest.mark.parametrize("refused", ["stderr", "watch"])
def test_pipe_out_of_threads_raises_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    start = threading.Thread.start

    def at_the_limit(thread: threading.Thread) -> None:
        if thread.name == f"reel_modal-ffmpeg-{refused}":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", at_the_limit)
    with (
        pytest.raises(RuntimeError, match="new thread"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264"),
    ):
        pass


def test_pipe_ctrl_c_in_terminal_leaves_nothing(tmp_path: Path) -> None:
    host = subprocess.Popen(
        [
            sys.executable,
            "-c",
            _ENDLESS,
            str(tmp_path / "out.mp4"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert host.stdout is not None
    assert host.stdout.readline() == "writing\n"
    encoders = Path(f"/proc/{host.pid}/task/{host.pid}/children").read_text().split()
    os.killpg(host.pid, signal.SIGINT)
    _, words = host.communicate(timeout=30)
    assert "KeyboardInterrupt" in words
    assert "closed file" not in words
    assert len(encoders) == 1
    assert not Path(f"/proc/{encoders[0]}").exists()
    assert list(tmp_path.iterdir()) == []


_ENDLESS = """
import sys
import numpy as np
from reel_modal import FramePipe
with FramePipe(sys.argv[1], size=(640, 480), fps=25, encoder="libx264") as pipe:
    while True:
        pipe.write(np.zeros((480, 640, 3), np.uint8))
        if pipe.frames_written == 20:
            print("writing", flush=True)
"""


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        (np.zeros((48, 64, 3), np.float32), FrameTypeError, "frame 1 is an array of float32; it must be uint8"),
        (np.zeros((64, 48, 3), np.uint8), FrameError, r"frame 1 has shape \(64, 48, 3\); it must be \(48, 64, 3\)"),
        (np.zeros((48, 64, 4), np.uint8), FrameError, r"frame 1 has shape \(48, 64, 4\)"),
        (bytes(100), FrameError, "frame 1 has 100 bytes; bgr24 of 64x48 has 9216"),
        ([1, 2, 3], FrameTypeError, "frame 1 is a list"),
        (None, FrameTypeError, "frame 1 is a NoneType"),
    ],
)
def test_pipe_invalid_frame_is_named_and_pipe_stays_usable(
    tmp_path: Path, frame: object, error: type[Exception], words: str
) -> None:
    with FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264") as pipe:
        pipe.write(BLACK)
        with pytest.raises(error, match=words):
            pipe.write(frame)  # type: ignore[arg-type]
        pipe.write(BLACK)
    assert pipe.result.frames == 2


def test_pipe_without_frames_raises_and_leaves_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(FFmpegError, match="no frame was written"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": (0, 48)}, "at least 1 pixel"),
        ({"size": (64.0, 48)}, "whole numbers"),
        ({"fps": 0}, "above 0"),
        ({"fps": float("nan")}, "a finite number"),
        ({"pixel_format": "yuv999"}, "'yuv999' is not supported; use one of bgr24"),
        ({"size": (63, 47), "odd_size": "error"}, "63x47 is odd"),
        ({"size": (1, 47), "odd_size": "crop"}, "1x47 cannot be cropped"),
        ({"sample_aspect_ratio": 0}, "sample_aspect_ratio is 0; it must be above 0"),
        ({"sample_aspect_ratio": -1}, "sample_aspect_ratio is -1; it must be above 0"),
        ({"sample_aspect_ratio": float("nan")}, "sample_aspect_ratio is nan; it must be a finite number"),
        (
            {"audio_from": "clip.mp4", "audio_start_seconds": float("inf")},
            "audio_start_seconds is inf; it must be a finite",
        ),
        ({"metadata": {"title": "a\0b"}}, "is not a valid argument of ffmpeg"),
        ({"metadata": {"ti\0tle": "a"}}, "is not a valid argument of ffmpeg"),
        ({"encoder_options": {"g": 48}}, "48 is not a valid argument of ffmpeg"),
        ({"encoder": "lib\0x264"}, "is not a valid argument of ffmpeg"),
    ],
)
def test_pipe_invalid_arguments_refused_immediately(tmp_path: Path, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FramePipe(tmp_path / "out.mp4", **({"size": SIZE, "fps": 25} | arguments))  # type: ignore[arg-type]


def test_pipe_output_without_suffix_or_folder_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no suffix"):
        FramePipe(tmp_path / "out", size=SIZE, fps=25)
    with pytest.raises(ConfigError, match="does not exist; create it first"):
        FramePipe(tmp_path / "missing" / "out.mp4", size=SIZE, fps=25)
    with pytest.raises(ConfigError, match="null characters"):
        FramePipe(tmp_path / "o\0ut.mp4", size=SIZE, fps=25)


def test_pipe_output_path_is_folder_raises_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").mkdir()
    with (
        pytest.raises(StorageError, match="could not be published"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264") as pipe,
    ):
        pipe.write(BLACK)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_pipe_missing_ffmpeg_named_with_cure(tmp_path: Path) -> None:
    with (
        pytest.raises(FFmpegNotFoundError, match="REEL_MODAL_FFMPEG"),
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, settings=Settings(ffmpeg=str(tmp_path / "no"))),
    ):
        pytest.fail("the block was entered")


@pytest.mark.parametrize("name", ["-y.mp4", "a:b.mp4", "100%d.mp4", "übung [1].mp4", "http:x.mp4"])
def test_pipe_special_file_names_taken_literally(tmp_path: Path, name: str) -> None:
    with contextlib.chdir(tmp_path), FramePipe(name, size=SIZE, fps=25, encoder="libx264") as pipe:
        pipe.write(BLACK)
        pipe.write(BLACK)
    with contextlib.chdir(tmp_path), FrameReader(name) as reader:
        assert sum(1 for _ in reader) == 2
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("policy", "size"), [("pad", (162, 122)), ("crop", (160, 120))])
def test_pipe_odd_size_padded_to_even_with_note(tmp_path: Path, policy: str, size: tuple[int, int]) -> None:
    white = np.full((121, 161, 3), 255, np.uint8)
    with FramePipe(
        tmp_path / "out.mp4", size=(161, 121), fps=25, encoder="libx264", odd_size=policy, quality=1
    ) as pipe:
        for _ in range(3):
            pipe.write(white)
    assert pipe.result.size == size
    assert f"the odd size 161x121 was encoded as {size[0]}x{size[1]}" in str(pipe.result.degraded[0])
    with FrameReader(tmp_path / "out.mp4") as reader:
        for frame in reader:
            assert frame.image.shape == (size[1], size[0], 3)
            assert frame.image.min() > 245  # the repeated edge is not black


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


def test_pipe_used_twice_or_outside_block_raises(tmp_path: Path) -> None:
    pipe = FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, encoder="libx264")
    with pytest.raises(ConfigError, match="inside the `with` block"):
        pipe.write(BLACK)
    with pipe:
        pipe.write(BLACK)
    with pytest.raises(ConfigError, match="inside the `with` block"):
        pipe.write(BLACK)
    with pytest.raises(ConfigError, match="writes only one file"), pipe:
        pytest.fail("the block was entered twice")


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


def test_pipe_times_mixed_or_decreasing_refused(tmp_path: Path) -> None:
    frame = np.zeros((48, 64), np.uint8)
    with FramePipe(tmp_path / "out.mkv", size=SIZE, fps=25, pixel_format="gray8", encoder="ffv1") as pipe:
        pipe.write(frame, seconds=Fraction(0))
        with pytest.raises(FrameError, match="frame 1 has no time, unlike earlier frames"):
            pipe.write(frame)
        with pytest.raises(FrameError, match="frame 1 is at 0 s; it must be after 0 s"):
            pipe.write(frame, seconds=Fraction(0))
        pipe.write(frame, seconds=Fraction(1, 3))
    assert pipe.result.frames == 2
    with FramePipe(tmp_path / "other.mkv", size=SIZE, fps=25, pixel_format="gray8", encoder="ffv1") as pipe:
        pipe.write(frame)
        with pytest.raises(FrameError, match="frame 1 has a time, unlike earlier frames"):
            pipe.write(frame, seconds=Fraction(1))


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
