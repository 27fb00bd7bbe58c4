"""Every function in its real image, started by Modal's entrypoint: `make test-image`.

The images were built before; this file runs in a network that has only the loopback interface.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import pytest
from tests.clips import Clips, made_clip
from tests.image.build import CACHE, Built, budget_mb, built_images
from tests.image.checks import unpinned_packages, wrong_encoder_threads
from tests.image.conftest import NAMESERVER, NameServer
from tests.image.gvisor import NAME as GVISOR
from tests.image.gvisor import delete_all
from tests.image.root import BuildError, build
from tests.image.sandbox import PYTHON, Sandbox, take_peak_mb
from tests.integration.loopback.fixtures import fresh
from tests.integration.loopback.plane import LoopbackPlane
from tests.integration.modal_app import deploy
from tests.integration.test_equal_bytes import FUNCTIONS, digest, requests
from tests.jobs import GLOBAL, overlay
from tests.media.framed import crops
from tests.run_function import DEPLOYED
from tests.visible_cpus import VisibleCpus
from tests.watchdog import MARK

from reel_modal import FunctionRegistry, Settings
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.backends.modal import ModalBackend
from reel_modal.backends.modal.deployment import verify_deployment
from reel_modal.functions.contract import local_contract
from reel_modal.schema import EncodeOptions, FramingRequest, RenderResult, UpscaleRequest
from reel_modal.schema.options import ENCODER_THREADS

pytestmark = pytest.mark.timeout(600)

LIMIT_MB = 2048
IMPORT_CPU_SECONDS = 1.0
CONTRACT_MEMORY_MB = 512
APP = "reel-modal-test"
CPUS = (64, 2)
RUNTIME = os.environ.get("IMAGE_RUNTIME", "bubblewrap")


@pytest.fixture(scope="session")
def built(nameserver: NameServer) -> Built:
    return built_images()


@dataclass(frozen=True)
class Local:
    """The store of the local backend, and the digests of the outputs that it made there."""

    store: Path
    digests: dict[str, str]


@pytest.fixture(scope="session")
def local(nameserver: NameServer, clips: Clips, tmp_path_factory: pytest.TempPathFactory) -> Local:
    store = tmp_path_factory.mktemp("local")
    shutil.copy(clips.get("with_sound.mp4"), store / "in.mp4")
    made_clip(store / "small.mp4", size=(160, 90), seconds=0.4, audio_seconds=0.4)
    made_clip(store / "long.mp4", size=(160, 90), fps=5, seconds=40, audio_seconds=40)
    return Local(store, asyncio.run(outputs_of(Settings(store_url=store.as_uri()), store, modal=False)))


@dataclass(frozen=True)
class Place:
    """A plane whose containers run in the images, with the store and the cgroups of the containers."""

    plane: LoopbackPlane
    store: Path
    sandbox: Sandbox
    records: Path

    def settings(self) -> Settings:
        return Settings.from_env({}, modal_enabled=True, environment="test", store_url=self.store.as_uri())

    def peaks_mb(self) -> dict[str, float]:
        """Return the largest memory of the ended containers of each function."""
        peaks: dict[str, float] = {}
        for record in self.records.iterdir():
            function = record.read_text()
            peaks[function] = max(peaks.get(function, 0.0), take_peak_mb(record.name))
            record.unlink()
        return peaks


@pytest.fixture(scope="session", params=CPUS, ids=lambda cpus: f"{cpus}-cpus")
def place(request: pytest.FixtureRequest, built: Built, local: Local, visible_cpus: VisibleCpus) -> Iterator[Place]:
    with TemporaryDirectory(prefix="reel-modal-image-", dir="/var/tmp") as name:  # other users can enter it
        folder = Path(name)
        folder.chmod(0o755)
        store, records = folder / "store", folder / "records"
        store.mkdir()
        records.mkdir()
        for path in local.store.glob("*.mp4"):
            shutil.copy2(path, store)  # with its time, which is part of the receipt in each output
        subprocess.run(["chown", "-R", "65534:65534", store], check=True)
        library = shutil.copy(visible_cpus.environment(1)["LD_PRELOAD"], folder)
        sandbox = Sandbox(
            roots={name: str(root.folder) for name, root in built.roots.items()},
            environments={name: root.environment for name, root in built.roots.items()},
            modal=str(built.modal),
            dependencies=str(built.dependencies),
            store=str(store),
            cpus_library=str(library),
            cpus=request.param,
            memory_mb=LIMIT_MB,
            nameserver=NAMESERVER,
            records=str(records),
            mark={MARK: os.environ[MARK]} if MARK in os.environ else {},
            runtime=RUNTIME,
        )
        with LoopbackPlane(folder / "plane", container_python=sandbox.write(folder)) as plane:
            plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": "file:///store"})
            deploy(plane)
            yield Place(plane, store, sandbox, records)
        delete_all(sandbox.state)
        assert not plane.processes()


def long_requests() -> dict[str, tuple[str, object]]:
    """Return a request for each function whose output is rendered in segments, by two containers at once."""
    keys = {"job_id": "long", "user_id": "u", "input_key": "long.mp4", "store": GLOBAL}
    encode = EncodeOptions(encoder="libx264", preset="ultrafast", smart=False)
    return {
        "long-overlay": ("render_overlay", replace(overlay("long", source="long.mp4"), encode=encode)),
        "long-framing": (
            "process_framing",
            FramingRequest(
                **keys,
                output_key="out/long-framing.mp4",
                crop=crops((0, 10.5, 0, 50, 88)),
                output_size=(50, 88),
                encode=encode,
            ),  # type: ignore[arg-type]
        ),
        "long-upscale": (
            "apply_upscale",
            UpscaleRequest(**keys, output_key="out/long-upscale.mp4", scale=2, provider="cpu", encode=encode),  # type: ignore[arg-type]
        ),
    }


async def outputs_of(settings: Settings, store: Path, *, modal: bool) -> dict[str, str]:
    """Run every request, one after another, and return the digests of the outputs."""
    digests: dict[str, str] = {}
    async with FunctionRegistry(settings) as registry:
        for name, request in requests().items():
            await registry[FUNCTIONS[name]](replace(request, job_id=f"{name}-{modal}"))
            digests[name] = digest(store / request.output_key)
        for name, (function, request) in long_requests().items():
            if modal:
                backend = ModalBackend(APP)
                call = await backend.submit(function, (request.to_dict(),), {}, workers=2)  # type: ignore[attr-defined]
                while (outcome := await backend.wait(call, 60)) is None:
                    pass
                RenderResult.parse(outcome.value)  # type: ignore[arg-type]
            else:
                await registry[function](request)
            digests[name] = digest(store / request.output_key)  # type: ignore[attr-defined]
    return digests


def test_functions_in_their_images(
    place: Place,
    local: Local,
    nameserver: NameServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nameserver.names.clear()
    with fresh(place.plane, monkeypatch):
        made = asyncio.run(outputs_of(place.settings(), place.store, modal=True))
        verified = asyncio.run(verify_deployment(ModalBackend(APP), local_contract({}), DEPLOYED, ask_container=True))
        place.plane.end_containers()
    assert made == local.digests
    assert verified.ok, str(verified)
    assert verified.ffmpeg == str(find_ffmpeg(Settings(ffmpeg=None)))
    assert nameserver.names == [], "a container looked up names"
    outputs = [path for path in (place.store / "out").iterdir() if path.suffix in {".mp4", ".mkv"}]
    assert len(outputs) == len(made)
    assert [problem for path in outputs for problem in wrong_encoder_threads(path, ENCODER_THREADS)] == []
    peaks = place.peaks_mb()
    with capsys.disabled():
        rows = (f"{name:28} {peak:5.0f} of {allowed_mb(name):5.0f} MB" for name, peak in sorted(peaks.items()))
        print(f"\nlargest memory, {place.sandbox.cpus} CPUs visible:", *rows, sep="\n  ")
    assert peaks.keys() == {*DEPLOYED, "contract"}, "not every function ran"
    assert [name for name, peak in peaks.items() if peak > allowed_mb(name)] == []


def allowed_mb(function: str) -> float:
    """Return half of the reserved memory of a function on Modal."""
    return (DEPLOYED[function].memory_mb if function in DEPLOYED else CONTRACT_MEMORY_MB) / 2


@dataclass(frozen=True)
class Finished:
    """A command that ended in an image, and its CPU seconds."""

    returncode: int
    stdout: str
    stderr: str


def run_in_image(place: Place, function: str, code: str, own: Mapping[str, str] = MappingProxyType({})) -> Finished:
    """Run Python code in the image of a function, with the sources that the deployment sends, and `own` variables."""
    mounts = place.plane.folder / "mounts"
    source = next(path for path in mounts.glob("*/root") if (path / "reel_modal").is_dir())
    with TemporaryDirectory(dir=place.records.parent) as name:
        temporary = Path(name, "tmp")
        temporary.mkdir()
        temporary.chmod(0o1777)
        variables = {"REEL_MODAL_CONTRACT": local_contract({}).to_json(), "MODAL_IS_REMOTE": "1", **own}
        command = place.sandbox.command(
            function, [PYTHON, "-c", code], temporary=temporary, source=source, arguments=None, variables=variables
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return Finished(done.returncode, done.stdout, done.stderr)


_IMPORTS = """
import time, modal._container_entrypoint, reel_modal.functions.app, reel_modal.functions.container
print(time.process_time())
"""


@pytest.mark.skipif(RUNTIME == GVISOR, reason="ptrace makes each system call slow, unlike the platform of Modal")
def test_imports_before_the_first_job_are_fast(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    # The CPU time, since other work on this machine makes the time by the clock longer; the lowest of ten at most, since
    # it makes that longer too, if it shares a core.
    deployed = place.plane.functions(APP)["process_framing"].variables
    threads = {"OPENBLAS_NUM_THREADS": deployed["OPENBLAS_NUM_THREADS"]}
    seconds = inf
    for _ in range(10):
        done = run_in_image(place, "process_framing", _IMPORTS, threads)
        assert done.returncode == 0, done.stderr
        seconds = min(seconds, float(done.stdout))
        if seconds < IMPORT_CPU_SECONDS:
            break
    with capsys.disabled():
        print(f"\nimports: {seconds:.2f} CPU s", end="")
    assert seconds < IMPORT_CPU_SECONDS


@pytest.mark.parametrize(
    "path", ["/usr/lib/written", "/root/written", "/written", "/etc/written", "/dev/shm/../written"]
)
def test_write_outside_of_tmp_fails(place: Place, path: str) -> None:
    done = run_in_image(place, "process_framing", f"open({path!r}, 'w')")
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr or "Permission denied" in done.stderr
    assert (
        run_in_image(place, "process_framing", "open('/tmp/written', 'w'); open('/store/written', 'w')").returncode
        == 0
    )


def test_container_has_no_rights_and_no_network(place: Place, nameserver: NameServer) -> None:
    code = "import os, socket; print(os.getuid(), os.cpu_count(), [name for _, name in socket.if_nameindex()])"
    done = run_in_image(place, "process_framing", code)
    assert done.stdout.strip() == f"65534 {place.sandbox.cpus} ['lo']", done.stderr


def test_look_up_of_a_name_is_recorded(place: Place, nameserver: NameServer) -> None:
    code = "import socket; socket.getaddrinfo('telemetry.example', 443)"
    assert run_in_image(place, "process_framing", code).returncode == 1
    assert "telemetry.example" in nameserver.names


def test_images_are_within_their_budgets(built: Built) -> None:
    sizes = {name: (root.megabytes, budget_mb(built.definitions[name])) for name, root in built.roots.items()}
    assert {name: size for name, size in sizes.items() if size[0] > size[1]} == {}


def test_images_have_no_unpinned_package(built: Built) -> None:
    assert {name: found for name, image in built.definitions.items() if (found := unpinned_packages(image))} == {}


def test_broken_line_fails_the_build(built: Built) -> None:
    image = built.definitions["process_framing"]
    with pytest.raises(BuildError, match=r"exit status 127: RUN no-such-command\n(.|\n)*not found"):
        build([*image.lines[:3], "RUN no-such-command"], image.files, CACHE)


def test_memory_is_limited(tmp_path: Path) -> None:
    name = f"reel-modal-test-{os.getpid()}"
    code = "import sys; from tests.image.sandbox import join_memory_cgroup as join; join(sys.argv[1], 64); b'x' * (200 << 20)"
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert 60 < take_peak_mb(name) <= 64
