"""Rates of the workspace, read from Modal's control plane on this machine with the real client."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.integration.command_line import run
from tests.integration.loopback.plane import LoopbackPlane

from reel_modal._costs.rates import PUBLISHED_RATES, load_rates
from reel_modal.backends.modal.billing import workspace_rates
from reel_modal.errors import AuthError, ConfigError

HOURLY = {
    "cpu_hour_cost": "0.04730",
    "cpu_hour_cost_sandbox": "0.141900",
    "mem_gib_hour_cost": "0.00800",
    "volume_storage_gib_month_cost": "0.09",
    "gpu_hour_cost_t4": "0.36000",
    "gpu_hour_cost_a10g": "1.10000",
    "gpu_hour_cost_a100_80gb": "2.50000",
    "gpu_hour_cost_rtx6000": "3.03000",
}


@pytest.fixture
def rates(plane: LoopbackPlane) -> Iterator[dict[str, str]]:
    plane.billing_rates.update(HOURLY)
    yield plane.billing_rates
    plane.billing_rates.clear()


async def test_workspace_rates_are_read_per_second(rates: dict[str, str]) -> None:
    workspace = await workspace_rates()
    assert workspace.gpus["T4"] == pytest.approx(0.0001)
    assert workspace.gpus["A100-80GB"] == pytest.approx(2.5 / 3600)
    assert workspace.gpus["RTX-PRO-6000"] == pytest.approx(3.03 / 3600)
    assert (workspace.cpu_core, workspace.memory_gib) == pytest.approx((0.0473 / 3600, 0.008 / 3600))
    assert workspace.gpus["L4"] == PUBLISHED_RATES.gpus["L4"]  # the workspace does not list it
    assert "workspace" in workspace.source
    assert workspace.dated >= PUBLISHED_RATES.dated
    again = load_rates({"REEL_MODAL_RATES": workspace.to_setting()})
    assert again.by_name() == pytest.approx(workspace.by_name(), rel=1e-8)
    assert again.dated == workspace.dated


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"cpu_hour_cost": None}, "no cpu_hour_cost; set REEL_MODAL_RATES"),
        ({"gpu_hour_cost_t4": "NaN"}, "'gpu_hour_cost_t4': 'NaN' is not a valid price"),
        ({"mem_gib_hour_cost": "-1"}, "'mem_gib_hour_cost': '-1' is not a valid price"),
    ],
)
async def test_workspace_rates_invalid_is_named(
    rates: dict[str, str], change: dict[str, str | None], problem: str
) -> None:
    for name, value in change.items():
        if value is None:
            del rates[name]
        else:
            rates[name] = value
    with pytest.raises(ConfigError, match=problem):
        await workspace_rates()


async def test_workspace_rates_token_refused_is_named(
    rates: dict[str, str], plane: LoopbackPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-another")
    with pytest.raises(AuthError):
        await workspace_rates()


def test_rates_command_prints_table_or_setting(rates: dict[str, str], plane: LoopbackPlane) -> None:
    refreshed = run("rates", "--refresh", **plane.environment())
    assert refreshed.returncode == 0, refreshed.stderr
    name, _, value = refreshed.stdout.strip().partition("=")
    assert name == "REEL_MODAL_RATES"
    assert "the workspace's own rates on Modal" in refreshed.stderr
    shown = run("rates", REEL_MODAL_RATES=value)
    row = next(line for line in shown.stdout.splitlines() if line.startswith("T4 "))
    assert row.split() == ["T4", "$0.000100000", "per", "second", "$0.3600", "per", "hour"]
    report = json.loads(run("rates", "--json").stdout)
    assert report["dated"] == PUBLISHED_RATES.dated
    assert report["usd_per_second"]["T4"] == PUBLISHED_RATES.gpus["T4"]
