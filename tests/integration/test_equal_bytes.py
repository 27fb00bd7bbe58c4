"""One request makes the same bytes in this process, in a worker and in a container, with any CPUs and ffmpeg."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from tests.clips import Clips, made_clip
from tests.ffmpegs import renamed
from tests.integration.modal_app import Deployed
from tests.jobs import GLOBAL, overlay
from tests.media.framed import crops, speeds
from tests.visible_cpus import VisibleCpus

from reel_modal import FunctionRegistry, Settings
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.functions.catalog import all_functions
from reel_modal.functions.runner import run_job
from reel_modal.schema import (
    EncodeOptions,
    FramingRequest,
    OverlayRequest,
    ReelClip,
    ReelRequest,
    ReelTransition,
    RenderResult,
    UpscaleRequest,
)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes"),
    pytest.mark.timeout(300),
]

Request = OverlayRequest | FramingRequest | UpscaleRequest | ReelRequest

ENCODE = EncodeOptions(encoder="libx264", preset="fast")
KEYS = {"job_id": "here", "user_id": "u", "input_key": "in.mp4", "store": GLOBAL, "encode": ENCODE}


def requests() -> dict[str, Request]:
    """Return a request for each code path that makes frames or audio."""
    highlight = replace(overlay("here", output="out/overlay.mp4"), encode=ENCODE)
    moving = crops((0, 10, 0, 90, 160), (2, 150.5, 0, 90, 160))
    slowed = speeds((Fraction(1, 2), 1, Fraction(1, 2)))
    reel = ReelRequest(
        **{name: value for name, value in KEYS.items() if name != "input_key"},
        output_key="out/reel.mp4",
        clips=(ReelClip(input_key="in.mp4", trim_end_seconds=1), ReelClip(input_key="small.mp4")),
        transitions=(ReelTransition(kind="crossfade", duration_seconds=Fraction(1, 5)),),
    )  # type: ignore[arg-type]
    return {
        "overlay": highlight,
        "smart": replace(
            highlight,
            output_key="out/smart.mp4",
            regions=(replace(highlight.regions[0], end_seconds=Fraction(1, 5)),),
        ),
        "moved": FramingRequest(
            **KEYS,
            output_key="out/moved.mkv",
            crop=moving,
            segments=slowed,
            output_size=(108, 192),  # type: ignore[arg-type]
        ),
        "still": FramingRequest(
            **KEYS,
            output_key="out/still.mp4",
            crop=crops((0, 20, 10, 90, 160)),
            output_size=(180, 320),  # type: ignore[arg-type]
        ),
        "larger": UpscaleRequest(
            **{**KEYS, "input_key": "small.mp4"}, output_key="out/larger.mp4", scale=2, provider="cpu"
        ),  # type: ignore[arg-type]
        "reel": replace(reel, encode=replace(ENCODE, smart=False)),
        # Its first frames are rendered: those of the clip name the threads of its own encoder.
        "copied reel": replace(
            reel,
            output_key="out/copied-reel.mp4",
            clips=(ReelClip(input_key="in.mp4", trim_start_seconds=Fraction(1, 5)), reel.clips[1]),
        ),
    }


FUNCTIONS = {
    "overlay": "render_overlay",
    "smart": "render_overlay",
    "moved": "process_framing",
    "still": "process_framing",
    "larger": "apply_upscale",
    "reel": "assemble_reel",
    "copied reel": "assemble_reel",
}


@pytest.fixture(scope="module")
def store(app_plane: Deployed, clips: Clips) -> Path:
    shutil.copy(clips.get("with_sound.mp4"), app_plane.store / "in.mp4")
    made_clip(app_plane.store / "small.mp4", size=(160, 90), seconds=0.4, audio_seconds=0.4)
    return app_plane.store


@pytest.fixture(scope="module")
def local_digests(store: Path) -> dict[str, str]:
    """Return the digests of the outputs made in this process."""
    digests = {}
    for name, request in requests().items():
        settings = Settings(store_url=store.as_uri())
        run_job(all_functions()[FUNCTIONS[name]], request.to_dict(), settings=settings, send=lambda _: None)
        digests[name] = digest(store / request.output_key)
    return digests


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests_of_jobs(settings: Settings, store: Path, *, job_prefix: str) -> dict[str, str]:
    """Submit every request and return the digests of the outputs."""

    async def submit() -> list[RenderResult]:
        async with FunctionRegistry(settings) as registry:
            jobs = [
                await registry[FUNCTIONS[name]].submit(replace(request, job_id=f"{job_prefix}-{name}"))
                for name, request in requests().items()
            ]
            return [await job.result() for job in jobs]

    for result in asyncio.run(submit()):
        assert result.usage is not None
        assert result.usage.ffmpeg == str(find_ffmpeg(Settings(ffmpeg=None)))
    return {name: digest(store / request.output_key) for name, request in requests().items()}


@pytest.fixture
def other_ffmpeg(tmp_path: Path) -> str:
    """A folder with another build of ffmpeg: Debian's, if it is installed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    installed = shutil.which("ffmpeg")
    if installed is None:
        renamed(folder / "ffmpeg")
    else:
        (folder / "ffmpeg").symlink_to(installed)
    return str(folder)


def test_worker_makes_same_bytes_as_local_process(
    local_digests: dict[str, str],
    store: Path,
    other_ffmpeg: str,
    visible_cpus: VisibleCpus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in visible_cpus.environment(16).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", other_ffmpeg)
    assert digests_of_jobs(Settings(store_url=store.as_uri()), store, job_prefix="worker") == local_digests


@pytest.mark.parametrize(("cpus", "with_other"), [(2, True), (16, False)])
def test_container_makes_same_bytes_as_local_process(
    cpus: int,
    with_other: bool,
    local_digests: dict[str, str],
    app_plane: Deployed,
    store: Path,
    other_ffmpeg: str,
    visible_cpus: VisibleCpus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tests.integration.loopback.fixtures import fresh

    with fresh(app_plane.plane, monkeypatch):
        path = other_ffmpeg if with_other else "/nowhere"
        app_plane.plane.container_environment.update({**visible_cpus.environment(cpus), "PATH": path})
        assert digests_of_jobs(app_plane.settings, store, job_prefix=f"container-{cpus}") == local_digests
