"""The plane for tests: synchronous, in a separate thread, usable from any event loop."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar, cast

import modal
from modal_proto import api_pb2

from .blobs import Blobs
from .calls import Calls
from .containers import Containers
from .deployments import Deployments
from .faults import Faults
from .model import App, Container
from .processes import processes_of
from .queues import Queues
from .views import DeployedFunction, RunningContainer
from .wire import Recorded, Wire
from .workspace import Workspace

T = TypeVar("T")

# GENERIC_STATUS_KERNEL_OOM_KILL; the number has a name since modal 1.6.3.
_KERNEL_OOM_KILL = cast("api_pb2.GenericResult.GenericStatus.ValueType", 10)
TOKEN_ID, TOKEN_SECRET = "ak-loopback", "as-loopback-secret"
LONGEST_FREEZE_SECONDS = 100.0


class LoopbackPlane:
    """Modal's control plane on 127.0.0.1 for the real client, command line and container runtime.

    Args:
        folder: The folder for the files and the output of the containers.
        container_python: The interpreter of the containers; it must have modal and the packages of the image.
        container_limit: The maximum of running containers of all functions. A container does not count while calls
            that its body made have not ended, so functions that wait for each other cannot block one another.
        grace_seconds: Time between the cancellation or timeout of a body and the kill of its container.
        environments: The names of the environments that exist.
        builder_version: Version of the image builder in the settings of the workspace.
    """

    def __init__(
        self,
        folder: Path,
        *,
        container_python: str | Path = sys.executable,
        container_limit: int = 4,
        grace_seconds: float = 5.0,
        environments: Iterable[str] = ("main",),
        builder_version: str = "2025.06",
    ) -> None:
        self.folder = folder
        self.faults = Faults()
        self.url = ""
        self._blobs = Blobs()
        self._workspace = Workspace(self._blobs, self.faults, builder_version, set(environments))
        self._deployments = Deployments(self._workspace)
        self._calls = Calls(self._deployments)
        self._queues = Queues(self._workspace)
        self._containers = Containers(
            self._deployments,
            self._calls,
            self.faults,
            folder,
            str(container_python),
            container_limit,
            grace_seconds,
        )
        self._wire = Wire(
            [
                self._workspace,
                self._deployments,
                self._calls,
                self._containers,
                self._containers.logs,
                self._queues,
                self._blobs,
            ],
            {TOKEN_ID: TOKEN_SECRET},
            self.faults,
        )
        self._wire.is_task = self._containers.running.__contains__
        self._wire.on_request = self._calls.on_change = self._changed
        self._change = threading.Condition()
        self._changes = 0
        self._clients: list[modal.Client] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loopback plane", daemon=True)

    def __enter__(self) -> LoopbackPlane:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        self.url = self._containers.url = self._run(self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            close_client(client)
        self.faults.clear()
        self._run(self._stop)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # How to reach it.

    def environment(self, *, token_id: str = TOKEN_ID, token_secret: str = TOKEN_SECRET) -> dict[str, str]:
        """Return the variables that point a process at this plane and hide the user's own Modal settings."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": token_id,
            "MODAL_TOKEN_SECRET": token_secret,
            "MODAL_CONFIG_PATH": str(home / "no-modal.toml"),
            "MODAL_ENVIRONMENT": "main",
            "MODAL_DISABLE_API_PROXY": "1",
            "NO_PROXY": "127.0.0.1",
            "HOME": str(home),
        }

    def client(self, *, token_id: str = TOKEN_ID, token_secret: str = TOKEN_SECRET) -> modal.Client:
        """Return a new, open client, independent of the process-wide one; the plane closes it.

        Call this outside an event loop: opening blocks.
        """
        client = modal.Client(self.url, api_pb2.CLIENT_TYPE_CLIENT, (token_id, token_secret))
        client.__enter__()
        self._clients.append(client)
        return client

    # Requests and state.

    @property
    def requests(self) -> list[Recorded]:
        """Return every request of a client so far, as (name of the RPC, message)."""
        return list(self._wire.requests)

    @property
    def container_requests(self) -> list[Recorded]:
        """Return every request of a container so far, as (name of the RPC, message)."""
        return list(self._wire.container_requests)

    def count(self, rpc: str, *, side: Literal["client", "container"] = "client") -> int:
        """Return how often an RPC was requested."""
        recorded = self._wire.requests if side == "client" else self._wire.container_requests
        return sum(request.rpc == rpc for request in list(recorded))

    def take_errors(self) -> list[str]:
        """Return and clear the tracebacks of the plane itself; each one is a bug of the plane."""
        errors = [*self._wire.errors, *self._containers.errors]
        self._wire.errors.clear()
        self._containers.errors.clear()
        return errors

    def functions(self, app: str, environment: str = "main") -> dict[str, DeployedFunction]:
        """Return the published functions of a deployed app by name; empty if the app is not deployed."""

        async def look() -> dict[str, DeployedFunction]:
            app_state = self._deployments.deployed(app, environment)
            functions = self._deployments.functions_of(app_state) if app_state else {}
            return {name: DeployedFunction.of(one, self._workspace) for name, one in functions.items()}

        return self._run(look)

    def app_tags(self, app: str, environment: str = "main") -> dict[str, str]:
        """Return the tags of a deployed app."""
        return self._run(lambda: self._with_app(app, environment, lambda deployed_app: dict(deployed_app.tags)))

    def minimums(self, function: str) -> list[int]:
        """Return each minimum number of containers that a client has set for a function, in order."""
        changes = [request.request for request in self.requests if request.rpc == "FunctionUpdateSchedulingParams"]
        return [
            change.settings.min_containers
            for change in cast("list[api_pb2.FunctionUpdateSchedulingParamsRequest]", changes)
            if change.settings.HasField("min_containers")
            and self._deployments.functions[change.function_id].name == function
        ]

    def queue_lengths(self, name: str, environment: str = "main") -> dict[str, int]:
        """Return the number of items by partition of a named queue, without the empty partitions."""

        async def look() -> dict[str, int]:
            return self._queues.lengths(name, environment)

        return self._run(look)

    def containers(self, function: str | None = None) -> list[RunningContainer]:
        """Return the running containers, of one function or of all."""

        async def look() -> list[RunningContainer]:
            running = self._containers.running.values()
            return [RunningContainer.of(one) for one in running if function in {None, one.function.name}]

        return self._run(look)

    def started_containers(self) -> int:
        """Return how many containers have been started in total."""
        folder = self.folder / "containers"
        return sum(1 for _ in folder.iterdir()) if folder.exists() else 0

    def processes(self) -> list[int]:
        """Return every living process of every container that was ever started."""
        folder = self.folder / "containers"
        ids = [path.name for path in folder.iterdir()] if folder.exists() else []
        return [pid for task_id in ids for pid in processes_of(task_id)]

    def temporary_files(self) -> list[Path]:
        """Return the temporary files of the running containers."""
        folders = [container.folder / "tmp" for container in self.containers()]
        return [path for folder in folders if folder.exists() for path in folder.iterdir()]

    def logs(self) -> str:
        """Return the output of the containers, to debug a failed test."""
        files = sorted((self.folder / "containers").glob("*/std*"))
        shown = [(path, path.read_text(errors="replace")) for path in files]
        return "\n".join(f"== {path.parent.name} {path.name}\n{text}" for path, text in shown if text)

    # Settings for a test.

    @property
    def container_environment(self) -> dict[str, str]:
        """Additional variables for every later container; change it in place."""
        return self._containers.variables

    @property
    def billing_rates(self) -> dict[str, str]:
        """The workspace's dollars per hour, by Modal's names; change it in place."""
        return self._workspace.billing_rates

    @property
    def bill(self) -> list[api_pb2.WorkspaceBillingReportItem]:
        """The workspace's bill; change it in place."""
        return self._workspace.bill

    def limit_idle_seconds(self, seconds: float) -> None:
        """End containers that wait for an input for this long, even if their function lets them wait longer."""
        self._containers.longest_idle_seconds = seconds

    def create_secret(self, name: str, values: dict[str, str], environment: str = "main") -> None:
        """Create or replace a named secret."""

        async def put() -> None:
            self._workspace.put_secret(name, values, environment)

        self._run(put)

    def remove_secret(self, name: str, environment: str = "main") -> None:
        """Remove a named secret."""

        async def remove() -> None:
            del self._workspace.named_secrets[environment, name]

        self._run(remove)

    def stop_app(self, name: str, environment: str = "main") -> None:
        """Stop an app: it is no longer found, and its calls are terminated."""
        self._run(lambda: self._with_app(name, environment, self._deployments.stop))

    def stop_and_redeploy(self, name: str, environment: str = "main") -> None:
        """Stop an app and deploy the same again, so that every id in a handle is stale."""
        self._run(lambda: self._with_app(name, environment, self._deployments.renew))

    def pass_time(self, seconds: float) -> None:
        """Advance the clock that expires queue partitions."""
        self._queues.passed_seconds += seconds

    # Faults of containers and outputs.

    def preempt(self, of: str) -> None:
        """Preempt the container of a call (or of a function, by name); its inputs run again in another one."""
        self._end(of, None)

    def kill_container(self, of: str, *, out_of_memory: bool = False) -> None:
        """Kill the container of a call (or of a function, by name); its inputs fail."""
        status, why = api_pb2.GenericResult.GENERIC_STATUS_INTERNAL_FAILURE, "Container terminated with SIGKILL."
        if out_of_memory:
            status, why = _KERNEL_OOM_KILL, "Container ran out of memory."
        self._end(of, api_pb2.GenericResult(status=status, exception=why))

    def expire_outputs(self, call_id: str) -> None:
        """Discard the outputs of a call, as Modal does after seven days."""

        async def expire() -> None:
            call = self._calls.calls[call_id]
            call.outputs.clear()
            call.entries.clear()
            call.expired = True
            call.changes.notify()

        self._run(expire)

    def wait_for(self, look: Callable[[], T], timeout: float = 30.0) -> T:
        """Wait until `look` returns something true, and return it; `look` is called after each request and change.

        Raises:
            TimeoutError: `look` returned nothing true in time.
        """
        deadline = time.monotonic() + timeout
        while True:
            changes = self._changes
            # Not under the lock, because a look may use the plane's thread, which takes the lock to report a change.
            if result := look():
                return result
            with self._change:
                if not self._change.wait_for(lambda: self._changes != changes, deadline - time.monotonic()):  # noqa: B023
                    raise TimeoutError(f"nothing came within {timeout} s\n{self.logs()}")

    def reset(self) -> None:
        """Remove faults, records and remains of an earlier test and end its containers; deployments stay."""
        self.faults.clear()
        self._containers.variables.clear()
        self._containers.longest_idle_seconds = math.inf
        self._run(self._end_everything)
        self._wire.requests.clear()
        self._wire.container_requests.clear()

    def restart(self, away_seconds: float) -> None:
        """Break every connection and refuse new ones for a while, as in a Modal outage; no state is lost."""

        async def again() -> None:
            await self._wire.stop(cut=True)
            await asyncio.sleep(away_seconds)
            await self._wire.start(int(self.url.rpartition(":")[2]))

        self._run(again)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the plane like SIGSTOP: connections stay open, but nothing is read or answered."""
        stopped, thawed = threading.Event(), threading.Event()

        def stop() -> None:
            stopped.set()
            thawed.wait(LONGEST_FREEZE_SECONDS)

        self._loop.call_soon_threadsafe(stop)
        assert stopped.wait(10)
        try:
            yield
        finally:
            thawed.set()

    def end_containers(self) -> None:
        """End the idle containers, and return when they have ended."""

        async def end() -> None:
            for container in list(self._containers.running.values()):
                self._containers.end(container, None)

        self._run(end)
        self.wait_for(lambda: not self.containers())

    # Internals.

    async def _start(self) -> str:
        await self._blobs.start()
        return f"http://127.0.0.1:{await self._wire.start()}"

    async def _stop(self) -> None:
        await self._containers.close()
        await self._wire.stop()
        await self._blobs.stop()
        remaining = asyncio.all_tasks() - {asyncio.current_task()}
        for task in remaining:
            task.cancel()
        await asyncio.gather(*remaining, return_exceptions=True)

    async def _end_everything(self) -> None:
        busy = [one for one in self._containers.running.values() if one.inputs or not one.ready]
        for call_input in list(self._calls.inputs.values()):
            self._calls.cancel(call_input)
        for container in busy:
            self._containers.end(container, None)
        self._calls.inputs.clear()
        for function in self._deployments.functions.values():
            function.scaling.Clear()

    def _end(self, of: str, fate: api_pb2.GenericResult | None) -> None:
        def holding() -> Container | None:
            for one in list(self._containers.running.values()):
                calls = {call_input.call.id for call_input in list(one.inputs.values())}
                if one.inputs and not one.draining and of in {one.function.name, one.id, *calls}:
                    return one
            return None

        container = self.wait_for(holding)

        async def end() -> None:
            if container is not None:
                self._containers.end(container, fate)

        self._run(end)

    async def _with_app(self, name: str, environment: str, use: Callable[[App], T]) -> T:
        app = self._deployments.deployed(name, environment)
        if app is None:
            raise LookupError(f"no app {name} is deployed in {environment}")
        return use(app)

    def _run(self, work: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(90)

    def _changed(self) -> None:
        with self._change:
            self._changes += 1
            self._change.notify_all()


def close_client(client: modal.Client) -> None:
    """Close a client; the method is public since modal 1.6.4."""
    (client.close if hasattr(client, "close") else client._close)()
