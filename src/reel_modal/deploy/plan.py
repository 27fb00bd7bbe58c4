"""The plan of a deployment: each function's resources, price, and differences from the deployed version.

Sends no requests; the state on Modal is passed in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reel_modal._costs.rates import Rates
from reel_modal._support.tables import text_table
from reel_modal.backends.modal.deployment import Verification
from reel_modal.errors import NotDeployedError
from reel_modal.functions.contract import spec_row
from reel_modal.functions.specs import FunctionSpec

__all__ = ["Plan", "PlannedFunction", "make_plan"]


@dataclass(frozen=True, slots=True)
class PlannedFunction:
    """One function of a plan.

    Attributes:
        name: Name of the function.
        resources: The resources as text, by field.
        image: Short name of the image, equal for equal packages.
        usd_per_hour: Price of one running container; for several GPUs, that of the most expensive one.
        changes: Differences from the deployed function, one line each; None if unknown.
    """

    name: str
    resources: Mapping[str, str]
    image: str
    usd_per_hour: float
    changes: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The app that would be deployed.

    Attributes:
        app: The app's full name.
        environment: production, staging, development or test.
        functions: The functions, in the order in which they are shown.
        taken_away: Deployed functions that this deployment would remove.
        version: Deployed version of the app; 0 if it is not deployed, None if unknown.
        rates: The price table.
    """

    app: str
    environment: str
    functions: tuple[PlannedFunction, ...]
    taken_away: tuple[str, ...]
    version: int | None
    rates: Rates

    def to_text(self) -> str:
        """Return the plan as readable text with a table."""
        head = ("function", "GPU", "CPU", "memory", "timeout", "retries", "image", "secrets", "$/hour")
        rows = [
            (
                each.name,
                each.resources["gpu"],
                each.resources["cpu"],
                f"{each.resources['memory_mb']} MiB",
                f"{each.resources['timeout_seconds']} s",
                each.resources["retries"],
                each.image,
                each.resources["secrets"],
                f"{each.usd_per_hour:.2f}",
            )
            for each in self.functions
        ]
        images = {each.image: each.resources["image"] for each in self.functions}
        now = f"is at version {self.version} now" if self.version else "is not deployed now"
        return "\n".join(
            [
                f"{self.app} ({self.environment}) {now if self.version is not None else 'could not be checked'}",
                "",
                text_table(rows, header=head),
                "",
                *(f"image {name}: {packages}" for name, packages in images.items()),
                f"$/hour of one running container, by {self.rates.source} as of {self.rates.dated}",
                "",
                *self._changes(),
            ]
        )

    def _changes(self) -> Iterable[str]:
        for each in self.functions:
            if each.changes is None:
                yield f"{each.name}: the deployed version is unknown"
            elif not each.changes:
                yield f"{each.name}: same as deployed"
            else:
                yield from (f"{each.name}: {change}" for change in each.changes)
        yield from (f"{name}: would be removed" for name in self.taken_away)

    def to_dict(self) -> dict[str, object]:
        """Return the plan as a JSON object."""
        return {
            "app": self.app,
            "environment": self.environment,
            "version": self.version,
            "functions": [
                {
                    "name": each.name,
                    **{key: value for key, value in each.resources.items() if key != "name"},
                    "usd_per_hour": round(each.usd_per_hour, 4),
                    "changes": None if each.changes is None else list(each.changes),
                }
                for each in self.functions
            ],
            "taken_away": list(self.taken_away),
            "rates": {"source": self.rates.source, "dated": self.rates.dated},
        }


def make_plan(
    app: str, environment: str, specs: Iterable[FunctionSpec], rates: Rates, verification: Verification | None
) -> Plan:
    """Return the plan for `specs`.

    Args:
        app: The app's full name.
        environment: production, staging, development or test.
        specs: The functions to deploy.
        rates: The price table.
        verification: The state on Modal; None if it is unknown.

    Raises:
        ConfigError: The price of a GPU is unknown.
    """
    changes = _changes(verification)
    planned = tuple(_planned(spec, rates, changes.get(spec.name)) for spec in specs)
    names = {each.name for each in planned}
    deployed = None if verification is None else verification.deployed
    version = None if verification is None else (0 if deployed is None else deployed.version)
    return Plan(
        app=app,
        environment=environment,
        functions=planned,
        taken_away=tuple(sorted((deployed.functions if deployed else frozenset()) - names)),
        version=version,
        rates=rates,
    )


def _changes(verification: Verification | None) -> dict[str, tuple[str, ...]]:
    if verification is None:
        return {}
    changes: dict[str, tuple[str, ...]] = {}
    for check in verification.checks:
        if isinstance(check.error, NotDeployedError):
            changes[check.function] = ("is not deployed",)
        else:
            changes[check.function] = tuple(
                f"{each.field}: {each.deployed} becomes {each.local}" for each in check.differences
            )
    return changes


def _planned(spec: FunctionSpec, rates: Rates, changes: tuple[str, ...] | None) -> PlannedFunction:
    row = spec_row(spec)
    highest_rate = max(
        rates.usd_per_second(gpu=gpu, cpu=spec.cpu, memory_mb=spec.memory_mb) for gpu in spec.gpu or (None,)
    )
    image = hashlib.sha256(row["image"].encode()).hexdigest()[:8]
    return PlannedFunction(spec.name, row, image, highest_rate * 3600, changes)
