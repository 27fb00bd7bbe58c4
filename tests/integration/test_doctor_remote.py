"""`reel-modal doctor --remote` on the loopback plane."""

from __future__ import annotations

import json
import sys

import pytest
from grpclib import Status
from tests.integration.modal_app import APP, Deployed, app, app_plane
from tests.run_function import DEPLOYED

from reel_modal.cli import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

__all__ = ["app", "app_plane"]

ON_GPU = {name for name, spec in DEPLOYED.items() if spec.gpu}


@pytest.fixture(autouse=True)
def environment(app: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REEL_MODAL_ENVIRONMENT", "test")


@pytest.mark.slow
def test_doctor_remote_reports_each_container(app: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    app.plane.end_containers()
    before = sorted(app.store.rglob("*"))
    assert main(["doctor", "--remote"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["app"] == APP
    functions = report["functions"]
    (on_cpu,) = set(functions) - ON_GPU
    assert set(functions) == {on_cpu, *ON_GPU}
    assert DEPLOYED[on_cpu].cpu == min(spec.cpu for spec in DEPLOYED.values() if not spec.gpu)
    for name, facts in functions.items():
        assert facts["deployed_with"]["cpu"] == f"{DEPLOYED[name].cpu:g}"
        assert facts["cores"]["reserved"] == DEPLOYED[name].cpu
        assert facts["encoders"]["libx264"]["encodes"]
        assert facts["encoders"]["h264_nvenc"].get("reason") or facts["gpu"]["found"]
        assert any("imageio-ffmpeg" in build for build in facts["ffmpeg"])
        assert facts["system"]["python"].startswith("3.")
        assert facts["system"]["gvisor"] is False
        assert facts["memory"]["total_bytes"] > 1e8
        assert facts["store"]["works"]
        assert facts["store"]["read_bytes_per_second"] > 1e6
        start = facts["cold_start"]
        assert start["submission_to_function_seconds"] >= start["process_to_function_seconds"] > 0
        # Both clocks are that of this machine.
        assert abs(facts["clock_skew"]["seconds"]) <= facts["clock_skew"]["uncertainty_seconds"]
    # The test object has been deleted.
    assert sorted(path for path in app.store.rglob("*") if path.is_file()) == [
        each for each in before if each.is_file()
    ]


def test_doctor_remote_names_the_function_that_failed(app: Deployed, capsys: pytest.CaptureFixture[str]) -> None:
    app.plane.faults.fail(
        "FunctionGet", Status.NOT_FOUND, times=99, where=lambda request: request.object_tag in ON_GPU
    )
    assert main(["doctor", "--remote"]) == 1
    functions = json.loads(capsys.readouterr().out)["functions"]
    assert {name for name, facts in functions.items() if "error" in facts} == ON_GPU
    assert all("not found on Modal" in functions[name]["error"] for name in ON_GPU)


def test_doctor_remote_without_deployment_is_named(
    app: Deployed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REEL_MODAL_ENVIRONMENT", "staging")
    assert main(["doctor", "--remote"]) == 1
    assert "deploy it" in capsys.readouterr().err
