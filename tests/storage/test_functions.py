"""The functions with a real S3 server on this machine: reading, publishing, reusing and refusing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import httpx
import pytest
from tests.clips import Clips, ffmpeg, made_clip
from tests.jobs import GLOBAL, overlay
from tests.object_store import SECRET_KEY, ObjectStore
from tests.run_function import run_function

from reel_modal import FramingRequest, FunctionRegistry, OverlayRequest, RenderResult, Settings, Storage
from reel_modal.backends.local import LocalBackend
from reel_modal.errors import BadInputError, ConfigError, ObjectExistsError, ObjectNotFoundError, RequestError
from reel_modal.functions import process_framing
from reel_modal.functions.catalog import all_functions
from reel_modal.functions.context import JobContext
from reel_modal.functions.runner import run_job
from reel_modal.schema import CropKeyframe, EncodeOptions, Existing, SpeedSegment, StoreOptions, store_key
from reel_modal.storage import FolderStorage

_CUES = b"\x1c\x53\xbb\x6b"  # the id of the Cues element

FAST = EncodeOptions(encoder="libx264", preset="ultrafast")


def trim_request(clip: str, start: int, end: int | None, *, size: tuple[int, int]) -> FramingRequest:
    """Return a request for the stored `clip` from `start` to `end` in seconds, at the given size."""
    return FramingRequest(
        job_id="j",
        user_id="u",
        input_key=clip,
        output_key="out.mp4",
        trim_start_seconds=Fraction(start),
        trim_end_seconds=None if end is None else Fraction(end),
        output_size=size,
        encode=FAST,
    )


def store_copy(storage: Storage, key: str, clip: Path, folder: Path) -> None:
    copy = folder / f"copy{clip.suffix}"
    copy.write_bytes(clip.read_bytes())
    storage.publish(copy, key)


def run(name: str, request: OverlayRequest | FramingRequest, url: str) -> RenderResult:
    settings = Settings(store_url=url)
    return RenderResult.parse(
        run_job(all_functions()[name], request.to_dict(), settings=settings, send=lambda _: None)
    )


@pytest.fixture(params=["s3", "folder"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store with `in.mp4` in the global scope."""
    if request.param == "folder":
        (tmp_path / "store").mkdir()
        store_url = (tmp_path / "store").as_uri()
    else:
        s3: ObjectStore = request.getfixturevalue("s3")
        store_url = s3.url(f"functions-{hashlib.md5(str(tmp_path).encode(), usedforsecurity=False).hexdigest()}")
    clips: Clips = request.getfixturevalue("clips")
    store_copy(Storage.from_url(store_url), "in.mp4", clips.get("25.mp4"), tmp_path)
    return store_url


