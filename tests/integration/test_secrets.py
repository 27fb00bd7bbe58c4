"""Planted secrets appear in no repr, error, log, event, receipt, record or output of a command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.clips import Clips
from tests.integration.modal_app import Deployed
from tests.object_store import ACCESS_KEY, SECRET_KEY, ObjectStore

from reel_modal import FunctionRegistry, Settings, Storage
from reel_modal.errors import ConfigError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

PLANTED = "wJalrXUtnFEMI/K7MDENG+planted"
"""It looks like a secret key of AWS, slash and all."""

HOST = """
import asyncio, logging, pickle, sys, traceback
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from dataclasses import replace
from reel_modal import FunctionRegistry, JobOptions, Settings, StoreOptions
from tests.jobs import overlay

async def render(registry, request):
    print(registry, registry["render_overlay"], registry.settings, registry.backend, JobOptions())
    job = await registry["render_overlay"].submit(request)
    print(job, await job.status())
    async for update in job.progress():
        print(update)
    print([event async for event in job.events()])
    result = await job.result()
    print(result, result.to_dict(), pickle.dumps(replace(result, sign_url=None)))

async def main():
    for enabled in (True, False):
        try:
            async with FunctionRegistry(Settings.from_env(modal_enabled=enabled, environment="test")) as registry:
                request = replace(overlay(f"job-{enabled}"), store=StoreOptions())
                await render(registry, request)
        except Exception as error:
            print(repr(error), vars(error), getattr(error, "user_message", ""))
            traceback.print_exc()

asyncio.run(main())
"""

STORES = """
import os
from reel_modal.cli import main as command
for url in sys.argv[1:]:
    os.environ["REEL_MODAL_STORE_URL"] = url
    print("store", sys.argv.index(url))
    asyncio.run(main())
    command(["doctor", "--json"])
