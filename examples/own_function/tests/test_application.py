"""An application that uses `make_thumbnail`, with scripts in place of the function."""

from __future__ import annotations

import pytest

from reel_modal import FunctionRegistry, ProgressEvent, ProgressUpdate
from reel_modal.errors import BadInputError, ObjectNotFoundError
from reel_modal.testing import InMemoryBackend, Script
from thumbnails import ThumbnailRequest, ThumbnailResult

REQUEST = ThumbnailRequest(job_id="7", user_id="u", input_key="in.mp4", output_key="7.jpg", cells=9)
RESULT = ThumbnailResult(output_key="7.jpg", cell_size=(160, 90), sprite_key="7-sprite.jpg", index_key="7-sprite.vtt")


def upload(registry: FunctionRegistry, request: ThumbnailRequest) -> tuple[ThumbnailResult, list[ProgressUpdate]]:
    """Make the thumbnails of an uploaded clip, as an application does; return the result and the shown progress."""
    shown: list[ProgressUpdate] = []
    return registry.run_sync(request, on_progress=shown.append), shown


def backend_of(registry: FunctionRegistry) -> InMemoryBackend:
    """Return the backend of the fixture `contract_memory`."""
    assert isinstance(registry.backend, InMemoryBackend)
    return registry.backend


def test_upload_shows_progress_and_returns_keys(contract_memory: FunctionRegistry) -> None:
    events = [ProgressEvent("render", done, 50, elapsed_seconds=0, sequence=done + 1) for done in (0, 25, 50)]
    backend_of(contract_memory).script("make_thumbnail", Script(result=RESULT.to_dict(), events=events))
    result, shown = upload(contract_memory, REQUEST)
    assert (result.sprite_key, result.index_key) == ("7-sprite.jpg", "7-sprite.vtt")
    assert shown[-1].phase == "complete"
    (sent,) = backend_of(contract_memory).submitted
    assert ThumbnailRequest.parse(sent.args[0]) == REQUEST  # type: ignore[arg-type]


def test_upload_without_file_reports_bad_input(contract_memory: FunctionRegistry) -> None:
    backend_of(contract_memory).script("make_thumbnail", Script(error=ObjectNotFoundError("in.mp4 not found")))
    with pytest.raises(BadInputError, match=r"in.mp4 not found"):
        upload(contract_memory, REQUEST)
