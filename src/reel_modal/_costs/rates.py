"""Rates of containers: Modal's published prices with their date, which an environment variable overrides."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from types import MappingProxyType
from typing import Final

from reel_modal.errors import ConfigError

__all__ = ["PUBLISHED_RATES", "Rates", "canonical_gpu", "hourly_rates", "load_rates"]

_SAME_GPU: Final = {"A10": "A10G", "A100": "A100-40GB", "RTX6000": "RTX-PRO-6000"}
_MIB_PER_GIB: Final = 1024
_SECONDS_PER_HOUR: Final = 3600
_REGION_FACTOR: Final = 1.75
"""Highest of the published factors, 1.15 to 1.75, for the price of a container in a selected region."""

# Names of a workspace's hourly prices in the API of Modal's client; the prices of sandboxes have other names.
_CPU_HOUR, _MEMORY_HOUR, _GPU_HOUR = "cpu_hour_cost", "mem_gib_hour_cost", "gpu_hour_cost_"


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates in US dollars per second.

    Attributes:
        dated: Date on which the published rates were in force, as YYYY-MM-DD.
        source: Source of the rates.
        gpus: Rate of one GPU, by its canonical name.
        cpu_core: Rate of one reserved physical core.
        memory_gib: Rate of one reserved GiB.
    """

    dated: str
    source: str
    gpus: Mapping[str, float]
    cpu_core: float
    memory_gib: float

    def usd_per_second(self, *, gpu: str | None, cpu: float, memory_mb: float, in_region: bool = False) -> float:
        """Return the price of one container for each second of its lifetime.

        Args:
            gpu: For example, `T4` or `A100-80GB:2`; None for a container without a GPU.
            cpu: Reserved cores. Using more costs more.
            memory_mb: Reserved MiB. Using more costs more.
            in_region: Whether a region is selected: the price is then the highest that Modal charges for a region.

        Raises:
            ConfigError: The price of this GPU is unknown.

        Example:
            >>> f"{3600 * PUBLISHED_RATES.usd_per_second(gpu='T4', cpu=4, memory_mb=4096):.2f}"
            '0.81'
        """
        kind, _, count = canonical_gpu(gpu or "none").partition(":")
        factor = _REGION_FACTOR if in_region else 1.0
        dollars = factor * (self.cpu_core * cpu + self.memory_gib * memory_mb / _MIB_PER_GIB)
        if kind == "NONE":
            return dollars
        if kind not in self.gpus or not (count.isdigit() or not count):
            raise ConfigError(
                f"the price of the GPU {gpu!r} is unknown; set it in dollars a second: REEL_MODAL_RATES={kind}=0.001"
            )
        return dollars + factor * self.gpus[kind] * int(count or 1)

    def to_setting(self) -> str:
        """Return the rates as the value of `REEL_MODAL_RATES`.

        Example:
            >>> PUBLISHED_RATES.to_setting()[:46]
            'dated=2026-09-27,cpu=1.31e-05,memory=2.22e-06,'
        """
        prices = (f"{name}={dollars:.9g}" for name, dollars in self.by_name().items())
        return ",".join([f"dated={self.dated}", *prices])

    def by_name(self) -> dict[str, float]:
        """Return each rate in dollars per second: `cpu` for a core, `memory` for a GiB, then the GPUs by name."""
        return {"cpu": self.cpu_core, "memory": self.memory_gib} | dict(sorted(self.gpus.items()))


PUBLISHED_RATES: Final = Rates(
    # Several public records quoted these between 2026-07-28 and 2026-09-27 and agree on every figure; RTX PRO 6000
    # and B300 are in only one of them. Selecting a region costs 1.15 to 1.75 times as much (`Resources.region`), a
    # non-preemptible machine 3 times as much, which these functions do not request.
    dated="2026-09-27",
    source="modal.com/pricing",
    gpus=MappingProxyType(
        {
            "T4": 0.000164,
            "L4": 0.000222,
            "A10G": 0.000306,
            "L40S": 0.000542,
            "A100-40GB": 0.000583,
            "A100-80GB": 0.000694,
            "RTX-PRO-6000": 0.000842,
            "H100": 0.001097,
            "H200": 0.001261,
            "B200": 0.001736,
            "B300": 0.001972,
        }
    ),
    cpu_core=0.0000131,
    memory_gib=0.00000222,
)


