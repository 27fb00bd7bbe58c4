"""The options of a host for its jobs: limits of its waits, the number of machines and their resources."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from reel_modal._jobs.parallel import Parallel
from reel_modal.errors import ConfigError
from reel_modal.functions.resources import Resources
from reel_modal.settings import limit_problem

__all__ = ["JobOptions"]

OnCancel: TypeAlias = Literal["cancel", "detach"]


@dataclass(frozen=True, slots=True, init=False)
class JobOptions:
    """Limits of a host's waits, and the effect of a cancelled wait on the job.

    An argument that is None, or left out, keeps the default; `RemoteFunction.with_options` keeps the current value.
    `math.inf` disables a limit.

    Attributes:
        on_cancel: Effect on the job if the task that awaits it is cancelled: `cancel` also ends the job and its
            costs, `detach` lets it continue. Default `cancel`.
        stall_seconds: A job that reports no events for this long is cancelled. It counts from the first event on, so
            that a job may wait for its machine. Default 180.
        deadline_seconds: A job that has not ended this long after its submission is cancelled. Default `math.inf`.
        unavailable_seconds: How long the backend may be silent before `UnavailableError`; the job continues. A
            submission without an answer for this long is cancelled. Default 120.
        parallel: Limits within which a job may use several machines. Default: each job uses one.
        resources: Resources of the jobs on Modal in place of the deployed ones. Default: the deployed ones.

    Raises:
        ConfigError: A value is not of its type or out of range; the message names the field.

    Example:
        >>> JobOptions(stall_seconds=math.inf, deadline_seconds=None).deadline_seconds
        inf
    """

    on_cancel: OnCancel
    stall_seconds: float
    deadline_seconds: float
    unavailable_seconds: float
    parallel: Parallel | None
    resources: Resources | None

    def __init__(
        self,
        on_cancel: OnCancel | None = None,
        stall_seconds: float | None = None,
        deadline_seconds: float | None = None,
        unavailable_seconds: float | None = None,
        parallel: Parallel | None = None,
        *,
        resources: Resources | None = None,
    ) -> None:
        if on_cancel not in (None, *get_args(OnCancel)):
            raise ConfigError(f"on_cancel={on_cancel!r} is unknown; use one of {', '.join(get_args(OnCancel))}")
        object.__setattr__(self, "on_cancel", on_cancel or "cancel")
        limits = {
            "stall_seconds": 180.0 if stall_seconds is None else stall_seconds,
            "deadline_seconds": math.inf if deadline_seconds is None else deadline_seconds,
            "unavailable_seconds": 120.0 if unavailable_seconds is None else unavailable_seconds,
        }
        for name, seconds in limits.items():
            if (problem := limit_problem(seconds)) is not None:
                raise ConfigError(f"{name}={seconds!r} {problem}, and None keeps the default")
            object.__setattr__(self, name, seconds)
        if parallel is not None and not isinstance(parallel, Parallel):
            raise ConfigError(f"parallel={parallel!r} must be a Parallel, such as Parallel(max_workers=4)")
        object.__setattr__(self, "parallel", parallel)
        if resources is not None and not isinstance(resources, Resources):
            raise ConfigError(f"resources={resources!r} must be a Resources, such as Resources(gpu='L4')")
        object.__setattr__(self, "resources", resources)
