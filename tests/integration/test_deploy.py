"""`python -m reel_modal.deploy` as a user runs it, with Modal's control plane on this machine."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.ffmpegs import renamed
from tests.integration.deploy_command import APP, L4, NAME, QUICK, Deploys, deploys, first, shared
from tests.integration.modal_app import deploy
from tests.run_function import DEPLOYED, SPECS

import reel_modal
from reel_modal._ffmpeg.binary import find_ffmpeg
from reel_modal.functions.contract import local_contract
from reel_modal.settings import Settings

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes"),
    # Each starts a dozen processes, which takes seconds on an idle machine and minutes on a busy one.
    pytest.mark.timeout(300),
]

__all__ = ["deploys", "first", "shared"]

FFMPEG = f"ffmpeg: {find_ffmpeg(Settings(ffmpeg=None))}"


def test_deploy_runs_trial_publishes_and_verifies(deploys: Deploys) -> None:
    completed = deploys.run(*NAME, "--preflight-python", str(deploys.python), "--tag", "v1")
    assert completed.returncode == 0, completed.stderr
    for name in SPECS:
        assert f"trial: {name} rendered " in completed.stderr
    assert all(f"Created Function {name}" in completed.stderr for name in DEPLOYED)
    assert completed.stdout.splitlines() == [f"{APP}: version 1", *(f"{name}: ok" for name in DEPLOYED), FFMPEG]
    assert set(deploys.plane.functions(APP)) == {*DEPLOYED, local_contract({}).name}
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
        *(f"{name}: ok" for name in DEPLOYED if name != "render_overlay"),
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


def test_deploy_removing_function_needs_confirmation(first: Deploys) -> None:
    refused = first.run_in_process(*QUICK, "--only", "render_overlay")
    assert refused.returncode == 2
    removed = sorted(name for name in DEPLOYED if not name.startswith("render_overlay"))
    assert f"{', '.join(removed)} would be removed from {APP}" in refused.stderr
    assert "next: add --yes to confirm" in refused.stderr
    assert (
        json.loads(first.run_in_process(*QUICK, "--only", "render_overlay", "--json").stdout)["error"]["kind"]
        == "unconfirmed"
    )
    assert first.publishes() == 0
    assert first.run_in_process(*QUICK, "--only", "render_overlay", "--yes").returncode == 0
    missing = first.run_in_process(*NAME, "--verify-only")
    assert missing.returncode == 1
    assert "render_overlay: ok\n" in missing.stdout
    assert all(f"{name}: is not deployed\n" in missing.stdout for name in removed)
    assert first.run_in_process(*NAME, "--verify-only", "--only", "render_overlay").returncode == 0
    first.plane.stop_app(APP)
    nothing = first.run_in_process(*NAME, "--verify-only", "--json")
    report = json.loads(nothing.stdout)
    assert (nothing.returncode, report["ok"], report["version"]) == (1, False, None)
    assert report["functions"]["render_overlay"] == {"ok": False, "deployed": False, "differences": []}


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
    assert set(deploys.plane.functions(APP)) == set(DEPLOYED)
    verified = deploys.run_in_process(*NAME, "--verify-only")
    local_name = local_contract({}).name
    assert verified.returncode == 1
    assert verified.stdout.splitlines()[1:] == [
        f"{name}: contract: none is deployed, {local_name} is local" for name in DEPLOYED
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
    lines = [f"{name}: source: {other} is deployed, {local_source} is local" for name in DEPLOYED]
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
    lines = [
        f"{name}: ffmpeg: 5.1.9 from settings is deployed, 9.0.2 from imageio-ffmpeg is local" for name in DEPLOYED
    ]
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
    assert f"image {rows['render_overlay'][5]}: python:3.11.14-slim-trixie, ffmpeg, av==" in table.stdout
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


def test_deploy_sets_tags_of_app(deploys: Deploys) -> None:
    assert deploys.run_in_process(*QUICK, REEL_MODAL_TAGS="team=video, tenant=acme").returncode == 0
    assert deploys.plane.app_tags(APP) == {"team": "video", "tenant": "acme"}
    refused = deploys.run_in_process(*QUICK, REEL_MODAL_TAGS="tenant")
    assert refused.returncode == 3
    assert "REEL_MODAL_TAGS='tenant': 'tenant' is not NAME=VALUE" in refused.stderr
    assert deploys.run_in_process(*QUICK).returncode == 0
    assert deploys.plane.app_tags(APP) == {}
