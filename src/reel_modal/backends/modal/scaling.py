"""Containers of a deployed function: how many wait for jobs, how many run, and the minimum that Modal keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from reel_modal.backends.modal import ModalBackend
from reel_modal.backends.modal._rpc import call_api

__all__ = ["Activity", "Scaling", "activity_of", "scaling_of", "set_minimum"]

_ANSWER_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Scaling:
    """Limits of the number of containers of a function.

    Attributes:
        min_containers: Number that Modal keeps running without jobs.
        max_containers: Maximum number; None without a limit.
    """

    min_containers: int
    max_containers: int | None


@dataclass(frozen=True, slots=True)
class Activity:
    """What a function does now.

    Attributes:
        backlog: Number of calls that wait for a container.
        running: Number of calls that run.
        containers: Number of containers, also of those that start or wait for a call.
        min_containers: Number of containers that Modal keeps without jobs; None if this version of modal cannot read
            it.
    """

    backlog: int
    running: int
    containers: int
    min_containers: int | None


async def scaling_of(backend: ModalBackend, function: str) -> Scaling:
    """Return the current limits of a function.

    Raises:
        RemoteError: The function is not deployed, or Modal is unreachable.
    """
    return await _update(backend, function, {})


async def set_minimum(backend: ModalBackend, function: str, containers: int) -> Scaling:
    """Have Modal keep at least `containers` containers of a function; return its limits.

    Raises:
        RemoteError: The function is not deployed, or Modal is unreachable.

    Cancellation: returns at once; Modal may have received the request.
    """
    return await _update(backend, function, {"min_containers": containers})


async def activity_of(backend: ModalBackend, function: str) -> Activity:
    """Return what a function does now.

    Raises:
        RemoteError: The function is not deployed, or Modal is unreachable.
    """
    handle = await backend.find(function)
    stats = await call_api(handle.get_current_stats.aio, _ANSWER_SECONDS, function=function)
    least = None
    if hasattr(handle, "autoscaler"):  # modal 1.6.0 has no such attribute
        least = (
            await call_api(handle.autoscaler.settings.aio, _ANSWER_SECONDS, function=function)
        ).min_containers or 0
    return Activity(stats.backlog, stats.num_running_inputs, stats.num_total_runners, least)


async def _update(backend: ModalBackend, function: str, changes: dict[str, int]) -> Scaling:
    """Change some limits, and return all of them; those that are not named keep their value."""
    handle = await backend.find(function)
    # modal 1.6.4 has deprecated the older name.
    update = handle.autoscaler.update if hasattr(handle, "autoscaler") else handle.update_autoscaler
    current = await call_api(lambda: update.aio(**changes), _ANSWER_SECONDS, function=function)
    return Scaling(current.min_containers or 0, current.max_containers or None)
