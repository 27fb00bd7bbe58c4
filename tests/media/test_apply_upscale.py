"""apply_upscale from clip to larger clip: frames, audio, colours, depths, devices, errors."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import Mock

import av
import cv2
import numpy as np
import pytest
from tests.clips import Clips, made_clip, real
from tests.local_files import key_of, root_storage
from tests.networks import graph, node, repeating
from tests.processes import children, ffmpegs
from tests.run_function import run_function

from reel_modal._upscaling.session import available_providers
from reel_modal.errors import (
    FFmpegError,
    InvalidModelError,
    JobCancelledError,
    ProviderUnavailableError,
    RequestError,
)
from reel_modal.ffmpeg_pipe import FramePipe, FrameReader
from reel_modal.functions import apply_upscale
from reel_modal.functions.catalog import all_functions
from reel_modal.functions.context import CancellationToken, JobContext, Reporter
from reel_modal.functions.runner import run_job
from reel_modal.functions.upscale_plan import UpscalePlan
from reel_modal.media import MediaInfo, probe
from reel_modal.progress import ProgressEvent
from reel_modal.schema import EncodeOptions, RenderResult, StoreOptions, UpscaleRequest
from reel_modal.settings import ModelSource, Settings
from reel_modal.storage import FolderStorage

FAST = EncodeOptions(encoder="libx264", preset="ultrafast", quality=10)


@pytest.fixture(autouse=True)
def check_leftovers() -> Iterator[None]:
    before = children()
    yield
    assert children() == before
    assert not {"reel_modal-decode", "reel_modal-infer"} & {thread.name for thread in threading.enumerate()}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a clip of ten frames of 96 x 64 pixels, with audio."""
    path = tmp_path_factory.mktemp("small") / "clip.mp4"
    return made_clip(path, size=(96, 64), seconds=0.4, audio_seconds=0.4)


def request_for(source: Path, target: Path, **fields: object) -> UpscaleRequest:
    size = {} if "output_size" in fields else {"scale": 2}
    request = UpscaleRequest.parse(
        {"job_id": "j", "user_id": "u", "input_key": key_of(source), "output_key": key_of(target), **size, **fields}
    )
    return dataclasses.replace(request, encode=FAST)


def enlarge(
    source: Path, folder: Path, network: Path | None = None, **fields: object
) -> tuple[RenderResult, MediaInfo]:
    """Run the body; `network` is registered under its file name and requested."""
    target = folder / f"large{source.suffix}"
    workdir = folder / "work"
    workdir.mkdir(exist_ok=True)
    settings = Settings.from_env()
    if network is not None:
        settings = Settings(models={network.stem: registered(network)})
        fields["model"] = network.stem
    context = JobContext(storage=root_storage(), workdir=workdir, settings=settings)
    result = run_function(request_for(source, target, **fields), context)
    return result, probe(target, scan=True)


def registered(network: Path) -> ModelSource:
    return ModelSource(str(network), hashlib.sha256(network.read_bytes()).hexdigest())


def sound_hash(path: Path) -> tuple[int, str]:
    """Return the number of audio packets and a hash of their data."""
    digest, count = hashlib.sha256(), 0
    with av.open(str(path)) as container:
        for packet in container.demux(audio=0):
            if packet.size:
                digest.update(bytes(packet))
                count += 1
    return count, digest.hexdigest()


def times(path: Path) -> list[Fraction]:
    with FrameReader(path, pixel_format="gray8") as reader:
        return [frame.pts_seconds - reader.media.start_seconds for frame in reader]


@pytest.mark.parametrize("name", ["with_sound.mp4", "29_97.mp4", "59_94.mp4", "late_video.mkv", "vfr.mp4"])
def test_upscale_clip_keeps_frame_times_and_audio(name: str, clips: Clips, tmp_path: Path) -> None:
    source, network = clips.get(name), None
    if name != "with_sound.mp4":  # for the times, a network that repeats pixels is enough
        network = tmp_path / "repeating.onnx"
        network.write_bytes(repeating(1).SerializeToString())
    result, output = enlarge(source, tmp_path, network)
    before = probe(source, scan=True)
    assert before.scan
    assert output.scan
    assert result.frames == output.scan.frame_count == before.scan.frame_count
    assert output.size == result.size == (640, 360)
    step = Fraction(1, 500)  # container rounding
    larger = tmp_path / f"large{source.suffix}"
    assert all(abs(a - b) <= step for a, b in zip(times(source), times(larger), strict=True))
    assert result.engine == f"onnxruntime-cpu fp32 {network.stem if network else 'small-x2'}"
    assert [note.code for note in result.degraded] == (["sound_trimmed"] if name == "late_video.mkv" else [])
    assert bool(output.audio) == bool(before.audio)
    if before.audio and source.suffix == ".mp4":
        assert sound_hash(larger) == sound_hash(source)


