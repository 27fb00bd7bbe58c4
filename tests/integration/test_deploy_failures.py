"""Deployments that fail or are interrupted: the cause is named, the previous version stays, nothing remains."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest
from tests.integration.deploy_command import APP, L4, NAME, QUICK, Deploys, deploys, first, shared
from tests.processes import await_end, command, family
from tests.watchdog import with_variable

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes"),
    # Each starts a dozen processes, which takes seconds on an idle machine and minutes on a busy one.
    pytest.mark.timeout(300),
]

__all__ = ["deploys", "first", "shared"]


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
