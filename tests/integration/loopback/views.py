"""The views that a test reads: a deployed function and a container, as plain Python values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modal_proto import api_pb2

from .model import Container, Function
from .workspace import Workspace


@dataclass(frozen=True, slots=True)
class DeployedFunction:
    """One published function as stored by the control plane; `None` and empty mean "not stated"."""

    name: str
    function_id: str
    definition_id: str
    gpus: tuple[str, ...]
    cpu: float | None
    memory_mib: int | None
    timeout_seconds: int
    startup_timeout_seconds: int
    retries: int
    max_containers: int | None
    min_containers: int | None
    scaledown_window_seconds: int | None
    single_use_containers: bool
    secrets: tuple[str, ...]
    variables: dict[str, str]
    image_commands: tuple[str, ...]
    image_files: dict[str, bytes]
    mounted_files: tuple[str, ...]
    data: api_pb2.FunctionData

    @classmethod
    def of(cls, function: Function, workspace: Workspace) -> DeployedFunction:
        """Describe the live version of a function."""
        live = function.live
        assert live is not None
        proto, resources = live.proto, live.proto.resources
        choices = [ranked.function.resources.gpu_config for ranked in live.data.ranked_functions]
        scaling = proto.autoscaler_settings
        names = {secret.id: name for (_, name), secret in workspace.named_secrets.items()}
        return cls(
            name=function.name,
            function_id=function.id,
            definition_id=live.id,
            gpus=tuple(_gpu(choice) for choice in choices if choice.count),
            cpu=resources.milli_cpu / 1000 if resources.milli_cpu else None,
            memory_mib=resources.memory_mb or None,
            timeout_seconds=proto.timeout_secs,
            startup_timeout_seconds=proto.startup_timeout_secs,
            retries=proto.retry_policy.retries,
            max_containers=scaling.max_containers or None,
            min_containers=scaling.min_containers or None,
            scaledown_window_seconds=scaling.scaledown_window or None,
            single_use_containers=proto.single_use_containers,
            secrets=tuple(names.get(secret_id, secret_id) for secret_id in proto.secret_ids),
            variables={
                name: value
                for secret_id in proto.secret_ids
                if secret_id not in names
                for name, value in workspace.secrets[secret_id].items()
            },
            image_commands=tuple(workspace.image_commands(proto.image_id)) if proto.image_id else (),
            image_files=workspace.image_files(proto.image_id) if proto.image_id else {},
            mounted_files=tuple(
                file.filename for mount_id in sorted(proto.mount_ids) for file in workspace.mounts[mount_id]
            ),
            data=live.data,
        )


@dataclass(frozen=True, slots=True)
class RunningContainer:
    """A container process and the calls whose inputs it runs."""

    task_id: str
    function: str
    # The version to which its function is pinned; 0 if it is not.
    pinned_version: int
    pid: int | None
    # Whether it has asked for an input.
    ready: bool
    # How often its idle time has passed while the minimum of its function kept it.
    idle_rounds: int
    call_ids: tuple[str, ...]
    folder: Path

    @classmethod
    def of(cls, container: Container) -> RunningContainer:
        """Describe the present state of a container."""
        process = container.process
        call_ids = tuple(call_input.call.id for call_input in container.inputs.values())
        return cls(
            task_id=container.id,
            function=container.function.name,
            pinned_version=container.function.pinned_version,
            pid=process.pid if process else None,
            ready=container.ready,
            idle_rounds=container.idle_rounds,
            call_ids=call_ids,
            folder=container.folder,
        )


def _gpu(config: api_pb2.GPUConfig) -> str:
    return config.gpu_type if config.count == 1 else f"{config.gpu_type}:{config.count}"
