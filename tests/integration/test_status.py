"""The command `status` on the loopback plane, with the receipts of real jobs."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import modal
import pytest
from tests.clips import made_clip
from tests.integration.command_line import run
from tests.integration.modal_app import APP, Deployed, app, app_plane
from tests.jobs import overlay

from reel_modal import FunctionRegistry, Settings
from reel_modal.backends.modal import ModalBackend
from reel_modal.functions.spending import spent_between
from reel_modal.schema import OverlayRequest, StoreOptions
from reel_modal.storage import Storage

__all__ = ["app", "app_plane"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux processes")

FOREVER = datetime.max.replace(tzinfo=UTC)


def variables(app: Deployed) -> dict[str, str]:
    return {
        **app.plane.environment(),
        "REEL_MODAL_ENVIRONMENT": "test",
        "REEL_MODAL_STORE_URL": app.store.as_uri(),
    }


def of_ann(job_id: str) -> OverlayRequest:
    """Return a request whose output is in the folder of the user `ann`."""
    store = StoreOptions(input_scope="global", output_scope="user")
    return replace(overlay(job_id, output=f"reels/{job_id}.mp4"), user_id="ann", store=store)


async def test_status_shows_containers_and_cost(app: Deployed) -> None:
    made_clip(app.store / "in.mp4", seconds=1)
    async with FunctionRegistry(app.settings) as registry:
        result = await registry.run(overlay("one"))
    assert result.usage is not None
    shown = run("status", "--json", **variables(app))
    assert shown.returncode == 0, shown.stderr
    report = json.loads(shown.stdout)
    deployed = await ModalBackend(APP).deployed_app()
    assert (report["app"], report["version"]) == ("reel-modal-test", deployed.version)
    assert {"render_overlay", "render_overlay_segments", "apply_upscale"} <= set(report["functions"])
    row = report["functions"]["render_overlay"]
    least = 0 if hasattr(modal.Function, "autoscaler") else None  # modal 1.6.0 cannot read it
    assert (row["backlog"], row["running"], row["containers"], row["min_containers"]) == (0, 0, 1, least)
    # The receipt is written before the output is published, so its cost is a little lower.
    assert 0 < row["spent_today_usd"] <= result.usage.dollars
    assert report["functions"]["apply_upscale"]["spent_today_usd"] == 0
    table = run("status", **variables(app))
    line = next(line for line in table.stdout.splitlines() if line.startswith("render_overlay "))
    assert [cell.strip() for cell in line.split("|")][:4] == ["render_overlay", "0", "0", "1"]
    assert f"version {deployed.version}" in table.stderr
    assert "receipts of finished jobs" in table.stderr


def test_status_without_store_knows_no_cost(app: Deployed) -> None:
    without = {**variables(app), "REEL_MODAL_STORE_URL": ""}
    shown = run("status", "--json", **without)
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["functions"]["render_overlay"]["spent_today_usd"] is None
    assert "set REEL_MODAL_STORE_URL" in shown.stderr


def test_status_app_not_deployed_is_named(app: Deployed) -> None:
    shown = run("status", **{**variables(app), "REEL_MODAL_ENVIRONMENT": "staging"})
    assert shown.returncode == 1
    assert "reel-modal-staging" in shown.stderr


async def test_spent_between_counts_receipts_of_period(app: Deployed) -> None:
    made_clip(app.store / "in.mp4", seconds=1)
    storage, before = Storage.from_url(app.store.as_uri()), datetime.now(UTC) - timedelta(seconds=1)
    async with FunctionRegistry(app.settings) as registry:
        await registry.run(of_ann("two"))
    async with FunctionRegistry(Settings(store_url=app.store.as_uri())) as registry:
        await registry.run(of_ann("local"))
    (app.store / "users/ann/reels/receipts" / f"{'0' * 64}.json").write_text("{}")
    (one,) = [each for each in spent_between(storage, before, FOREVER) if each.user == "ann"]
    assert one.function == "render_overlay"
    assert one.dollars > 0
    (file,) = [path for path in (app.store / "users/ann/reels/receipts").iterdir() if b"two" in path.read_bytes()]
    yesterday = time.time() - 86_400
    os.utime(file, (yesterday, yesterday))
    assert [each for each in spent_between(storage, before, FOREVER) if each.user == "ann"] == []
    assert len(spent_between(storage, before - timedelta(days=2), before)) >= 1
