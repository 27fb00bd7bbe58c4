"""Ask containers of a deployment what they are, for a report about an account's first deployment."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Final

from reel_modal._support.redaction import Redactor
from reel_modal._version import VERSION
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import RemoteError
from reel_modal.functions.contract import Contract, local_contract
from reel_modal.functions.examination import CLOCK, EVERYTHING

__all__ = ["examine_deployment"]

_SECONDS: Final = 600.0


async def examine_deployment(
    backend: ModalBackend, *, contract: Contract | None = None, timeout_seconds: float = _SECONDS
) -> dict[str, object]:
    """Call one small function without a GPU and each function with one; return what their containers report.

    Each container is asked twice: for everything, which may start it, and for its time.

    Args:
        backend: Backend of the app.
        contract: Functions and their resources; default those of this machine.
        timeout_seconds: Timeout of each call, with the start of its container.

    Returns:
        JSON types: the host, the app and its version, and by function either the report or `error`.

    Raises:
        RemoteError: The app is not deployed, the token is refused, or Modal is unreachable.

    Cancellation: the calls continue on Modal, for less than a minute.
    """
    if contract is None:
        contract = await asyncio.to_thread(local_contract)
    rows = contract.functions
    app = await backend.deployed_app()
    names = _examined({name: row for name, row in rows.items() if name in app.functions})
    reports = await asyncio.gather(*(_report(backend, name, timeout_seconds) for name in names))
    return {
        "host": {
            "package_version": VERSION,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "modal": metadata.version("modal"),
        },
        "app": backend.app,
        "version": app.version,
        "contract": app.contract,
        "functions": {
            name: {"deployed_with": _resources(rows[name]), **report}
            for name, report in zip(names, reports, strict=True)
        },
    }


def _examined(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the functions to ask: the one without a GPU that reserves the fewest cores, and all with a GPU."""
    on_cpu = sorted((float(row["cpu"]), name) for name, row in rows.items() if row["gpu"] == "none")
    return [name for _, name in on_cpu[:1]] + [name for name, row in rows.items() if row["gpu"] != "none"]


def _resources(row: Mapping[str, str]) -> dict[str, str]:
    return {name: row[name] for name in ("gpu", "cpu", "memory_mb")}


async def _report(backend: ModalBackend, name: str, timeout_seconds: float) -> dict[str, object]:
    try:
        submitted_at = time.time()
        facts = await backend.examine(name, EVERYTHING, timeout_seconds=timeout_seconds)
        answered_at = time.time()
        clock = await backend.examine(name, CLOCK, timeout_seconds=timeout_seconds)
        received_at = time.time()
    except RemoteError as error:
        return {"error": Redactor(os.environ)(str(error))}
    # The container read its clock between the second request and its answer.
    skew = _number(clock, "unix_time") - (answered_at + received_at) / 2
    started_at = _number(facts, "unix_time_at_start") - skew
    seconds = {
        "submission_to_function_seconds": started_at - submitted_at,
        "warm_call_seconds": received_at - answered_at,
    }
    cold_start = facts.get("cold_start")
    parts = cold_start if isinstance(cold_start, Mapping) else {}
    uncertainty = (received_at - answered_at) / 2
    return {
        **{key: value for key, value in facts.items() if not key.startswith("unix_time")},
        "cold_start": {**seconds, **parts},
        "clock_skew": {"seconds": skew, "uncertainty_seconds": uncertainty},
    }


def _number(facts: Mapping[str, object], name: str) -> float:
    value = facts.get(name)
    if not isinstance(value, float):
        raise RemoteError(f"its container has another version, which does not report {name}", function="doctor")
    return value
