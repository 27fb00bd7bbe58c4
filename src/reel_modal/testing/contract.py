"""Pytest plugin: the tests that every declared function must pass, for a host's own functions.

Load it in the `conftest.py` in the root folder of the tests; then make a subclass of `FunctionContract` for each
function:

    pytest_plugins = ["reel_modal.testing.contract"]

It needs pytest, and neither Modal, nor an account, nor a GPU. The tests start a few worker processes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

from reel_modal._jobs.estimates import estimate
from reel_modal._support.portal import run_sync
from reel_modal.backends.local import LocalBackend
from reel_modal.backends.memory import InMemoryBackend, Script
from reel_modal.client import FunctionRegistry
from reel_modal.errors import BadInputError, InvalidMediaError, JobCancelledError, ObjectNotFoundError
from reel_modal.functions.catalog import all_functions
from reel_modal.functions.contract import local_contract
from reel_modal.functions.declaration import RenderFunction
from reel_modal.functions.runner import run_job
from reel_modal.media import probe
from reel_modal.schema.requests import Request
from reel_modal.settings import Settings
from reel_modal.testing._jobs import (
    CancelIn,
    ContractStore,
    FinishedJob,
    hash_in_other_process,
    run_in_worker,
    watch_job,
)
from reel_modal.testing.clips import make_clip

try:
    import pytest
except ImportError as _error:
    raise ImportError("reel_modal.testing.contract is a pytest plugin; install pytest to use it") from _error

__all__ = [
    "ContractStore",
    "FinishedJob",
    "FunctionContract",
    "contract_job",
    "contract_local",
    "contract_memory",
    "contract_store",
]

T = TypeVar("T")

_JOB_ID: Final = "contract"
_PROCESS_SECONDS: Final = 120.0
_UPDATE_SECONDS: Final = 0.05


class FunctionContract:
    """The tests of one function. A subclass sets `function`, and is a test class of the host.

    The tests prove that the function behaves like those of this package: it runs in other processes, reports its
    progress, publishes its output completely or not at all, is not run twice for the same request, and can be
    cancelled. A body must publish an output under the `output_key` of its request, and report at least one phase.

    Attributes:
        function: The declared function.
        cancel_seconds: Longest time from the cancellation of a job to its end. A worker process that does not reach
            `raise_if_cancelled` is interrupted after two seconds, and ended by force after eight.

    Example:
        >>> class TestMakeThumbnail(FunctionContract):
        ...     function = make_thumbnail
        ...
        ...     def request(self, keys):
        ...         return ThumbnailRequest(**keys, cells=4)
    """

    function: ClassVar[RenderFunction[Any, Any]]
    cancel_seconds: ClassVar[float] = 10.0

    def request(self, keys: Mapping[str, str]) -> Any:
        """Return a request that takes a second or two; by default, that of the trial before a deployment.

        Args:
            keys: `job_id`, `user_id`, `input_key` (`in.mp4`) and `output_key`. The keys may be replaced, the ids may
                not. Two requests may differ only in the `job_id`.
        """
        return self.function.trial_request(keys)

    def write_input(self, path: Path) -> None:
        """Write the input of the request; by default, a clip of two seconds with a tone.

        Args:
            path: The file to write, named as the `input_key` of the request.
        """
        make_clip(path, size=(320, 180), seconds=2, audio_seconds=2)

    # The declaration, the request and the result.

    def test_declaration_is_found_by_other_processes(self) -> None:
        """A worker process and a container import the module of the declaration."""
        assert all_functions([self.function])[self.function.name] is self.function
        submitted = self._submitted()
        assert hash_in_other_process(self.function, submitted) == submitted.request_hash()

    def test_declaration_has_a_contract_for_deployments(self) -> None:
        """A deployment sends the package of the declaration, and `verify` compares its files."""
        row = local_contract(functions={self.function.name: self.function}).functions[self.function.name]
        assert row["module"] == self.function.module
        assert row.get("package", self.function.package).startswith(self.function.package)

    def test_request_survives_json(self) -> None:
        """The request is the same after it was sent to another process."""
        request = self._request()
        submitted = self.function.to_request(request)
        sent = json.loads(json.dumps(submitted.to_dict()))
        assert self.function.parse_request(sent) == submitted
        assert self.function.from_request(self.function.parse_request(sent)) == request

    def test_request_hash_ignores_the_job_id(self) -> None:
        """Two jobs with the same request have the same hash, so that the second finds the output of the first."""
        first, again, other = self._submitted(), self._submitted(), self._submitted("contract-2")
        assert first.request_hash() == again.request_hash() == other.request_hash()
        assert (first.job_id, other.job_id) == (_JOB_ID, "contract-2"), "`request` must use the given job_id"
        elsewhere = replace(first, user_id="someone-else")
        assert elsewhere.request_hash() != first.request_hash()

    def test_result_survives_json(self, contract_job: FinishedJob) -> None:
        """The result is the same after it was sent from another process."""
        sent = json.loads(json.dumps(contract_job.receipt.to_dict()))
        assert self.function.parse_result(sent) == contract_job.receipt
        assert self.function.from_result(self.function.parse_result(sent)) == contract_job.result

    # A job in a worker process.

    def test_job_returns_typed_result_with_receipt(self, contract_job: FinishedJob) -> None:
        """The result has the declared type; the receipt has the ids, the durations and the usage."""
        assert isinstance(contract_job.result, self.function.result)
        receipt = contract_job.receipt
        assert (receipt.job_id, receipt.function) == (_JOB_ID, self.function.name)
        assert receipt.reused_from is None
        assert receipt.usage is not None
        assert receipt.usage.seconds > 0
        assert receipt.usage.bytes_in > 0
        assert receipt.usage.package_version

    def test_job_publishes_its_output(self, contract_job: FinishedJob) -> None:
        """The output is in the store, complete; no other file of the store has changed or is half written."""
        receipt, files = contract_job.receipt, contract_job.store.files()
        assert receipt.stored_key in files, "the body has published nothing under the output_key of its request"
        assert files[str(receipt.stored_key)][0] == receipt.bytes > 0
        assert [key for key in files if Path(key).name.startswith(".")] == []
        assert [key for key, (size, _) in files.items() if size == 0] == []

    def test_job_reports_its_phases(self, contract_job: FinishedJob) -> None:
        """Each phase is reported from its beginning to its end, and its duration is in the receipt."""
        events = contract_job.events
        phases = list(dict.fromkeys(event.phase for event in events))
        assert len(phases) > 1, "the body reports no phase; use context.reporter.phase(name, total)"
        assert phases[-1] == "publish"
        assert set(phases) == set(contract_job.receipt.seconds_by_phase)
        assert all(one.sequence < other.sequence for one, other in pairwise(events))
        for phase in phases:
            first, *_, last = [event for event in events if event.phase == phase]
            assert first.done == 0
            assert last.total is None or last.done == last.total

    def test_job_progress_rises_to_complete(self, contract_job: FinishedJob) -> None:
        """A progress bar never moves backward, and ends at 100 %."""
        shares = [update.progress for update in contract_job.updates]
        assert shares == sorted(shares)
        last = contract_job.updates[-1]
        assert (last.status, last.phase, last.percent) == ("complete", "complete", 100)

    def test_job_writes_only_in_its_folder(self, contract_job: FinishedJob) -> None:
        """The body leaves no file in the current directory or in the temporary directory."""
        assert contract_job.outside == ()

    # The same request again.

    def test_same_job_again_does_not_run_the_body(self, contract_job: FinishedJob) -> None:
        """A second submission, such as after a restart of the host, returns the result of the first."""
        before = contract_job.store.files()
        again = run_in_worker(self.function, contract_job.request, contract_job.store)
        assert again.events == ()
        # The stored receipt was written before the output was published, so its durations and usage are smaller.
        expected = replace(contract_job.receipt, seconds_by_phase={}, usage=None)
        assert replace(again.receipt, seconds_by_phase={}, usage=None) == expected
        assert self.function.from_result(again.receipt) == again.result
        assert contract_job.store.files() == before

    def test_other_job_reuses_the_output(self, contract_job: FinishedJob) -> None:
        """A job with another id and `store.existing="reuse"` returns the output of the first job."""
        before = contract_job.store.files()
        other = run_in_worker(self.function, _reusing(self._request("contract-2")), contract_job.store)
        assert other.events == ()
        assert (other.receipt.job_id, other.receipt.reused_from) == ("contract-2", _JOB_ID)
        assert contract_job.store.files() == before

    # Cancellation and errors.

    def test_cancelled_body_stops_in_each_phase(
        self, contract_job: FinishedJob, contract_store: ContractStore, tmp_path: Path
    ) -> None:
        """A body that is cancelled in any phase raises JobCancelledError, publishes nothing, and leaves no file."""
        before, folder = contract_store.files(), tmp_path / "work"
        folder.mkdir()
        for phase in dict.fromkeys(event.phase for event in contract_job.events if event.phase != "publish"):
            cancellation = CancelIn(phase)
            with pytest.raises(JobCancelledError):
                run_job(
                    self.function,
                    self._submitted().to_dict(),
                    settings=contract_store.settings,
                    send=cancellation,
                    cancellation=cancellation.token,
                    folder=folder,
                )
            assert cancellation.seconds() < self.cancel_seconds, f"cancelled in the phase {phase!r}"
            assert contract_store.files() == before
            assert list(folder.iterdir()) == []

    def test_cancelled_worker_ends_and_leaves_nothing(
        self, contract_store: ContractStore, contract_local: FunctionRegistry, tmp_path: Path
    ) -> None:
        """A worker process that is cancelled ends in time. A job that has ended before has published everything."""
        before = contract_store.files()
        with _watched(tmp_path / "watched") as outside:
            succeeded, seconds = run_sync(self._cancel(contract_local))
        assert seconds < self.cancel_seconds
        assert (contract_store.files() != before) == succeeded
        assert outside() == ()

    def test_missing_input_raises_typed_error(
        self, contract_store: ContractStore, contract_local: FunctionRegistry
    ) -> None:
        """An input that does not exist is named, and nothing is published."""
        contract_store.input.unlink()
        with pytest.raises(BadInputError, match="not found") as caught:
            run_sync(contract_local[self.function](self._request()))
        assert isinstance(caught.value.__cause__, ObjectNotFoundError)
        assert not caught.value.retryable
        assert contract_store.files() == {}

    # Before the submission, and without a worker.

    def test_estimate_has_time_and_price(self, contract_store: ContractStore) -> None:
        """A host learns before the submission how long a job takes and what it costs."""
        try:
            media = probe(contract_store.input)
        except InvalidMediaError:
            pytest.skip("the input is not a video, so that it has no estimate")
        for on_modal in (False, True):
            settings = replace(contract_store.settings, modal_enabled=on_modal)
            functions = {self.function.name: self.function}
            expected = estimate(self._request(), media, settings=settings, functions=functions)
            assert expected.function == self.function.name
            assert expected.seconds > 0
            assert expected.frames >= 1
            assert (expected.dollars > 0) == on_modal

    def test_memory_backend_plays_a_script(
        self, contract_job: FinishedJob, contract_memory: FunctionRegistry
    ) -> None:
        """The tests of a host replace the function by a script with its events, its result or its error."""
        backend = contract_memory.backend
        assert isinstance(backend, InMemoryBackend)
        events = [replace(event, elapsed_seconds=0.0) for event in contract_job.events]
        backend.script(
            self.function.name,
            Script(result=contract_job.receipt.to_dict(), events=events),
            Script(error=InvalidMediaError("the input is not a video")),
        )
        played = run_sync(watch_job(contract_memory, self.function, contract_job.request))
        assert played[0] == contract_job.result
        assert played[3][-1].status == "complete"
        assert backend.submitted[0].args == (self.function.to_request(contract_job.request).to_dict(),)
        with pytest.raises(BadInputError, match="not a video"):
            run_sync(contract_memory[self.function](self._request("contract-2")))

    # Helpers.

    def _request(self, job_id: str = _JOB_ID) -> Any:
        keys = {"user_id": "contract", "input_key": "in.mp4", "output_key": f"{self.function.name}.mp4"}
        return self.request({"job_id": job_id, **keys})

    def _submitted(self, job_id: str = _JOB_ID) -> Request[Any]:
        return self.function.to_request(self._request(job_id))

    async def _cancel(self, registry: FunctionRegistry) -> tuple[bool, float]:
        """Cancel a job at its first event; return whether it had succeeded, and the seconds to its end."""
        job = await registry[self.function].submit(self._request())
        async for _ in job.events():
            break
        cancelled_at = time.monotonic()
        await job.cancel()
        try:
            await job.result(timeout_seconds=self.cancel_seconds)
        except JobCancelledError:
            return False, time.monotonic() - cancelled_at
        return True, time.monotonic() - cancelled_at


# The fixtures. Each uses the function of the test class, if the test is in a `FunctionContract`.


@pytest.fixture
def contract_store(request: pytest.FixtureRequest, tmp_path: Path) -> ContractStore:
    """A store with the input of the function; in other tests, with a clip `in.mp4` of two seconds."""
    return _make_store(_contract_of(request), tmp_path / "store")


@pytest.fixture
def contract_local(request: pytest.FixtureRequest, contract_store: ContractStore) -> Iterator[FunctionRegistry]:
    """A registry that runs jobs in worker processes on this machine, with the store `contract_store`."""
    settings = contract_store.settings
    registry = FunctionRegistry(settings, functions=_functions_of(request), backend=LocalBackend(settings))
    yield registry
    run_sync(registry.close())


@pytest.fixture
def contract_memory(request: pytest.FixtureRequest) -> Iterator[FunctionRegistry]:
    """A registry whose backend is an `InMemoryBackend`, for scripts."""
    registry = FunctionRegistry(Settings(), functions=_functions_of(request), backend=InMemoryBackend())
    yield registry
    run_sync(registry.close())


@pytest.fixture(scope="class")
def contract_job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FinishedJob:
    """A job of the function that has run in a worker process; the tests of a class share it."""
    contract = _contract_of(request)
    assert contract is not None, "the fixture contract_job is for subclasses of FunctionContract"
    folder = tmp_path_factory.mktemp(contract.function.name)
    store = _make_store(contract, folder / "store")
    with _watched(folder / "watched") as outside:
        job = run_in_worker(contract.function, contract._request(), store)  # noqa: SLF001 - of this module
        return replace(job, outside=outside())


def _contract_of(request: pytest.FixtureRequest) -> FunctionContract | None:
    kind = request.cls
    return kind() if isinstance(kind, type) and issubclass(kind, FunctionContract) else None


def _functions_of(request: pytest.FixtureRequest) -> list[RenderFunction[Any, Any]]:
    contract = _contract_of(request)
    return [] if contract is None else [contract.function]


def _make_store(contract: FunctionContract | None, folder: Path) -> ContractStore:
    contract, key = contract or FunctionContract(), "in.mp4"
    if type(contract) is not FunctionContract:
        key, _ = contract._submitted().stored_keys()  # noqa: SLF001 - of this module
    path = folder / key
    path.parent.mkdir(parents=True)
    contract.write_input(path)
    return ContractStore(folder, path)


@contextmanager
def _watched(folder: Path) -> Iterator[Any]:
    """Use an empty current directory and temporary directory; yield a function that returns the files in them."""
    current, temporary = folder / "current", folder / "temporary"
    current.mkdir(parents=True)
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [os.path.abspath(entry) for entry in sys.path])  # noqa: PTH100 - of an empty entry
        patch.chdir(current)
        patch.setattr(tempfile, "tempdir", str(temporary))
        for variable in ("TMPDIR", "TEMP", "TMP"):
            patch.setenv(variable, str(temporary))
        yield lambda: tuple(sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/**/*")))


def _reusing(request: Any) -> Any:
    """Return the request with `store.existing="reuse"`."""
    store = getattr(request, "store", None)
    if store is None:
        pytest.skip("the request has no field `store`, so that other jobs cannot reuse its output")
    store = replace(store, existing="reuse")
    if dataclasses.is_dataclass(request) and not isinstance(request, type):
        return replace(request, store=store)
    return request.model_copy(update={"store": store})
