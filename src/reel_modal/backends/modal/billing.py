"""Query Modal for the rates that the workspace pays for containers."""

from __future__ import annotations

from datetime import UTC, datetime

from reel_modal._costs.rates import Rates, hourly_rates, load_rates
from reel_modal.backends.modal import load_modal
from reel_modal.backends.modal._rpc import call_api

__all__ = ["Rates", "load_rates", "workspace_rates"]


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
