"""`python -m reel_modal.deploy` as a user runs it, with Modal's control plane on this machine."""

from __future__ import annotations

import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.ffmpegs import renamed
from tests.integration.modal_app import Deployed, deploy, image_python
from tests.processes import await_end, command, family
from tests.run_function import SPECS
from tests.watchdog import with_variable

import reel_modal
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.deploy.command import main
from reel_modal.functions.contract import local_contract
from reel_modal.settings import Settings

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes"),
    # Each starts a dozen processes, which takes seconds on an idle machine and minutes on a busy one.
    pytest.mark.timeout(300),
]

APP = "deploys-test"
NAME = ("--app", "deploys", "--environment", "test")
QUICK = (*NAME, "--no-preflight")
L4 = {"REEL_MODAL_RENDER_OVERLAY_GPU": "L4"}
FFMPEG = f"ffmpeg: {find_ffmpeg(Settings(ffmpeg=None))}"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployed, Path]]:
    """A plane without deployments, and a Python with the packages of the image for its containers."""
    from tests.integration.loopback.plane import LoopbackPlane

    folder = tmp_path_factory.mktemp("deploys")
    python = image_python(folder / "python")
    with LoopbackPlane(folder / "plane", container_python=python) as plane:
        plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": folder.as_uri()})
        yield Deployed(plane, folder), python
    assert not plane.processes()


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


class Deploys:
    """The deploy command, its plane, and its environment."""

    def __init__(self, plane_of: Deployed, python: Path, folder: Path) -> None:
        self.plane, self.python, self.folder = plane_of.plane, python, folder
        self.log = folder / "deploy.log"

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "reel_modal.deploy", "--log-file", str(self.log), *arguments]

    def environment(self, **variables: str) -> dict[str, str]:
        return {**os.environ, **self.plane.environment(), **variables}

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(**variables),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding=variables.get("PYTHONIOENCODING", "utf-8"),
            timeout=240,
            check=False,
        )

    def run_in_process(self, *arguments: str, **variables: str) -> Done:
        """Run the command in this process, in which modal is already loaded."""
        from tests.integration.loopback.fixtures import forget_client

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in variables.items():
                patch.setenv(name, value)
            forget_client()
            try:
                status = main(["--log-file", str(self.log), *arguments])
            except SystemExit as exit_error:  # argparse ends a process with it
                status = int(str(exit_error.code))
        return Done(status, out.getvalue(), err.getvalue())

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def scratch(self) -> Path:
        """Return an empty temporary directory."""
        folder = self.folder / f"scratch-{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        return folder

    def publishes(self) -> int:
        """Return how often the app was published in this test."""
        return self.plane.count("AppPublish")

    def gpu(self) -> tuple[str, ...]:
        return self.plane.functions(APP)["render_overlay"].gpus


