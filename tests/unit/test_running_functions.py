"""Jobs of a host's function: what is published and when, repeated runs, estimates and recorded timings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.clips import Clips
from tests.own_functions import CopyRequest, CopyResult, SpriteRequest, SpriteResult, Tile, copy_file, make_sprite

from reel_modal import Settings, probe
from reel_modal._jobs.estimates import estimate
from reel_modal._jobs.timing_recorder import TimingRecorder
from reel_modal._segments import WHOLE, SegmentStore
from reel_modal.errors import FunctionError, JobCancelledError, ObjectExistsError, OutputMismatchError
from reel_modal.functions.catalog import all_functions
from reel_modal.functions.context import JobContext
from reel_modal.functions.receipts import find_published_result
from reel_modal.functions.runner import run_job
from reel_modal.progress import ProgressEvent, TimingHistory
from reel_modal.schema import StoreOptions
from reel_modal.storage import FolderStorage, PathStorage

GLOBAL = StoreOptions(input_scope="global", output_scope="global")
REQUEST = CopyRequest(job_id="job", user_id="u", input_key="in.bin", output_key="out.bin", store=GLOBAL)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with one input."""
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "in.bin").write_bytes(b"input")
    return folder


def run(request: CopyRequest, store: Path, events: list[ProgressEvent] | None = None) -> CopyResult:
    send = (lambda _: None) if events is None else events.append
    value = run_job(copy_file, request.to_dict(), settings=Settings(store_url=store.as_uri()), send=send)
    return CopyResult.parse(value)


def objects(store: Path) -> list[str]:
    return sorted(path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file())


def test_finished_job_has_its_output_and_its_result(store: Path) -> None:
    events: list[ProgressEvent] = []
    result = run(REQUEST, store, events)
    assert (result.read_bytes, result.bytes, result.job_id, result.function) == (5, 5, "job", "copy_file")
    assert (result.output_key, result.stored_key) == ("out.bin", "out.bin")
    assert list(result.seconds_by_phase) == ["copy", "publish"]
    assert [event.phase for event in events][-1] == "publish"
    assert result.usage is not None
    assert (store / "out.bin").read_bytes() == b"input"


