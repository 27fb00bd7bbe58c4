"""The encoded bytes depend on the requested number of threads, not on the CPUs of the machine."""

from __future__ import annotations

import gc
import hashlib
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.clips import Clips
from tests.ffmpegs import skip_without_encoder
from tests.media.framed import crops, framed
from tests.processes import ffmpegs
from tests.run_function import SPECS
from tests.visible_cpus import VisibleCpus

from reel_modal import FramePipe, FrameReader
from reel_modal.errors import ConfigError
from reel_modal.functions.upscale_plan import UpscalePlan
from reel_modal.media import probe
from reel_modal.schema import EncodeOptions, UpscaleRequest
from reel_modal.schema.options import ENCODER_THREADS
from reel_modal.settings import Settings

SIZE = (640, 360)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def frames(count: int) -> list[np.ndarray]:
    """Return moving frames with detail, so that every encoder decision has a visible effect."""
    noise = np.random.default_rng(1).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    return [np.ascontiguousarray(np.roll(noise, 3 * index, axis=1) // 2 + index) for index in range(count)]


def piped(path: Path, encoder: str, **options: object) -> FramePipe:
    with FramePipe(path, size=SIZE, fps=25, encoder=encoder, **options) as pipe:  # type: ignore[arg-type]
        for frame in frames(12):
            pipe.write(frame)
    return pipe


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libvpx-vp9", "libsvtav1", "ffv1"])
def test_pipe_bytes_equal_on_other_cpu_counts(
    encoder: str, tmp_path: Path, visible_cpus: VisibleCpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_encoder(encoder)
    digests = set()
    for count in (1, 2, 16):
        for name, value in visible_cpus.environment(count).items():
            monkeypatch.setenv(name, value)
        piped(tmp_path / f"{count}.mkv", encoder)
        digests.add(digest(tmp_path / f"{count}.mkv"))
    assert len(digests) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux gives a process fewer CPUs")
def test_pipe_bytes_equal_on_one_real_cpu(tmp_path: Path) -> None:
    piped(tmp_path / "all.mkv", "libx264")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})  # ffmpeg inherits it
    try:
        piped(tmp_path / "one.mkv", "libx264")
    finally:
        os.sched_setaffinity(0, allowed)
    assert digest(tmp_path / "one.mkv") == digest(tmp_path / "all.mkv")


def test_pipe_bytes_equal_on_busy_machine(tmp_path: Path, clips: Clips) -> None:
    """Eight parallel encodes make their threads wait for one another in changing orders."""
    with FrameReader(clips.get("with_sound.mp4"), pixel_format="yuv420p") as reader:
        pictures = [frame.data.copy() for frame in reader]

    def encode(number: int) -> str:
        path = tmp_path / f"{number}.mkv"
        with FramePipe(path, size=(320, 180), fps=25, pixel_format="yuv420p", encoder="libx264") as pipe:
            for picture in pictures:
                pipe.write(picture)
        return digest(path)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(encode, range(16)))) == 1


@pytest.mark.parametrize(("left", "engine"), [(20, "ffmpeg-graph"), (20.5, "opencv-yuv420p")])
def test_framing_bytes_equal_on_other_cpu_counts(
    left: float, engine: str, clips: Clips, tmp_path: Path, visible_cpus: VisibleCpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    crop, encode = crops((0, left, 10, 90, 160)), EncodeOptions(encoder="libx264", preset="fast")
    digests = set()
    for count in (1, 2, 16):
        for variable, value in visible_cpus.environment(count).items():
            monkeypatch.setenv(variable, value)
        result, path = framed(clips.get("with_sound.mp4"), tmp_path, crop=crop, output_size=(180, 320), encode=encode)
        assert result.engine == engine
        digests.add(digest(path))
    assert len(digests) == 1


def test_pipe_threads_given_are_passed_to_encoder(tmp_path: Path) -> None:
    one, four = (piped(tmp_path / f"{threads}.mkv", "libx264", threads=threads) for threads in (1, 4))
    default = piped(tmp_path / "default.mkv", "libx264")
    assert digest(tmp_path / "1.mkv") != digest(tmp_path / "4.mkv")
    assert digest(tmp_path / "default.mkv") == digest(tmp_path / "4.mkv")
    commands = [" ".join(pipe.result.command) for pipe in (one, four, default)]
    assert ["-threads:v 1 " in commands[0], "-threads:v 4 " in commands[1], "-threads:v 4 " in commands[2]] == [
        True
    ] * 3


def test_pipe_x265_parameters_of_caller_are_kept(tmp_path: Path) -> None:
    pipe = piped(tmp_path / "made.mkv", "libx265", encoder_options={"x265-params": "keyint=7"})
    assert "pools=4:keyint=7" in pipe.result.command


@pytest.mark.parametrize("threads", [0, -1, 65])
def test_pipe_threads_out_of_range_refused(threads: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"threads is {threads}; it must be 1 to 64"):
        FramePipe(tmp_path / "out.mp4", size=SIZE, fps=25, threads=threads)


def test_default_threads_equal_reserved_cores_of_function() -> None:
    assert {spec.cpu for spec in SPECS.values()} == {ENCODER_THREADS} == {EncodeOptions().threads}


def decoder_threads() -> int:
    """Return the number of threads of libav's decoders in this process."""
    names = (path.read_text() for path in Path("/proc/self/task").glob("*/comm"))
    return sum(name.startswith("av:h264") for name in names)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at threads through /proc")
@pytest.mark.parametrize(("cpu", "threads"), [(1, 0), (2, 3), (5, 6)])
def test_in_process_decoder_uses_reserved_threads(cpu: int, threads: int, clips: Clips) -> None:
    gc.collect()
    before = decoder_threads()  # of a decoder that another test did not close
    with FrameReader(clips.get("bikes.mp4"), decoder="in_process", settings=Settings(cpu=cpu)) as reader:
        frames = iter(reader)  # referenced, because a collected reader ends its decoder
        next(frames)
        assert decoder_threads() - before == threads


@pytest.mark.skipif(sys.platform != "linux", reason="looks at threads through /proc")
@pytest.mark.parametrize(("cpu", "most"), [(1, 25), (16, 200)])
def test_process_decoder_uses_reserved_threads(
    cpu: int, most: int, clips: Clips, visible_cpus: VisibleCpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in visible_cpus.environment(64).items():
        monkeypatch.setenv(name, value)
    with FrameReader(clips.get("bikes.mp4"), size=(64, 64), settings=Settings(cpu=cpu)) as reader:
        frames = iter(reader)
        next(frames)
        (ffmpeg,) = ffmpegs()
        names = [path.read_text() for path in Path(f"/proc/{ffmpeg}/task").glob("*/comm")]
    assert sum(name.startswith(("dec", "av:h264")) for name in names) <= cpu + 3, names
    assert len(names) <= most


def test_upscale_network_uses_reserved_cores(clips: Clips) -> None:
    request = UpscaleRequest(job_id="j", user_id="u", input_key="in.mp4", output_key="out.mp4", scale=2)
    media, plans, threads = probe(clips.get("25.mp4")), [], []
    for cpu in (1, 2, 6):  # with one core only the calling thread works
        plans.append(UpscalePlan.of(request, media, Settings(cpu=cpu)))
        threads.append({task.name for task in Path("/proc/self/task").iterdir()})
    # Threads of other tests may end meanwhile.
    assert [len(after - before) for before, after in pairwise(threads)] == [1, 5]
