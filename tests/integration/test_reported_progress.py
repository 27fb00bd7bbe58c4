"""Measured progress of a function of another app, which the host reaches by `RemoteFunction.from_modal`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.integration.modal_app import Deployed

from reel_modal import RemoteFunction

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

FOLDER = Path(__file__).parent / "reporting"


def count(total: int) -> int:
    """A local stand-in for the function of the app."""
    raise NotImplementedError


@pytest.fixture
def app(app_plane: Deployed, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A plane with the deployed app, whose containers have the packages of the images."""
    from tests.integration.loopback.fixtures import fresh

    with fresh(app_plane.plane, monkeypatch):
        subprocess.run(
            [sys.executable, "-m", "modal", "deploy", "-m", "reporting_app"],
            cwd=FOLDER,
            env={**os.environ, **app_plane.plane.environment(), "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            timeout=90,
            check=True,
        )
        yield


async def test_reports_of_undeclared_function_make_progress_measured(app: None) -> None:
    job = await RemoteFunction.from_modal("reporting", "count", count, reports=True).submit(40)
    updates = [update async for update in job.progress(interval_seconds=0.05)]
    assert await job.result() == 40
    events = [event async for event in job.events()]
    assert [(event.phase, event.done, event.total) for event in (events[0], events[-1])] == [
        ("count", 0, 40),
        ("count", 40, 40),
    ]
    assert all(before.progress <= after.progress for before, after in pairwise(updates))
    assert updates[-1].status == "complete"


async def test_undeclared_function_without_reports_sends_no_events(app: None) -> None:
    job = await RemoteFunction.from_modal("reporting", "count", count).submit(3)
    assert {update.source async for update in job.progress(interval_seconds=0.05)} == {"simulated"}
    assert await job.result() == 3
