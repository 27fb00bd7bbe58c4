"""Query Modal for the rates that the workspace pays for containers, and for what it was billed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from reel_modal._costs.rates import Rates, hourly_rates, load_rates
from reel_modal.backends.modal import load_modal
from reel_modal.backends.modal._rpc import call_api

__all__ = ["Billed", "Rates", "billed_between", "load_rates", "workspace_rates"]


@dataclass(frozen=True, slots=True)
class Billed:
    """What Modal has billed for one app in one day or hour.

    Attributes:
        app: Name of the app.
        start: Start of the day or hour, in UTC.
        dollars: Cost in US dollars, before discounts and credits.
        dollars_by_resource: The same by Modal's names of resources, such as CPU, memory and types of GPUs.
        tags: Tags of the app; empty if it has none.
    """

    app: str
    start: datetime
    dollars: float
    dollars_by_resource: Mapping[str, float]
    tags: Mapping[str, str]


async def billed_between(
    start: datetime, end: datetime, *, hourly: bool = False, timeout_seconds: float = 60.0
) -> list[Billed]:
    """Return the bill of the workspace to which the token of this process belongs, by app and by day or hour.

    Modal attributes costs to apps, not to functions or calls.

    Args:
        start: Start of the period, in UTC; rounded down to a day or hour.
        end: End of the period, in UTC, exclusive. A day or hour that has not ended is left out.
        hourly: Whether there is one item for each hour, or one for each day.
        timeout_seconds: Timeout of the request.

    Raises:
        RemoteError: The token is missing, refused or lacks the permission, or Modal is unreachable.

    Cancellation: returns at once.

    Example:
        `bill = await billed_between(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC))`
    """
    await load_modal()
    import modal

    # modal accepts only this time zone object.
    start, end = start.astimezone(UTC), end.astimezone(UTC)
    report = modal.Workspace.from_context().billing.report
    items = await call_api(
        lambda: report.aio(start=start, end=end, resolution="h" if hourly else "d", tag_names=["*"]),
        timeout_seconds,
        function="modal",
    )
    return [
        Billed(
            app=item.description,
            start=item.interval_start,
            dollars=float(item.cost),
            dollars_by_resource={name: float(cost) for name, cost in item.cost_by_resource.items()},
            tags=dict(item.tags),
        )
        for item in items
    ]


async def workspace_rates(*, timeout_seconds: float = 60.0) -> Rates:
    """Return the current rates of the workspace to which the token of this process belongs.

    The rates are not stored. `Rates.to_setting` converts them to the value of `REEL_MODAL_RATES`, which estimates,
    deploys and receipts use.

    Args:
        timeout_seconds: Timeout of the request.

    Raises:
        RemoteError: The token is missing, refused or lacks the permission, or Modal is unreachable.
        ConfigError: The answer has no price of a CPU core or of memory, or a price that is not valid.

    Cancellation: returns at once.

    Example:
        `expected = estimate(request, media, rates=await workspace_rates())`
    """
    await load_modal()
    import modal

    prices = await call_api(modal.Workspace.from_context().billing.rates.aio, timeout_seconds, function="modal")
    return hourly_rates(
        dict(prices.items()), dated=datetime.now(UTC).date().isoformat(), source="the workspace's own rates on Modal"
    )
