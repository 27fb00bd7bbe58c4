"""The command `status`: what each function of the deployed app does now, and what its jobs have cost today."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime

from reel_modal._support.tables import text_table
from reel_modal.backends.modal import ModalBackend
from reel_modal.backends.modal._drift import DeployedApp
from reel_modal.backends.modal.scaling import Activity, activity_of
from reel_modal.functions.specs import app_name
from reel_modal.functions.spending import spent_between
from reel_modal.settings import Settings
from reel_modal.storage import Storage

__all__ = ["run"]

_HEADER = ("function", "backlog", "running", "containers", "kept warm", "spent today")


def run(arguments: argparse.Namespace) -> int:
    """Print the status of the app that the settings name.

    Raises:
        ConfigError: A setting is not valid.
        RemoteError: The app is not deployed, or Modal is unreachable.
        StorageError: The store could not be read.
    """
    settings = Settings.from_env()
    backend = ModalBackend(app_name(settings))
    deployed, activities = asyncio.run(_look(backend))
    spent = _spent_today(settings)
    if arguments.json:
        functions = {
            name: {**asdict(activity), "spent_today_usd": None if spent is None else spent.get(name, 0.0)}
            for name, activity in activities.items()
        }
        print(json.dumps({"app": backend.app, "version": deployed.version, "functions": functions}))
    else:
        print(text_table((_row(name, each, spent) for name, each in activities.items()), header=_HEADER))
    print(f"{backend.app}, version {deployed.version}", file=sys.stderr)
    note = "unknown: set REEL_MODAL_STORE_URL"
    if spent is not None:
        note = "by the receipts of finished jobs in the store"
    print(f"spent today: {note}", file=sys.stderr)
    return 0


async def _look(backend: ModalBackend) -> tuple[DeployedApp, dict[str, Activity]]:
    deployed = await backend.deployed_app()
    names = sorted(deployed.functions)
    activities = await asyncio.gather(*(activity_of(backend, name) for name in names))
    return deployed, dict(zip(names, activities, strict=True))


def _spent_today(settings: Settings) -> Mapping[str, float] | None:
    """Return the dollars by function; None if no store is set."""
    if settings.store_url is None:
        return None
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    spent: dict[str, float] = {}
    for each in spent_between(Storage.from_url(settings.store_url), midnight, datetime.max.replace(tzinfo=UTC)):
        spent[each.function] = spent.get(each.function, 0.0) + each.dollars
    return spent


def _row(name: str, activity: Activity, spent: Mapping[str, float] | None) -> tuple[str, ...]:
    counts = (activity.backlog, activity.running, activity.containers, activity.min_containers)
    shown = ("unknown" if count is None else str(count) for count in counts)
    return (name, *shown, "unknown" if spent is None else f"${spent.get(name, 0.0):.4f}")