"""
"""After `HOST`: the same with one store after the other, and each in the doctor."""


def run_python(*arguments: str, cwd: Path, **variables: str) -> str:
    """Run Python with the import path of the tests, and return its stdout and stderr."""
    path = os.pathsep.join([*sys.path, str(Path(__file__).parents[2])])
    completed = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": path, "MODAL_LOGLEVEL": "DEBUG", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=cwd,
    )
    return completed.stdout + completed.stderr


def test_host_at_debug_shows_no_secret(app: Deployed, s3: ObjectStore, clips: Clips, tmp_path: Path) -> None:
    secret = app.plane.environment()["MODAL_TOKEN_SECRET"]
    url = s3.url("secrets")
    storage = Storage.from_url(url)
    (tmp_path / "in.mp4").write_bytes(clips.get("25.mp4").read_bytes())
    storage.publish(tmp_path / "in.mp4", "users/user/in.mp4")
    app.plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": url, **s3.environment})
    app.plane.end_containers()
    try:
        printed = run_python("-c", HOST, cwd=tmp_path, REEL_MODAL_STORE_URL=url)
    finally:
        app.plane.create_secret("reel-modal-storage", {"REEL_MODAL_STORE_URL": app.store.as_uri()})
        app.plane.end_containers()
    assert printed.count("'status': 'success'") == 2, printed[-3000:]
    assert "DEBUG:" in printed
    stored = [storage.read_bytes(f"users/user/out/{name}") for name in ("job-True.mp4", "job-False.mp4")]
    stored += [path.read_bytes() for path in app.plane.folder.rglob("std*")]
    receipts = s3.files_in("secrets/users/user/out/receipts")
    assert len(receipts) == 2
    stored += [storage.read_bytes(path.partition("/secrets/")[2]) for path in receipts]
    for planted in (secret, SECRET_KEY):
        assert planted not in printed
        assert not any(planted.encode() in data for data in stored)


@pytest.mark.parametrize(("module", "logged"), [("modal", True), ("reel_modal.functions.app", False)])
def test_container_at_debug_logs_no_header(module: str, logged: bool, tmp_path: Path) -> None:
    """The first case shows that the library of modal would log the token."""
    send = f"hpack.Encoder().encode([('x-modal-token-secret', {PLANTED!r})])"
    setup = "import logging; logging.basicConfig(level=logging.DEBUG)"
    output = run_python("-c", f"{setup}\nimport hpack, {module}\n{send}\nprint('sent')", cwd=tmp_path)
    assert "sent" in output
    assert (PLANTED in output) is logged


def check_hidden(printed: str) -> None:
    assert PLANTED not in printed
    # Nor a part of it, cut at its slash.
    assert "wJalrXUtnFEMI" not in printed


@pytest.mark.parametrize(
    "variables",
    [
        {"MODAL_TOKEN_SECRET": PLANTED},
        {"AWS_SECRET_ACCESS_KEY": PLANTED, "AWS_ACCESS_KEY_ID": ACCESS_KEY},
        {"AWS_SESSION_TOKEN": PLANTED},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_errors_of_host_and_commands_show_no_secret(
    app: Deployed, s3: ObjectStore, tmp_path: Path, variables: dict[str, str]
) -> None:
    variables_of_host = {"REEL_MODAL_STORE_URL": s3.url("errors"), **variables}
    printed = run_python("-c", HOST, cwd=tmp_path, **variables_of_host)
    assert "Error" in printed
    printed += run_python("-m", "reel_modal", "doctor", "--json", cwd=tmp_path, **variables_of_host)
    if "MODAL_TOKEN_SECRET" in variables:
        printed += run_python("-m", "reel_modal", "rates", "--refresh", cwd=tmp_path, **variables_of_host)
        deploy = ("--environment", "test", "--no-preflight", "--log-file", str(tmp_path / "log"), "--timeout", "20")
        printed += run_python(
            "-m", "reel_modal.deploy", *deploy, "--dry-run", "--json", cwd=tmp_path, **variables_of_host
        )
        printed += (tmp_path / "log").read_text()
    check_hidden(printed)


def test_errors_of_host_and_doctor_show_no_secret_in_url(app: Deployed, tmp_path: Path) -> None:
    urls = (
        f"s3://{ACCESS_KEY}:{PLANTED}@bucket/prefix",
        f"s3://{ACCESS_KEY}:{PLANTED}@[bucket",
        f"s3://bucket/prefix?secret={PLANTED}",
        f"s3://bucket/prefix?endpoint=http://{ACCESS_KEY}:{PLANTED}@127.0.0.1",
        f"file://{ACCESS_KEY}:{PLANTED}@host/folder",
    )
    printed = run_python("-c", HOST + STORES, *urls, cwd=tmp_path, REEL_MODAL_STORE_URL=urls[0])
    first, *answers = re.split(r"^store \d$", printed, flags=re.MULTILINE)
    assert "Error" in first
    assert ["Error" in answer and '"cure"' in answer for answer in answers] == [True] * len(urls), printed
    check_hidden(printed)


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{ACCESS_KEY}:{PLANTED}@bucket/prefix",
        f"s3://{PLANTED.partition('/')[0]}@bucket",
        f"s3://{ACCESS_KEY}:{PLANTED}",
        f"https://{ACCESS_KEY}:{PLANTED}@host",
        f"s3://bucket/prefix?secret={PLANTED}",
        f"{ACCESS_KEY}:{PLANTED}",
    ],
)
def test_repr_of_settings_hides_secret_in_url(url: str) -> None:
    try:
        settings = Settings(store_url=url)
    except ConfigError as error:
        shown = str(error)
    else:
        shown = f"{settings!r} {FunctionRegistry(settings)!r}"
        assert "store_url=" in shown
    with pytest.raises(ConfigError) as caught:
        Storage.from_url(url)
    shown += str(caught.value) + repr(caught.value.__cause__)
    assert "wJalrXUtnFEMI" not in shown
