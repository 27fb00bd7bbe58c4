"""What would be deployed: each function with its resources, its price and how it differs from what is there now.

Pure: it is told what is there, and must not ask.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reel_modal.deploy.console import columns
from reel_modal.errors import NotDeployedError
from reel_modal.functions.contract import spec_row
from reel_modal.functions.specs import FunctionSpec
from reel_modal.pricing import Rates
from reel_modal.verification import Verification

__all__ = ["Plan", "PlannedFunction", "make_plan"]


@dataclass(frozen=True, slots=True)
class PlannedFunction:
    """One function of a plan.

    Attributes:
        name: Of the function.
        resources: As text, by field.
        image: A short name of the image, the same for the same packages.
        usd_per_hour: What one container costs while it is there; the dearest of several GPUs.
        changes: What differs from what is deployed now, a line each; None when that is not known.
    """

    name: str
    resources: Mapping[str, str]
    image: str
    usd_per_hour: float
    changes: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be deployed, and under which name.

    Attributes:
        app: The app's full name.
        environment: production, staging, development or test.
        functions: In the order of the table.
        taken_away: Functions that are deployed now and would not be any more.
        version: How often the app has been deployed; None when that is not known.
        rates: Where the prices are from.
    """

    app: str
    environment: str
    functions: tuple[PlannedFunction, ...]
    taken_away: tuple[str, ...]
    version: int | None
    rates: Rates

    def to_text(self) -> str:
        """Return the plan as a table for a person."""
        head = ("function", "GPU", "CPU", "memory", "time-out", "retries", "image", "secrets", "$/hour")
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
                f"{self.app} ({self.environment}) {now if self.version is not None else 'could not be asked about'}",
                "",
                columns([head, *rows]),
                "",
                *(f"image {name}: {packages}" for name, packages in images.items()),
                f"$/hour of one container while it is there, by {self.rates.source} as of {self.rates.dated}",
                "",
                *self._changes(),
            ]
        )

    def _changes(self) -> Iterable[str]:
        for each in self.functions:
            if each.changes is None:
                yield f"{each.name}: what is deployed now is not known"
            elif not each.changes:
                yield f"{each.name}: the same as is deployed"
            else:
                yield from (f"{each.name}: {change}" for change in each.changes)
        yield from (f"{name}: would be taken away" for name in self.taken_away)

    def to_dict(self) -> dict[str, object]:
        """Return the plan for JSON."""
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
    app: str, environment: str, specs: Iterable[FunctionSpec], rates: Rates, there: Verification | None
) -> Plan:
    """Return the plan for `specs`, where `there` is what was found on Modal, or None when nobody could be asked.

    Raises:
        ConfigError: No price of a GPU is known.
    """
    changes = _changes(there)
    planned = tuple(_planned(spec, rates, changes.get(spec.name)) for spec in specs)
    names = {each.name for each in planned}
    held = None if there is None else there.held
    version = None if there is None else (0 if held is None else held.version)
    return Plan(
        app=app,
        environment=environment,
        functions=planned,
        taken_away=tuple(sorted((held.functions if held else frozenset()) - names)),
        version=version,
        rates=rates,
    )


def _changes(there: Verification | None) -> dict[str, tuple[str, ...]]:
    if there is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for check in there.checks:
        if isinstance(check.error, NotDeployedError):
            found[check.function] = ("is not deployed",)
        else:
            found[check.function] = tuple(
                f"{each.field}: {each.there} becomes {each.here}" for each in check.differences
            )
    return found


def _planned(spec: FunctionSpec, rates: Rates, changes: tuple[str, ...] | None) -> PlannedFunction:
    row = spec_row(spec)
    dearest = max(
        rates.usd_per_second(gpu=gpu, cpu=spec.cpu, memory_mb=spec.memory_mb) for gpu in spec.gpu or (None,)
    )
    image = hashlib.sha256(row["image"].encode()).hexdigest()[:8]
    return PlannedFunction(spec.name, row, image, dearest * 3600, changes)