def test_further_outputs_are_published_before_receipt_and_output(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    publish, write_bytes = FolderStorage.publish, FolderStorage.write_bytes

    def recorded_publish(self: FolderStorage, path: Path, key: str, **options: object) -> object:
        written.append(key)
        return publish(self, path, key, **options)  # type: ignore[arg-type]

    def recorded_write(self: FolderStorage, key: str, data: bytes) -> None:
        written.append(key)
        write_bytes(self, key, data)

    monkeypatch.setattr(FolderStorage, "publish", recorded_publish)
    monkeypatch.setattr(FolderStorage, "write_bytes", recorded_write)
    run(REQUEST, store)
    receipt = f"receipts/{REQUEST.request_hash()}.json"
    assert written == ["out.bin.note", "out.bin.list", receipt, "out.bin"]


@pytest.mark.parametrize(("ending", "error"), [("raise", OSError), ("cancel", JobCancelledError)])
def test_job_that_fails_after_publish_leaves_only_its_input(store: Path, ending: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(replace(REQUEST, ending=ending), store)
    assert objects(store) == ["in.bin"]


def test_function_without_output_has_a_result_and_no_receipt(store: Path) -> None:
    result = run(replace(REQUEST, ending="nothing"), store)
    assert (result.read_bytes, result.bytes) == (5, 0)
    assert objects(store) == ["in.bin"]


@pytest.mark.parametrize("content", [None, b""])
def test_publish_missing_or_empty_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    output = tmp_path / "output"
    if content is not None:
        output.write_bytes(content)
    context = JobContext(PathStorage(), tmp_path, function="copy_file")
    with pytest.raises(OutputMismatchError, match=r"copy_file publishes .*output"):
        context.publish(output, "out.bin")
    assert context.outputs == {}


def test_context_reads_inputs_of_the_user(store: Path, tmp_path: Path) -> None:
    request = CopyRequest(job_id="job", user_id="u", input_key="in.bin", output_key="out.bin")
    (store / "users/u").mkdir(parents=True)
    (store / "users/u/in.bin").write_bytes(b"of u")
    context = JobContext(FolderStorage(store), tmp_path, input_place=request.stored_input)
    assert context.fetch("in.bin").read_bytes() == b"of u"
    with context.open("in.bin").file() as file:
        assert file.read() == b"of u"


def test_repeated_job_does_not_run_its_body(store: Path) -> None:
    first, events = run(REQUEST, store), list[ProgressEvent]()
    assert run(REQUEST, store, events).read_bytes == first.read_bytes
    other = run(replace(REQUEST, job_id="other", store=replace(GLOBAL, existing="reuse")), store, events)
    assert (events, other.reused_from, other.read_bytes) == ([], "job", 5)


def test_call_that_another_one_replaces_does_not_run(store: Path) -> None:
    settings = Settings(store_url=store.as_uri())
    segments = SegmentStore(FolderStorage(store), user_id=REQUEST.user_id, source="")
    segments.note_call(REQUEST.job_id, WHOLE, "second")
    with pytest.raises(FunctionError, match="another call"):
        run_job(copy_file, REQUEST.to_dict(), settings=settings, send=lambda _: None, call_id="first")
    assert not (store / "out.bin").exists()
    run_job(copy_file, REQUEST.to_dict(), settings=settings, send=lambda _: None, call_id="second")
    assert (store / "out.bin").exists()


def test_existing_output_of_another_request_is_refused(store: Path) -> None:
    (store / "out.bin").write_bytes(b"another")
    with pytest.raises(ObjectExistsError):
        run(replace(REQUEST, store=replace(GLOBAL, existing="refuse")), store)
    assert (store / "out.bin").read_bytes() == b"another"


def test_published_result_of_a_host_function_is_found(store: Path) -> None:
    assert find_published_result(copy_file, REQUEST, store.as_uri()) is None
    result = run(REQUEST, store)
    found = find_published_result(copy_file, REQUEST, store.as_uri())
    assert found is not None
    assert CopyResult.parse(found).read_bytes == result.read_bytes


def test_dataclass_request_runs_as_a_job(store: Path) -> None:
    request = SpriteRequest("job", "in.bin", "sprite.txt", (Tile(0.5),))
    settings = Settings(store_url=store.as_uri())
    value = run_job(make_sprite, make_sprite.to_request(request).to_dict(), settings=settings, send=lambda _: None)
    assert make_sprite.from_result(make_sprite.parse_result(value)) == SpriteResult((Tile(0.5),))
    assert value["function"] == "make_sprite"


def test_estimate_assumes_one_frame_for_each_frame(clips: Clips, tmp_path: Path) -> None:
    media = probe(clips.get("25.mp4"))
    functions = all_functions([copy_file, make_sprite], env={})
    history = TimingHistory(tmp_path / "timings.sqlite3")
    expected = estimate(REQUEST, media, settings=Settings(), history=history, functions=functions)
    assert (expected.function, expected.gpu, expected.size) == ("copy_file", "local", media.size)
    assert expected.frames == expected.frames_rendered == media.frames_at(media.fps)
    assert expected.work_seconds == pytest.approx(7.0)  # the published timings
    sprite = SpriteRequest("job", "in.mp4", "out.jpg")
    default = estimate(sprite, media, settings=Settings(), history=history, functions=functions)
    assert default.work_seconds == pytest.approx(30.0)  # those of the default plan
    assert "published figures: no finished job of make_sprite" in default.source


async def test_recorder_learns_from_a_host_function(clips: Clips, tmp_path: Path) -> None:
    media, history = probe(clips.get("25.mp4")), TimingHistory(tmp_path / "timings.sqlite3")
    functions = all_functions([copy_file], env={})
    recorder = TimingRecorder(history, copy_file, "local")
    for _ in range(3):
        expected = estimate(REQUEST, media, settings=Settings(), history=history, functions=functions)
        await recorder.record(CopyResult(function="copy_file", seconds_by_phase={"copy": 2.0}), 3.0, expected)
    learned = estimate(REQUEST, media, settings=Settings(), history=history, functions=functions)
    assert learned.work_seconds == pytest.approx(2.0)
    assert learned.seconds == pytest.approx(3.0)
    assert "3 jobs of copy_file on this machine" in learned.source
    await recorder.record(CopyResult(function="copy_file"), 3.0, learned)  # a reused output took no time
    assert [summary.jobs for summary in history.summary()] == [3]