@pytest.mark.parametrize(("size", "together"), [((96, 64), 4), ((640, 360), 2), ((1920, 1080), 1)])
def test_upscale_small_frames_are_batched(size: tuple[int, int], together: int, clip: Path, tmp_path: Path) -> None:
    media = dataclasses.replace(probe(clip), size=size)
    plan = UpscalePlan.of(request_for(clip, tmp_path / "out.mp4"), media, Settings.from_env())
    assert plan.network is not None
    assert plan.network.at_once == together


def test_upscale_picture_closer_to_original_than_bicubic(tmp_path: Path) -> None:
    with FrameReader(real("bikes.mp4"), pixel_format="yuv420p", end=0.2) as reader:
        originals = [frame.planes[0].copy() for frame in reader]
    source = tmp_path / "small.mkv"
    smaller = FrameReader(real("bikes.mp4"), pixel_format="yuv420p", end=0.2, size=(320, 136))
    small = []
    with smaller, FramePipe(source, size=(320, 136), fps=25, pixel_format="yuv420p", encoder="ffv1") as pipe:
        for frame in smaller:
            small.append(frame.planes[0].copy())
            pipe.write(frame)
    target = tmp_path / "large.mkv"
    request = dataclasses.replace(request_for(source, target), encode=EncodeOptions(encoder="ffv1"))
    run_function(request, JobContext(storage=root_storage(), workdir=tmp_path))
    with FrameReader(target, pixel_format="yuv420p") as reader:
        output = [frame.planes[0].copy() for frame in reader]
    assert len(output) == len(originals) == 5
    for was, less, now in zip(originals, small, output, strict=True):
        cubic = cv2.resize(less, (640, 272), interpolation=cv2.INTER_CUBIC)
        assert squared_error(now, was) < 0.9 * squared_error(cubic, was)


def squared_error(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a.astype(float) - b) ** 2).mean())


@pytest.mark.parametrize("name", ["odd.webm", "turned_90.mp4"])
def test_upscale_odd_size_or_rotated_clip_doubles_display_size(name: str, clips: Clips, tmp_path: Path) -> None:
    source = clips.get(name)
    before = probe(source)
    target = tmp_path / "large.mp4"
    work = tmp_path / "work"
    work.mkdir()
    result = run_function(request_for(source, target), JobContext(storage=root_storage(), workdir=work))
    assert result.size == probe(target).size == (2 * before.size[0], 2 * before.size[1])


def test_upscale_10_bit_clip_stays_10_bit(clips: Clips, tmp_path: Path) -> None:
    result, output = enlarge(clips.get("10bit.mp4"), tmp_path)
    assert (output.bit_depth, output.pixel_format) == (10, "yuv420p10le")
    assert result.degraded == ()
    with FrameReader(tmp_path / "large.mp4", pixel_format="yuv420p10le") as reader:
        levels = np.unique(next(iter(reader)).deep_planes[0] % 4)
    assert len(levels) == 4


def test_upscale_full_range_clip_keeps_range_and_tags(clips: Clips, tmp_path: Path) -> None:
    source = clips.get("full_range.mp4")
    _, output = enlarge(source, tmp_path)
    assert (output.color.range, output.color.matrix) == ("pc", "bt709")

    def mean(path: Path) -> float:
        with FrameReader(path, pixel_format="yuv420p") as reader:
            return float(next(iter(reader)).planes[0].mean())

    assert abs(mean(source) - mean(tmp_path / "large.mp4")) < 1


def test_upscale_untagged_sd_to_hd_keeps_color_matrix(tmp_path: Path) -> None:
    source = made_clip(tmp_path / "sd.mp4", size=(640, 400), seconds=0.08)
    assert probe(source).color.matrix is None
    _, output = enlarge(source, tmp_path)
    assert output.size == (1280, 800)
    assert output.color.matrix == "smpte170m"


@pytest.mark.parametrize("size", [(120, 80), (192, 128), (240, 160)])
def test_upscale_any_output_size_uses_fitting_network(size: tuple[int, int], clip: Path, tmp_path: Path) -> None:
    result, output = enlarge(clip, tmp_path, output_size=list(size))
    assert result.size == output.size == size
    assert result.engine.endswith("small-x4" if size == (240, 160) else "small-x2")


def test_upscale_other_aspect_ratio_displays_undistorted(clip: Path, tmp_path: Path) -> None:
    _, output = enlarge(clip, tmp_path, output_size=[192, 192])
    assert output.size == (192, 192)
    assert output.sample_aspect_ratio == Fraction(3, 2)