@pytest.fixture
def deploys(shared: tuple[Deployed, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deploys]:
    """The command, without a deployment of the app."""
    from tests.integration.loopback.fixtures import fresh

    deployed, python = shared
    if deployed.plane.functions(APP):
        deployed.plane.stop_app(APP)
    with fresh(deployed.plane, monkeypatch):
        yield Deploys(deployed, python, tmp_path)


@pytest.fixture
def first(shared: tuple[Deployed, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deploys]:
    """The command, with a first version deployed."""
    from tests.integration.loopback.fixtures import fresh

    deployed, python = shared
    deployed_functions = deployed.plane.functions(APP)
    if set(deployed_functions) != {*SPECS, local_contract({}).name} or deployed_functions["render_overlay"].gpus != (
        "T4",
    ):
        deploy(deployed.plane, REEL_MODAL_APP="deploys")
    with fresh(deployed.plane, monkeypatch):
        yield Deploys(deployed, python, tmp_path)


def test_deploy_runs_trial_publishes_and_verifies(deploys: Deploys) -> None:
    completed = deploys.run(*NAME, "--preflight-python", str(deploys.python), "--tag", "v1")
    assert completed.returncode == 0, completed.stderr
    for name in SPECS:
        assert f"trial: {name} rendered " in completed.stderr
        assert f"Created Function {name}" in completed.stderr
    assert completed.stdout.splitlines() == [f"{APP}: version 1", *(f"{name}: ok" for name in SPECS), FFMPEG]
    assert set(deploys.plane.functions(APP)) == {*SPECS, local_contract({}).name}
    (published,) = [request for rpc, request in deploys.plane.requests if rpc == "AppPublish"]
    assert published.deployment_tag == "v1"


def test_deploy_changed_resources_detected_by_verify(deploys: Deploys) -> None:
    assert deploys.run_in_process(*QUICK).returncode == 0
    assert deploys.run_in_process(*NAME, "--verify-only").returncode == 0
    changed = deploys.run_in_process(*NAME, "--verify-only", **L4)
    assert changed.returncode == 1
    assert changed.stdout.splitlines() == [
        f"{APP}: version 1",
        "render_overlay: gpu: T4 is deployed, L4 is local",
        "process_framing: ok",
        "apply_upscale: ok",
        FFMPEG,
    ]
    again = deploys.run_in_process(*QUICK, "--strategy", "recreate", **L4)
    assert deploys.plane.count("TaskList") > 0
    assert (again.returncode, deploys.gpu()) == (0, ("L4",))
    clean = deploys.run_in_process(*NAME, "--verify-only", "--json", **L4)
    report = json.loads(clean.stdout)
    assert (clean.returncode, report["ok"], report["version"]) == (0, True, 2)


@pytest.mark.parametrize(("encoding", "into_file"), [("cp1252", "stdout"), ("ascii", "stderr")])
def test_deploy_any_output_encoding_succeeds(deploys: Deploys, encoding: str, into_file: str) -> None:
    path = deploys.folder / "screen.txt"
    streams: dict[str, int] = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with path.open("wb") as file:
        completed = subprocess.run(
            deploys.command(*QUICK),
            env=deploys.environment(PYTHONIOENCODING=encoding),
            stdin=subprocess.DEVNULL,
            timeout=240,
            check=False,
            **{**streams, into_file: file.fileno()},  # type: ignore[call-overload]
        )
    shown = "".join(part.decode(encoding) for part in (completed.stdout, completed.stderr, path.read_bytes()) if part)
    assert (completed.returncode, deploys.publishes()) == (0, 1), shown
    assert "render_overlay: ok" in shown
    assert "+ App deployed" in shown
    assert "✓ App deployed" in deploys.log.read_text(encoding="utf-8")


def test_deploy_killed_midway_keeps_previous_version(first: Deploys) -> None:
    first.plane.faults.hang("FunctionCreate")
    process = first.start(*QUICK, **L4)
    first.plane.wait_for(lambda: first.plane.count("FunctionCreate"))
    sender = family(process.pid)
    process.kill()
    process.communicate(timeout=120)
    await_end(sender, 60)
    first.plane.faults.clear()
    assert (first.publishes(), first.gpu()) == (0, ("T4",))
    after = first.run_in_process(*NAME, "--verify-only", **L4)
    assert after.returncode == 1
    assert "render_overlay: gpu: T4 is deployed, L4 is local" in after.stdout


def test_deploy_ctrl_c_exits_130_and_keeps_previous_version(first: Deploys) -> None:
    first.plane.faults.hang("FunctionCreate")
    process = first.start(*QUICK, **L4)
    first.plane.wait_for(lambda: first.plane.count("FunctionCreate"))
    assert process.stderr is not None
    # Its messages are displayed while it runs.
    assert any("deploying deploys-test (test)" in line for line in process.stderr)
    sender = family(process.pid)
    # A terminal sends the signal to the whole process group.
    os.killpg(process.pid, signal.SIGINT)
    _, words = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in words) == (130, False)
    assert "interrupted; use --verify-only" in words
    await_end(sender, 60)
    assert (first.publishes(), first.gpu()) == (0, ("T4",))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=str)
def test_deploy_signal_during_upload_leaves_nothing(first: Deploys, number: int, status: int) -> None:
    first.plane.faults.hang("FunctionCreate")
    scratch = first.scratch()
    process = first.start(*QUICK, **L4, TMPDIR=str(scratch))
    first.plane.wait_for(lambda: first.plane.count("FunctionCreate"))
    sender = family(process.pid)
    os.kill(process.pid, number)
    _, words = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in words) == (status, False), words
    await_end(sender, 60)
    assert list(scratch.iterdir()) == []
    assert (first.publishes(), first.gpu()) == (0, ("T4",))


@pytest.mark.parametrize("step", ["deploy.trial app", ".part.mp4", "-m venv", "-m pip install"])
def test_deploy_signal_during_trial_leaves_nothing(first: Deploys, step: str) -> None:
    scratch, cache = first.scratch(), first.scratch()
    trial = () if "-m " in step else ("--preflight-python", str(first.python))
    process = first.start(*NAME, *trial, **L4, TMPDIR=str(scratch), XDG_CACHE_HOME=str(cache))
    deadline = time.monotonic() + 100
    while not any(step in command(pid) for pid in family(process.pid)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = family(process.pid)
    os.kill(process.pid, signal.SIGTERM)
    _, words = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in words) == (143, False), words
    await_end(children, 60)
    assert with_variable("XDG_CACHE_HOME", str(cache)) == set()
    assert list(scratch.iterdir()) == []
    assert [path for path in cache.rglob("*") if path.is_file()] == []
    assert first.publishes() == 0


