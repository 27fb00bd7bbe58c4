"""What Modal holds of a deployed app, in the words of our own table, and how that differs from what is expected.

It must not ask more than it is told to; modal is there already when one of its answers is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reel_modal.errors import DeploymentDriftError
from reel_modal.functions.contract import Contract, Difference
from reel_modal.pricing import canonical_gpu

if TYPE_CHECKING:
    import modal
    from modal.types import FunctionInfo

__all__ = ["HeldApp", "compare_with_held", "drift_error", "held_row", "read_app"]


@dataclass(frozen=True, slots=True)
class HeldApp:
    """One deployed app.

    Attributes:
        version: How often it was deployed or rolled back, as Modal counts.
        functions: Names of its functions, without the contract's.
        contract: Name of the contract that it was made from; None when it was not deployed by this package.
    """

    version: int
    functions: frozenset[str]
    contract: str | None


async def read_app(name: str, *, environment: str | None, client: modal.Client | None) -> HeldApp:
    """Ask Modal once which functions the app has; what modal raises is for the caller to name."""
    import modal

    app = await modal.App.lookup.aio(name, environment_name=environment, client=client)
    info = await app.info.aio()  # it came with the look-up
    contract = Contract.name_among(info.functions)
    return HeldApp(info.lifecycle.version or 0, frozenset(info.functions) - {contract or ""}, contract)


async def held_row(handle: modal.Function[..., Any, Any]) -> dict[str, str]:
    """Return the resources of a function that has been looked up; Modal's answer to that had them in it."""
    info: FunctionInfo = await handle.info.aio()
    gpus = (kind if count == 1 else f"{kind}:{count}" for kind, count in info.gpus)
    return {
        "gpu": ", ".join(gpus) or "none",
        "cpu": _number(info.cpu),
        "memory_mb": _number(info.memory_mib),
        "timeout_seconds": str(info.timeout),
        "retries": str(info.max_retries or 0),
    }


def compare_with_held(held: Mapping[str, str], expected: Mapping[str, str]) -> list[Difference]:
    """Return which resources that Modal holds are not the expected ones."""
    return [
        Difference(key, there, expected.get(key, "nothing"))
        for key, there in held.items()
        if _canonical(key, there) != _canonical(key, expected.get(key, "nothing"))
    ]


def drift_error(found: Sequence[Difference], app: str, function: str) -> DeploymentDriftError | None:
    """Return the error that says what differs, if anything does."""
    if not found:
        return None
    return DeploymentDriftError(
        "what is deployed is not what this host knows: deploy again, or install the version that is deployed",
        function=f"{app}/{function}",
        differences=[str(difference) for difference in found],
    )


def _canonical(key: str, value: str) -> str | list[str]:
    return [canonical_gpu(gpu) for gpu in value.split(", ")] if key == "gpu" else value


def _number(value: float | tuple[float, float] | None) -> str:
    # With a limit it is a pair, of which the request is first.
    one = value[0] if isinstance(value, tuple) else value
    return "none" if one is None else f"{one:g}"