def test_upscale_anamorphic_clip_keeps_sample_aspect_ratio(clips: Clips, tmp_path: Path) -> None:
    _, output = enlarge(clips.get("anamorphic.mp4"), tmp_path)
    assert output.sample_aspect_ratio == Fraction(4, 3)


def test_upscale_registered_network_makes_pixels(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(repeating(3).SerializeToString())
    result, output = enlarge(clip, tmp_path, path)
    assert result.engine == "onnxruntime-cpu fp32 mine"
    assert output.size == (192, 128)


class Unread(FolderStorage):
    """A storage that refuses every read."""

    def open(self, key: str, folder: Path) -> NoReturn:  # noqa: ARG002 - the signature of the base class
        pytest.fail(f"{key} is fetched")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"model": "other"}, "model"),
        ({"model": "mine", "model_sha256": "ab" * 32}, "model_sha256"),
    ],
)
def test_upscale_unregistered_network_refused_before_fetch(
    fields: dict[str, str], path: str, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.onnx").write_bytes(repeating(1).SerializeToString())
    settings = Settings(models={"mine": registered(tmp_path / "mine.onnx")})
    context = JobContext(storage=Unread(Path("/")), workdir=tmp_path, settings=settings)
    with pytest.raises(RequestError) as caught:
        run_function(request_for(clip, tmp_path / "large.mp4", **fields), context)
    assert caught.value.path == path


def test_upscale_changed_network_refused_before_fetch(clip: Path, tmp_path: Path) -> None:
    network = tmp_path / "mine.onnx"
    network.write_bytes(repeating(1).SerializeToString())
    settings = Settings(models={"mine": registered(network)})
    network.write_bytes(repeating(1, 3).SerializeToString())
    context = JobContext(storage=Unread(Path("/")), workdir=tmp_path, settings=settings)
    with pytest.raises(InvalidModelError, match="'mine' does not have the sha256"):
        run_function(request_for(clip, tmp_path / "large.mp4", model="mine"), context)


def test_upscale_output_reused_only_for_same_network(clip: Path, tmp_path: Path) -> None:
    store, network = tmp_path / "store", tmp_path / "mine.onnx"
    store.mkdir()
    shutil.copy(clip, store / "clip.mp4")
    reused_from = []
    for scale in (2, 2, 3):
        network.write_bytes(repeating(1, scale).SerializeToString())
        settings = Settings(store_url=store.as_uri(), models={"mine": registered(network)})
        request = request_for(Path("clip.mp4"), Path("large.mp4"), model="mine")
        everyone = StoreOptions(input_scope="global", output_scope="global", existing="reuse")
        request = dataclasses.replace(request, job_id=f"job-{len(reused_from)}", store=everyone)
        result = run_job(all_functions()["apply_upscale"], request.to_dict(), settings=settings, send=lambda _: None)
        reused_from.append(RenderResult.parse(result).reused_from)
    assert reused_from == [None, "job-0", None]


def test_upscale_network_of_other_scale_adds_resize(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "thrice.onnx"
    path.write_bytes(repeating(1, 3).SerializeToString())
    _, output = enlarge(clip, tmp_path, path)
    assert output.size == (192, 128)


def test_upscale_broken_packets_noted_and_frame_count_kept(clips: Clips, tmp_path: Path) -> None:
    result, _ = enlarge(clips.get("broken_packets.mp4"), tmp_path)
    assert result.frames == 50
    (note,) = result.degraded
    assert note.code == "pictures_undecodable"
    assert "packets of the source could not be decoded" in str(note)


@pytest.mark.skipif("cuda" in available_providers(), reason="this ONNX Runtime has CUDA")
class TestWithoutAGpu:
    def test_requested_gpu_missing_raises(self, clip: Path, tmp_path: Path) -> None:
        with pytest.raises(ProviderUnavailableError):
            enlarge(clip, tmp_path, provider="cuda")
        assert not (tmp_path / "large.mp4").exists()

    def test_gpu_in_settings_missing_raises(self, clip: Path, tmp_path: Path) -> None:
        settings = Settings.from_env({"REEL_MODAL_UPSCALE_PROVIDER": "cuda"})
        with pytest.raises(ProviderUnavailableError):
            UpscalePlan.of(request_for(clip, tmp_path / "x.mp4"), probe(clip), settings)

    def test_optional_gpu_missing_falls_back_to_cpu_with_note(self, clip: Path, tmp_path: Path) -> None:
        result, _ = enlarge(clip, tmp_path, provider="cuda", allow_cpu=True)
        assert result.engine == "onnxruntime-cpu fp32 small-x2"
        (note,) = result.degraded
        assert note.code == "gpu_unavailable"
        assert str(note).startswith("the CPU was used instead of the GPU")


def test_upscale_request_unfit_for_clip_refused(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="use a FramingRequest"):
        enlarge(clip, tmp_path, output_size=[96, 62])


def test_upscale_progress_counts_frames_and_ends_complete(clip: Path, tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    context = JobContext(
        storage=root_storage(), workdir=tmp_path, reporter=Reporter(events.append, interval_seconds=0)
    )
    run_function(request_for(clip, tmp_path / "large.mp4"), context)
    render = [event.done for event in events if event.phase == "render"]
    assert render == sorted(render)
    assert (render[0], render[-1], events[-1].phase) == (0, 10, "publish")


def test_upscale_cancelled_leaves_no_file_thread_or_process(clip: Path, tmp_path: Path) -> None:
    token, written = CancellationToken(), iter(range(3))

    def cancel(event: ProgressEvent) -> None:
        # One event at the begin of the phase, then one after each frame that was written.
        if event.phase == "render" and next(written, None) is None:
            token.cancel()

    context = JobContext(
        storage=root_storage(), workdir=tmp_path, reporter=Reporter(cancel, interval_seconds=0), cancellation=token
    )
    with pytest.raises(JobCancelledError):
        run_function(request_for(clip, tmp_path / "large.mp4"), context)
    assert list(tmp_path.iterdir()) == []


def test_upscale_network_failure_mid_clip_fails_job(clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "logarithm.onnx"
    nodes = [node("Sub", ("x", "x"), ("a",)), node("Log", ("a",), ("y",))]
    path.write_bytes(graph(nodes, {}).SerializeToString())
    with pytest.raises(InvalidModelError, match="NaN or infinity"):
        enlarge(clip, tmp_path, path)
    assert not (tmp_path / "large.mp4").exists()


def test_upscale_ffmpeg_killed_ends_every_stage(clip: Path, tmp_path: Path) -> None:
    request = dataclasses.replace(
        request_for(clip, tmp_path / "large.mp4"),
        encode=EncodeOptions(encoder="libx264", preset="fast"),
    )
    plan = UpscalePlan.of(request, probe(clip), Settings.from_env())
    killed, written = set[int](), iter(range(3))

    def kill(event: ProgressEvent) -> None:
        # Retry until a child is visible: if a thread ends during the scan, children are missed.
        if event.phase == "render" and next(written, None) is None and not killed:
            killed.update(ffmpegs())
            for child in killed:
                os.kill(child, signal.SIGKILL)

    context = JobContext(storage=root_storage(), workdir=tmp_path, reporter=Reporter(kill, interval_seconds=0))
    with pytest.raises(FFmpegError):
        apply_upscale.upscale(plan, request, context)
    assert killed
    assert list(tmp_path.iterdir()) == []


class ThreadClock:
    """A clock of each thread, which only `passes` moves: what one stage does takes no time of another."""

    def __init__(self) -> None:
        self._local = threading.local()

    def perf_counter(self) -> float:
        return getattr(self._local, "now", 0.0)

    monotonic = perf_counter

    def passes(self, seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, which takes `seconds` on the clock of its thread."""

        def timed(*arguments: Any, **options: Any) -> Any:
            self._local.now = self.perf_counter() + seconds
            return function(*arguments, **options)

        return timed


def test_upscale_measures_time_of_each_stage(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ThreadClock()
    for module in ("functions.apply_upscale", "_support.prefetch", "_upscaling.session"):
        monkeypatch.setattr(f"reel_modal.{module}.time", clock)
    monkeypatch.setattr(apply_upscale, "_Timed", clock.passes(1, apply_upscale._Timed))
    monkeypatch.setattr(
        apply_upscale.UpscaleRenderer, "finished", clock.passes(100, apply_upscale.UpscaleRenderer.finished)
    )
    monkeypatch.setattr(FramePipe, "write", clock.passes(1000, FramePipe.write))
    notes = clock.passes(10_000, apply_upscale.degradation_notes)
    monkeypatch.setattr(apply_upscale, "degradation_notes", notes)
    request = request_for(clip, tmp_path / "large.mp4")
    plan = UpscalePlan.of(request, probe(clip), Settings.from_env())
    assert plan.network is not None
    session = plan.network.session
    network = Mock(wraps=session._runner)
    network.run.side_effect = clock.passes(10, session._runner.run)
    monkeypatch.setattr(session, "_runner", network)
    made = apply_upscale.upscale(plan, request, JobContext(storage=root_storage(), workdir=tmp_path))
    output, stages = made.file, made.stages
    runs = network.run.call_count
    assert (output.frames, runs > 0) == (10, True)
    assert stages == apply_upscale.StageSeconds(decode=10, infer=10 * runs, encode=11_000, wall=21_000)