def load_rates(env: Mapping[str, str] | None = None) -> Rates:
    """Return the published rates, overridden by the rates in `REEL_MODAL_RATES`.

    Args:
        env: Default: this process's environment. The variable is a list of rates in dollars per second, such as
            `T4=0.00015,cpu=0.00001,memory=0.000002`, and may contain their date: `dated=2026-11-25`.

    Raises:
        ConfigError: The variable is not valid.

    Example:
        >>> load_rates({"REEL_MODAL_RATES": "T4=0.0001"}).gpus["T4"]
        0.0001
    """
    text = (os.environ if env is None else env).get("REEL_MODAL_RATES", "").strip()
    if not text:
        return PUBLISHED_RATES
    gpus, others = dict(PUBLISHED_RATES.gpus), {"CPU": PUBLISHED_RATES.cpu_core, "MEMORY": PUBLISHED_RATES.memory_gib}
    dated = PUBLISHED_RATES.dated
    for part in text.split(","):
        name, _, dollars = part.partition("=")
        if name.strip() == "dated":
            dated = _date(dollars.strip())
            continue
        kind = canonical_gpu(name)
        if not kind:
            raise ConfigError(f"REEL_MODAL_RATES: {part!r} is not a valid price; use T4=0.000164, cpu=… or memory=…")
        (others if kind in others else gpus)[kind] = _price(dollars, f"REEL_MODAL_RATES: {kind}")
    return replace(
        PUBLISHED_RATES,
        dated=dated,
        source=f"REEL_MODAL_RATES, else {PUBLISHED_RATES.source}",
        gpus=MappingProxyType(gpus),
        cpu_core=others["CPU"],
        memory_gib=others["MEMORY"],
    )


def hourly_rates(prices: Mapping[str, object], *, dated: str, source: str) -> Rates:
    """Convert hourly prices of Modal's API to rates; GPUs without an hourly price keep their published rate.

    Args:
        prices: Dollars per hour by Modal's names: `cpu_hour_cost`, `mem_gib_hour_cost`, `gpu_hour_cost_t4`, …
        dated: Date of the query, as YYYY-MM-DD.
        source: Source of the prices.

    Raises:
        ConfigError: One of the first two is missing, or a price is not valid.
    """
    seconds = {}
    for name, hourly in prices.items():
        if name in {_CPU_HOUR, _MEMORY_HOUR} or name.startswith(_GPU_HOUR):
            seconds[name] = _price(str(hourly), f"Modal's rate {name!r}") / _SECONDS_PER_HOUR
    if missing := {_CPU_HOUR, _MEMORY_HOUR} - set(seconds):
        raise ConfigError(f"Modal's rates have no {', '.join(sorted(missing))}; set REEL_MODAL_RATES by hand")
    gpus = dict(PUBLISHED_RATES.gpus)
    for name, dollars in seconds.items():
        if name.startswith(_GPU_HOUR):
            gpus[canonical_gpu(name.removeprefix(_GPU_HOUR).replace("_", "-"))] = dollars
    return Rates(dated, source, MappingProxyType(gpus), seconds[_CPU_HOUR], seconds[_MEMORY_HOUR])


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ConfigError(f"REEL_MODAL_RATES: dated: {text!r} is not a valid date; use YYYY-MM-DD") from error


def _price(text: str, label: str) -> float:
    try:
        dollars = float(text)
    except ValueError:
        dollars = -1.0
    if not 0 <= dollars < float("inf"):
        raise ConfigError(f"{label}: {text!r} is not a valid price; use dollars, such as 0.000164")
    return dollars


def canonical_gpu(gpu: str) -> str:
    """Return the canonical spelling of a GPU's name; a count above 1 stays as a suffix.

    Example:
        >>> canonical_gpu("a10:2")
        'A10G:2'
    """
    # H100! requests exactly this GPU instead of a better one at the same price.
    kind, _, count = gpu.strip().upper().replace("!", "").partition(":")
    kind = _SAME_GPU.get(kind, kind)
    return kind if count in {"", "1"} else f"{kind}:{count}"
