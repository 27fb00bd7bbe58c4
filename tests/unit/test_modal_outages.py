"""The wait of a listener for the end of a call on Modal, during and after outages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from reel_modal.backends import modal as modal_backend
from reel_modal.backends.base import CallResult
from reel_modal.backends.modal import ModalBackend
from reel_modal.errors import AuthError, JobCancelledError, JobNotFoundError, RemoteError, UnavailableError

OUTAGE = UnavailableError("no response", function="work")


class Scripted(ModalBackend):
    """A backend whose waits answer by a script."""

    def __init__(self, answers: Iterable[RemoteError | CallResult | None]) -> None:
        super().__init__("app")
        self.answers = list(answers)

        self.asked = asyncio.Event()

    async def wait(self, call_id: str, timeout_seconds: float) -> CallResult | None:  # noqa: ARG002 - overridden
        self.asked.set()
        answer = self.answers.pop(0)
        if isinstance(answer, RemoteError):
            raise answer
        return answer


async def test_end_of_call_is_found_after_outages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modal_backend, "_BACKOFF_SECONDS", 0.0)
    backend = Scripted([*[OUTAGE] * 30, None, OUTAGE, None, CallResult("reel")])
    assert await backend._late_seconds("fc-1") == 1.0
    assert backend.answers == []


async def test_end_of_cancelled_call_needs_no_late_events() -> None:
    assert await Scripted([JobCancelledError("cancelled", function="work")])._late_seconds("fc-1") == 0.0


@pytest.mark.parametrize(
    "error", [JobNotFoundError("unknown", function="work"), AuthError("refused", function="work")]
)
async def test_end_of_unknown_call_is_not_retried(error: RemoteError) -> None:
    with pytest.raises(type(error)):
        await Scripted([error])._late_seconds("fc-1")


async def test_wait_in_outage_is_cancelled_promptly() -> None:
    backend = Scripted([OUTAGE] * 5)
    waiting = asyncio.ensure_future(backend._late_seconds("fc-1"))
    await backend.asked.wait()
    waiting.cancel()
    done, _ = await asyncio.wait({waiting}, timeout=0.5)
    assert done == {waiting}
    assert len(backend.answers) == 4
