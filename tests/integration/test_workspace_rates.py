"""The workspace's own rates, asked of Modal's control plane on this machine by the real client."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.integration.loopback.plane import LoopbackPlane
from tests.integration.test_cli import run

from reel_modal.errors import AuthError, ConfigError
from reel_modal.pricing import PUBLISHED_RATES, load_rates
from reel_modal.workspace_rates import workspace_rates

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


async def test_the_rates_are_those_of_the_workspace_by_the_second(rates: dict[str, str]) -> None:
    found = await workspace_rates()
    assert found.gpus["T4"] == pytest.approx(0.0001)
    assert found.gpus["A100-80GB"] == pytest.approx(2.5 / 3600)
    assert found.gpus["RTX-PRO-6000"] == pytest.approx(3.03 / 3600)
    assert (found.cpu_core, found.memory_gib) == pytest.approx((0.0473 / 3600, 0.008 / 3600))
    assert found.gpus["L4"] == PUBLISHED_RATES.gpus["L4"]  # which the workspace does not name
    assert "workspace" in found.source
    assert found.dated >= PUBLISHED_RATES.dated
    again = load_rates({"REEL_MODAL_RATES": found.to_setting()})
    assert again.by_name() == pytest.approx(found.by_name(), rel=1e-8)
    assert again.dated == found.dated


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"cpu_hour_cost": None}, "no cpu_hour_cost; set REEL_MODAL_RATES"),
        ({"gpu_hour_cost_t4": "NaN"}, "'gpu_hour_cost_t4': 'NaN' is no price"),
        ({"mem_gib_hour_cost": "-1"}, "'mem_gib_hour_cost': '-1' is no price"),
    ],
)
async def test_rates_that_are_none_are_named(
    rates: dict[str, str], change: dict[str, str | None], problem: str
) -> None:
    for name, value in change.items():
        if value is None:
            del rates[name]
        else:
            rates[name] = value
    with pytest.raises(ConfigError, match=problem):
        await workspace_rates()


async def test_a_token_that_is_refused_is_named(
    rates: dict[str, str], plane: LoopbackPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-another")
    with pytest.raises(AuthError):
        await workspace_rates()


def test_the_command_prints_the_table_or_the_setting(rates: dict[str, str], plane: LoopbackPlane) -> None:
    refreshed = run("rates", "--refresh", **plane.environment())
    assert refreshed.returncode == 0, refreshed.stderr
    name, _, value = refreshed.stdout.strip().partition("=")
    assert name == "REEL_MODAL_RATES"
    assert "the workspace's own rates on Modal" in refreshed.stderr
    shown = run("rates", REEL_MODAL_RATES=value)
    assert "T4             $0.000100000 a second  $0.3600 an hour" in shown.stdout.splitlines()
    told = json.loads(run("rates", "--json").stdout)
    assert told["dated"] == PUBLISHED_RATES.dated
    assert told["usd_per_second"]["T4"] == PUBLISHED_RATES.gpus["T4"]
