"""Read a deployed app from Modal in the form of our contract, and compare it with the expected contract.

modal has already been imported when a function here reads one of its answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reel_modal._costs.rates import canonical_gpu
from reel_modal.errors import DeploymentDriftError
from reel_modal.functions.contract import Contract, Difference

if TYPE_CHECKING:
    import modal
    from modal.types import FunctionInfo

__all__ = ["DeployedApp", "deployed_resources", "diff_resources", "drift_error", "read_app"]


@dataclass(frozen=True, slots=True)
class DeployedApp:
    """One deployed app.

    Attributes:
        version: Number of deploys and rollbacks, as Modal counts them.
        functions: Names of its functions, without the contract function.
        contract: Name of the contract that the app was built from; None if this package did not deploy it.
    """

    version: int
    functions: frozenset[str]
    contract: str | None


async def read_app(name: str, *, environment: str | None, client: modal.Client | None) -> DeployedApp:
    """Return the app with its functions, by one request; exceptions of modal are raised to the caller."""
    import modal

    app = await modal.App.lookup.aio(name, environment_name=environment, client=client)
    info = await app.info.aio()  # part of the response to the lookup, so this sends no request
    contract = Contract.name_among(info.functions)
    return DeployedApp(info.lifecycle.version or 0, frozenset(info.functions) - {contract or ""}, contract)


async def deployed_resources(handle: modal.Function[..., Any, Any]) -> dict[str, str]:
    """Return the resources of a hydrated function; the response to its lookup contained them."""
    info: FunctionInfo = await handle.info.aio()
    gpus = (kind if count == 1 else f"{kind}:{count}" for kind, count in info.gpus)
    return {
        "gpu": ", ".join(gpus) or "none",
        "cpu": _number(info.cpu),
        "memory_mb": _number(info.memory_mib),
        "timeout_seconds": str(info.timeout),
        "retries": str(info.max_retries or 0),
    }


def diff_resources(deployed: Mapping[str, str], expected: Mapping[str, str]) -> list[Difference]:
    """Return the resources whose deployed value differs from the expected one."""
    return [
        Difference(key, value, expected.get(key, "nothing"))
        for key, value in deployed.items()
        if _canonical(key, value) != _canonical(key, expected.get(key, "nothing"))
    ]


def drift_error(differences: Sequence[Difference], app: str, function: str) -> DeploymentDriftError | None:
    """Return the error that lists the differences, or None if nothing differs."""
    if not differences:
        return None
    return DeploymentDriftError(
        "the deployed version differs from the version of this host: deploy again, or install the deployed version",
        function=f"{app}/{function}",
        differences=[str(difference) for difference in differences],
    )


def _canonical(key: str, value: str) -> str | list[str]:
    return [canonical_gpu(gpu) for gpu in value.split(", ")] if key == "gpu" else value


def _number(value: float | tuple[float, float] | None) -> str:
    # With a limit, the value is a pair (request, limit).
    one = value[0] if isinstance(value, tuple) else value
    return "none" if one is None else f"{one:g}"
