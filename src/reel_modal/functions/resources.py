"""Resources of single jobs on Modal, in place of those with which their function was deployed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Self

from reel_modal.errors import ConfigError
from reel_modal.functions.specs import FunctionSpec, resource_problem

__all__ = ["Resources"]

_GPU: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,31}!?(:[1-8])?")
_REGION: Final = re.compile(r"[a-z][a-z0-9-]{0,31}")
_NUMBERS: Final = ("cpu", "memory_mb", "timeout_seconds", "max_containers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Resources of jobs on Modal that differ from the deployed ones; None keeps the deployed value.

    Modal starts separate containers for each combination of a function and resources: the first such job starts
    cold. On this machine they have no effect, since a worker process has the cores, the memory and the GPU of the
    machine, and no timeout. The values are checked there too, and a warning is logged.

    Attributes:
        gpu: GPU type such as `L4`, or a number of them such as `A100-80GB:2`. Only for functions that are deployed
            with a GPU: the image of the others has no libraries for it. Modal cannot take a GPU away.
        cpu: Reserved cores, 0.125 to 64.
        memory_mb: Reserved memory in MiB, 128 to 344,064.
        timeout_seconds: Maximum duration of one call, 1 to 86,400.
        region: Region of the machines, such as `eu` or `us-east`. Modal charges 1.15 to 1.75 times as much for it.
        max_containers: Maximum number of containers with these resources at the same time, 1 to 1,000.

    Raises:
        ConfigError: A value is not of its type or out of range, or none is set; the message names the field.

    Example:
        >>> Resources(gpu="L4", timeout_seconds=3600).to_text()
        'gpu=L4, timeout_seconds=3600'
    """

    gpu: str | None = None
    cpu: float | None = None
    memory_mb: int | None = None
    timeout_seconds: int | None = None
    region: str | None = None
    max_containers: int | None = None

    def __post_init__(self) -> None:
        if not self.to_dict():
            raise ConfigError(f"Resources needs at least one of {', '.join(each.name for each in fields(self))}")
        for name in _NUMBERS:
            value = getattr(self, name)
            whole = name == "cpu" or isinstance(value, int)
            problem = resource_problem(name, value) if whole else "must be a whole number"
            if value is not None and problem is not None:
                raise ConfigError(f"Resources: {name}={value!r} {problem}")
        if self.gpu is not None:
            if isinstance(self.gpu, str) and self.gpu.strip().lower() == "none":
                raise ConfigError(
                    "Resources: gpu='none': Modal cannot take a GPU away; deploy the function without one"
                )
            if not isinstance(self.gpu, str) or not _GPU.fullmatch(self.gpu):
                raise ConfigError(f"Resources: gpu={self.gpu!r} must be one GPU type, such as 'L4' or 'A100-80GB:2'")
        if self.region is not None and not (isinstance(self.region, str) and _REGION.fullmatch(self.region)):
            raise ConfigError(
                f"Resources: region={self.region!r} must be a region of Modal, such as 'eu' or 'us-east'"
            )

    def applied_to(self, spec: FunctionSpec) -> FunctionSpec:
        """Return the resources of a function's calls.

        Raises:
            ConfigError: A GPU is set, and the function is deployed without one.
        """
        if self.gpu is not None and not spec.gpu:
            raise ConfigError(
                f"{spec.name} is deployed without a GPU, and its image has no libraries for one: leave out gpu,"
                f" or deploy with REEL_MODAL_{spec.name.upper()}_GPU={self.gpu}"
            )
        numbers = {name: value for name in _NUMBERS if (value := getattr(self, name)) is not None}
        return replace(spec, gpu=spec.gpu if self.gpu is None else (self.gpu,), **numbers)

    def for_calls(self, *, gpu: bool) -> Resources | None:
        """Return the resources for calls of a function with or without a GPU; None if nothing is set for them."""
        left = {name: value for name, value in self.to_dict().items() if gpu or name != "gpu"}
        return Resources.from_dict(left) if left else None

    @property
    def changes_speed(self) -> bool:
        """Whether jobs take another time than those with the deployed resources and the same GPU."""
        return self.cpu is not None or self.memory_mb is not None

    def to_dict(self) -> dict[str, object]:
        """Return the values that are set, ready for JSON."""
        return {each.name: value for each in fields(self) if (value := getattr(self, each.name)) is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Return the resources that `to_dict` returned.

        Raises:
            ConfigError: A value is not valid.
        """
        known = {each.name for each in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"Resources: unknown: {', '.join(unknown)}")
        return cls(**values)  # type: ignore[arg-type]

    def to_text(self) -> str:
        """Return the values that are set as text: `gpu=L4, cpu=8`."""
        return ", ".join(f"{name}={value}" for name, value in self.to_dict().items())

    def to_options(self) -> dict[str, Any]:
        """Return the arguments of `modal.Function.with_options`."""
        names = {"memory_mb": "memory", "timeout_seconds": "timeout"}
        return {names.get(name, name): value for name, value in self.to_dict().items()}
