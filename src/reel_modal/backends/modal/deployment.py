"""Compare a deployment with the contract of this package, function by function."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

from reel_modal.backends.base import Check
from reel_modal.backends.modal import ModalBackend
from reel_modal.backends.modal._drift import DeployedApp, diff_resources, drift_error
from reel_modal.errors import NotDeployedError, RemoteError
from reel_modal.functions.contract import Contract, Difference, differences

__all__ = ["Check", "DeployedApp", "Verification", "verify_deployment"]

_CONTAINER_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of the check of a deployment.

    Attributes:
        app: Name of the app.
        deployed: The deployed app; None if nothing is deployed under the name.
        checks: One for each function that was checked.
        problem: Reason why no container could report its contents; None if one did or none was asked.
        ffmpeg: Version, build and origin of the container's ffmpeg; empty if no container answered.
    """

    app: str
    deployed: DeployedApp | None
    checks: tuple[Check, ...]
    problem: RemoteError | None = None
    ffmpeg: str = ""

    @property
    def ok(self) -> bool:
        """Whether all functions are deployed, nothing differs, and no request to a container failed."""
        return self.problem is None and all(check.ok for check in self.checks)

    def to_text(self) -> str:
        """Return the result as text, with one line for each function and each difference."""
        state = "nothing is deployed" if self.deployed is None else f"version {self.deployed.version}"
        lines = [f"{self.app}: {state}"]
        for check in self.checks:
            if check.ok:
                lines.append(f"{check.function}: ok")
            elif check.differences:
                lines.extend(f"{check.function}: {difference}" for difference in check.differences)
            else:
                lines.append(f"{check.function}: is not deployed")
        if self.ffmpeg:
            lines.append(f"ffmpeg: {self.ffmpeg}")
        if self.problem is not None:
            lines.append(f"the running container could not be checked: {self.problem}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return the result as a JSON-ready dict."""
        return {
            "ok": self.ok,
            "app": self.app,
            "version": None if self.deployed is None else self.deployed.version,
            "contract": None if self.deployed is None else self.deployed.contract,
            "ffmpeg": self.ffmpeg,
            "functions": {
                check.function: {
                    "ok": check.ok,
                    "deployed": not isinstance(check.error, NotDeployedError),
                    "differences": [asdict(difference) for difference in check.differences],
                }
                for check in self.checks
            },
            "problem": None if self.problem is None else str(self.problem),
        }


async def verify_deployment(
    backend: ModalBackend,
    local: Contract,
    functions: Iterable[str],
    *,
    ask_container: bool = False,
    container_seconds: float = _CONTAINER_SECONDS,
) -> Verification:
    """Look up every function and compare its deployed state with `local`.

    Args:
        backend: Backend of the app.
        local: Contract that should be deployed.
        functions: Names of the functions to check.
        ask_container: Whether to start a container of the deployment, without a GPU, that reports the contract it was
            built from, its source and its ffmpeg. Without one, only resources are compared field by field, and
            everything else by its hash.
        container_seconds: Timeout in seconds for the container.

    Raises:
        AuthError: The token is missing, or Modal refuses it.
        UnavailableError: Modal is unreachable.

    Cancellation: changes nothing.
    """
    names = tuple(functions)
    try:
        deployed = await backend.deployed_app()
    except NotDeployedError as error:
        return Verification(backend.app, None, tuple(Check(name, error) for name in names))
    rows = await asyncio.gather(*(_row(backend, name) for name in names))
    running = problem = None
    ffmpeg = ""
    if ask_container and deployed.contract is not None:
        try:
            running, ffmpeg = await _ask(backend, deployed.contract, container_seconds)
        except RemoteError as error:
            problem = error
    checks = []
    for name, row in zip(names, rows, strict=True):
        if isinstance(row, RemoteError):
            checks.append(Check(name, row))
            continue
        changed = diff_resources(row, local.functions.get(name, {}))
        if running is not None:
            # Modal's values take precedence over those that the container got at its deploy.
            known = {difference.field for difference in changed}
            changed += [each for each in differences(name, running, local) if each.field not in known]
        elif deployed.contract != local.name:
            changed.append(Difference("contract", deployed.contract or "none", local.name))
        checks.append(Check(name, drift_error(changed, backend.app, name), tuple(changed)))
    return Verification(backend.app, deployed, tuple(checks), problem, ffmpeg)


async def _row(backend: ModalBackend, name: str) -> dict[str, str] | RemoteError:
    try:
        return await backend.deployed_resources(name)
    except NotDeployedError as error:
        return error


async def _ask(backend: ModalBackend, contract: str, seconds: float) -> tuple[Contract, str]:
    """Return the contract with the container's source, packages and ffmpeg, and the build of that ffmpeg."""
    response = await backend.ask_container(contract, timeout_seconds=seconds)
    try:
        parsed = Contract.from_json(response["contract"])
        packages: Mapping[str, str] = json.loads(response.get("packages", "{}"))
        rows = {name: _actual(row, packages, response["ffmpeg"]) for name, row in parsed.functions.items()}
        return replace(parsed, source=response["source"], functions=rows), response["ffmpeg_build"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RemoteError(
            f"the response of its container cannot be parsed by this version: {error!r}", function=contract
        ) from error


def _actual(row: Mapping[str, str], packages: Mapping[str, str], ffmpeg: str) -> dict[str, str]:
    """Return a row of a contract with the state of the container instead of that of the deploying machine."""
    actual = {**row, "ffmpeg": ffmpeg}
    if "package" in row:
        actual["package"] = packages[row["package"].partition(" ")[0]]
    return actual