async def test_worker_job_publishes_to_s3_with_usage_and_no_secret(
    s3: ObjectStore, clips: Clips, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = s3.url("worker")
    storage = Storage.from_url(url)
    store_copy(storage, "users/user/in.mp4", clips.get("25.mp4"), tmp_path)
    request = replace(overlay("s3"), store=StoreOptions())
    settings = Settings(store_url=url)
    async with FunctionRegistry(settings, backend=LocalBackend(settings)) as registry:
        job = await registry["render_overlay"].submit(request)
        result = await job.result()
        events = [event async for event in job.events()]
    assert (result.output_key, result.stored_key) == ("out/s3.mp4", "users/user/out/s3.mp4")
    response = await asyncio.to_thread(httpx.get, result.url(expires_seconds=60))
    assert response.raise_for_status().content == storage.read_bytes("users/user/out/s3.mp4")
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301
    usage = result.usage
    assert usage is not None
    assert usage.bytes_in >= clips.get("25.mp4").stat().st_size
    assert usage.bytes_out >= result.bytes == storage.stat("users/user/out/s3.mp4").bytes
    assert usage.queue_seconds is not None
    assert usage.startup_seconds > 0.01
    assert usage.seconds >= sum(result.seconds_by_phase.values()) > 0
    assert usage.peak_memory_bytes > 20_000_000
    assert (usage.gpu, usage.gpu_seconds, usage.dollars) == (None, 0.0, 0.0)
    assert usage.package_version
    assert RenderResult.parse(json.loads(json.dumps(result.to_dict()))) == result
    assert SECRET_KEY not in repr(result) + repr(events) + repr(job) + repr(settings) + caplog.text


async def test_result_url_of_folder_store_is_refused(clips: Clips, tmp_path: Path) -> None:
    store_copy(FolderStorage(tmp_path), "users/user/in.mp4", clips.get("25.mp4"), tmp_path)
    request = replace(overlay("folder"), store=StoreOptions())
    async with FunctionRegistry(Settings(store_url=tmp_path.as_uri())) as registry:
        result = await registry["render_overlay"](request)
        attached = await registry.attach("local:render_overlay:gone", request).result()
    assert result.stored_key == attached.stored_key == "users/user/out/folder.mp4"
    assert (tmp_path / "users/user/out/folder.mp4").stat().st_size == result.bytes
    with pytest.raises(ConfigError, match="does not support signed URLs"):
        result.url(expires_seconds=60)
    with pytest.raises(ConfigError, match="the store of this result is unknown"):
        RenderResult.parse(result.to_dict()).url()


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 seconds, 36 MB in few packets; the moov atom is at the end, as ffmpeg and most cameras write it."""
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "20", "-qp", "5")
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    few = ("-ar", "16000")
    clip = made_clip(path, size=(640, 360), fps=10, seconds=160, audio_seconds=160, encoder=x264, options=few)
    assert clip.read_bytes().index(b"moov") > clip.stat().st_size * 0.9
    return clip


def test_framing_part_of_long_clip_fetches_only_that_part(s3: ObjectStore, long_clip: Path, tmp_path: Path) -> None:
    """The result is byte for byte that of the whole clip on a disk."""
    long = long_clip
    (tmp_path / "folder").mkdir()
    sizes, outputs = long.stat().st_size, {}
    store_copy(FolderStorage(tmp_path / "folder"), "long.mp4", long, tmp_path)
    store_copy(Storage.from_url(s3.url("long")), "long.mp4", long, tmp_path)
    crops = tuple(
        CropKeyframe(time_seconds=Fraction(time), x=x, y=0, width=202, height=360) for time, x in ((0, 0), (200, 400))
    )
    # Copied packet by packet, in one ffmpeg, and frame by frame: each has its own way of reading.
    cases = (((), (640, 360), 103), ((), (320, 180), 102), (crops, (180, 320), 101), ((), (320, 180), None))
    for crop, size, end in cases:
        request = replace(trim_request("long.mp4", 150 if end is None else 100, end, size=size), crop=crop)
        for storage in (FolderStorage(tmp_path / "folder"), Storage.from_url(s3.url("long"))):
            workdir = tmp_path / f"work-{len(outputs)}"
            workdir.mkdir()
            result = run_function(request, JobContext(storage=storage, workdir=workdir))
            assert result.usage is not None
            assert (result.plan == "smart") == (end == 103), result.reason
            outputs[repr(storage), end] = (storage.fetch("out.mp4", tmp_path).read_bytes(), result.usage.bytes_in)
        local, remote = [outputs[key] for key in outputs if key[1] == end]
        assert remote[1] < sizes * 0.45 < local[1] == sizes
        assert remote[0] == local[0]


CONTAINERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cues at the end": ("mkv", ()),
    "cues at the beginning": ("mkv", ("-reserve_index_space", "100k")),
    "no cues": ("mkv", ()),
    # Without an edit list, the priming of the audio, before the time 0, would move the first frame.
    "fragments": (
        "mp4",
        ("-bsf:a", r"noise=drop=lt(pts\,0)", "-movflags", "dash+frag_keyframe+empty_moov+global_sidx"),
    ),
    "stream": ("ts", ()),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_framing_part_without_mp4_index_fetches_only_that_part(
    s3: ObjectStore, long_clip: Path, tmp_path: Path, kind: str
) -> None:
    """Seeks by cues or by times; in Matroska without cues, the demuxer reads everything up to that part."""
    suffix, flags = CONTAINERS[kind]
    long = tmp_path / f"long.{suffix}"
    ffmpeg("-i", long_clip, "-c", "copy", *flags, long)
    if kind == "no cues":  # the end of the file is lost
        data = long.read_bytes()
        long.write_bytes(data[: data.rindex(_CUES)])
    (tmp_path / "folder").mkdir()
    local, remote = FolderStorage(tmp_path / "folder"), Storage.from_url(s3.url(f"part-{kind.replace(' ', '-')}"))
    for storage in (local, remote):
        store_copy(storage, long.name, long, tmp_path)
    crop = tuple(
        CropKeyframe(time_seconds=Fraction(time), x=x, y=0, width=202, height=360) for time, x in ((0, 0), (200, 400))
    )
    slow = (SpeedSegment(start_seconds=Fraction(101), end_seconds=Fraction(102), speed=Fraction(1, 2)),)
    request = trim_request(long.name, 100, 103, size=(320, 180))
    every = (
        request,
        replace(request, crop=crop, output_size=(180, 320)),
        replace(request, segments=slow),
        replace(request, output_size=(640, 360), encode=replace(FAST, smart=False)),
    )
    for number, each in enumerate(every if kind in {"cues at the end", "stream"} else every[:1]):
        outputs = []
        for storage in (local, remote):
            workdir = tmp_path / f"work-{number}-{storage is remote}"
            workdir.mkdir()
            before = storage.traffic.bytes_in
            result = run_function(each, JobContext(storage=storage, workdir=workdir))
            outputs.append((storage.fetch("out.mp4", tmp_path).read_bytes(), result.frames))
            read = result.usage.bytes_in - before if result.usage is not None else 0
        assert outputs[0] == outputs[1]
        assert (read < long.stat().st_size * 0.45) == (kind != "no cues")


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_framing_part_fetches_its_subtitles(s3: ObjectStore, long_clip: Path, tmp_path: Path, suffix: str) -> None:
    lines, long = tmp_path / "lines.srt", tmp_path / f"long.{suffix}"
    lines.write_text(
        "".join(
            f"{n}\n00:{at // 60:02}:{at % 60:02},000 --> 00:{at // 60:02}:{at % 60:02},900\nSecond {at}\n\n"
            for n, at in enumerate(range(0, 120, 2), 1)
        )
    )
    codec = "mov_text" if suffix == "mp4" else "srt"
    ffmpeg("-i", long_clip, "-i", lines, "-map", "0", "-map", "1", "-c", "copy", "-c:s", codec, long)
    (tmp_path / "folder").mkdir()
    outputs = []
    for storage in (FolderStorage(tmp_path / "folder"), Storage.from_url(s3.url(f"subtitles-{suffix}"))):
        store_copy(storage, long.name, long, tmp_path)
        request = trim_request(long.name, 100, 103, size=(320, 180))
        workdir = tmp_path / f"work-{len(outputs)}"
        workdir.mkdir()
        before = storage.traffic.bytes_in
        run_function(request, JobContext(storage=storage, workdir=workdir))
        read = storage.traffic.bytes_in - before
        outputs.append(storage.fetch("out.mp4", tmp_path).read_bytes())
    assert read < long.stat().st_size * 0.45
    assert outputs[0] == outputs[1]
    assert b"Second 100" in outputs[0]
    assert b"Second 102" in outputs[0]
    assert b"Second 104" not in outputs[0]


def test_framing_small_matroska_is_fetched_whole_and_copied(
    s3: ObjectStore, long_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "long.mkv"
    ffmpeg("-i", long_clip, "-c", "copy", long)
    size = long.stat().st_size
    storage = Storage.from_url(s3.url("matroska-copied"))
    store_copy(storage, "long.mkv", long, tmp_path)
    request = trim_request("long.mkv", 100, 103, size=(640, 360))

    def framed(name: str) -> tuple[RenderResult, int]:
        (tmp_path / name).mkdir()
        before = storage.traffic.bytes_in
        result = run_function(request, JobContext(storage=storage, workdir=tmp_path / name))
        return result, storage.traffic.bytes_in - before

    copied, read = framed("copied")
    assert (copied.plan, copied.frames, read >= size) == ("smart", 30, True)
    monkeypatch.setattr(process_framing, "_WHOLE_BYTES", size - 1)
    rendered, read = framed("made")
    assert (rendered.plan, rendered.frames, read < size * 0.45) == ("full", 30, True)
    assert rendered.reason == (
        "it is large, so only a part of it was fetched, and copying needs the list of all packets"
    )


def test_framing_stream_with_timestamp_wrap_is_fetched_whole(
    s3: ObjectStore, long_clip: Path, tmp_path: Path
) -> None:
    """Timestamps wrap after 2^33 ticks (a day and two hours); here, within the clip."""
    long = tmp_path / "long.ts"
    ffmpeg("-i", long_clip, "-c", "copy", "-output_ts_offset", str(2**33 / 90000 - 70), long)
    (tmp_path / "folder").mkdir()
    outputs = []
    for storage in (FolderStorage(tmp_path / "folder"), Storage.from_url(s3.url("clock"))):
        store_copy(storage, "long.ts", long, tmp_path)
        request = trim_request("long.ts", 100, 103, size=(320, 180))
        workdir = tmp_path / f"work-{len(outputs)}"
        workdir.mkdir()
        result = run_function(request, JobContext(storage=storage, workdir=workdir))
        outputs.append((storage.fetch("out.mp4", tmp_path).read_bytes(), result.frames))
    assert outputs[0] == outputs[1]
    assert outputs[0][1] == 30
    assert result.usage is not None
    assert result.usage.bytes_in >= long.stat().st_size


@pytest.mark.parametrize("kind", ["matroska to its end", "fragmented", "stream to its end", "keyframe at its start"])
def test_framing_unseekable_part_fetches_the_whole_clip(
    s3: ObjectStore, clips: Clips, tmp_path: Path, kind: str
) -> None:
    suffix = {"fragmented": "mp4", "matroska to its end": "mkv"}.get(kind, "ts")
    long = tmp_path / f"long.{suffix}"
    flags = ("-movflags", "frag_keyframe+empty_moov") if kind == "fragmented" else ()
    if kind == "keyframe at its start":
        only_keyframe = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "9999", "-sc_threshold", "0")
        made_clip(long, size=(320, 180), seconds=50, encoder=only_keyframe)
    else:
        ffmpeg("-stream_loop", "9", "-i", clips.get("bigbuckbunny.mp4"), "-c", "copy", *flags, long)
    storage = Storage.from_url(s3.url(f"whole-{kind.replace(' ', '-')}"))
    store_copy(storage, long.name, long, tmp_path)
    start, end = (50, None) if "end" in kind else (30, 31)
    request = trim_request(long.name, start, end, size=(320, 180))
    result = run_function(request, JobContext(storage=storage, workdir=tmp_path))
    assert result.usage is not None
    assert result.usage.bytes_in >= long.stat().st_size
    assert result.frames >= 25


def test_scopes_separate_users_and_global_keys(s3: ObjectStore, clips: Clips, tmp_path: Path) -> None:
    url = s3.url("scopes")
    storage = Storage.from_url(url)
    store_copy(storage, "games/final.mp4", clips.get("25.mp4"), tmp_path)
    game = replace(
        overlay("game", source="games/final.mp4", output="mine.mp4"), store=StoreOptions(input_scope="global")
    )
    assert run("render_overlay", game, url).output_key == "mine.mp4"
    assert storage.stat(store_key("mine.mp4", "user", "user")).bytes > 0
    with pytest.raises(ObjectNotFoundError, match=r"users/user/games/final\.mp4"):
        run("render_overlay", replace(game, store=StoreOptions()), url)
    theirs = {"user_id": "other", "input_key": "mine.mp4", "output_key": "theirs.mp4"}
    with pytest.raises(ObjectNotFoundError, match=r"users/other/mine\.mp4"):
        run("render_overlay", replace(game, **theirs, store=StoreOptions()), url)
    with pytest.raises(RequestError, match="use the scope 'user'"):
        replace(game, input_key="users/user/mine.mp4")
    for user in ("a/b", "..", "None"):
        with pytest.raises(RequestError, match=r"^user_id: "):
            replace(game, user_id=user)


def test_scopes_are_validated_and_part_of_the_hash() -> None:
    request = replace(overlay(), store=StoreOptions(input_scope="global", existing="reuse"))
    assert OverlayRequest.parse(request.to_dict()) == request
    assert replace(request, store=StoreOptions(input_scope="global")).request_hash() == request.request_hash()
    assert replace(request, store=StoreOptions()).request_hash() != request.request_hash()
    with pytest.raises(RequestError, match=r"store\.input_scope: is 'team'; use one of user, global"):
        OverlayRequest.parse(request.to_dict() | {"store": {"input_scope": "team"}})


def request_for(job_id: str, existing: Existing, **changes: object) -> OverlayRequest:
    request = replace(overlay(job_id, output="out.mp4"), **changes)  # type: ignore[arg-type]
    return replace(request, store=replace(GLOBAL, existing=existing))


@pytest.fixture
def renders(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Count calls of `render_overlay.run`."""
    from reel_modal.functions import render_overlay

    count, body = [0], render_overlay.run

    def counted(request: OverlayRequest, context: JobContext) -> RenderResult:
        count[0] += 1
        return body(request, context)

    monkeypatch.setattr(render_overlay, "run", counted)
    return lambda: count[0]


def test_reuse_same_request_is_rendered_once(
    url: str, renders: Callable[[], int], clips: Clips, tmp_path: Path
) -> None:
    first = run("render_overlay", request_for("first", "reuse"), url)
    for existing in ("reuse", "refuse"):
        reused = run("render_overlay", request_for(f"again-{existing}", existing), url)
        assert (reused.reused_from, reused.job_id, renders()) == ("first", f"again-{existing}", 1)
        same = {
            name: getattr(reused, name) for name in ("frames", "size", "bytes", "encoder", "degraded", "output_key")
        }
        assert same == {name: getattr(first, name) for name in same}
        assert reused.usage is not None
        assert reused.usage.bytes_out == 0
    assert run("render_overlay", request_for("anew", "replace"), url).reused_from is None
    assert renders() == 2
    # Another clip under the same key is another input.
    store_copy(Storage.from_url(url), "in.mp4", clips.get("with_sound.mp4"), tmp_path)
    assert run("render_overlay", request_for("other input", "reuse"), url).reused_from is None
    assert renders() == 3


def all_requests(suffix: str, existing: Existing) -> Iterator[tuple[str, OverlayRequest | FramingRequest]]:
    """Yield one request for each way of producing an output."""
    store = replace(GLOBAL, existing=existing)
    keys = {"job_id": existing, "user_id": "u", "input_key": "in.mp4", "store": store}
    names = iter(f"out-{number}{suffix}" for number in range(9))
    yield "render_overlay", OverlayRequest(**keys, output_key=next(names), regions=())  # all packets are copied
    drawn = replace(overlay(), **keys, output_key=next(names))
    yield "render_overlay", drawn
    yield "render_overlay", replace(drawn, output_key=next(names), encode=replace(FAST, smart=False))
    trim = FramingRequest(**keys, output_key=next(names), trim_end_seconds=Fraction(1, 2), encode=FAST)
    yield "process_framing", trim
    yield "process_framing", replace(trim, output_key=next(names), output_size=(160, 90))
    crop = (CropKeyframe(time_seconds=Fraction(0), x=3, y=0, width=90, height=160),)
    yield "process_framing", replace(trim, output_key=next(names), crop=crop, output_size=(90, 160))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_reuse_output_without_receipt_is_found_by_its_tags(
    url: str, suffix: str, clips: Clips, tmp_path: Path
) -> None:
    storage = Storage.from_url(url)
    ways = set()
    for name, request in all_requests(suffix, "replace"):
        first = run(name, request, url)
        ways.add((name, first.engine, first.plan))
        storage.delete(f"receipts/{request.request_hash()}.json")
        again = replace(request, job_id="again", store=replace(request.store, existing="reuse"))
        for existing in ("reuse", "refuse"):
            reused = run(name, replace(again, store=replace(again.store, existing=existing)), url)
            assert (reused.reused_from, reused.job_id) == ("unknown", "again"), first
            assert (reused.frames, reused.size, reused.fps, reused.bytes) == (
                first.frames,
                first.size,
                first.fps,
                first.bytes,
            )
            assert [note.code for note in reused.degraded] == ["record_lost"]
        other = replace(
            again, encode=replace(again.encode, quality=31), store=replace(again.store, existing="refuse")
        )
        with pytest.raises(ObjectExistsError):
            run(name, other, url)
    assert len(ways) == (4 if suffix == ".mp4" else 3), ways
    store_copy(storage, "in.mp4", clips.get("with_sound.mp4"), tmp_path)
    assert run(name, again, url).reused_from is None  # another clip under the same key is another input


def test_refuse_other_request_for_same_key_keeps_the_output(
    url: str, renders: Callable[[], int], tmp_path: Path
) -> None:
    run("render_overlay", request_for("first", "refuse"), url)
    other = request_for("other", "refuse", effect="brightness_boost")
    with pytest.raises(ObjectExistsError, match=r"'out\.mp4' exists.*another key"):
        run("render_overlay", other, url)
    assert renders() == 1
    # Any other object under the key is not an output of this request either.
    Storage.from_url(url).write_bytes("out.mp4", b"somebody's")
    with pytest.raises(ObjectExistsError):
        run("render_overlay", request_for("again", "refuse"), url)
    assert Storage.from_url(url).read_bytes("out.mp4") == b"somebody's"
    assert run("render_overlay", request_for("other", "reuse", effect="brightness_boost"), url).reused_from is None
    assert renders() == 2


async def test_refused_output_is_a_bad_input_error_on_the_host(s3: ObjectStore, clips: Clips, tmp_path: Path) -> None:
    url = s3.url("refused-output")
    store_copy(Storage.from_url(url), "in.mp4", clips.get("25.mp4"), tmp_path)
    Storage.from_url(url).write_bytes("out.mp4", b"somebody's")
    settings = Settings(store_url=url)
    async with FunctionRegistry(settings, backend=LocalBackend(settings)) as registry:
        with pytest.raises(BadInputError, match=r"out\.mp4") as caught:
            await registry["render_overlay"](request_for("refused", "refuse"))
    assert isinstance(caught.value.__cause__, ObjectExistsError)


def test_job_restarted_after_publishing_is_not_rendered_again(url: str, renders: Callable[[], int]) -> None:
    first = run("render_overlay", request_for("lost", "replace"), url)
    restarted = run("render_overlay", request_for("lost", "replace"), url)  # as when Modal starts it a second time
    assert renders() == 1
    assert restarted.reused_from is None
    assert restarted.usage is not None
    assert first.usage is not None
    assert restarted.usage.dollars == first.usage.dollars
    assert restarted.frames == first.frames


def test_receipt_that_is_unreadable_is_ignored(
    url: str, renders: Callable[[], int], caplog: pytest.LogCaptureFixture
) -> None:
    request = request_for("first", "reuse")
    run("render_overlay", request, url)
    Storage.from_url(url).write_bytes(f"receipts/{request.request_hash()}.json", b"{half")
    assert run("render_overlay", request_for("second", "reuse"), url).reused_from is None
    assert "not a valid receipt" in caplog.text
    assert renders() == 2


def test_publish_interrupted_leaves_no_output_and_can_be_retried(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    kind = type(Storage.from_url(url))
    with monkeypatch.context() as patch:
        patch.setattr(kind, "publish", lost)
        with pytest.raises(KeyboardInterrupt):
            run("render_overlay", request_for("lost", "replace"), url)
    with pytest.raises(ObjectNotFoundError):
        Storage.from_url(url).stat("out.mp4")
    assert run("render_overlay", request_for("lost", "replace"), url).frames > 0