def test_deploy_unanswered_times_out_and_names_live_version(first: Deploys) -> None:
    first.plane.faults.hang("AppPublish")
    late = first.run_in_process(*QUICK, "--timeout", "8", **L4)
    assert late.returncode == 1
    assert "the deployment was not finished after 8 s, and was ended" in late.stderr
    assert (
        "a deployment is published by its last request, so the previous version should still be active" in late.stderr
    )
    first.plane.faults.hang("*")
    silent = first.run_in_process(*QUICK, "--timeout", "2")
    assert silent.returncode == 1
    assert "Modal is unreachable: no response within 2 s" in silent.stderr
    assert "next: check the network" in silent.stderr


def test_deploy_brief_outage_is_retried(first: Deploys) -> None:
    from grpclib import Status

    for rpc in ("AppGetOrCreate", "FunctionCreate", "AppPublish"):
        first.plane.faults.fail(rpc, Status.UNAVAILABLE, times=2)
    completed = first.run_in_process(*QUICK, **L4)
    assert completed.returncode == 0, completed.stderr
    assert (first.plane.count("AppPublish"), first.gpu()) == (3, ("L4",))


def test_deploy_removing_function_needs_confirmation(first: Deploys) -> None:
    refused = first.run_in_process(*QUICK, "--only", "render_overlay")
    assert refused.returncode == 2
    assert f"apply_upscale, process_framing would be removed from {APP}" in refused.stderr
    assert "next: add --yes to confirm" in refused.stderr
    assert (
        json.loads(first.run_in_process(*QUICK, "--only", "render_overlay", "--json").stdout)["error"]["kind"]
        == "unconfirmed"
    )
    assert first.publishes() == 0
    assert first.run_in_process(*QUICK, "--only", "render_overlay", "--yes").returncode == 0
    missing = first.run_in_process(*NAME, "--verify-only")
    assert missing.returncode == 1
    assert "render_overlay: ok\nprocess_framing: is not deployed\n" in missing.stdout
    assert first.run_in_process(*NAME, "--verify-only", "--only", "render_overlay").returncode == 0
    first.plane.stop_app(APP)
    nothing = first.run_in_process(*NAME, "--verify-only", "--json")
    report = json.loads(nothing.stdout)
    assert (nothing.returncode, report["ok"], report["version"]) == (1, False, None)
    assert report["functions"]["render_overlay"] == {"ok": False, "deployed": False, "differences": []}


def test_deploy_missing_setup_found_before_upload(deploys: Deploys) -> None:
    wrong = deploys.run_in_process(*QUICK, MODAL_TOKEN_SECRET="as-wrong-secret")  # noqa: S106
    assert (wrong.returncode, "next: set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET" in wrong.stderr) == (3, True)
    none = deploys.run(*QUICK, "--json", MODAL_TOKEN_ID="", MODAL_TOKEN_SECRET="")
    assert (none.returncode, json.loads(none.stdout)["error"]["kind"]) == (3, "auth")
    absent = deploys.run_in_process(*QUICK, REEL_MODAL_SECRETS="reel-modal-storage,my-bucket")
    assert (absent.returncode, "secret my-bucket not found on Modal" in absent.stderr) == (3, True)
    assert "modal secret create" in absent.stderr
    deploys.plane.create_secret("other", {"ANOTHER_KEY": "x"})
    keyless = deploys.run_in_process(*QUICK, REEL_MODAL_SECRETS="other")
    assert "none of the secrets other has the key REEL_MODAL_STORE_URL" in keyless.stderr
    nowhere = deploys.run_in_process(*QUICK, MODAL_ENVIRONMENT="nowhere")
    assert (nowhere.returncode, "environment 'nowhere' not found on Modal" in nowhere.stderr) == (3, True)
    assert deploys.plane.count("FunctionPrecreate") == 0
    assert not any("Traceback" in each.stderr for each in (wrong, none, absent, keyless, nowhere))


