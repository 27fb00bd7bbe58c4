"""What the workspace itself pays for a second of a container: asked of Modal, whenever somebody wants to know.

It must not know who computes with it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from reel_modal.backends.answers import answered
from reel_modal.backends.modal import load_modal
from reel_modal.pricing import Rates, hourly_rates

__all__ = ["workspace_rates"]


async def workspace_rates(*, timeout_seconds: float = 60.0) -> Rates:
    """Ask Modal for the rates of the workspace whose token this process has.

    They are of this moment and kept nowhere: `Rates.to_setting` makes them the value of `REEL_MODAL_RATES`, which
    estimates, deploys and receipts go by.

    Args:
        timeout_seconds: Longest for the answer.

    Raises:
        RemoteError: There is no token, Modal refuses it or what it may see, or nobody answers.
        ConfigError: The answer has no price of a CPU core or of memory, or one that is no price.

    Cancellation: returns at once.

    Example:
        `expected = estimate(request, media, rates=await workspace_rates())`
    """
    await load_modal()
    import modal

    found = await answered(modal.Workspace.from_context().billing.rates.aio, timeout_seconds, function="modal")
    return hourly_rates(
        dict(found.items()), dated=datetime.now(UTC).date().isoformat(), source="the workspace's own rates on Modal"
    )
