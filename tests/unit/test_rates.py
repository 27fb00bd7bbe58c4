"""Published prices, prices from settings, and names of GPUs."""

from __future__ import annotations

import pytest
from tests.run_function import SPECS

from reel_modal._costs.rates import PUBLISHED_RATES, canonical_gpu, load_rates
from reel_modal.errors import ConfigError


def per_second(gpu: str | None, cpu: float = 0, memory_mb: float = 0) -> float:
    return PUBLISHED_RATES.usd_per_second(gpu=gpu, cpu=cpu, memory_mb=memory_mb)


def test_price_of_container_sums_gpus_cores_and_memory() -> None:
    assert per_second("T4") == pytest.approx(0.000164)
    assert per_second(None, cpu=2) == pytest.approx(0.0000262)
    assert per_second(None, memory_mb=2048) == pytest.approx(0.00000444)
    assert per_second("A10G:2", cpu=4, memory_mb=8192) == pytest.approx(2 * 0.000306 + 4 * 0.0000131 + 8 * 0.00000222)


def test_price_exists_for_every_gpu_of_the_specs() -> None:
    assert all(per_second(gpu) > 0 for spec in SPECS.values() for gpu in spec.gpu)


@pytest.mark.parametrize(
    ("gpu", "name"),
    [("a10", "A10G"), ("A10G:1", "A10G"), ("a100", "A100-40GB"), ("A100-80GB:4", "A100-80GB:4"), ("H100!", "H100")],
)
def test_canonical_gpu_resolves_aliases(gpu: str, name: str) -> None:
    assert canonical_gpu(gpu) == name


@pytest.mark.parametrize("gpu", ["RTX-9090", "T4:many", ""])
def test_price_of_unknown_gpu_names_the_setting(gpu: str) -> None:
    if gpu:
        with pytest.raises(ConfigError, match="REEL_MODAL_RATES="):
            per_second(gpu)
    else:
        assert per_second(gpu) == 0


def test_load_rates_overrides_published_prices() -> None:
    rates = load_rates({"REEL_MODAL_RATES": "T4=0.0001, RTX-9090=0.01,cpu=0,memory=0"})
    assert rates.usd_per_second(gpu="rtx-9090", cpu=4, memory_mb=4096) == pytest.approx(0.01)
    assert rates.usd_per_second(gpu="T4:2", cpu=4, memory_mb=4096) == pytest.approx(0.0002)
    assert rates.gpus["L4"] == PUBLISHED_RATES.gpus["L4"]
    assert "REEL_MODAL_RATES" in rates.source
    assert load_rates({}) is PUBLISHED_RATES


@pytest.mark.parametrize("text", ["T4", "T4=free", "=1", "T4=-1", "T4=inf", "cpu=nan", "dated=today"])
def test_load_rates_invalid_price_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="REEL_MODAL_RATES: "):
        load_rates({"REEL_MODAL_RATES": text})