def test_deploy_secret_not_in_output_log_or_error(deploys: Deploys) -> None:
    planted = {"AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+planted", "STORE_PASSWORD": "correct horse battery"}
    token = deploys.plane.environment()
    words = [*planted.values(), token["MODAL_TOKEN_ID"], token["MODAL_TOKEN_SECRET"], "ak-Zz09Zz09Zz09"]
    echoed = tuple(f"+ export X={word} https://user:{word}@bucket\n" for word in words)
    deploys.plane.faults.fail_image_build(f"exit status 1 with {words[0]}", log=(*echoed, "ERROR: no such package\n"))
    failed = deploys.run(*QUICK, **planted)
    log = deploys.log.read_text(encoding="utf-8")
    assert failed.returncode == 1
    assert "last lines of the build:" in failed.stderr
    assert "ERROR: no such package" in failed.stderr
    assert "next: nothing was published" in failed.stderr
    for word in words:
        assert all(word not in shown for shown in (failed.stdout, failed.stderr, log)), word
    assert "[hidden]" in log
    machine = deploys.run_in_process(*QUICK, "--json", **planted)
    assert json.loads(machine.stdout)["error"]["kind"] == "image"
    assert not any(word in machine.stdout + machine.stderr for word in words)
    assert deploys.plane.functions(APP) == {}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the package that a test may damage."""
    package = Path(reel_modal.__file__).parent
    copy = tmp_path / "source" / "reel_modal"
    shutil.copytree(package, copy)  # with its bytecode, which stays valid for the files that a test does not change
    return copy


def test_deploy_trial_finds_error_before_gpu_container(deploys: Deploys, source: Path) -> None:
    python = ("--preflight-python", str(deploys.python))
    body = source / "functions" / "render_overlay.py"
    whole = body.read_text()
    body.write_text(whole.replace("media = probe(source", "media = probbe(source"))
    misspelt = deploys.run(*NAME, *python, PYTHONPATH=str(source.parent))
    assert misspelt.returncode == 1
    assert "render_overlay fails with only the packages of the image" in misspelt.stderr
    assert "NameError: name 'probbe' is not defined" in misspelt.stderr
    body.write_text(f"import uvicorn\n{whole.replace('from __future__ import annotations', '')}")
    missing = deploys.run(*NAME, *python, "--only", "render_overlay", PYTHONPATH=str(source.parent))
    assert missing.returncode == 1
    assert "No module named 'uvicorn'" in missing.stderr
    assert "next: nothing was published, the previous version is still active" in missing.stderr
    assert deploys.plane.count("FunctionPrecreate") == 0


def test_rollback_restores_contract_too(first: Deploys) -> None:
    assert first.run_in_process(*QUICK, **L4).returncode == 0
    command = [sys.executable, "-m", "modal", "app", "rollback", APP]
    subprocess.run(command, env=first.environment(), capture_output=True, timeout=120, check=True)
    assert first.gpu() == ("T4",)
    newer = first.run_in_process(*NAME, "--verify-only", **L4)
    assert (newer.returncode, "render_overlay: gpu: T4 is deployed, L4 is local" in newer.stdout) == (1, True)
    assert first.run_in_process(*NAME, "--verify-only").returncode == 0


def test_verify_deployment_without_contract_fails(deploys: Deploys, source: Path) -> None:
    app = source / "functions" / "app.py"
    app.write_text(app.read_text().replace("    _register_contract(contract, options)\n", ""))
    deploy(deploys.plane, REEL_MODAL_APP="deploys", PYTHONPATH=str(source.parent))
    assert set(deploys.plane.functions(APP)) == set(SPECS)
    verified = deploys.run_in_process(*NAME, "--verify-only")
    local_name = local_contract({}).name
    assert verified.returncode == 1
    assert verified.stdout.splitlines()[1:] == [
        f"{name}: contract: none is deployed, {local_name} is local" for name in SPECS
    ]


def test_deploy_subcommand_equals_deploy_module(deploys: Deploys) -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "reel_modal", "deploy", *NAME, "--verify-only", "--log-file", str(deploys.log)],
        env=deploys.environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (completed.returncode, completed.stdout.splitlines()[0]) == (1, f"{APP}: nothing is deployed")


def test_verify_other_source_deployed_is_reported(deploys: Deploys, source: Path) -> None:
    with (source / "media.py").open("a") as file:
        file.write("# changed\n")
    assert deploys.run(*QUICK, PYTHONPATH=str(source.parent)).returncode == 0
    other, local_source = local_contract({}, package=source).source, local_contract({}).source
    verified = deploys.run_in_process(*NAME, "--verify-only")
    assert verified.returncode == 1
    lines = [f"{name}: source: {other} is deployed, {local_source} is local" for name in SPECS]
    assert verified.stdout.splitlines()[1:] == [*lines, FFMPEG]


def test_verify_other_ffmpeg_in_containers_is_reported(deploys: Deploys, source: Path, tmp_path: Path) -> None:
    container = source / "functions" / "container.py"
    other = renamed(tmp_path / "ffmpeg")
    code = container.read_text()
    assert "find_ffmpeg()" in code
    container.write_text(code.replace("find_ffmpeg()", f"find_ffmpeg(Settings(ffmpeg={other!r}))"))
    # This is the verification that follows the publishing.
    deployed = deploys.run(*QUICK, PYTHONPATH=str(source.parent))
    assert (deployed.returncode, deploys.publishes()) == (1, 1)
    lines = [f"{name}: ffmpeg: 5.1.9 from settings is deployed, 9.0.2 from imageio-ffmpeg is local" for name in SPECS]
    assert deployed.stdout.splitlines()[1:-1] == lines
    assert deployed.stdout.splitlines()[-1].startswith("ffmpeg: 5.1.9-0+deb12u1 (build ")


def test_verify_unresponsive_containers_fails(first: Deploys) -> None:
    first.plane.faults.hang("FunctionMap")
    silent = first.run_in_process(*NAME, "--verify-only", "--timeout", "8")
    assert silent.returncode == 1
    assert "the running container could not be checked" in silent.stdout


def test_dry_run_prints_table_and_changes_nothing(first: Deploys) -> None:
    table = first.run_in_process(*NAME, "--dry-run", REEL_MODAL_SECRETS="none", **L4)
    assert table.returncode == 0, table.stderr
    lines = [[cell.strip() for cell in line.split("|")] for line in table.stdout.splitlines()]
    rows = {cells[0]: cells[1:] for cells in lines if len(cells) > 1}
    assert rows["render_overlay"][:5] == ["L4", "4", "4096 MiB", "600 s", "0"]
    assert f"image {rows['render_overlay'][5]}: Python 3.11, ffmpeg, av==" in table.stdout
    assert (rows["render_overlay"][6:], rows["process_framing"][0]) == (["none", "1.02"], "none")
    assert "render_overlay: gpu: T4 becomes L4" in table.stdout
    assert "process_framing: secrets: reel-modal-storage becomes none" in table.stdout
    report = json.loads(first.run_in_process(*NAME, "--dry-run", "--json").stdout)
    assert (report["version"] >= 1, report["functions"][0]["changes"]) == (True, [])
    blind = first.run(*NAME, "--dry-run", MODAL_TOKEN_ID="", MODAL_TOKEN_SECRET="")
    assert (blind.returncode, "the deployed version is unknown" in blind.stdout) == (3, True)
    assert first.publishes() == 0


def test_production_deploy_needs_confirmation_or_yes_option(deploys: Deploys) -> None:
    production = ("--app", "deploys", "--environment", "production", "--no-preflight")
    off = deploys.run_in_process(*production)
    assert (off.returncode, "deploys is in production" in off.stderr) == (2, True)
    assert [ask_on_a_terminal(deploys, production, answer) for answer in (b"\n", b"y\n")] == [1, 0]
    assert deploys.publishes() == 1
    deploys.plane.stop_app("deploys")


def ask_on_a_terminal(deploys: Deploys, arguments: tuple[str, ...], answer: bytes) -> int:
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        deploys.command(*arguments), env=deploys.environment(), stdin=terminal, stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    terminal_output = b""
    while chunk := read_terminal(screen):
        terminal_output += chunk
        if terminal_output.endswith(b"Deploy? [y/N]\r\n"):
            os.write(screen, answer)
    os.close(screen)
    return process.wait(timeout=120)


def read_terminal(screen: int) -> bytes:
    try:
        return os.read(screen, 65536)
    except OSError:  # on Linux this means that the other end of the terminal is closed
        return b""


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--only", "dance"), 2, "--only: unknown: dance"),
        (("--tag", "not a tag"), 2, "use letters, digits"),
        (("--timeout", "-1"), 2, "invalid"),
        (("--environment", "moon"), 3, "use one of production, staging, development, test"),
        (("--log-file", "/proc/nowhere/deploy.log"), 3, "cannot be written"),
    ],
)
def test_deploy_invalid_arguments_refused_immediately(
    deploys: Deploys, arguments: tuple[str, ...], status: int, words: str
) -> None:
    completed = deploys.run_in_process(*arguments, "--dry-run")
    assert (completed.returncode, words in completed.stderr) == (status, True)
    assert deploys.plane.requests == []
