"""Whether what is deployed is what this package would deploy, function by function.

It reads and compares; it must not know how a deployment is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Final

from reel_modal.backends.drift import HeldApp, compare_with_held, drift_error
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import NotDeployedError, RemoteError
from reel_modal.functions.contract import Contract, Difference, differences

__all__ = ["Check", "Verification", "verify_deployment"]

_CONTAINER_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True)
class Check:
    """What was found of one function.

    Attributes:
        function: Its name.
        error: What is wrong; None when it is there, as this host knows it.
        differences: What is not the same there and here.
    """

    function: str
    error: RemoteError | None = None
    differences: tuple[Difference, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the function can be called, and is what this host knows."""
        return self.error is None


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found of a deployment.

    Attributes:
        app: Its name.
        held: What Modal holds of it; None when nothing is deployed under the name.
        checks: One for each function that was asked about.
        bodies: The functions for which the deployed package has a body; None when no container was asked.
        problem: Why no container could say what it runs; None when one did or none was asked.
        ffmpeg: Version, build and origin of the ffmpeg in the container that was asked; empty when none was asked.
    """

    app: str
    held: HeldApp | None
    checks: tuple[Check, ...]
    bodies: frozenset[str] | None = None
    problem: RemoteError | None = None
    ffmpeg: str = ""

    @property
    def ok(self) -> bool:
        """Whether everything is there and nothing differs."""
        return self.problem is None and all(check.ok for check in self.checks)

    def to_text(self) -> str:
        """Return what was found, a line for each function and for each thing that differs."""
        lines = [f"{self.app}: {'nothing is deployed' if self.held is None else f'version {self.held.version}'}"]
        for check in self.checks:
            if check.ok:
                bodyless = self.bodies is not None and check.function not in self.bodies
                lines.append(
                    f"{check.function}: ok{', but it has no body and refuses every job' if bodyless else ''}"
                )
            elif check.differences:
                lines.extend(f"{check.function}: {difference}" for difference in check.differences)
            else:
                lines.append(f"{check.function}: is not deployed")
        if self.ffmpeg:
            lines.append(f"ffmpeg: {self.ffmpeg}")
        if self.problem is not None:
            lines.append(f"what really runs could not be asked: {self.problem}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, object]:
        """Return what was found for JSON."""
        return {
            "ok": self.ok,
            "app": self.app,
            "version": None if self.held is None else self.held.version,
            "contract": None if self.held is None else self.held.contract,
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
    here: Contract,
    functions: Iterable[str],
    *,
    ask_container: bool = False,
    container_seconds: float = _CONTAINER_SECONDS,
) -> Verification:
    """Look every function up, read back what Modal holds of it, and compare.

    Args:
        backend: Of the app.
        here: What should be deployed.
        functions: Which of its functions.
        ask_container: Whether to start a container of the deployment, without a GPU, that says what it was made
            from, and which source and ffmpeg it has. Without one, only resources are compared field by field, and
            the rest by its hash.
        container_seconds: Longest for that.

    Raises:
        AuthError: There is no token, or it is refused.
        UnavailableError: Nobody answers.

    Cancellation: changes nothing.
    """
    names = tuple(functions)
    try:
        held = await backend.held_app()
    except NotDeployedError as error:
        return Verification(backend.app, None, tuple(Check(name, error) for name in names))
    rows = await asyncio.gather(*(_row(backend, name) for name in names))
    there = bodies = problem = None
    ffmpeg = ""
    if ask_container and held.contract is not None:
        try:
            there, bodies, ffmpeg = await _ask(backend, held.contract, container_seconds)
        except RemoteError as error:
            problem = error
    checks = []
    for name, row in zip(names, rows, strict=True):
        if isinstance(row, RemoteError):
            checks.append(Check(name, row))
            continue
        found = compare_with_held(row, here.functions.get(name, {}))
        if there is not None:
            # What Modal holds goes before what the container was told at its deploy.
            known = {difference.field for difference in found}
            found += [difference for difference in differences(name, there, here) if difference.field not in known]
        elif held.contract != here.name:
            found.append(Difference("contract", held.contract or "none", here.name))
        checks.append(Check(name, drift_error(found, backend.app, name), tuple(found)))
    return Verification(backend.app, held, tuple(checks), bodies, problem, ffmpeg)


async def _row(backend: ModalBackend, name: str) -> dict[str, str] | RemoteError:
    try:
        return await backend.held_row(name)
    except NotDeployedError as error:
        return error


async def _ask(backend: ModalBackend, contract: str, seconds: float) -> tuple[Contract, frozenset[str], str]:
    """Return the contract with the source and ffmpeg that the container has, its bodies, and its build of ffmpeg."""
    said = await backend.ask_container(contract, timeout_seconds=seconds)
    try:
        made = Contract.from_json(said["contract"])
        rows = {name: {**row, "ffmpeg": said["ffmpeg"]} for name, row in made.functions.items()}
        there = replace(made, source=said["source"], functions=rows)
        return there, frozenset(said["bodies"].split(", ")), said["ffmpeg_build"]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RemoteError(
            f"its container said nothing that this version reads: {error!r}", function=contract
        ) from error
